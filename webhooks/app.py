"""The web application: routes, size limits, error answers, health (B2.1, B2.4).

The routes are served with and without a trailing slash and are never redirected, because senders
follow no redirect and a signature covers the address as it was called.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from flask import Blueprint, Flask, Request, Response, request
from werkzeug.exceptions import (
    ClientDisconnected,
    HTTPException,
    MethodNotAllowed,
    RequestEntityTooLarge,
)
from werkzeug.routing import BaseConverter, Rule

from sync_worker import store
from sync_worker.domain import Source
from sync_worker.inbox import Inbox
from sync_worker.settings import Settings
from webhooks.answers import SOAP_TYPE, Answer, Problem, refused
from webhooks.metrics import exposition
from webhooks.receive import Receiver
from webhooks.sources import Delivery, SourceReader
from webhooks.sources.geotab import GeotabReader
from webhooks.sources.hubspot import HubSpotReader
from webhooks.sources.salesforce import SalesforceReader

log = logging.getLogger(__name__)

ANY_METHOD = "*"
"""A route of any method: whether a source is there at all is told before its method (B2.4)."""

_ORIGIN = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
"""What stands before the path when a proxy writes the whole address in the request line."""

_SOAP_ENDPOINTS = tuple(f"{name}.{Source.SALESFORCE}" for name in ("hooks", "public_hooks"))

TOKEN_ROUTES = (Source.SALESFORCE, Source.GEOTAB)
"""The sources whose senders may carry their token in the path."""


class _Route(Rule):
    """A route that may take any method whatever, those that no list names included."""

    def __init__(self, *args: Any, **options: Any) -> None:
        if ANY_METHOD in (options.get("methods") or ()):
            options["methods"] = None
        super().__init__(*args, **options)


class _Token(BaseConverter):
    """All the rest of a path: a token may hold slashes, as base64 does, and they come decoded."""

    regex = ".+"
    part_isolating = False


def create_app(
    settings: Settings, *, client: redis.Redis, wake: Callable[[Iterable[str]], None]
) -> Flask:
    """Build the application for one set of settings and one store.

    `wake` is called with the mailboxes that became due; it must not block.
    """
    app = Flask(__name__, static_folder=None)
    # One byte more than is taken, so that a longer body shows itself: without a length sent,
    # the framework cuts a body off where its limit lies, and says nothing.
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes + 1
    app.url_rule_class = _Route
    app.url_map.converters["token"] = _Token
    # Either would redirect, which no sender follows.
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    inbox = Inbox.of(client, settings)
    receiver = Receiver(_readers(settings), inbox, wake)
    prefix = unquote(urlsplit(settings.public_url or "").path).rstrip("/")
    app.register_blueprint(_hooks(receiver), name="hooks")
    if prefix:
        app.register_blueprint(_hooks(receiver), name="public_hooks", url_prefix=prefix)
    app.register_blueprint(_health(client, inbox))
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected)
    return app


def _readers(settings: Settings) -> dict[Source, SourceReader]:
    kinds: dict[Source, Callable[[Settings], SourceReader]] = {
        Source.HUBSPOT: HubSpotReader,
        Source.SALESFORCE: SalesforceReader,
        Source.GEOTAB: GeotabReader,
    }
    return {source: kind(settings) for source, kind in kinds.items() if settings.serves(source)}


def _hooks(receiver: Receiver) -> Blueprint:
    hooks = Blueprint("hooks", __name__)

    def serve(source: Source, token: str | None = None) -> Response:
        # The request itself: its stand-in is looked up anew for each attribute.
        sent: Request = request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
        if token and _raw_target(sent).partition("?")[0].endswith("/"):
            token = token[:-1]  # that slash is the route's
        return _response(_deliver(receiver, source, sent, token))

    for source in Source:
        path, view = f"/webhooks/{source}", partial(serve, source)
        rules = [path, f"{path}/"]
        if source in TOKEN_ROUTES:
            rules.append(f"{path}/<token:token>")
        for rule in rules:
            hooks.add_url_rule(
                rule,
                endpoint=source,
                view_func=view,
                methods=[ANY_METHOD],
                strict_slashes=True,
                provide_automatic_options=False,
            )
    return hooks


def _deliver(receiver: Receiver, source: Source, sent: Request, token: str | None) -> Answer:
    request_id, soap = secrets.token_hex(8), _speaks_soap(sent)
    if source not in receiver.readers:
        return refused(Problem.NOT_FOUND, request_id=request_id, soap=soap)
    if sent.method != "POST":
        return refused(Problem.METHOD, request_id=request_id, soap=soap)
    try:
        body = _body(sent)
    except RequestEntityTooLarge:
        return receiver.refuse(source, Problem.TOO_LARGE, "body", request_id=request_id, soap=soap)
    return receiver.receive(source, _delivery(sent, body, token, request_id), soap=soap)


def _speaks_soap(sent: Request) -> bool:
    """Whether the sender reads SOAP: its errors are Faults (B2.10)."""
    return sent.endpoint in _SOAP_ENDPOINTS and _media_type(sent) == SOAP_TYPE


def _media_type(sent: Request) -> str:
    """Content type in lower case without its parameters, which nothing here looks at."""
    stated: str = sent.environ.get("CONTENT_TYPE", "")
    return stated.partition(";")[0].strip().lower()


def _body(sent: Request) -> bytes:
    """The whole body. Raises RequestEntityTooLarge, or ClientDisconnected if it was cut off.

    The server does not tell of a sender that vanished. A form that was cut short reads like a
    whole one, and may name another customer.
    """
    most = (sent.max_content_length or 0) - 1
    length = sent.content_length
    if length is not None and length > most:
        raise RequestEntityTooLarge
    try:
        body = sent.get_data(cache=False)
    except HTTPException:
        raise
    except Exception as error:  # each server has its own words for a body that is no body
        raise ClientDisconnected from error
    if len(body) > most:
        raise RequestEntityTooLarge
    if length is not None and len(body) != length:
        raise ClientDisconnected
    return body


def _delivery(sent: Request, body: bytes, token: str | None, request_id: str) -> Delivery:
    return Delivery(
        method=sent.method,
        target=_raw_target(sent),
        headers=_headers(sent.environ),
        body=body,
        media_type=_media_type(sent),
        path_token=token,
        now=time.time(),
        request_id=request_id,
    )


def _headers(environ: Mapping[str, Any]) -> dict[str, str]:
    """The headers by their names in lower case, straight from where the server has put them."""
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if name in environ:
            headers[name.replace("_", "-").lower()] = environ[name]
    return headers


def _raw_target(sent: Request) -> str:
    """Path and query as they stood in the request line, undecoded (B2.5)."""
    raw = sent.environ.get("RAW_URI") or sent.environ.get("REQUEST_URI")
    if raw is None:
        query = sent.query_string.decode("latin-1")
        return sent.path + (f"?{query}" if query else "")
    target = str(raw)
    return target if target.startswith("/") else _ORIGIN.sub("", target, count=1)


def _health(client: redis.Redis, inbox: Inbox) -> Blueprint:
    health = Blueprint("health", __name__)

    @health.get("/healthz")
    @health.get("/healthz/")
    def healthz() -> Response:
        return Response("ok\n", mimetype="text/plain")

    @health.get("/readyz")
    @health.get("/readyz/")
    def readyz() -> Response:
        try:
            inbox.check_writable()
        except store.StoreError as error:
            return Response(f"{error}\n", status=503, mimetype="text/plain")
        return Response("ready\n", mimetype="text/plain")

    @health.get("/metrics")
    @health.get("/metrics/")
    def metrics() -> Response:
        try:
            body, content_type = exposition(client)
        except store.StoreError as error:
            return Response(f"{error}\n", status=503, mimetype="text/plain")
        return Response(body, content_type=content_type)

    return health


def _response(answer: Answer) -> Response:
    response = Response(answer.body, status=answer.status, content_type=answer.content_type)
    response.headers.update(answer.headers)
    return response


def _http_error(error: HTTPException) -> Response:
    problem, headers = Problem.NOT_FOUND, {}
    if isinstance(error, MethodNotAllowed):
        problem, headers = Problem.METHOD, {"Allow": ", ".join(sorted(error.valid_methods or ()))}
    elif isinstance(error, ClientDisconnected):
        problem = Problem.UNDECODABLE  # nobody is left to read it
    answer = refused(problem, request_id=secrets.token_hex(8), soap=_speaks_soap(request))
    response = _response(answer)
    response.headers.update(headers)
    return response


def _unexpected(error: Exception) -> Response:
    """Whatever is wrong here, the sender still has the event: it shall send it again."""
    request_id = secrets.token_hex(8)
    log.error("a delivery failed unexpectedly [%s]", request_id, exc_info=error)
    return _response(
        refused(Problem.UNAVAILABLE, request_id=request_id, soap=_speaks_soap(request))
    )
