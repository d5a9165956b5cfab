"""Log lines and Sentry events that carry ids and outcomes only (B10.4).

The rule is kept where a line is written: nothing passes a secret, an e-mail address or a body to
a logger. What stands here is the last line of defence, for texts that others made (an exception
of a library, an access log): webhook tokens, credentials and e-mail addresses are masked in all
of them.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, quote_plus

import sentry_sdk
from pydantic import SecretStr
from sentry_sdk.integrations.argv import ArgvIntegration

from sync_worker import __version__
from sync_worker.settings import Settings

if TYPE_CHECKING:
    from sentry_sdk.transport import Transport
    from sentry_sdk.types import Breadcrumb, BreadcrumbHint, Event, Hint

log = logging.getLogger(__name__)

MASK = "***"

LONGEST_TEXT = 64 * 1024
"""Characters of a text that are masked; what comes after them is dropped, not left as it is."""

LONGEST_LINE = 16 * 1024
"""Characters of one log line; a longer one is cut, after it was masked."""

SHORTEST_SECRET = 6
"""A shorter secret is not looked for by its value: it would blot out ordinary words."""

MOST_DEPTH = 50
"""Levels of a Sentry event that are walked; what lies deeper is dropped, not sent unmasked."""


def _spelled(word: str) -> str:
    """Match a word however a URL may spell it: any letter percent-encoded, even twice over."""
    return "".join(f"(?:{re.escape(char)}|%(?:25)*{ord(char):02x})" for char in word)


_SLASH = r"(?:\\?/|%(?:25)*2f)"
_WEBHOOK_TOKEN = re.compile(
    rf"({_spelled('webhooks')}{_SLASH}+(?:{_spelled('geotab')}|{_spelled('salesforce')}){_SLASH}+)"
    r"[^\s?#\"'<>\\]+",
    re.IGNORECASE,
)
_CREDENTIALS_IN_URL = re.compile(r"(://)[^/\s\"'<>@]*(?:@[^/\s\"'<>@]*)*@")
_AUTHORIZATION = re.compile(r"\b(Basic|Bearer|OAuth)(\s+|%20|\+)[\w.~+/=!-]{6,}", re.IGNORECASE)
_TELLING = r"token|secret|passw(?:or)?d|api[_-]?key|authorization|cookie|session[_-]?id"
_FIELD = re.compile(rf"((?:{_TELLING})[\"']?\s*(?:=|:|%3d)\s*[\"']?)[^\s&\"'<>,;]+", re.IGNORECASE)
_SECRET_KEY = re.compile(rf"{_TELLING}|e-?mail", re.IGNORECASE)
_EMAIL = re.compile(
    r"(?:\"[^\"\n]{1,64}\"|[\w.!#$%+^`{|}~-][\w.!#$%'+^`{|}~-]{0,127})(?:@|%(?:25)*40)"
    r"[\w-]+(?:\.[\w-]+)+",
    re.IGNORECASE,
)
_QUERY = re.compile(r"((?:https?://|\s/)[^\s?\"'<>]*)\?[^\s\"'<>)]*")

_secrets: re.Pattern[str] | None = None


def know_secrets(secrets: Iterable[str]) -> None:
    """Mask these very values too, wherever they turn up; replaces the ones known before."""
    global _secrets  # noqa: PLW0603 - like the logging set-up, one a process
    spellings = {
        spelling
        for secret in secrets
        if len(secret) >= SHORTEST_SECRET
        for spelling in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret))
    }
    longest_first = sorted(spellings, key=lambda spelling: (-len(spelling), spelling))
    _secrets = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def mask(text: str) -> str:
    """Mask webhook tokens, credentials, known secrets and e-mail addresses in a text."""
    if len(text) > LONGEST_TEXT:
        text = f"{text[:LONGEST_TEXT]}…"
    if _secrets is not None:
        text = _secrets.sub(MASK, text)
    text = _WEBHOOK_TOKEN.sub(rf"\1{MASK}", text)
    text = _AUTHORIZATION.sub(rf"\1 {MASK}", text)
    text = _FIELD.sub(rf"\1{MASK}", text)
    if "@" in text or "40" in text:
        text = _CREDENTIALS_IN_URL.sub(rf"\1{MASK}@", text)
        text = _EMAIL.sub(f"{MASK}@{MASK}", text)
    return text


_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "data"}
"""What every record has; and `data`, in which Celery repeats the arguments of a task."""


class LineFormatter(logging.Formatter):
    """One line a record: `time level logger message key=value…`, masked.

    The keys are those of the record's `extra`. A value with blanks or quotes is written as JSON,
    and so is the traceback, so that a record is one line whatever it holds.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record's line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        parts = [
            f"{moment}.{int(record.msecs):03d}Z",
            record.levelname,
            record.name,
            *mask(self._message(record)).splitlines(),
            *(
                f"{key}={MASK if _SECRET_KEY.search(key) else _value(value)}"
                for key, value in vars(record).items()
                if key not in _USUAL
            ),
        ]
        if record.exc_info and record.exc_info[0] is not None:
            parts.append(f"exception={_value(self.formatException(record.exc_info))}")
        if record.stack_info:
            parts.append(f"stack={_value(record.stack_info)}")
        line = " ".join(part for part in parts if part)
        return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…"

    @staticmethod
    def _message(record: logging.LogRecord) -> str:
        try:
            return record.getMessage()
        except Exception as error:  # noqa: BLE001 - a broken log call must still leave a line
            return f"{record.msg} [{type(error).__name__} in this log call]"


def _value(value: object) -> str:
    text = mask(str(value))
    return text if re.fullmatch(r"[^\s\"=]+", text) else json.dumps(text, ensure_ascii=False)


def secrets_of(settings: Settings) -> Iterator[str]:
    """Every secret of the settings, for `configure`."""
    for name, value in settings:
        if name != "redis_url":  # an address: of it only the password is masked, by its place
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, SecretStr):
                    yield item.get_secret_value()


def start(settings: Settings) -> None:
    """Log and report errors as the settings say, in a process that does the work."""
    configure(settings.log_level, secrets=secrets_of(settings))
    dsn = settings.sentry_dsn
    start_sentry(dsn.get_secret_value() if dsn else None)


def configure(level: str, *, secrets: Iterable[str] = ()) -> None:
    """Log to stderr from this level on, uncaught exceptions too; mask these secrets.

    Handlers that others put on the root logger stay: tests read records with one.
    """
    know_secrets(secrets)
    root = logging.getLogger()
    for handler in [*root.handlers]:
        if isinstance(handler.formatter, LineFormatter):
            root.removeHandler(handler)
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    root.addHandler(handler)
    root.setLevel(level)
    logging.getLogger("urllib3").setLevel(logging.INFO)
    logging.raiseExceptions = False  # else a record that cannot be written is printed unmasked
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    log.critical("uncaught exception", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def start_sentry(
    dsn: str | None,
    release: str = f"sync-worker@{__version__}",
    *,
    transport: Transport | None = None,
) -> None:
    """Report errors to Sentry; without a DSN do nothing.

    A failure in the masking drops the event: better no report than a leak. Sending personal
    data is off unless asked for; asking for it to be off is deprecated in newer SDKs.
    """
    if not dsn:
        return
    sentry_sdk.init(
        dsn=dsn,
        release=release,
        transport=transport,
        max_request_body_size="never",
        include_local_variables=False,
        include_source_context=False,
        traces_sample_rate=None,
        trace_propagation_targets=[],  # no tracing headers on calls to Fusebill and the CRMs
        auto_session_tracking=False,
        send_client_reports=False,
        server_name="",
        disabled_integrations=[ArgvIntegration],  # `send` may get a secret on its command line
        before_send=_clean_event,
        before_send_transaction=_clean_event,
        before_breadcrumb=_clean_breadcrumb,
    )


_NEVER_SENT = {
    *("vars", "pre_context", "context_line", "post_context"),
    *("headers", "cookies", "query_string", "env", "body", "http.query", "http.fragment"),
    *("user", "server_name", "sys.argv"),
}
"""Keys that are dropped wherever in an event they stand."""


def _clean_event(event: Event, hint: Hint) -> Event | None:
    hint.pop("attachments", None)
    clean: dict[str, Any] = _cleaned(dict(event))
    if "release" in event:
        clean["release"] = event["release"]  # name@version, which looks like an address
    request = clean.pop("request", None)
    if isinstance(request, dict):
        url = str(request.get("url") or "")
        clean["request"] = {
            "method": request.get("method"),
            "url": re.split(r"[?#]", url, maxsplit=1)[0],
        }
    return cast("Event", clean)


def _clean_breadcrumb(crumb: Breadcrumb, hint: BreadcrumbHint) -> Breadcrumb | None:
    del hint
    return cast("Breadcrumb", _cleaned(dict(crumb)))


def _cleaned(value: Any, depth: int = 0) -> Any:
    """Mask every string in a structure; drop what is never sent, and raw bytes."""
    if isinstance(value, str):
        return _QUERY.sub(r"\1", mask(value))
    if value is None or isinstance(value, (bool, int, float, datetime)):
        return value
    if depth >= MOST_DEPTH or isinstance(value, (bytes, bytearray, memoryview)):
        return MASK
    if isinstance(value, Mapping):
        return {
            _cleaned(str(key)): MASK if _SECRET_KEY.search(str(key)) else _cleaned(item, depth + 1)
            for key, item in value.items()
            if key not in _NEVER_SENT
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_cleaned(item, depth + 1) for item in value]
    return _cleaned(str(value))
