"""JSON-RPC 1.0 as MyAdmin speaks it: a form field in, HTTP 200 out, also for errors."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import msgspec


class Call(msgspec.Struct, frozen=True):
    """One call."""

    method: str
    params: dict[str, Any] = {}
    pagination: dict[str, Any] | None = None
    """Beside `params`; inside them it would be ignored."""


class Refused(Exception):
    """The call ends in an error; `body` is the answer."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body


def read_call(body: bytes, content_type: str) -> Call:
    """The call in a form's field `JSON-RPC`, or in a body of JSON. Raises Refused."""
    try:
        if "form" in content_type:
            text = parse_qs(body.decode("utf-8"), strict_parsing=True)["JSON-RPC"][0].encode()
        else:
            text = body
        return msgspec.json.decode(text, type=Call)
    except (ValueError, KeyError):
        raise Refused(error("FormatException", "the JSON-RPC request cannot be read")) from None


def result(value: object, pagination: dict[str, int] | None = None) -> bytes:
    """An answer; with `pagination` beside the result from version 3 on."""
    answer: dict[str, object] = {"result": value}
    if pagination is not None:
        answer["pagination"] = pagination
    return msgspec.json.encode(answer)


def error(name: str, text: str) -> bytes:
    """The documented shape of an error; where `name` stands in it is as for `UnknownUser`."""
    message = f"'{name}: {text}'"
    inner = {"name": "WebServerInvokerJSONException", "message": message}
    return msgspec.json.encode(
        {"error": {"name": "JSONRPCError", "message": message, "errors": [inner]}}
    )


def data_error(type_: str, text: str) -> bytes:
    """The other documented shape, without `errors`: known of `OverLimitException`."""
    return msgspec.json.encode(
        {"error": {"message": text, "code": -32000, "data": {"type": type_}}}
    )


def over_limit() -> bytes:
    """Too many calls."""
    return data_error("OverLimitException", "API calls quota exceeded.")
