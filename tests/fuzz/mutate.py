"""Ways to spoil a body: JSON by its structure, XML and forms by their text, and all by bytes.

Everything is drawn from the `Random` given, so that a seed names a body.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from random import Random
from typing import Any
from urllib.parse import quote_plus, unquote_plus

SESSION = "00D5g000007Kp2Q!AQ8AQH0dMHZfz972Szmpkb58urFRkgeBGsxL"
"""A session id, which no answer and no log may hold."""


class Table(list[list[Any]]):
    """A JSON object as pairs, so that a name may stand in it twice."""


class Literal(str):
    """JSON text, written as it is: numbers and words that Python would not write."""

    __slots__ = ()


ODD_TEXTS = (
    "",
    " ",
    "\0",
    "0",
    "-1",
    "null",
    "true",
    "NaN",
    "1e5",
    "00012",
    "8714402.0",
    "\uff19\uff19",
    "²",
    "\ufeff",
    "\u202e\u2028\u2029",
    "é" * 40,
    "e\u0301",
    "😀",
    "\U0010ffff",
    "a:b|c;d,e*f",
    "' OR 1=1 --",
    "{{7*7}} ${7*7} %s %n",
    "<script>&amp;]]>",
    "../../etc/passwd",
    "\r\nX-Injected: 1",
    "contact.propertyChange",
    "0015g00001LwZ3k",
    "0015G00001LWZ3KAAF",
    "001",
    "2026-11-20T14:03:07Z",
    "9999-99-99T99:99:99Z",
    "0001-01-01T00:00:00+23:59",
    "9" * 5000,
    "x" * 300,
    "x" * 5000,
)

ODD_LITERALS = (
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-1",
    "1.5",
    "1e3",
    "1E400",
    "-1e-400",
    "1e999999999",
    "NaN",
    "Infinity",
    "01",
    "+1",
    "0x10",
    "9" * 18,
    "9" * 19,
    "9" * 20,
    "9" * 400,
    "9" * 6000,
    str(2**53 + 1),
    str(2**63),
    str(2**64),
    "-" + "9" * 400,
    "1795183387000",
    "99999999999999999",
    "[]",
    "{}",
    "[[]]",
    '[{"a":[]}]',
    '{"":{"":null}}',
    '""',
    '"\\ud800"',
    '"\\udfff\\ud800"',
    '"\\u0000"',
    '"\\x41"',
    '"\t"',
    "'single'",
    "undefined",
    '"*"',
    '["001*"]',
    '["0x400000"]',
    '["0015g00001LwZ3kAAF","0015g00001LwZ4RAAV","0015g00001LwZ4R"]',
    "[" * 400 + "]" * 400,
    '{"a":' * 400 + "1" + "}" * 400,
    "[" * 6000 + "]" * 6000,
)

ODD_NAMES = (
    "",
    "__proto__",
    "__class__",
    "portalId",
    "eventType",
    "objectTypeId",
    "events",
    "payload",
    "data",
    "detail",
    "new",
    "old",
    "ChangeEventHeader",
    "organizationId",
    "account",
    "event_id",
    "é",
    "\0",
    "a" * 1000,
)


def table(text: bytes) -> Any:
    """Read JSON into lists, tables and values."""
    return json.loads(text, object_pairs_hook=lambda pairs: Table([list(pair) for pair in pairs]))


def write(node: Any) -> str:
    """Write it back; literals as they are."""
    if isinstance(node, Literal):
        return str(node)
    if isinstance(node, Table):
        return "{" + ",".join(f"{json.dumps(name)}:{write(value)}" for name, value in node) + "}"
    if isinstance(node, list):
        return "[" + ",".join(map(write, node)) + "]"
    return json.dumps(node, ensure_ascii=False)


def copied(node: Any) -> Any:
    """A copy that may be changed."""
    if isinstance(node, Table):
        return Table([[name, copied(value)] for name, value in node])
    if isinstance(node, list):
        return [copied(item) for item in node]
    return node


def _places(node: Any) -> Iterator[tuple[list[Any], int]]:
    """Every place in the tree that holds a value: a list and an index into it."""
    stack = [node]
    while stack:
        for index, item in enumerate(found := stack.pop()):
            if isinstance(found, Table):
                yield item, 1
                item = item[1]  # noqa: PLW2901
            else:
                yield found, index
            if isinstance(item, list):
                stack.append(item)


def _tables(node: Any) -> list[Table]:
    root = [node] if isinstance(node, Table) else []
    return root + [at[index] for at, index in _places(node) if isinstance(at[index], Table)]


def _replace(tree: Any, rng: Random) -> None:
    places = list(_places(tree))
    if places:
        at, index = rng.choice(places)
        at[index] = _value(at[index], rng)


def _value(before: Any, rng: Random) -> Any:
    match rng.randrange(5):
        case 0:
            return rng.choice(ODD_TEXTS)
        case 1:
            return Literal(rng.choice(ODD_LITERALS))
        case 2:
            return str(before) if isinstance(before, int | float) else [before]
        case 3:
            return Literal(before) if isinstance(before, str) and before.isdigit() else before
        case _:
            return rng.randrange(-(10 ** rng.randrange(1, 40)), 10 ** rng.randrange(1, 40))


def _remove(tree: Any, rng: Random) -> None:
    if tables := [found for found in _tables(tree) if found]:
        found = rng.choice(tables)
        del found[rng.randrange(len(found))]


def _repeat_name(tree: Any, rng: Random) -> None:
    if tables := [found for found in _tables(tree) if found]:
        found = rng.choice(tables)
        name, value = rng.choice(found)
        found.insert(rng.randrange(len(found) + 1), [name, _value(value, rng)])


def _rename(tree: Any, rng: Random) -> None:
    if tables := [found for found in _tables(tree) if found]:
        pair = rng.choice(rng.choice(tables))
        pair[0] = rng.choice([*ODD_NAMES, pair[0].upper(), pair[0] + " ", pair[0][:-1]])


def _add(tree: Any, rng: Random) -> None:
    if tables := _tables(tree):
        value: Any = rng.choice([rng.choice(ODD_TEXTS), Literal(rng.choice(ODD_LITERALS))])
        if rng.random() < 0.2:
            rng.choice(tables).append(["SessionId", SESSION])
        else:
            rng.choice(tables).append([rng.choice(ODD_NAMES), value])


def _swap(tree: Any, rng: Random) -> None:
    places = list(_places(tree))
    if len(places) > 1:
        (one, i), (other, j) = rng.sample(places, 2)
        # Never a value into itself: that would have no end.
        if not isinstance(one[i], list) and not isinstance(other[j], list):
            one[i], other[j] = other[j], one[i]


_IN_A_TREE: tuple[Callable[[Any, Random], None], ...] = (
    _replace,
    _replace,
    _replace,
    _remove,
    _repeat_name,
    _rename,
    _add,
    _swap,
)


def json_body(base: Any, other: Any, rng: Random) -> bytes:
    """A body made of `base`, sometimes together with `other`."""
    tree = copied(base)
    for _ in range(_few(rng)):
        if isinstance(tree, list):
            rng.choice(_IN_A_TREE)(tree, rng)
    if rng.random() < 0.15:
        tree = _wrapped(tree, copied(other), rng)
    return write(tree).encode("utf-8", "surrogatepass")


def _wrapped(tree: Any, other: Any, rng: Random) -> Any:
    match rng.randrange(7):
        case 0:
            return [tree, other]
        case 1:
            return Table([[rng.choice(ODD_NAMES), tree]])
        case 2:
            return Table([["events", tree]])
        case 3 if isinstance(tree, list) and not isinstance(tree, Table):
            return [*tree, Literal(rng.choice(ODD_LITERALS)), *tree]
        case 4:
            return [tree] * rng.randrange(30)
        case 5:
            return Table([["data", Table([["payload", tree]])]])
        case _:
            return Literal(rng.choice(ODD_LITERALS))


_ELEMENT = re.compile(r"<([\w:]+)([^<>]*)>([^<>]*)</\1>")

_XML_PIECES = (
    "<!-- x -->",
    "<?pi x?>",
    "<![CDATA[]]>",
    "<![CDATA[<SessionId>]]>",
    "&#0;",
    "&#xd800;",
    "&#x1F600;",
    "&undefined;",
    "&amp;",
    "]]>",
    "<a/>",
    "<sf:Id/>",
    '<sf:Fusebill_Id__c xsi:nil="true"/>',
    '<sf:Fusebill_Id__c xsi:nil="1">7</sf:Fusebill_Id__c>',
    "<sf:Fusebill_Id__c>12345.0</sf:Fusebill_Id__c>",
    "<OrganizationId>00D5g000007Kp9ZEAS</OrganizationId>",
    f"<SessionId>{SESSION}</SessionId>",
    f"<n:SessionId xmlns:n='urn:n'>{SESSION}</n:SessionId>",
    "<Notification/>",
    "<Notification><Id>1</Id><sObject/></Notification>",
    "<a>" * 500 + "</a>" * 500,
    "<a>" * 8000,
    '<a b="1" b="2"/>',
    "\0",
    "\ufffe",
    "é",
)

_XML_HEADS = (
    '<?xml version="1.0" encoding="UTF-16"?>',
    '<?xml version="1.0" encoding="ISO-8859-1"?>',
    '<?xml version="1.0" encoding="UTF-7"?>',
    '<?xml version="1.0" encoding="utf-8-sig"?>',
    '<?xml version="1.0" encoding="idna"?>',
    '<?xml version="1.0" encoding="nonsense"?>',
    '<?xml version="1.1"?>',
    '<!DOCTYPE a [<!ENTITY b "c">]>',
    '<!DOCTYPE a SYSTEM "file:///etc/passwd">',
    '<!DOCTYPE lolz [<!ENTITY l "lol"><!ENTITY m "&l;&l;&l;&l;&l;&l;">]>',
    "",
)


def xml_body(base: str, rng: Random) -> bytes:
    """A body made of an Outbound Message."""
    text = base
    for _ in range(_few(rng)):
        found = list(_ELEMENT.finditer(text))
        match rng.randrange(7):
            case 0 | 1 if found:
                one = rng.choice(found)
                odd = rng.choice(ODD_TEXTS).replace("&", "&amp;").replace("<", "&lt;")
                text = text[: one.start(3)] + odd + text[one.end(3) :]
            case 2 if found:
                one = rng.choice(found)
                text = text[: one.start()] + text[one.end() :]
            case 3 if found:
                one = rng.choice(found)
                text = text[: one.end()] + one[0] * rng.randrange(1, 4) + text[one.end() :]
            case 4 if found:
                one = rng.choice(found)
                text = text[: one.end(2)] + ' xsi:nil="true"' + text[one.end(2) :]
            case 5:
                at = rng.choice([hit.start() for hit in re.finditer("<", text)] or [0])
                text = text[:at] + rng.choice(_XML_PIECES) + text[at:]
            case _ if rng.random() < 0.3:
                text = rng.choice(_XML_HEADS) + text.partition("?>")[2]
    return text.encode("utf-8", "surrogatepass")


def form_body(base: bytes, rng: Random) -> bytes:
    """A body made of a form."""
    pairs = [part.partition("=")[::2] for part in base.decode().split("&")]
    for _ in range(_few(rng)):
        if not pairs:
            break
        at = rng.randrange(len(pairs))
        name, value = pairs[at]
        match rng.randrange(7):
            case 0 | 1:
                odd = rng.choice(ODD_TEXTS).encode("utf-8", "surrogatepass")
                pairs[at] = (name, quote_plus(odd))
            case 2 if name != "token":
                del pairs[at]
            case 3 if name != "token":
                pairs.insert(at, (name, quote_plus(unquote_plus(value) + "1")))
            case 4 if name != "token":
                pairs[at] = (name, rng.choice(["%", "%zz", "%ff%fe", "%00", "+", "%ud800", "a;b"]))
            case 5:
                pairs.insert(at, (quote_plus(rng.choice(ODD_NAMES)), "1"))
            case _ if rng.random() < 0.2:
                pairs += [(f"f{n}", "") for n in range(rng.choice([90, 101, 5000]))]
    return "&".join(f"{name}={value}" for name, value in pairs).encode()


def spoiled(body: bytes, rng: Random) -> bytes:
    """The same with its bytes disturbed."""
    found = bytearray(body)
    for _ in range(1 + _few(rng)):
        at = rng.randrange(len(found) + 1)
        match rng.randrange(9):
            case 0 | 1:
                del found[at:]
            case 2:
                del found[:at]
            case 3:
                found[at : at + rng.randrange(1, 30)] = b""
            case 4:
                found[at:at] = rng.randbytes(rng.randrange(1, 12))
            case 5 if at < len(found):
                found[at] ^= 1 << rng.randrange(8)
            case 6:
                found[at:at] = found[max(0, at - 40) : at] * rng.randrange(1, 5)
            case 7:
                found[at:at] = rng.choice([b"\0", b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\r\n"])
            case _ if rng.random() < 0.2:
                return _encoded(bytes(found), rng)
    return bytes(found)


def _encoded(body: bytes, rng: Random) -> bytes:
    text = body.decode("utf-8", "replace")
    encoding = rng.choice(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7"])
    return text.encode(encoding, "replace")


def _few(rng: Random) -> int:
    """How many changes: mostly one or two, sometimes none or many."""
    return rng.choice((0, 1, 1, 1, 1, 2, 2, 2, 3, 4, 8))
