"""What the vendor's pages leave open, as options; and numbers worth changing in a test.

Where a behaviour is unknown the default is the literal reading of the page, or failing that
the reading that is hardest on a client.
"""

from __future__ import annotations

from typing import Literal

import msgspec

SlotField = Literal["salesforceId", "hubSpotId", "hubSpotCompanyId", "geotabId"]
"""The four fields of a customer that hold a record's id, as the API spells them."""

HeldElsewhere = Literal[400, 409, "steal", "allow"]
"""What a latch does if another customer holds the id: refuse with that status, take it from
there, or let both hold it."""

LIVE_CALLS_PER_MINUTE = 1_000
"""Calls a live account has in a minute (`ref/rate-limits`); a sandbox has 50."""

LIVE_CALLS_PER_DAY = 180_000
"""Calls a live account has in a day (`ref/rate-limits`); a sandbox has 5,000."""


class Options(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How this Fusebill behaves. Replace it as a whole, or name the fields that change."""

    held_elsewhere: HeldElsewhere = 400
    """Another customer holds the id. HubSpot's page states one customer per id, not how it is
    kept; for the other slots nothing is documented."""
    held_elsewhere_by_slot: dict[SlotField, HeldElsewhere] = msgspec.field(default_factory=dict)
    """Slots that differ from `held_elsewhere`."""
    force_latch_default: bool = False
    """What a Salesforce latch without `forceLatch` means. Not documented."""
    already_latched_status: Literal[400, 409] = 400
    """Status of a Salesforce latch with `forceLatch` false onto a latched customer: the page
    says "error" and no more (seed 003)."""
    relatch_same_salesforce: Literal["ok", "error"] = "error"
    """The same, where the customer holds this very id already. Not documented."""
    unlatch_empty: Literal["ok", 400] = "ok"
    """Unlatching what is not latched. Not documented."""
    hubspot_omitted_key: Literal["wipe", "keep"] = "wipe"
    """A HubSpot latch without one of its keys: "null by default", and null removes (seed 004)."""
    hubspot_64_bit_ids: bool = True
    """Whether HubSpot ids beyond 2^31-1 are taken. Not documented; HubSpot gives them out."""
    hubspot_answers_full: bool = False
    """Whether HubSpot's calls answer with `geotabId`, `netsuiteSynchStatus` and
    `createdTimestamp`, which the samples of seeds 002 and 004 lack."""
    hubspot_nested_ids_differ: bool = True
    """Whether HubSpot's calls answer with ids in `customerReference` and `customerAcquisition`
    that are not the customer's, as the samples of seeds 002 and 004 do."""
    salesforce_unlatch_path: str | None = None
    """A path that takes `{"fusebillId": n}` and clears the Account. None is documented."""
    latch_moves_modified: bool = True
    """Whether a latch or unlatch moves `modifiedTimestamp`. The samples suggest it."""
    write_status: Literal[200, 201] = 200
    """Status of a latch or unlatch that succeeded. Not documented."""

    missing_hubspot_contacts: frozenset[int] = frozenset()
    """Contacts that HubSpot does not know: latching one is the relayed 400 of seed 004."""
    missing_hubspot_companies: frozenset[int] = frozenset()
    """Companies that HubSpot does not know; the text of that 400 is not documented."""
    missing_salesforce_accounts: frozenset[str] = frozenset()
    """Accounts that Salesforce does not know, 15 or 18 characters: the relayed 400 of seed 003.
    Anything that is no Account id (prefix 001) does not exist either."""

    unknown_query_name: Literal["error", "ignore", "empty"] = "ignore"
    """A query on a name that is not in the vendor's table: 400, as if it were not there (so
    everything comes back), or no rows. Not documented."""
    id_queryable: bool = True
    """Whether `id:1,2,3` works. Set matching on ids is documented (`ref/string-filtering`), the
    name to write is not; off, `id` is an unknown name."""
    match_case: bool = False
    """Whether text in a query is compared with its case. Not documented."""
    salesforce_query_form: Literal[15, 18, "both"] = 15
    """Which spelling a query on SalesforceId finds. Answers carry 15 characters."""
    default_page_size: int = 20
    """Rows of a page if none is asked for. Not documented."""
    max_page_size: int = 1_000
    """The server's cap on `pageSize`: "never below 1,000" (`ref/pagination`)."""
    max_page_index: Literal["last_index", "page_count"] = "last_index"
    """What `X-MaxPageIndex` holds: the page says the number of pages, public code takes it as
    the last index."""

    minute_limit: int | None = LIVE_CALLS_PER_MINUTE
    """Calls in a minute before 429; None: no limit, and the headers never run low."""
    day_limit: int | None = LIVE_CALLS_PER_DAY
    """Calls in a day before 429; None as above."""
    limit_window: Literal["fixed", "sliding"] = "fixed"
    """Fixed: whole minutes and days of the clock. Sliding: the time just gone. Not documented."""
    minute_seconds: float = 60.0
    """How long the limit's minute lasts, for tests that wait for a reset."""
    day_seconds: float = 86_400.0
    """How long the limit's day lasts."""
    reset_header: Literal["epoch", "iso"] = "epoch"
    """`X-Rate-Limit-Reset-*` is "a timestamp": whole seconds since the epoch, or ISO 8601."""
