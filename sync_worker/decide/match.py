"""Which customers must be read to decide what is wanted (B4.1, the part for explicit ids)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from sync_worker.decide.fold import Latch, Wanted

Link = Literal["holds", "released", "gone"]
"""What the link index says of a customer and a record: it holds it; it held it until we released
it; or until somebody else took it away, who may have put it anywhere."""


def customers_to_read(wanted: Wanted, known: Mapping[int, Link]) -> set[int]:
    """The customer that is named, and those the link index says hold the record.

    Where none holds it any more, the ones that did are read: an unlink that is true already is
    told by them.
    """
    holding = {customer for customer, link in known.items() if link == "holds"}
    if isinstance(wanted, Latch):
        return {wanted.customer_id} | holding
    if wanted.only is not None:
        return {wanted.only}
    return holding or set(known)
