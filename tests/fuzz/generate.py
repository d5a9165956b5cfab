"""Generated requests: what is sent, and what the contract lets the answer be.

Most are authentic, so that the decoders are reached; the rest are spoiled where they prove
themselves, in their type, length or method. A request is drawn from `(seed, route, number)`
and can be made again from those, but for the time in its signature.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

from sync_worker.settings import Settings
from tests.fuzz import mutate
from tests.fuzz.mutate import Table
from tests.receiving import (
    FORM,
    GEOTAB_SECRET,
    GEOTAB_TOKEN,
    JSON,
    ORG,
    PUBLIC_URL,
    SALESFORCE_SECRET,
    SALESFORCE_TOKEN,
    hubspot_v3,
    settings,
    x_signature,
)
from webhooks import samples

FIXTURES = Path(__file__).parents[1] / "fixtures"

MOST_BYTES = 96 * 1024
"""MAX_BODY_BYTES while fuzzing: small, so that bodies above it are cheap."""

NOW = 1_795_183_387
"""What samples are made for; signatures are of the time they are sent."""

ROUTES = (
    "/webhooks/hubspot",
    "/webhooks/salesforce",
    "/webhooks/salesforce/<token>",
    "/webhooks/geotab",
    "/webhooks/geotab/<token>",
)

TYPES = {
    "hubspot": {JSON},
    "salesforce": {JSON, "text/xml"},
    "geotab": {JSON, FORM},
}


def fuzz_settings(**changes: Any) -> Settings:
    """Everything configured, and small bodies only."""
    return settings(
        max_body_bytes=MOST_BYTES,
        hubspot_reference_property="billing_reference",
        salesforce_reference_field="Billing_Reference__c",
        **changes,
    )


@dataclass(slots=True)
class Request:
    """A generated request, and the statuses that the table of B2.10 allows for it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    allowed: frozenset[int]
    chunked: bool = False
    cut_at: int | None = None
    soap: bool = False
    """Whether its answer has to be SOAP."""
    notes: list[str] = field(default_factory=list)
    """What was done to it."""


class Generator:
    """Draws requests for one route. The bodies it starts from are fixtures and samples."""

    def __init__(self, route: str, seed: int) -> None:
        self.route = route
        self.seed = seed
        self.source = route.split("/")[2]
        self._trees: list[Any] = []
        self._messages: list[str] = []
        self._forms: list[bytes] = []
        configured = fuzz_settings()
        for path in sorted((FIXTURES / self.source).iterdir()):
            if path.suffix == ".json":
                self._trees.append(mutate.table(path.read_bytes()))
            elif path.suffix == ".xml":
                self._messages.append(path.read_text(encoding="utf-8"))
        for name in samples.NAMES:
            if name.startswith(self.source):
                sample = samples.build(name, configured, now=NOW)
                kind = sample.headers["Content-Type"]
                if kind.startswith("text/xml"):
                    self._messages.append(sample.body.decode())
                elif kind == FORM:
                    self._forms.append(sample.body)
                else:
                    self._trees.append(mutate.table(sample.body))

    def request(self, number: int) -> Request:
        """The request of this number."""
        rng = Random(f"{self.seed} {self.route} {number}")
        kind, body = self._body(rng)
        notes = []
        if rng.random() < 0.2:
            body = mutate.spoiled(body, rng)
            notes.append("bytes")
        if rng.random() < 0.004:
            body += b" " * MOST_BYTES
            notes.append("too large")
        path = self.route.replace("/<token>", "")
        target = path + rng.choice(("",) * 12 + ("/", "?", "?a=%2Fb&c=%c3%a9+d", "?token=x"))
        headers = {"content-type": kind}
        if kind == "text/xml":
            headers["content-type"] = rng.choice(("text/xml; charset=UTF-8", "text/xml"))
        sent = Request("POST", target, headers, body, frozenset(), notes=notes)
        authentic = self._prove(sent, kind, rng)
        self._frame(sent, rng)
        typed = self._retype(sent, rng)
        sent.allowed = self._allowed(sent, typed, authentic)
        return sent

    def _body(self, rng: Random) -> tuple[str, bytes]:
        draw = rng.random()
        if self._messages and draw < 0.5:
            return "text/xml", mutate.xml_body(rng.choice(self._messages), rng)
        if self._forms and draw < 0.35:
            return FORM, mutate.form_body(rng.choice(self._forms), rng)
        base, other = rng.choice(self._trees), rng.choice(self._trees)
        if self.source == "salesforce" and isinstance(base, Table) and rng.random() < 0.6:
            base = Table([*base, ["organizationId", ORG]])
        return JSON, mutate.json_body(base, other, rng)

    # ---- proofs

    def _prove(self, sent: Request, kind: str, rng: Random) -> str:
        """Add what proves the request; answers `signature`, `token`, `url` or `nothing`."""
        spoil = rng.random() < 0.08
        if self.source == "hubspot":
            return self._prove_hubspot(sent, rng, spoil=spoil)
        token, secret = {
            "salesforce": (SALESFORCE_TOKEN, SALESFORCE_SECRET),
            "geotab": (GEOTAB_TOKEN, GEOTAB_SECRET),
        }[self.source]
        in_path = self.route.endswith("<token>")
        if spoil:
            return self._garble(sent, rng, token, secret, in_path=in_path)
        if in_path:
            self._put_token(sent, token)
        draw = rng.random()
        if draw < (0.3 if in_path else 0.6):
            sent.headers["x-signature"] = x_signature(secret, sent.body, rng.randrange(-280, 280))
            return "signature"
        if in_path:
            return "form or url" if kind == FORM else "url"
        if self.source == "salesforce" and draw < 0.8:
            sent.headers["authorization"] = f"{rng.choice(('Bearer', 'bearer'))} {token}"
            return "token"
        if kind == FORM and draw < 0.9:
            return "form"
        sent.headers["x-webhook-token"] = token
        return "token"

    def _prove_hubspot(self, sent: Request, rng: Random, *, spoil: bool) -> str:
        stamp = str(int((time.time() + rng.randrange(-280, 280)) * 1000))
        address = PUBLIC_URL + sent.target.replace("%2F", "/")
        signature = hubspot_v3(address, sent.body, stamp)
        if not spoil:
            sent.headers["x-hubspot-signature-v3"] = signature
            sent.headers["x-hubspot-request-timestamp"] = stamp
            return "signature"
        sent.notes.append("garbled proof")
        odd = _odd_header(rng)
        garbled = {
            "x-hubspot-signature-v3": rng.choice((signature[:-3], odd, "", None, "é")),
            "x-hubspot-request-timestamp": stamp,
        }
        if rng.random() < 0.5:
            garbled = {
                "x-hubspot-signature-v3": signature,
                "x-hubspot-request-timestamp": rng.choice((stamp + "0", stamp[:-3], odd, None)),
            }
        if rng.random() < 0.3:
            garbled |= {"x-hubspot-signature": odd, "x-hubspot-signature-version": "v1"}
        sent.headers.update({name: value for name, value in garbled.items() if value is not None})
        return "nothing"

    def _garble(self, sent: Request, rng: Random, token: str, secret: str, *, in_path: bool) -> str:
        sent.notes.append("garbled proof")
        odd = _odd_header(rng)
        if in_path:
            self._put_token(sent, rng.choice((token[:-1], token + "x", token.upper(), odd or "x")))
        good = x_signature(secret, sent.body)
        name, value = rng.choice(
            (
                ("x-signature", x_signature(secret, sent.body + b"x")),
                ("x-signature", x_signature(secret, sent.body, 400)),
                ("x-signature", good.partition(",")[2]),
                ("x-signature", good.partition(",")[0]),
                ("x-signature", good + ",t=1"),
                ("x-signature", "v1=" + ",v1=".join(["0" * 64] * 200)),
                ("x-signature", odd),
                ("x-webhook-token", odd or "x"),
                ("x-webhook-token", token[:-1]),
            )
        )
        sent.headers[name] = value
        return "nothing"

    @staticmethod
    def _put_token(sent: Request, token: str) -> None:
        path, mark, query = sent.target.partition("?")
        slash = "/" if path.endswith("/") else ""
        spelled = quote(token, safe="", errors="replace")
        sent.target = f"{path.rstrip('/')}/{spelled}{slash}{mark}{query}"

    # ---- type, length, method

    def _frame(self, sent: Request, rng: Random) -> None:
        draw = rng.random()
        if draw < 0.03:
            sent.chunked = True
        elif draw < 0.035 and sent.body:
            sent.cut_at = rng.randrange(len(sent.body))
            sent.notes.append("cut off")
        elif draw < 0.045:
            sent.method = rng.choice(
                ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "X-Y")
            )
        if rng.random() < 0.05:
            name = rng.choice(("x-forwarded-for", "cookie", "expect", "accept", "range", "x-é"))
            sent.headers[name] = _odd_header(rng)
        if rng.random() < 0.005:
            sent.headers["host"] = _odd_header(rng)
            sent.notes.append("odd host")

    def _retype(self, sent: Request, rng: Random) -> str:
        """Sometimes change the content type; answers the media type that it means."""
        if rng.random() >= 0.03:
            return sent.headers["content-type"].partition(";")[0]
        kind = rng.choice(
            (
                "text/plain",
                "application/xml",
                "application/jsonx",
                "multipart/form-data; boundary=x",
                "",
                "/",
                "application",
                "application/json/x",
                "é/ü",
                "x" * 5000,
            )
        )
        sent.headers["content-type"] = kind
        sent.notes.append("retyped")
        return kind

    def _allowed(self, sent: Request, media_type: str, proof: str) -> frozenset[int]:
        sent.soap = media_type == "text/xml" and self.source == "salesforce"
        allowed = self._expected(sent, media_type, proof)
        # What no host can be called has no addresses.
        return allowed | {404} if "odd host" in sent.notes else allowed

    def _expected(self, sent: Request, media_type: str, proof: str) -> frozenset[int]:
        if sent.method != "POST":
            return frozenset({405})
        if len(sent.body) > MOST_BYTES:
            return frozenset({413})
        if sent.cut_at is not None:
            return frozenset({400})
        if media_type not in TYPES[self.source]:
            return frozenset({415})
        if proof == "nothing":
            return frozenset({401})
        taken = 200 if sent.soap else 202
        if proof == "signature":
            return frozenset({taken, 403})
        if proof == "url" and self.source == "salesforce" and not sent.soap:
            return frozenset({taken, 400, 401, 403})
        if proof in ("form", "form or url"):  # its bytes may have lost the token
            return frozenset({taken, 400, 401, 403})
        return frozenset({taken, 400, 403})


def _odd_header(rng: Random) -> str:
    """A header's value as servers hand it on: any bytes, read as latin-1."""
    match rng.randrange(6):
        case 0:
            return ""
        case 1:
            return "x" * rng.choice((1, 100, 10_000))
        case 2:
            return "".join(chr(rng.randrange(32, 256)) for _ in range(rng.randrange(1, 60)))
        case 3:
            return rng.choice(("t=,v1=", "t=1,v1=", ",", "=", "v1", "Bearer", "Bearer ", "Basic x"))
        case 4:
            return "9" * rng.choice((13, 15, 16, 400))
        case _:
            return rng.choice(("\u00b2\u00b3", "\x7f", "%00", "../", "a b", '"'))
