"""The contacts of an ERP account, changed at will. Names and addresses are of nobody."""

from __future__ import annotations

import threading
from typing import Any

import msgspec

ACCOUNT = "ACCT01"
"""The account of contacts that name none."""

_COMPANIES = ("Northgate Haulage", "Prairie Couriers", "Larkfield Tools", "Quay Street Motors")
_PEOPLE = (("Maren", "Oduya"), ("Ilse", "Brandt"), ("Tomas", "Reyes"))


class Company(msgspec.Struct, kw_only=True, frozen=True):
    """An `ApiUserCompany`."""

    id: int = 99
    name: str = _COMPANIES[0]
    account: str | None = ACCOUNT
    active: bool = True


class Contact(msgspec.Struct, kw_only=True, frozen=True, rename="camel"):
    """An `ApiUserContact`, less its telephone numbers and most of its address.

    The camelCase of `resellerCustomerId`, and null where it is unset, are inferred.
    """

    id: int
    user_company: Company = Company()
    first_name: str = "Maren"
    last_name: str = "Oduya"
    contact_email: str = "maren@northgate.example"
    city: str = "Ottawa"
    country: str = "Canada"
    reseller_customer_id: str | None = None
    active: bool = True
    display_name: str = "Northgate Haulage - Maren Oduya"


class Contacts:
    """Every contact, by id. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contacts: dict[int, Contact] = {}

    def put(self, *contacts: Contact) -> None:
        """Create these contacts, or replace those that have their ids."""
        with self._lock:
            self._contacts.update({contact.id: contact for contact in contacts})

    def set(self, contact_id: int, **fields: Any) -> None:
        """Change some fields, named as in Python. Raises KeyError, or TypeError for a field that
        does not exist.
        """
        with self._lock:
            before = self._contacts[contact_id]
            self._contacts[contact_id] = msgspec.structs.replace(before, **fields)

    def deactivate(self, contact_id: int) -> None:
        """Make a contact inactive; it stays in the list. Raises KeyError."""
        self.set(contact_id, active=False)

    def clear_id(self, contact_id: int) -> None:
        """Take its reseller customer id from a contact. Raises KeyError."""
        self.set(contact_id, reseller_customer_id=None)

    def delete(self, contact_id: int) -> None:
        """Take a contact out. Raises KeyError."""
        with self._lock:
            del self._contacts[contact_id]

    def rows(self, *, active_only: bool) -> list[dict[str, Any]]:
        """Every contact as the API spells it, by id."""
        with self._lock:
            contacts = sorted(self._contacts.values(), key=lambda contact: contact.id)
        return [
            msgspec.to_builtins(contact)
            for contact in contacts
            if contact.active or not active_only
        ]


def synthetic_contacts(count: int, first_id: int = 4711) -> list[Contact]:
    """So many contacts: consecutive ids, each of its own company and with its own reseller id,
    `"0070001"` on.
    """
    made = []
    for place in range(count):
        number = place + 1
        company = f"{_COMPANIES[place % len(_COMPANIES)]} {number}"
        first, last = _PEOPLE[place % len(_PEOPLE)]
        made.append(
            Contact(
                id=first_id + place,
                user_company=Company(id=100 + place, name=company),
                first_name=first,
                last_name=last,
                contact_email=f"{first.lower()}@company-{number}.example",
                reseller_customer_id=f"{70_000 + number:07d}",
                display_name=f"{company} - {first} {last}",
            )
        )
    return made
