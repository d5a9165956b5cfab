"""The customers, and the rules of latching. No HTTP, no threads: the caller holds a lock.

Checks of a latch come in this order (the vendor states none): the customer exists; the
record exists in its CRM; the customer is free, or may be moved; nobody else holds the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from simulators.fusebill.customer import SLOT_FIELDS, Customer, timestamp
from simulators.fusebill.options import Options, SlotField
from simulators.fusebill.query import compile_query, sort
from sync_worker.domain import salesforce_id_18

ACCOUNT_PREFIX = "001"
"""How every Salesforce Account id begins."""

_ATTRIBUTE: dict[SlotField, str] = {
    "salesforceId": "salesforce_id",
    "hubSpotId": "hub_spot_id",
    "hubSpotCompanyId": "hub_spot_company_id",
    "geotabId": "geotab_id",
}

_WORDS: dict[SlotField, str] = {
    "salesforceId": "Salesforce Account",
    "hubSpotId": "HubSpot contact",
    "hubSpotCompanyId": "HubSpot company",
    "geotabId": "Geotab id",
}


class Refused(Exception):
    """The call breaks a rule; `status` and the message are what the API answers."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class World:
    """Every customer, by id, and an index of who holds what."""

    def __init__(self, now_ns: Callable[[], int], options: Options | None = None) -> None:
        self.options = options or Options()
        self.changes = 0
        """How often a slot's value changed through the API."""
        self._now_ns = now_ns
        self._customers: dict[int, Customer] = {}
        self._holders: dict[tuple[SlotField, int | str], set[int]] = {}

    # What a person does in the user interface, and tests by control: no rules.

    def put(self, customers: Iterable[Customer]) -> None:
        """Create these customers, or replace those that have their ids."""
        for customer in customers:
            self._store(customer)

    def edit(self, customer_id: int, fields: Mapping[str, Any]) -> Customer:
        """Change some fields, named as in JSON, and move `modifiedTimestamp` unless given.

        Raises Refused, or msgspec.ValidationError for a field that does not exist or fit.
        """
        before: dict[str, Any] = msgspec.to_builtins(self.read(customer_id))
        before["modifiedTimestamp"] = timestamp(self._now_ns())
        after = msgspec.convert(
            {**before, **fields, "id": customer_id}, Customer, str_keys=True, strict=False
        )
        self._store(after)
        return after

    def delete(self, customer_id: int) -> None:
        """Take a customer out. Raises Refused if there is none."""
        self._forget(self.read(customer_id))
        del self._customers[customer_id]

    def clear(self) -> None:
        """Take every customer out."""
        self._customers.clear()
        self._holders.clear()

    def all(self) -> list[Customer]:
        """Every customer, by id."""
        return sorted(self._customers.values(), key=lambda customer: customer.id)

    # What the API does.

    def read(self, customer_id: int) -> Customer:
        """The customer with that id. Raises Refused (404) if there is none."""
        try:
            return self._customers[customer_id]
        except KeyError:
            raise Refused(404, f"Customer with id {customer_id} not found.") from None

    def find(self, query: str, sort_expression: str = "", sort_order: str = "") -> list[Customer]:
        """The customers that a query matches, in order. Raises QueryRefused."""
        matches = compile_query(query, self.options)
        return sort(filter(matches, self._customers.values()), sort_expression, sort_order)

    def latch_salesforce(
        self, customer_id: int, account: str, *, force: bool | None = None
    ) -> Customer:
        """Set the Salesforce Account (seed 003). `force` None: `forceLatch` was left out."""
        customer = self.read(customer_id)
        id_15 = self._account(account)
        forced = self.options.force_latch_default if force is None else force
        if customer.salesforce_id is not None and not forced:
            same = customer.salesforce_id == id_15
            if not same or self.options.relatch_same_salesforce == "error":
                raise Refused(
                    self.options.already_latched_status,
                    f"Customer {customer_id} is already associated to a Salesforce Account.",
                )
        return self._set(customer, {"salesforceId": id_15})

    def unlatch_salesforce(self, customer_id: int) -> Customer:
        """Clear the Salesforce Account, where an option gives this call a path."""
        return self._unlatch(customer_id, "salesforceId")

    def latch_hubspot(self, customer_id: int, sent: Mapping[SlotField, int | None]) -> Customer:
        """Set contact and company at once (seed 004).

        `sent` holds the keys that the call did; what a missing one means is an option.
        """
        customer = self.read(customer_id)
        slots: dict[SlotField, int | str | None] = dict(sent)
        if self.options.hubspot_omitted_key == "wipe":
            slots = {"hubSpotId": None, "hubSpotCompanyId": None, **slots}
        self._in_hubspot("contact", sent.get("hubSpotId"), self.options.missing_hubspot_contacts)
        self._in_hubspot(
            "company", sent.get("hubSpotCompanyId"), self.options.missing_hubspot_companies
        )
        return self._set(customer, slots)

    def unlatch_hubspot(self, customer_id: int) -> Customer:
        """Clear contact and company (seed 002)."""
        return self._unlatch(customer_id, "hubSpotId", "hubSpotCompanyId")

    def latch_geotab(self, customer_id: int, geotab_id: str) -> Customer:
        """Set the Geotab reseller customer (seed 001); it overwrites, nothing else is stated."""
        return self._set(self.read(customer_id), {"geotabId": geotab_id})

    def unlatch_geotab(self, customer_id: int) -> Customer:
        """Clear the Geotab reseller customer (seed 000)."""
        return self._unlatch(customer_id, "geotabId")

    def _account(self, sent: str) -> str:
        """The 15 characters of an Account id. Raises Refused as Salesforce would have it."""
        try:
            id_18 = salesforce_id_18(sent)
        except ValueError:
            id_18 = ""
        missing = {known[:15] for known in self.options.missing_salesforce_accounts}
        if not id_18.startswith(ACCOUNT_PREFIX) or id_18[:15] in missing:
            raise Refused(400, f"Salesforce Account {sent} does not exist.")
        return id_18[:15]

    def _in_hubspot(self, what: str, id_: int | None, missing: frozenset[int]) -> None:
        if id_ is not None and (id_ <= 0 or id_ in missing):
            raise Refused(
                400, f"The was an error getting the {what} from HubSpot: resource not found"
            )

    def _unlatch(self, customer_id: int, *slots: SlotField) -> Customer:
        customer = self.read(customer_id)
        if self.options.unlatch_empty == 400 and all(customer.slot(s) is None for s in slots):
            raise Refused(400, f"Customer {customer_id} is not latched.")
        return self._set(customer, dict.fromkeys(slots))

    def _set(self, customer: Customer, slots: Mapping[SlotField, int | str | None]) -> Customer:
        """Give the customer these slot values, under the one-to-one rule. All or nothing."""
        robbed: list[tuple[int, SlotField]] = []
        for slot, value in slots.items():
            if value is not None:
                robbed += [(other, slot) for other in self._rivals(customer.id, slot, value)]
        for other, slot in robbed:
            self._apply(self._customers[other], {slot: None})
        return self._apply(customer, slots)

    def _rivals(self, customer_id: int, slot: SlotField, value: int | str) -> list[int]:
        """The customers that lose this id. Raises Refused if they are to keep it."""
        others = sorted(self._holders.get((slot, value), set()) - {customer_id})
        rule = self.options.held_elsewhere_by_slot.get(slot, self.options.held_elsewhere)
        if not others or rule == "allow":
            return []
        if rule == "steal":
            return others
        raise Refused(
            rule, f"{_WORDS[slot]} {value} is already associated to customer {others[0]}."
        )

    def _apply(self, customer: Customer, slots: Mapping[SlotField, int | str | None]) -> Customer:
        after = {_ATTRIBUTE[slot]: value for slot, value in slots.items()}
        if any(customer.slot(slot) != value for slot, value in slots.items()):
            self.changes += 1
        if self.options.latch_moves_modified:
            after["modified_timestamp"] = timestamp(self._now_ns())
        changed = msgspec.structs.replace(customer, **after)
        self._store(changed)
        return changed

    def _store(self, customer: Customer) -> None:
        before = self._customers.get(customer.id)
        if before is not None:
            self._forget(before)
        self._customers[customer.id] = customer
        for slot in SLOT_FIELDS:
            value = customer.slot(slot)
            if value is not None:
                self._holders.setdefault((slot, value), set()).add(customer.id)

    def _forget(self, customer: Customer) -> None:
        for slot in SLOT_FIELDS:
            value = customer.slot(slot)
            if value is not None:
                holders = self._holders[slot, value]
                holders.discard(customer.id)
                if not holders:
                    del self._holders[slot, value]
