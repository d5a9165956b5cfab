"""Carries one call to Fusebill and brings back what came of it, in bounded time and memory.

Nothing here retries, follows a redirect or judges an answer: a write that may have been
carried out must be looked at before it is made again (B5.3).
"""

from __future__ import annotations

import base64
import binascii
import http.client
import re
import ssl
import time
from collections.abc import Iterator
from http.cookiejar import DefaultCookiePolicy

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from sync_worker.fusebill.answers import Answer, Call
from sync_worker.fusebill.limits import RateLimits, read_limits
from sync_worker.settings import CONNECT_TIMEOUT_SECONDS

POOL_CONNECTIONS = 10
"""Connections kept alive to Fusebill: more than the threads that one process works with."""

MAX_ANSWER_BYTES = 1024 * 1024
"""A customer takes about 2 KB: whatever is this long is broken, and must not fill memory."""

_CHUNK_BYTES = 64 * 1024

_NEVER_SENT = (
    requests.exceptions.ConnectTimeout,
    requests.exceptions.ProxyError,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    urllib3.exceptions.NewConnectionError,
    ssl.SSLCertVerificationError,
)
"""Failures before the request could leave: name not resolved, connection refused or timed out
(also that to a proxy), certificate not trusted, an address nobody can call."""


class ApiKey(AuthBase):
    """The key, as Fusebill shows it: it is base64 already and is sent as given (B7.5).

    As `auth` of a session, and not as a header of it, it is out of what reprs and tracebacks
    show of a session, and keeps requests from putting a `.netrc` entry in its place.
    Raises ValueError, without the key, if it cannot stand in a header.
    """

    def __init__(self, key: str) -> None:
        if not re.fullmatch(r"[!-~]+", key):
            raise ValueError(
                "the Fusebill API key is empty or holds spaces or other characters that cannot "
                "be sent: give the key alone, as Fusebill shows it, without `Basic`"
            )
        self._key = key
        self._hidden = sorted({key, *_parts(key)}, key=len, reverse=True)

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put the key into a request that is about to be sent."""
        r.headers["Authorization"] = f"Basic {self._key}"
        return r

    def __repr__(self) -> str:
        return "ApiKey(…)"

    def hide(self, text: str) -> str:
        """The text without the key, also where it is quoted in its decoded form."""
        for part in self._hidden:
            text = text.replace(part, "[key]")
        return text


def _parts(key: str) -> set[str]:
    """What the key decodes to: `0:` and 64 characters (vendor page 'Authentication')."""
    try:
        decoded = base64.b64decode(key, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return set()
    # Shorter parts would be found, and hidden, in many a word.
    return {part for part in (decoded, decoded.partition(":")[2]) if len(part) >= 8}


class _Session(requests.Session):
    """A session that sees no redirects.

    `allow_redirects=False` alone still reads a redirect's whole body and parses its Location
    to prepare the next request, and both can fail or take for ever.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:
        """No answer leads anywhere."""


class Transport:
    """The connections to Fusebill.

    May be shared by threads. Make one per process, after a fork: two processes on one
    connection would read each other's answers.
    """

    def __init__(self, base_url: str, key: ApiKey, *, read_timeout: float, user_agent: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._read_timeout = read_timeout
        self._session = _session(key, user_agent)

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def exchange(self, call: Call) -> Answer:
        """Make one call. Raises nothing of requests: what failed is in the answer's `fault`.

        A silence of `read_timeout` ends the call, and so does a body that trickles on beyond
        `CONNECT_TIMEOUT_SECONDS` + `read_timeout`, so that a call does not outlive its lease
        (B5.3). Not bounded here: resolving the host's name, each further address of a host
        that does not answer, and headers that trickle.
        """
        deadline = time.monotonic() + CONNECT_TIMEOUT_SECONDS + self._read_timeout
        status, limits = None, RateLimits()
        try:
            with self._session.request(
                call.method,
                self._base_url + call.path,
                data=call.body,
                headers={"Content-Type": "application/json"} if call.writes else None,
                timeout=(CONNECT_TIMEOUT_SECONDS, self._read_timeout),
                allow_redirects=False,
                stream=True,
            ) as response:
                status, limits = response.status_code, read_limits(response.headers)
                body = _read(response, deadline, self._read_timeout)
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            http.client.HTTPException,
            OSError,
        ) as error:
            # Told in words of ours, not carried on: these exceptions hold the request, and
            # with it the key.
            sent = not _any(error, *_NEVER_SENT)
            fault = self._fault(error, sent=sent)
            return Answer(status, limits=limits, fault=fault, sent=sent)
        if body is None:
            fault = f"the answer is longer than {MAX_ANSWER_BYTES} bytes"
            return Answer(status, limits=limits, fault=fault)
        return Answer(status, body, limits)

    def _fault(self, error: BaseException, *, sent: bool) -> str:
        if _any(error, requests.exceptions.ConnectTimeout):
            return f"no connection within {CONNECT_TIMEOUT_SECONDS} s"
        if _any(error, requests.exceptions.ProxyError):
            return "no connection through the proxy that the environment names"
        if _any(error, requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError):
            return f"no whole answer within {self._read_timeout:g} s"
        if _any(error, ssl.SSLCertVerificationError):
            return "no connection: its certificate is not trusted"
        return f"{'the connection broke' if sent else 'no connection'} ({_root(error)})"


def _session(key: ApiKey, user_agent: str) -> _Session:
    session = _Session()
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=POOL_CONNECTIONS, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    # The environment is trusted: HTTPS_PROXY, NO_PROXY and REQUESTS_CA_BUNDLE are how a host
    # without direct access to the internet is set up. `.netrc`, the third thing that this
    # switches on, is kept out by `auth`.
    session.trust_env = True
    session.auth = key
    # A cookie that a balancer or log-in page sets must not tie one call to another.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.clear()
    session.headers.update(
        {
            "User-Agent": user_agent,
            "Accept": "application/json",
            # 2 KB gain little from compression, and what is not compressed cannot burst.
            "Accept-Encoding": "identity",
            "Connection": "keep-alive",
        }
    )
    return session


def _read(response: requests.Response, deadline: float, read_timeout: float) -> bytes | None:
    """The body; None if it is longer than `MAX_ANSWER_BYTES`.

    Raises what requests, urllib3 and the socket raise when it does not come whole.
    """
    body = bytearray()
    while len(body) <= MAX_ANSWER_BYTES:
        _limit_wait(response, deadline, read_timeout)
        # `read1` gives what is there. `iter_content` waits until its chunk is full, for which
        # a server that sends a byte now and then has for ever.
        chunk = response.raw.read1(_CHUNK_BYTES, decode_content=True)
        if not chunk:
            return bytes(body)
        body += chunk
    return None


def _limit_wait(response: requests.Response, deadline: float, read_timeout: float) -> None:
    """Let the next read wait for `read_timeout`, but not beyond the deadline.

    Raises ReadTimeout once that has passed.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise requests.exceptions.ReadTimeout
    # No socket is at hand when the server said it will close, and none any more when the body
    # is complete; the time-out set before the call holds then.
    sock = getattr(response.raw.connection, "sock", None)
    if sock is not None:
        sock.settimeout(min(left, read_timeout))


def _any(error: BaseException, *types: type[BaseException]) -> bool:
    return any(isinstance(link, types) for link in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and what brought it about, outermost first.

    By `__cause__` and by the exceptions that requests and urllib3 wrap as arguments. Not by
    `__context__`: that leads on into whatever exception our caller is handling.
    """
    link: BaseException | None = error
    while link is not None:
        yield link
        wrapped = (arg for arg in link.args if isinstance(arg, BaseException))
        link = link.__cause__ or next(wrapped, None)


def _root(error: BaseException) -> str:
    """The innermost cause, as the operating system words it, else by its type.

    No exception's own text: some quote the request.
    """
    root = list(_chain(error))[-1]
    return str(getattr(root, "strerror", None) or type(root).__name__)
