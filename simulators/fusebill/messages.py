"""Requests and answers as plain values, and the forms of answer that Fusebill has."""

from __future__ import annotations

from typing import Any, NamedTuple

from simulators.fusebill.customer import encode

JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=utf-8"


class Request(NamedTuple):
    """One request, its body read in full."""

    method: str
    path: str
    """As received, percent-decoded."""
    query: dict[str, str]
    body: bytes = b""
    content_type: str = ""
    content_length: str | None = None
    """The header as sent; None if it was missing."""
    authorization: str | None = None
    client: str = ""
    """The IP address that it came from."""


class Answer(NamedTuple):
    """One answer; the edge adds `Content-Length`."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed: `with_headers` makes a new one
    trickle_ms: int = 0
    """Pause this long before each byte of the body."""

    def with_headers(self, headers: dict[str, str]) -> Answer:
        """The same answer with these headers too; its own win."""
        return self._replace(headers={**headers, **self.headers})


def as_json(status: int, content: Any) -> Answer:
    """An answer of JSON."""
    return Answer(status, encode(content))


def errors(status: int, text: str) -> Answer:
    """The PascalCase envelope (`ref/errors`)."""
    return as_json(
        status,
        {
            "ErrorId": 0,
            "HttpStatusCode": status,
            "Errors": [{"Key": "Api Error", "Value": text}],
        },
    )


def message(status: int, text: str) -> Answer:
    """The envelope of the framework beneath: unknown routes, methods, media types."""
    return as_json(status, {"Message": text})


def no_such_route(path: str) -> Answer:
    """The 404 of an unknown route: `Message`, where an unknown customer has `Errors`."""
    return message(404, f"No HTTP resource was found that matches the request URI '{path}'.")


def page(status: int, title: str) -> Answer:
    """A page of HTML, as a gateway or a login page in between would send."""
    html = f"<!DOCTYPE html><html><head><title>{title}</title></head><body>{title}</body></html>"
    return Answer(status, html.encode(), HTML)
