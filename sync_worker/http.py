"""Carries one call to another system and brings back what came of it, in bounded time and memory.

Nothing here retries, follows a redirect, keeps a cookie or judges an answer: a write that may
have been carried out must be looked at before it is made again (B5.3).
"""

from __future__ import annotations

import http.client
import io
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import msgspec
import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests.hooks import default_hooks
from requests.structures import CaseInsensitiveDict

from sync_worker import __version__
from sync_worker.crew import AT_ONCE
from sync_worker.settings import CONNECT_TIMEOUT_SECONDS

USER_AGENT = f"sync-worker/{__version__}"
"""Names the product and its version to the vendor (B7.5)."""

POOL_CONNECTIONS = AT_ONCE
"""Connections kept alive to one system: as many as one process has threads that make calls."""

MAX_ANSWER_BYTES = 2 * 1024 * 1024
"""Far more than one record with the history of a property takes."""

SENDABLE = re.compile(r"[!-~]+")
"""Credentials that can stand in a header."""

FAILURES = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
)
"""All that a call can raise. To be told in words of ours (`Connections.fault`), never carried on:
these exceptions hold the request, and with it the credentials."""

_PLAIN = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*")
"""An address that goes over the wire as it is."""

_CHUNK_BYTES = 64 * 1024

_CONNECT_TIMEOUTS = (
    requests.exceptions.ConnectTimeout,
    urllib3.exceptions.ConnectTimeoutError,
)

_NEVER_SENT = (
    *_CONNECT_TIMEOUTS,
    requests.exceptions.ProxyError,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    urllib3.exceptions.LocationValueError,
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ProxyError,
    ssl.SSLCertVerificationError,
)
"""Failures before the request could leave: name not resolved, connection refused or timed out
(also that to a proxy), certificate not trusted, an address nobody can call."""


class HttpAnswer(msgspec.Struct, frozen=True):
    """What came back for a call: whole, broken or not at all."""

    status: int | None = None
    """HTTP status; None if no answer began."""
    body: bytes = b""
    headers: Mapping[str, str] = {}
    """By lower-case name."""
    fault: str | None = None
    """Why no whole answer came, in a few words without secrets; None if one did."""
    sent: bool = True
    """False only if it is certain that the request never left: no connection was made."""

    def __repr__(self) -> str:
        # Bodies are people's data, headers may hold session ids, and tracebacks show locals.
        return f"HttpAnswer(status={self.status}, {len(self.body)} bytes, fault={self.fault!r})"


class Connections:
    """The connections to one system.

    `auth` puts the credentials into each request; None if they are part of the bodies. As
    `auth` of a session, and not as a header of it, they are out of what reprs and tracebacks
    show of a session. `read_timeout` is in seconds. `max_bytes` is the longest answer that is
    taken.

    May be shared by threads. Make one per process, after a fork: two processes on one
    connection would read each other's answers.
    """

    def __init__(
        self,
        *,
        auth: AuthBase | None,
        read_timeout: float = 30,
        max_bytes: int = MAX_ANSWER_BYTES,
        user_agent: str = USER_AGENT,
    ) -> None:
        self._read_timeout = read_timeout
        self._max_bytes = max_bytes
        self._auth = auth or _NoAuth()
        self._adapter = _Adapter(read_timeout, max_bytes)
        self.session = _session(self._auth, self._adapter, user_agent)
        """For a library that makes the calls itself; they are bounded as those of `exchange`."""
        self._headers = {name: str(value) for name, value in self.session.headers.items()}
        self._ways: dict[str, Any] = {}

    def close(self) -> None:
        """Close all connections."""
        self.session.close()

    def exchange(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        content_type: str | None = None,
        max_bytes: int | None = None,
    ) -> HttpAnswer:
        """Make one call. Raises none of `FAILURES`: what failed is in the answer's `fault`.

        `max_bytes` takes the place of that of the connections for this call.

        A silence of `read_timeout` ends the call, and so does a body that trickles on beyond
        `CONNECT_TIMEOUT_SECONDS` + `read_timeout`, so that a call does not outlive its lease
        (B5.3). Not bounded here: resolving the host's name, each further address of a host
        that does not answer, and headers that trickle.
        """
        deadline = _deadline(self._read_timeout)
        longest = self._max_bytes if max_bytes is None else max_bytes
        begun = HttpAnswer()
        try:
            request = self._prepared(method, url, body, content_type)
            with self._adapter.ask(request, **self._ways_to(request.url or url)) as response:
                headers = {name.lower(): value for name, value in response.headers.itermerged()}
                begun = HttpAnswer(response.status, headers=headers)
                read = _read(response, longest, deadline, self._read_timeout)
        except FAILURES as error:
            sent = not _any(error, *_NEVER_SENT)
            return msgspec.structs.replace(begun, fault=self.fault(error), sent=sent)
        return msgspec.structs.replace(begun, body=read)

    def _prepared(
        self, method: str, url: str, body: bytes | None, content_type: str | None
    ) -> requests.PreparedRequest:
        """The request, put together by hand where there is nothing to quote."""
        headers = {} if content_type is None else {"Content-Type": content_type}
        if not _PLAIN.fullmatch(url):
            request = requests.Request(method, url, headers=headers, data=body)
            return self.session.prepare_request(request)
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url, prepared.body = method, url, body
        prepared.headers = CaseInsensitiveDict({**self._headers, **headers})
        if body is not None or method != "GET":
            prepared.headers["Content-Length"] = str(len(body or b""))
        prepared.hooks = default_hooks()
        return self._auth(prepared)

    def _ways_to(self, url: str) -> Any:
        """Proxies and certificates, as the environment names them for the host."""
        host = url.partition("//")[2].partition("/")[0]
        if host not in self._ways:
            ways = self.session.merge_environment_settings(
                url, proxies={}, stream=None, verify=None, cert=None
            )
            self._ways[host] = {name: ways[name] for name in ("verify", "cert", "proxies")}
        return self._ways[host]

    def fault(self, error: BaseException) -> str:
        """One of `FAILURES` in a few words, without secrets."""
        if isinstance(error, _TooLong):
            return str(error)
        if _any(error, requests.exceptions.ProxyError, urllib3.exceptions.ProxyError):
            return "no connection through the proxy that the environment names"
        # A connection that is refused counts among the time-outs of urllib3.
        refused = _any(error, urllib3.exceptions.NewConnectionError)
        if not refused and _any(error, *_CONNECT_TIMEOUTS):
            return f"no connection within {CONNECT_TIMEOUT_SECONDS} s"
        if _any(error, requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError):
            return f"no whole answer within {self._read_timeout:g} s"
        if _any(error, ssl.SSLCertVerificationError):
            return "no connection: its certificate is not trusted"
        broke = "no connection" if _any(error, *_NEVER_SENT) else "the connection broke"
        return f"{broke} ({_root(error)})"


class _NoAuth(AuthBase):
    """Adds nothing; that there is one keeps requests from looking into `.netrc`."""

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        return r


class _TooLong(requests.RequestException):
    """An answer is longer than is taken."""


class _Session(requests.Session):
    """A session that sees no redirects.

    `allow_redirects=False` alone still reads a redirect's whole body and parses its Location
    to prepare the next request, and both can fail or take for ever.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:
        """No answer leads anywhere."""


class _Adapter(HTTPAdapter):
    """Bounds every call, also those of libraries that set no time-outs and let requests read
    whatever comes.

    Raises, as does what it gives, what requests or urllib3 raise.
    """

    def __init__(self, read_timeout: float, max_bytes: int) -> None:
        super().__init__(pool_connections=1, pool_maxsize=POOL_CONNECTIONS, max_retries=0)
        self._read_timeout = read_timeout
        self._max_bytes = max_bytes
        self._timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_SECONDS, read=read_timeout)

    def ask(
        self,
        request: requests.PreparedRequest,
        *,
        verify: bool | str,
        cert: str | tuple[str, str] | None,
        proxies: dict[str, str],
    ) -> urllib3.BaseHTTPResponse:
        """Send a request over the connections that requests keeps, and without all that it does
        beside: that takes as long again. The body is still to be read.
        """
        pool: Any = self.get_connection_with_tls_context(
            request, verify, proxies=proxies, cert=cert
        )
        self.cert_verify(pool, str(request.url), verify, cert)  # type: ignore[no-untyped-call]
        answer: urllib3.BaseHTTPResponse = pool.urlopen(
            str(request.method),
            self.request_url(request, proxies),
            request.body,
            request.headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            timeout=self._timeout,
            preload_content=False,
            decode_content=False,
        )
        return answer

    def send(
        self, request: requests.PreparedRequest, *args: Any, **options: Any
    ) -> requests.Response:
        """Send a request; unless the caller is to read the answer (`stream`), read it in full."""
        deadline = _deadline(self._read_timeout)
        streamed = options.get("stream", False)
        options |= {"stream": True, "timeout": (CONNECT_TIMEOUT_SECONDS, self._read_timeout)}
        response = super().send(request, *args, **options)
        if streamed:
            return response
        with response:
            body = _read(response.raw, self._max_bytes, deadline, self._read_timeout)
        # What requests reads from now on is at hand.
        response.raw = urllib3.HTTPResponse(io.BytesIO(body), preload_content=False)
        return response


def _session(auth: AuthBase, adapter: HTTPAdapter, user_agent: str) -> requests.Session:
    session = _Session()
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    # The environment is trusted: HTTPS_PROXY, NO_PROXY and REQUESTS_CA_BUNDLE are how a host
    # without direct access to the internet is set up. `.netrc`, the third thing that this
    # switches on, is kept out by `auth`.
    session.trust_env = True
    session.auth = auth
    # A cookie that a balancer or log-in page sets must not tie one call to another.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.clear()
    session.headers.update(
        {
            "User-Agent": user_agent,
            "Accept": "application/json",
            # A few KB gain little from compression, and what is not compressed cannot burst.
            "Accept-Encoding": "identity",
            "Connection": "keep-alive",
        }
    )
    return session


def _deadline(read_timeout: float) -> float:
    """When a call that begins now is given up, by the monotonic clock."""
    return time.monotonic() + CONNECT_TIMEOUT_SECONDS + read_timeout


def _read(
    response: urllib3.BaseHTTPResponse, longest: int, deadline: float, read_timeout: float
) -> bytes:
    """The body. Raises one of `FAILURES` if it is longer than `longest` bytes, or does not come
    whole.
    """
    body = bytearray()
    while len(body) <= longest:
        _limit_wait(response, deadline, read_timeout)
        # `read1` gives what is there. `iter_content` waits until its chunk is full, for which
        # a server that sends a byte now and then has for ever.
        chunk = response.read1(_CHUNK_BYTES, decode_content=True)
        if not chunk:
            return bytes(body)
        body += chunk
    raise _TooLong(f"the answer is longer than {longest} bytes")


def _limit_wait(response: urllib3.BaseHTTPResponse, deadline: float, read_timeout: float) -> None:
    """Let the next read wait for `read_timeout`, but not beyond the deadline.

    Raises ReadTimeout once that has passed.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise requests.exceptions.ReadTimeout
    # No socket is at hand when the server said it will close, and none any more when the body
    # is complete; the time-out set before the call holds then.
    sock = getattr(response.connection, "sock", None)
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
