"""The inbox: mailboxes in Redis, and every atomic step on them.

A request's changes are stored in the mailbox of their record, and the mailbox is made due: one
step (B2.3). A worker claims a due mailbox, converges it, and settles or postpones it. Celery
carries names of mailboxes as wake-ups and nothing else (B6.7), so all that is owed is in these
keys. Each step is one Lua file in `lua/`; all of them may be run twice, in any order, and by
any number of processes. Times are milliseconds by the store's clock (B7.6).

Keys (no Redis Cluster: a script touches keys it finds on the way)

    sw:seq                      string  number of the newest change
    sw:box:MAILBOX              hash    number of a change -> "received|stored form"
    sw:due                      zset    mailbox -> when it is due; while leased, when that ends
    sw:wake                     zset    mailbox -> when beat wakes it, if nobody has by then
    sw:work:MAILBOX             hash    of a mailbox in work or in back-off:
                                        token, until    its lease
                                        failures        steps of the retry schedule used up
                                        attempts        the calls made so far, JSON
                                        urgent          a link or existence change came meanwhile
    sw:mark:MAILBOX             hash    of a record, for as long as there is a store (B3.8):
                                        ASPECT          newest occurred_at decided
                                        claim           "=" and the last value of its link field
                                        ended           when it was last deleted
    sw:lease:CUSTOMER           string  token of the mailbox that works on the customer; expires
    sw:suspect:CUSTOMER         string  token of a write that is not answered; expires (B5.3)
    sw:seen:PERIOD              set     identities accepted in a third of DEDUPE_HOURS; expires
    sw:audit                    stream  one line per settled change, for AUDIT_DAYS (B10.2)
    sw:count                    hash    METRIC or METRIC|LABEL -> how many, ever
    sw:reconcile                hash    source -> "since|why" events could not tell (B3.10)
    sw:dead:seq                 string  number of the newest dead letter
    sw:dead:all, sw:dead:waiting zset   id -> when it failed first / last; waiting: not closed
    sw:dead:open                hash    "REASON|ASPECT|MAILBOX" -> id of the open dead letter
    sw:dead:ID                  hash    the dead letter
    sw:dead:ID:changes          hash    its changes, as in sw:box
    sw:dead:ID:attempts         list    the calls that were made for it, JSON
    sw:customer:ACCOUNT:ID      hash    slot -> record id, as last seen, and `at` in microseconds
    sw:link:ACCOUNT:SLOT:ID     hash    customer -> "holds", "released" by us, or
                                        "gone" by another hand (links.py)
    sw:fusebill:limits          string  the rate limits last told by Fusebill, JSON
    sw:probe                    string  written by /readyz to find out whether writing works

Celery's own keys begin with `sw:celery:`.
"""

from __future__ import annotations

from sync_worker.inbox.inbox import (
    Accepted,
    Burial,
    Claim,
    Inbox,
    LeaseLost,
    Settlement,
    Suspect,
    Undecoded,
    Verdict,
)

__all__ = [
    "Accepted",
    "Burial",
    "Claim",
    "Inbox",
    "LeaseLost",
    "Settlement",
    "Suspect",
    "Undecoded",
    "Verdict",
]
