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
    sw:wake, sw:wake:replay     zset    mailbox -> when beat wakes it, if nobody has by then; what
                                        only a replay put back comes after all else (B7.3)
    sw:work:MAILBOX             hash    of a mailbox in work or in back-off:
                                        token, until    its lease
                                        failures        steps of the retry schedule used up
                                        attempts        the calls made so far, JSON
                                        urgent          a link or existence change came meanwhile
                                        lane            `replay`: nothing else put it back
                                        replayed_at     when a replay put changes back
                                        refused_at      when a latch was refused that only a
                                                        sweep can explain (B4.5)
                                        brake           held, approved or discarded (B5.10)
                                        undo            how to put back what a plan let go of
                                        vanished        its worker did: it is next worked on alone
                                        alone           it is worked on alone (B6.6), in this
                                                        run of the server
                                        crashes         when workers vanished while it was (ms)
    sw:alone                    string  token of the mailbox that is worked on alone; expires
    sw:mark:MAILBOX             hash    of a record, for as long as there is a store (B3.8): the
                                        fields of domain.Marks (`primary` is its company);
                                        ASPECT is a watermark, ASPECT:done what was decided for
                                        good at it
    sw:alias:MAILBOX            string  mailbox of the record it was merged into; expires (B3.12)
    sw:merged:MAILBOX           set     mailboxes of what was merged into a record; expires
    sw:definitions              set     Salesforce message definitions seen carrying the link field
    sw:lease:CUSTOMER           string  token of the mailbox that works on the customer; expires
    sw:suspect:CUSTOMER         string  token of a write that is not answered; expires (B5.3)
    sw:intent:CUSTOMER          string  the write sent last, for the history; expires, JSON
    sw:releases                 zset    release -> when it was made, for an hour (B5.10)
    sw:held, sw:held:seq        hash    mailbox -> the release that the brake holds, JSON
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
    sw:blocked:SLOT:CUSTOMER    set     conflicts to judge again when that slot is free
    sw:would                    hash    number -> "OUTCOME|MAILBOX|stored", of dry runs (B5.9)
    sw:would:of:MAILBOX         set     the numbers of those that lay in a mailbox
    sw:customer:ACCOUNT:ID      hash    slot -> record id, as last seen; `at` in microseconds;
                                        `sent`, when the request of that answer was; `partly` if
                                        it left a slot out;
                                        replaced:SLOT, when a record was displaced there last
    sw:history:ACCOUNT:ID       list    who held what, since when and why, JSON
    sw:index:ACCOUNT            hash    `links`: how many are known
    sw:sweep:ACCOUNT            hash    the last sweep of all customers, and the one that runs
    sw:sweep:waiting            zset    mailbox -> since when it waits for one (B4.5)
    sw:sweep:lease              string  token of the one that sweeps; expires
    sw:idset:ACCOUNT            string  whether a list call for a set of ids is honoured; expires
    sw:idset:ACCOUNT:probe      string  somebody finds that out; expires
    sw:link:ACCOUNT:SLOT:ID     hash    customer -> "holds", "released" by us, or
                                        "gone" by another hand (links.py)
    sw:calls:ACCOUNT            zset    call -> until when it counts against the minute
                                        (budget.lua): a minute from its end; while reserved or
                                        under way, as if it took as long as it may
    sw:calls:ACCOUNT:id         string  number of the newest call
    sw:calls:ACCOUNT:day        hash    hour since the epoch -> calls that count in it last
    sw:budget:ACCOUNT           hash    what bounds calls beside our own log:
                                        per_minute, per_day     the settings, as used last
                                        minute_limit, day_limit as the headers told last
                                        minute_left, _reset     the least left in the window
                                                        of that reset (ms; -1: it named none)
                                        minute_at, _heard, _ends    told when; again when; believed
                                                        until; and so for the day
                                        skew        Fusebill's clock less ours
                                        tried       when a call went last to find out what is left
                                        shared      until when others are taken to use the account
                                        refused, care, blocked  when a 429 came last, how much that
                                                        taught to leave to others, and until when
                                                        nothing may go
                                        paced       when the next call of a replay has its turn (us)
                                        wantN, wantN_until      calls that class N was refused
                                        planN, planN_until      the same, of several at once
    sw:budgets                  set     accounts that calls were reserved for
    sw:gate:REMOTE              hash    whether work that needs a remote system waits (gates.py):
                                        streak          calls in a row that met an outage
                                        open, refused, paused   "since|why" it is shut
                                        probe_at        when it is probed next
    sw:gate:REMOTE:doubt        string  why it did not prove itself lately; expires
    sw:renewed                  string  how often refused credentials were mended
    sw:gate:REMOTE:whom         set     the customers or records of the streak; expires
    sw:gate:REMOTE:probe        string  token of the one that probes; expires
    sw:parked:REMOTE            zset    mailbox -> since when it waits at a shut gate
    sw:mode:dry, sw:mode:live   string  a process runs in that mode; expires (B5.9)
    sw:ticked                   string  when a worker last took a tick of beat, in seconds
    sw:store:run                string  which run of the server this is, and what that may lose
    sw:room                     string  there is room for changes, for the moment; expires
    sw:probe                    string  written by /readyz to find out whether writing works

Celery's own keys begin with `sw:celery:`.
"""

from __future__ import annotations

from sync_worker.inbox.inbox import (
    Accepted,
    Burial,
    Claim,
    Claims,
    Inbox,
    Intent,
    Joined,
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
    "Claims",
    "Inbox",
    "Intent",
    "Joined",
    "LeaseLost",
    "Settlement",
    "Suspect",
    "Undecoded",
    "Verdict",
]
