"""What the benchmarks compute: figures, verdicts, the table, the picture and the page."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest

from benchmarks import budget, calls, picture, report, scaling
from benchmarks.harness import load, multiply, results, table, vendors
from benchmarks.harness.figures import (
    Bound,
    Result,
    Row,
    Series,
    number,
    percentile,
    share,
    slope,
)
from benchmarks.harness.run import Supply, interleaved, side_by_side
from benchmarks.harness.vendors import Link, Vendor
from sync_worker import settings
from sync_worker.domain import salesforce_id_18
from webhooks import signatures

ROOT = Path(__file__).parents[2]


def row(*runs: float, reference: tuple[float, ...] = (), bound: Bound | None = None) -> Row:
    return Row(
        figure="events",
        unit="/s",
        ours=Series(runs),
        reference=Series(reference) if reference else None,
        against="one by one" if reference else "",
        bound=bound,
    )


def result(*rows: Row, name: str = "accept", **more) -> Result:
    return Result(name=name, title="t", rows=list(rows), load="l", rounds=5, **more)


# Figures.


def test_the_median_and_the_spread_of_rounds():
    series = Series((10.0, 12.0, 11.0))
    assert series.median == 11
    assert series.spread == pytest.approx(2 / 11)


def test_a_single_round_has_no_spread():
    assert Series((10.0,)).spread is None
    assert Series((0.0, 0.0)).spread == 0


def test_a_ratio_is_of_the_medians():
    assert row(30, 31, 32, reference=(2, 2, 2)).ratio == 15.5
    assert row(30).ratio is None


@pytest.mark.parametrize(
    ("ours", "reference", "verdict"),
    [
        ((30.0, 31.0), (2.0, 2.0), "met"),
        ((28.0, 29.0), (2.0, 2.0), "missed"),
        ((30.0, 36.0), (2.0, 2.0), "not counted"),
        ((30.0, 31.0), (2.0, 2.4), "not counted"),
        ((30.0,), (2.0,), "met"),
    ],
)
def test_a_ratio_counts_only_where_both_figures_are_steady(ours, reference, verdict):
    assert row(*ours, reference=reference, bound=Bound("≥", 15, "ratio")).verdict == verdict


def test_a_spread_of_just_fifteen_per_cent_is_too_wide():
    steady = row(100, 100, reference=(100, 114.9), bound=Bound("≤", 2, "ratio"))
    assert steady.verdict == "met"
    wide = row(100, 100, 115, reference=(100, 100), bound=Bound("≤", 2, "ratio"))
    assert wide.verdict == "not counted"


def test_a_bound_of_the_figure_itself_is_judged_whatever_the_spread():
    assert row(1, 9, 2, bound=Bound("≤", 2)).verdict == "met"
    assert row(1, 9, 3, bound=Bound("≤", 2)).verdict == "missed"
    assert row(97, bound=Bound("≥", 97)).verdict == "met"


def test_a_figure_without_a_bound_is_stated():
    assert row(1).verdict == "stated"


def test_percentiles_are_values_that_were_measured():
    values = [float(n) for n in range(1, 101)]
    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert percentile([7.0], 0.99) == 7
    with pytest.raises(ValueError, match="no value"):
        percentile([], 0.5)


def test_the_slope_of_a_line():
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert slope([(1, 5)]) == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234.5, "1,234"),
        (15.04, "15"),
        (2.345, "2.35"),
        (0.05, "0.05"),
        (-1.5, "-1.5"),
        (97.0, "97"),
        (1_000_000, "1,000,000"),
    ],
)
def test_numbers_are_shown_with_three_digits(value, text):
    assert number(value) == text


def test_shares_are_shown_in_per_cent():
    assert share(0.153) == "15 %"
    assert share(None) == "-"


# Rounds.


def test_each_second_round_goes_the_other_way_round():
    assert [interleaved("ab", n) for n in range(3)] == [["a", "b"], ["b", "a"], ["a", "b"]]


def test_no_record_and_no_event_is_used_twice():
    supply = Supply()
    links = [*supply.take(3), *supply.take(2), *supply.again(range(2))]
    assert len({one.event for one in links}) == 7
    assert [one.record for one in links] == [0, 1, 2, 3, 4, 0, 1]
    assert links[5].customer == links[0].customer


def test_side_by_side_keeps_the_order_and_hands_on_what_goes_wrong():
    assert side_by_side(range(7), lambda n: n * n, 3) == [n * n for n in range(7)]
    with pytest.raises(ZeroDivisionError):
        side_by_side([1, 0], lambda n: 1 / n, 2)


# What is sent.


def test_hubspot_requests_are_signed_as_hubspot_signs():
    (request,) = vendors.requests(Vendor.HUBSPOT, [Link(1, 2, 3)], public_url="http://x.example")
    head, _, body = request.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    timestamp = headers["X-HubSpot-Request-Timestamp"]
    fault = signatures.verify_hubspot_v3(
        headers["X-HubSpot-Signature-v3"],
        [vendors.HUBSPOT_SECRET.encode()],
        method="POST",
        uri="http://x.example/webhooks/hubspot",
        body=body,
        timestamp=timestamp,
        now=int(timestamp) / 1000,
    )
    assert fault is None
    assert int(headers["Content-Length"]) == len(body)
    (event,) = msgspec.json.decode(body)
    assert (event["objectId"], event["propertyValue"]) == (vendors.FIRST_RECORD + 1, "2")


@pytest.mark.parametrize("vendor", Vendor)
def test_a_request_holds_a_hundred_events_and_the_last_one_the_rest(vendor):
    links = Supply().take(250)
    requests = vendors.requests(vendor, links, public_url="http://x.example")
    ids = [str(vendors.record_id(vendor, one.record)).encode() for one in links]
    assert len(requests) == 3
    for request, told in zip(requests, (ids[:100], ids[100:200], ids[200:]), strict=True):
        assert all(request.count(one) == 1 for one in told)


def test_the_accounts_that_are_sent_are_salesforce_ids():
    assert salesforce_id_18(str(vendors.record_id(Vendor.SALESFORCE, 7)))[:15] == "0015g0000000007"


def test_a_receiver_takes_the_settings_of_the_benchmarks():
    given = {name.lower(): value for name, value in vendors.SETTINGS.items()}
    settings.load(_env_file=None, public_url="http://x.example", **given)


# Load.


def measured(*spans: tuple[float, float]) -> load.Measured:
    sent, finished = zip(*spans, strict=True)
    return load.Measured(0.0, list(sent), list(finished), list(sent))


def test_the_rate_leaves_out_both_ends():
    # Two connections: each sends when it has its answer; the last ones end in a lonely tail.
    spans = [(n / 2, n / 2 + 1) for n in range(20)]
    assert measured(*spans).rate(2) == pytest.approx(2, rel=0.1)


def test_a_load_that_is_too_short_is_taken_as_a_whole():
    assert measured((0, 1), (0, 1)).rate(2) == 2


def test_latency_counts_from_when_a_request_was_due():
    late = load.Measured(0.0, [5.0], [6.0], [1.0])
    assert late.latencies == [5.0]


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 202 x\r\nContent-Length: 12\r\nA: b", b"X\r\ncontent-length:12"]
)
def test_the_length_of_an_answer(head):
    assert load.content_length(head) == 12


def test_an_answer_without_a_length_is_refused():
    with pytest.raises(load.Refused):
        load.content_length(b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked")


# What single benchmarks compute.


def test_the_most_calls_in_any_minute():
    second = 1_000_000_000
    assert budget.most_in_a_minute([]) == 0
    assert budget.most_in_a_minute([0, 59 * second, 60 * second]) == 2
    assert budget.most_in_a_minute([n * second for n in range(200)]) == 60


def test_what_the_foreign_client_got_is_not_left_to_us():
    def call(*, ours: bool, status: int) -> budget.Call:
        return budget.Call(0, "read", 1, 0, status, ours, "")

    case = budget.Case("fixed", foreign=True)
    made = [call(ours=True, status=200)] * 800
    made += [call(ours=True, status=429)] * 2 + [call(ours=False, status=200)] * 200
    used = budget._Used(case, 1, made)
    assert used.left_to_us == 1_000
    assert used.share == 0.8
    assert used.refused_a_minute == 2


def test_the_bounds_of_calls_are_those_of_the_issue():
    bounds = {
        (vendor, known, share): case.bound and case.bound.limit
        for vendor, known, share in itertools.product(Vendor, (True, False), (1.0, 0.1, 0.01))
        for case in [calls.Case(vendor, known, share)]
    }
    assert {key for key, limit in bounds.items() if limit == 2.0} == {
        (Vendor.HUBSPOT, False, 1.0),
        (Vendor.HUBSPOT, False, 0.1),
    }
    assert all((limit is None) is (key[2] == 0.01) for key, limit in bounds.items())


@pytest.mark.parametrize(
    ("machine", "of", "words"),
    [
        (1.95, {"worker": 1.7, "Redis": 0.2}, "the 2 cores"),
        (1.95, {"worker": 0.5, "Redis": 0.2}, "other programs"),
        (1.2, {"worker": 0.2, "Redis": 0.95}, "one core: Redis"),
        (0.9, {"worker": 0.6, "Redis": 0.2}, "waiting"),
    ],
)
def test_what_bounds_is_named(machine, of, words):
    assert scaling.bound_by(scaling.Load(machine, of), 2).startswith(words)


def test_the_functions_on_top_of_the_stack_most_often():
    stacks = "a;b;read (x.py) 6\na;send (y.py) 3\na;b;c;read (x.py) 1\n"
    assert scaling.top_functions(stacks) == "read (x.py) 70 %, send (y.py) 30 %"


def test_copies_name_other_records_and_customers_and_nothing_else_changes():
    small = multiply.Small(
        own={b"sw:mark:512000000001": ("hash", {b"home": b"=8000002", b"at": b"17952946757"}, -1)},
        lines=[(b"audit", [b"record", b"x:512000000001", b"customer_ids", b"[8000002]"])],
    )
    ((count, batch),) = multiply.packed(multiply._commands(small))
    assert count == 2
    assert batch.startswith(b"*6\r\n$4\r\nHSET\r\n$20\r\nsw:mark:512000000001\r\n$4\r\nhome\r\n")
    there = multiply.moved(batch, 10)
    assert there == batch.replace(b"512000000001", b"512000000011").replace(b"8000002", b"8000012")


def test_what_names_nobody_is_copied_as_something_like_it():
    small = multiply.Small(nameless=[(b"seen", "set", b"0f" * 8, b""), (b"seen", "set", b"a", b"")])
    ((name, key, member, other),) = multiply._nameless(small)
    assert (name, key) == ("SADD", b"seen")
    assert (len(member), len(other)) == (16, 1)
    assert re.fullmatch(rb"[0-9a-f]{16}", member)
    assert member != b"0f" * 8


# Table, file, picture, page.


def test_the_table_shows_ours_the_reference_and_the_verdict():
    shown = table.cells(row(300, reference=(20,), bound=Bound("≥", 15, "ratio")))
    times = "\N{MULTIPLICATION SIGN}"
    assert shown == (
        "events",
        "300 /s",
        "20 /s (one by one)",
        f"15{times}",
        "- / -",
        f"≥ 15{times}",
        "met",
    )


def test_results_of_benchmarks_that_are_run_apart_add_up(tmp_path):
    path = tmp_path / "r.json"
    first = result(row(1, bound=Bound("≤", 2)), points={"a": [(1.0, 2.0)]})
    results.keep(path, result(row(9)))
    results.keep(path, first)
    results.keep(path, result(row(3), name="calls"))
    kept = results.load(path).benchmarks
    assert set(kept) == {"accept", "calls"}
    assert kept["accept"] == first
    assert results.load(tmp_path / "none.json").benchmarks == {}


@pytest.mark.parametrize(
    ("made", "used"),
    [
        (row(3, bound=Bound("≤", 4)), 0.75),
        (row(100, bound=Bound("≥", 50)), 0.5),
        (row(0, bound=Bound("≤", 0)), 0),
        (row(-1, bound=Bound("≤", 1)), 0),
        (row(60, reference=(2,), bound=Bound("≥", 15, "ratio")), 0.5),
    ],
)
def test_how_much_of_its_bound_a_figure_uses_up(made, used):
    assert picture.use(made) == used


def test_what_should_be_nothing_and_is_something_goes_beyond_the_picture():
    assert picture.use(row(1, bound=Bound("≤", 0))) > picture.MOST
    assert picture.use(row(0, bound=Bound("≥", 5))) > picture.MOST


def test_the_picture_is_xml_and_has_a_bar_for_each_bound():
    rows = [row(1, bound=Bound("≤", 2)), row(1), row(9, bound=Bound("≤", 2))]
    drawn = picture.draw([result(*rows), result(row(1), name="calls")])
    root = ET.fromstring(drawn)
    space = "{http://www.w3.org/2000/svg}"
    rails = [one for one in root.iter(f"{space}rect") if one.get("class") == "rail"]
    assert len(rails) == 2
    assert "prefers-color-scheme:dark" in drawn
    text = " ".join(one.text or "" for one in root.iter(f"{space}text"))
    assert "events" in text
    assert "calls" not in text


def test_the_page_is_filled_between_its_marks_and_only_there():
    page = "a\n<!-- x -->\nold\n<!-- /x -->\nb <!-- no -->\n"
    once = report.filled(page, {"x": "new"})
    assert once == "a\n<!-- x -->\n\nnew\n\n<!-- /x -->\nb <!-- no -->\n"
    assert report.filled(once, {"x": "new"}) == once


def test_the_page_has_a_place_for_every_benchmark():
    page = report.PAGE.read_text(encoding="utf-8")
    assert set(re.findall(r"^<!-- (\w+) -->$", page, re.MULTILINE)) == set(report.parts({}))


def test_the_page_and_the_picture_are_those_of_the_figures_that_are_kept():
    """`python -m benchmarks.report` was run: nobody typed a figure by hand."""
    found = results.load(report.RESULTS).benchmarks
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.filled(page, report.parts(found)) == page
    drawn = picture.draw(report.in_order(found))
    assert report.PICTURE.read_text(encoding="utf-8") == drawn


def test_the_summary_names_what_is_missed_and_what_noise_took():
    wide = row(10, 20, reference=(1, 1), bound=Bound("≥", 5, "ratio"))
    told = report.parts({"accept": result(row(3, bound=Bound("≤", 2)), wide, row(1))})["summary"]
    assert told.startswith("2 figures have a bound: 0 keep to it, 1 miss it, 1 are not counted")
    assert "Missed:\n\n- accept: events" in told
