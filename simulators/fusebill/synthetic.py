"""Customers that nobody is."""

from __future__ import annotations

from decimal import Decimal

from simulators.fusebill.customer import Customer

_COMPANIES = ("Northgate Haulage", "Brightwater Foods", "Larkfield Tools", "Quay Street Motors")
_PEOPLE = (("Maren", "Oduya"), ("Tomas", "Brandt"), ("Ines", "Calder"))


def synthetic_customers(count: int, first_id: int = 8_714_401) -> list[Customer]:
    """So many customers: consecutive ids, references `SIM-1` on, `.example` addresses."""
    made = []
    for place in range(count):
        number = place + 1
        company = _COMPANIES[place % len(_COMPANIES)]
        first, last = _PEOPLE[place % len(_PEOPLE)]
        domain = f"{company.lower().replace(' ', '-')}-{number}.example"
        made.append(
            Customer(
                id=first_id + place,
                first_name=first,
                last_name=last,
                company_name=f"{company} {number}",
                primary_email=f"billing@{domain}",
                reference=f"SIM-{number}",
                monthly_recurring_revenue=Decimal("49.5000"),
                net_monthly_recurring_revenue=Decimal("49.5000"),
            )
        )
    return made
