"""`dead-letters` on a real Redis: discard, export, and what a dry run kept (B5.6, B5.9, B6.11)."""

from __future__ import annotations

import csv
import io

import msgspec
import pytest
import redis

from sync_worker import dead_letters, replay
from sync_worker.dead_letters import DISCARDED, EVERY_STATE, Filter, bulk_job
from sync_worker.domain import Outcome, Reason, Record, RecordType, Source
from sync_worker.embedded_redis import EmbeddedRedis
from sync_worker.inbox import Undecoded, scripts
from sync_worker.inbox.inbox import WAKE_GRACE_MS
from tests.changes import (
    ACCOUNT,
    COMPANY,
    CONTACT,
    GEOTAB,
    NOW,
    customer,
    deleted,
    linked,
    unlinked,
)
from tests.commands import Commands

N = 8714402
OTHER = "0015g00001LwZ3lAAF"


@pytest.fixture
def at(client: redis.Redis, shared_redis: EmbeddedRedis, monkeypatch, tmp_path) -> Commands:
    monkeypatch.setattr(replay, "PER_SECOND", 10_000)
    return Commands(client, shared_redis, monkeypatch, tmp_path)


# --- discard


def test_b10_2_a_discarded_letter_keeps_no_body(at):
    at.bury(linked(raw="{secret}"))
    told = at.run("dead-letters", "discard", "--yes")
    assert told.exit_code == 0
    assert "1 of 1 discarded, 0 skipped" in told.stdout
    assert at.json("dead-letters", "list", code=3) == []
    (letter,) = at.json("dead-letters", "list", "--all")
    assert (letter["state"], letter["reason"]) == (DISCARDED, "conflict")
    assert (letter["record"], letter["customer_ids"]) == (CONTACT.mailbox, [5])
    assert (letter["message"], letter["next_step"]) == ("why", "")
    assert letter["changes"] == letter["attempts"] == []
    assert letter["first_failed_at"].endswith("Z")
    assert not at.client.exists("sw:dead:1:changes", "sw:dead:1:attempts")
    assert at.json("status")["dead_letters"] == {}
    assert at.client.hget("sw:count", "dead_letters_closed|discarded") == "1"
    assert at.run("dead-letters", "show", "1").exit_code == 0


def test_what_fails_again_after_a_discard_is_a_new_letter(at):
    at.bury(linked())
    at.run("dead-letters", "discard", "--yes")
    at.bury(linked(occurred_at=NOW + 1))
    assert [letter["id"] for letter in at.json("dead-letters", "list")] == ["2"]


def test_a_body_that_never_became_a_change_can_be_discarded(at):
    at.inbox.accept([], undecoded=[Undecoded(Source.HUBSPOT, "digest", b"{", "not JSON")])
    at.run("dead-letters", "discard", "--reason", "undecodable", "--yes")
    (letter,) = at.json("dead-letters", "list", "--all")
    assert (letter["state"], letter["body"]) == (DISCARDED, None)


def test_a_discard_shows_the_plan_and_asks(at):
    at.bury(linked())
    at.bury(linked(COMPANY), Reason.REJECTED)
    told = at.run("dead-letters", "discard", given="n\n")
    assert told.exit_code == 0
    rows = [line.split() for line in told.stdout.splitlines()]
    assert ["conflict", "1"] in rows
    assert ["rejected", "1"] in rows
    assert "Nothing was discarded." in told.stdout
    assert len(at.json("dead-letters", "list")) == 2


@pytest.mark.parametrize(
    "wanted",
    [["--id", "2"], ["--reason", "rejected"], ["--record", COMPANY.id], ["--customer", "6"]],
)
def test_b6_11_a_discard_takes_the_filters_of_a_replay(at, wanted):
    at.bury(linked())
    at.bury(linked(COMPANY), Reason.REJECTED, (6,))
    at.run("dead-letters", "discard", *wanted, "--yes")
    assert [letter["id"] for letter in at.json("dead-letters", "list")] == ["1"]


def test_only_open_letters_are_discarded(at):
    at.bury(linked())
    at.json("dead-letters", "replay", "--yes")
    told = at.run("dead-letters", "discard", "--yes")
    assert "skipped 1: it is replaying" in told.stdout
    assert at.client.hget("sw:dead:1", "state") == "replaying"
    assert at.client.hlen("sw:dead:1:changes") == 1


def test_a_letter_that_is_replayed_meanwhile_is_not_discarded(at):
    at.bury(linked())
    found = list(dead_letters.find(at.client, Filter()))
    at.json("dead-letters", "replay", "--yes")
    (left,) = dead_letters.discard(at.client, found)
    assert (left.id, left.why) == ("1", "it is replaying")


def test_a_discard_asked_for_twice_after_a_lost_answer_says_the_same(at):
    at.bury(linked())
    script = scripts.load(at.client, "discard")
    assert [script(args=["1", "discard-1"]) for _ in range(2)] == ["open", "open"]
    assert script(args=["1", "discard-2"]) == DISCARDED
    assert script(args=["99", "discard-2"]) == ""
    assert at.client.hget("sw:count", "dead_letters_closed|discarded") == "1"


def test_nothing_to_discard_is_exit_code_3(at):
    assert at.run("dead-letters", "discard", "--yes").exit_code == 3
    told = at.run("dead-letters", "discard", "--id", "7", "--yes")
    assert told.exit_code == 3
    assert "no dead letter 7 matches" in told.stderr


# --- export


def test_letters_are_exported_whole_one_a_line(at):
    at.bury(linked(raw='{"a": 1}'))
    at.bury(linked(COMPANY), Reason.REJECTED)
    told = at.run("dead-letters", "export")
    first, second = (msgspec.json.decode(line) for line in told.stdout.splitlines())
    assert first == at.json("dead-letters", "show", "1")
    assert first["changes"][0]["raw"] == '{"a": 1}'
    assert second["id"] == "2"
    assert "2 dead letters written" in told.stderr


def test_an_export_goes_to_a_file_and_overwrites_none(at):
    at.bury(linked())
    told = at.run("dead-letters", "export", "--reason", "conflict", "--output", "letters.jsonl")
    assert (told.exit_code, told.stdout) == (0, "")
    assert len((at.folder / "letters.jsonl").read_text().splitlines()) == 1
    again = at.run("dead-letters", "export", "--output", "letters.jsonl")
    assert again.exit_code == 1
    assert again.stderr.startswith("sync-worker: letters.jsonl is there already")


def test_an_export_that_cannot_be_written_is_one_line(at):
    at.bury(linked())
    told = at.run("dead-letters", "export", "--output", "nowhere/letters.jsonl")
    assert told.exit_code == 1
    assert len(told.stderr.splitlines()) == 1
    assert "--output" in told.stderr


def test_nothing_to_export_is_exit_code_3(at):
    assert at.run("dead-letters", "export").exit_code == 3
    assert at.run("dead-letters", "export", "--salesforce-bulk").exit_code == 3


def test_closed_letters_are_exported_on_demand(at):
    at.bury(linked())
    at.run("dead-letters", "discard", "--yes")
    assert at.run("dead-letters", "export").exit_code == 3
    assert len(at.run("dead-letters", "export", "--all").stdout.splitlines()) == 1


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_b5_6_the_bulk_job_clears_each_customer_once(at):
    at.bury(unlinked(ACCOUNT), Reason.UNLATCH_UNSUPPORTED, (N, 5))
    other = msgspec.structs.replace(ACCOUNT, id=OTHER)
    at.bury(unlinked(other), Reason.UNLATCH_UNSUPPORTED, (5,))
    at.bury(linked(GEOTAB), Reason.CONFLICT, (6,))
    told = at.run("dead-letters", "export", "--salesforce-bulk")
    assert told.exit_code == 0
    assert rows_of(told.stdout) == [
        ["FusebillId", "TargetSalesforceID"],
        ["5", "clear"],
        [str(N), "clear"],
    ]
    assert "2 customers to clear" in told.stderr


def test_b5_6_closed_letters_clear_nobody(at):
    at.bury(unlinked(ACCOUNT), Reason.UNLATCH_UNSUPPORTED, (N,))
    at.json("dead-letters", "replay", "--yes")
    assert at.run("dead-letters", "export", "--salesforce-bulk").exit_code == 3


def test_a_customer_that_holds_another_account_by_now_is_left_out(at):
    at.bury(unlinked(ACCOUNT), Reason.UNLATCH_UNSUPPORTED, (5, 6, N))
    at.see(customer(5, salesforce_account=OTHER), sent_at=1)
    at.see(customer(6), sent_at=1)
    at.see(customer(N, salesforce_account=ACCOUNT.id), sent_at=1)
    told = at.run("dead-letters", "export", "--salesforce-bulk")
    assert rows_of(told.stdout)[1:] == [[str(N), "clear"]]
    assert f"skipped 1: customer 5 holds {OTHER} by now" in told.stderr
    assert "skipped 1: customer 6 is clear already" in told.stderr


def test_more_rows_than_the_job_takes_are_further_files(at, monkeypatch):
    monkeypatch.setattr(dead_letters, "BULK_ROWS", 2)
    at.bury(unlinked(ACCOUNT), Reason.UNLATCH_UNSUPPORTED, (1, 2, 3, 4, 5))
    refused = at.run("dead-letters", "export", "--salesforce-bulk")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--output" in refused.stderr
    told = at.run("dead-letters", "export", "--salesforce-bulk", "--output", "clear.csv")
    assert told.exit_code == 0
    files = [at.folder / name for name in ("clear.csv", "clear-2.csv", "clear-3.csv")]
    read = [rows_of(path.read_text()) for path in files]
    assert [[row[0] for row in rows[1:]] for rows in read] == [["1", "2"], ["3", "4"], ["5"]]
    assert {tuple(rows[0]) for rows in read} == {("FusebillId", "TargetSalesforceID")}


def test_no_file_is_written_if_one_of_them_is_there(at, monkeypatch):
    monkeypatch.setattr(dead_letters, "BULK_ROWS", 2)
    at.bury(unlinked(ACCOUNT), Reason.UNLATCH_UNSUPPORTED, (1, 2, 3))
    (at.folder / "clear-2.csv").write_text("older")
    told = at.run("dead-letters", "export", "--salesforce-bulk", "--output", "clear.csv")
    assert told.exit_code == 1
    assert not (at.folder / "clear.csv").exists()


def test_the_bulk_job_takes_5000_rows(at):
    at.bury(unlinked(ACCOUNT), Reason.UNLATCH_UNSUPPORTED, tuple(range(1, 10_002)))
    job = bulk_job(dead_letters.find(at.client, Filter()), {})
    assert [len(rows) for rows in job.files()] == [5000, 5000, 1]


@pytest.mark.parametrize("option", [["--all"], ["--reason", "conflict"], ["--source", "geotab"]])
def test_the_bulk_job_is_for_one_reason_only(at, option):
    assert at.run("dead-letters", "export", "--salesforce-bulk", *option).exit_code == 2


# --- what a dry run kept


def in_box(at: Commands, record: Record = CONTACT) -> list[int]:
    return sorted(int(seq) for seq in at.client.hkeys(f"sw:box:{record.mailbox}"))


def replayed(at: Commands, *arguments: str) -> dict[str, object]:
    return at.json("dead-letters", "replay", "--yes", *arguments)


@pytest.mark.parametrize("outcome", ["would_latch", "would_*"])
def test_b5_9_what_a_dry_run_kept_is_applied(at, outcome):
    at.settle(linked(identity="a"), Outcome.WOULD_LATCH)
    at.settle(unlinked(GEOTAB), Outcome.UNCHANGED)
    assert at.json("status")["would"] == 1
    assert "would_*" in at.run("status").stdout
    done = replayed(at, "--outcome", outcome)
    assert (done["planned"], done["replayed"], done["skipped"]) == (1, 1, [])
    assert at.woken == [CONTACT.mailbox]
    assert at.json("status")["would"] == 0
    (one,) = at.claim(CONTACT.mailbox).pending
    assert (one.seq, one.change.identity) == (1, "a")
    assert one.change.replay_id == done["replay_id"]


def test_b3_9_what_a_record_is_owed_comes_back_as_one(at):
    at.settle(linked(), Outcome.WOULD_LATCH)
    at.settle(unlinked(occurred_at=NOW + 1), Outcome.WOULD_UNLATCH)
    at.settle(linked(GEOTAB), Outcome.WOULD_MOVE)
    done = replayed(at, "--outcome", "would_*")
    assert done["replayed"] == 3
    assert (in_box(at), in_box(at, GEOTAB)) == ([1, 2], [3])
    assert at.woken == [CONTACT.mailbox, GEOTAB.mailbox]


def test_an_older_change_is_not_applied_without_the_newer_one(at):
    """B6.10: by itself it would latch a record that was deleted since."""
    at.settle(linked(), Outcome.WOULD_LATCH)
    at.settle(deleted(occurred_at=NOW + 1), Outcome.WOULD_UNLATCH)
    at.settle(linked(occurred_at=NOW + 2), Outcome.WOULD_LATCH)
    done = replayed(at, "--outcome", "would_latch")
    assert done["replayed"] == 1
    assert [skip["id"] for skip in done["skipped"]] == ["1"]
    assert "change 2 of its record is newer" in done["skipped"][0]["why"]
    assert in_box(at) == [3]
    assert sorted(at.client.hkeys("sw:would")) == ["1", "2"]


def test_a_plan_of_what_was_kept_is_shown_and_asked_for(at):
    at.settle(linked(), Outcome.WOULD_LATCH)
    at.settle(unlinked(GEOTAB), Outcome.WOULD_UNLATCH)
    told = at.run("dead-letters", "replay", "--outcome", "would_*", given="n\n")
    rows = [line.split() for line in told.stdout.splitlines()]
    assert ["would_latch", "1"] in rows
    assert ["would_unlatch", "1"] in rows
    assert "Nothing was replayed." in told.stdout
    assert at.client.hlen("sw:would") == 2
    told = at.run("dead-letters", "replay", "--outcome", "would_*", given="y\n")
    assert "2 of 2 put back, 0 skipped" in told.stdout


@pytest.mark.parametrize(
    "wanted",
    [
        ["--record", CONTACT.mailbox],
        ["--record", CONTACT.id],
        ["--source", "hubspot"],
        ["--since", "2026-01-01", "--source", "hubspot"],
    ],
)
def test_what_was_kept_is_chosen_by_record_source_and_time(at, wanted):
    at.settle(linked(), Outcome.WOULD_LATCH)
    at.settle(linked(GEOTAB), Outcome.WOULD_LATCH)
    assert replayed(at, "--outcome", "would_*", *wanted)["replayed"] == 1
    assert (in_box(at), in_box(at, GEOTAB)) == ([1], [])


def test_what_was_received_outside_the_times_is_left(at):
    at.settle(linked(), Outcome.WOULD_LATCH)
    for wanted in (["--until", "2020-01-01"], ["--since", "2100-01-01"]):
        told = at.run("dead-letters", "replay", "--outcome", "would_*", *wanted, "--yes")
        assert told.exit_code == 3


def test_a_geotab_id_may_hold_the_sign_that_parts_what_is_kept(at):
    odd = Record(Source.GEOTAB, "ACCT01", RecordType.CUSTOMER, "a|b:c")
    at.settle(linked(odd), Outcome.WOULD_LATCH)
    assert replayed(at, "--outcome", "would_latch", "--record", "a|b:c")["replayed"] == 1
    assert in_box(at, odd) == [1]


def test_b5_9_a_dry_run_that_is_still_on_refuses(at):
    at.settle(linked(), Outcome.WOULD_LATCH)
    at.setting("DRY_RUN", "true")
    told = at.run("dead-letters", "replay", "--outcome", "would_*", "--yes")
    assert told.exit_code == 1
    assert told.stderr.startswith("sync-worker: DRY_RUN=true")
    assert len(told.stderr.splitlines()) == 1
    assert at.client.hlen("sw:would") == 1


def test_nothing_kept_is_exit_code_3(at):
    at.settle(linked(), Outcome.WOULD_LATCH)
    told = at.run("dead-letters", "replay", "--outcome", "would_move", "--yes")
    assert told.exit_code == 3
    assert at.client.hlen("sw:would") == 1


@pytest.mark.parametrize("option", [["--id", "1"], ["--reason", "conflict"], ["--customer", "5"]])
def test_what_only_dead_letters_have_is_refused_with_an_outcome(at, option):
    told = at.run("dead-letters", "replay", "--outcome", "would_*", *option, "--yes")
    assert told.exit_code == 2


def test_b10_5_what_a_newer_version_kept_is_left_to_it(at):
    at.client.hset("sw:would", "7", f"would_latch|{CONTACT.mailbox}|{NOW}|2:something else")
    at.client.hset("sw:would", "8", "something else")
    done = replayed(at, "--outcome", "would_*")
    assert {skip["id"]: "newer version" in skip["why"] for skip in done["skipped"]} == {
        "7": True,
        "8": True,
    }
    assert at.client.hlen("sw:would") == 2


def test_what_somebody_else_applied_meanwhile_is_skipped(at):
    at.settle(linked(), Outcome.WOULD_LATCH)
    planned = replay.plan_dry_run(at.client, replay.KeptFilter())
    replayed(at, "--outcome", "would_*")
    again = replay.run(at.client, planned, wake=at.woken.extend)
    assert (again.replayed, [skip.why for skip in again.skipped]) == (0, ["it is kept no longer"])


def test_a_change_applied_twice_after_a_lost_answer_says_the_same(at):
    at.settle(linked(), Outcome.WOULD_LATCH)
    script = scripts.load(at.client, "apply_dry_run")
    args = [CONTACT.mailbox, WAKE_GRACE_MS, "1", "stored", "2", "never kept"]
    assert [script(args=args) for _ in range(2)] == [[1, 0], [1, 0]]
    assert at.client.hgetall(f"sw:box:{CONTACT.mailbox}") == {"1": "stored"}


def test_applying_can_be_stopped_between_two_records(at):
    at.settle(linked(), Outcome.WOULD_LATCH)
    at.settle(linked(GEOTAB), Outcome.WOULD_LATCH)

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    planned = replay.plan_dry_run(at.client, replay.KeptFilter())
    done = replay.run(at.client, planned, wake=at.woken.extend, sleep=stop)
    assert (done.planned, done.replayed, done.stopped) == (2, 1, True)
    assert at.woken == [CONTACT.mailbox]
    assert at.client.hlen("sw:would") == 1


def test_a_replay_of_letters_leaves_what_a_dry_run_kept(at):
    at.settle(linked(GEOTAB), Outcome.WOULD_LATCH)
    at.bury(linked())
    assert replayed(at)["replayed"] == 1
    assert at.client.hlen("sw:would") == 1
    assert {
        letter.state for letter in dead_letters.find(at.client, Filter(states=EVERY_STATE))
    } == {"replaying"}
