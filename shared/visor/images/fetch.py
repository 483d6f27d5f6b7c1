"""Downloads what an untrusted address names, within limits: picture, catalogue page or JSON document.

Every connection passes `GuardedBackend`, so nothing here can reach a private network, whatever the address, its
redirects or its name server say.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import NamedTuple

import httpcore
import httpx

from visor.errors import FetchFailed, FetchRefused, FetchUnavailable
from visor.images.addresses import host_and_port
from visor.images.body import iter_body, read_body
from visor.images.network import CONNECT_TIMEOUT_S, Deadline, GuardedBackend, Resolver, deadline_of_fetch, resolve
from visor.images.politeness import Turns
from visor.images.sniff import picture_format, what_instead
from visor.records import Record
from visor.settings import Settings

REDIRECTS_MAX = 5
PORTS = frozenset({80, 443, 8000, 8080, 8182, 8443})
"""Ports that web servers use (8182: IIIF). Others only through `allow_hosts`: Visor is no port scanner."""
SILENCE_MAX_S = 10.0
"""Longest wait for the next byte."""
TURN_TIMEOUTS = 4
"""A turn at a busy host is waited for as long as so many whole fetches may take."""
PAUSE_UNNAMED_S = 10.0
"""How long a host that says 'too many requests' without a time is left alone."""

_UNAVAILABLE = frozenset({202, 408, 421, 425, 429})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_VALIDATOR = re.compile(r"[\x20-\x7e]{1,512}\Z")

TRANSLATED: tuple[tuple[type[Exception], Callable[[str], Exception], str], ...] = (
    (httpcore.ConnectTimeout, FetchUnavailable, "does not accept connections in time"),
    (httpcore.ReadTimeout, FetchUnavailable, "does not answer in time"),
    (httpcore.WriteTimeout, FetchUnavailable, "does not take the request in time"),
    (httpcore.PoolTimeout, FetchUnavailable, "could not be asked: all connections are in use"),
    (httpcore.ConnectError, FetchUnavailable, "cannot be connected to"),
    (httpcore.NetworkError, FetchUnavailable, "broke off the connection"),
    (httpcore.RemoteProtocolError, FetchUnavailable, "does not answer in proper HTTP"),
    (httpcore.ProtocolError, FetchFailed, "cannot be asked for this address"),
    (httpcore.ConnectionNotAvailable, FetchUnavailable, "could not be asked: its connection was in use"),
    (httpcore.UnsupportedProtocol, FetchRefused, "is asked over a protocol that Visor does not speak"),
    (httpcore.ProxyError, FetchUnavailable, "is behind a proxy that failed"),
)
"""Each error of httpcore (the first that fits), what it becomes, and how the sentence goes on after the host's name."""


class Fetched(Record, frozen=True, kw_only=True):
    """What an address gave."""

    body: bytes
    """Empty if `not_modified`."""
    url: str
    """The address that answered, after redirects."""
    media_type: str = ""
    """`Content-Type` without parameters, in lower case; what the origin claims, not what the bytes are."""
    charset: str | None = None
    etag: str | None = None
    modified: str | None = None
    """`Last-Modified` as it was sent."""
    not_modified: bool = False
    """The validators that were passed still hold."""


class FetchedStream(NamedTuple):
    """What an address gives, as it comes."""

    pieces: Iterator[bytes]
    url: str
    media_type: str
    charset: str | None
    etag: str | None
    modified: str | None
    not_modified: bool


class Fetcher:
    """Fetches over one pool of connections. Thread-safe; close it, or use it in a `with`.

    Args:
        settings: Limits, user agent, `allow_hosts`.
        resolver: Where addresses of names come from.
        ssl_context: How servers prove their names; by default as httpx does it (`SSL_CERT_FILE` counts).
    """

    def __init__(
        self, settings: Settings, *, resolver: Resolver = resolve, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._settings = settings
        self._allow = frozenset(pair.lower() for pair in settings.allow_hosts)
        self._turns = Turns(settings.fetch_parallel, settings.fetch_parallel_per_host)
        self._backend = GuardedBackend(self._allow, resolver, settings.fetch_parallel)
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context() if ssl_context is None else ssl_context,
            max_connections=settings.fetch_parallel,
            keepalive_expiry=5.0,
            network_backend=self._backend,
        )

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._pool.close()
        self._backend.close()

    def fetch(
        self,
        url: str,
        *,
        etag: str | None = None,
        modified: str | None = None,
        bytes_max: int | None = None,
        deadline_s: float | None = None,
        turn_s: float | None = None,
        accept: str = "image/*",
        headers: Mapping[str, str] | None = None,
    ) -> Fetched:
        """What `url` gives, after at most `REDIRECTS_MAX` redirects. No cookies, no credentials, no proxy.

        Args:
            url: An http or https address.
            etag, modified: Validators of an earlier answer; if they still hold, the answer is `not_modified`.
            bytes_max: Limit of the body, `settings.fetch_bytes_max` by default.
            deadline_s: Time for the whole transfer with its redirects, `settings.fetch_timeout_s` by default.
            turn_s: Time to wait for a turn at a busy host, not counted in `deadline_s`; four deadlines by default.
            accept: Media types. If they are pictures, a body that is something else fails; others allow gzip.
            headers: More of them, such as an API's key. A redirect to another host does not get to see them.

        Raises:
            FetchRefused: The address, or one that it redirects to, is not fetched.
            FetchFailed: The origin said no, or what it gave is too large or no picture.
            FetchUnavailable: The origin did not answer, or wants to be asked later.
        """
        deadline = Deadline(self._settings.fetch_timeout_s if deadline_s is None else deadline_s)
        turn_s = deadline.seconds * TURN_TIMEOUTS if turn_s is None else turn_s
        bytes_max = self._settings.fetch_bytes_max if bytes_max is None else bytes_max
        address = self._checked(url)
        asked = _host(address)
        common = self._headers(accept, etag, modified)
        private = [(name.encode("ascii"), value.encode("latin-1")) for name, value in (headers or {}).items()]
        token = deadline_of_fetch.set(deadline)
        try:
            for _ in range(REDIRECTS_MAX + 1):
                with self._turns.turn(_host(address), turn_s) as waited_s:
                    deadline.extend(waited_s)
                    turn_s = max(0.0, turn_s - waited_s)
                    answer = self._ask(address, common + private * (_host(address) == asked), bytes_max)
                if isinstance(answer, Fetched):
                    return _expect(answer, accept)
                address = self._checked(answer)
        finally:
            deadline_of_fetch.reset(token)
        raise FetchRefused(
            f"The address redirects more than {REDIRECTS_MAX} times, last to {address}", remedy="Link to its end"
        )

    @contextmanager
    def stream(
        self,
        url: str,
        *,
        etag: str | None = None,
        modified: str | None = None,
        bytes_max: int,
        deadline_s: float,
        accept: str = "*/*",
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[FetchedStream]:
        """What `url` gives, piece by piece, for a body that is too large for memory. Arguments and errors as `fetch`.

        The pieces are read while the context is open; reading them raises as `fetch` does. The host's turn is held.
        """
        deadline = Deadline(deadline_s)
        address = self._checked(url)
        asked = _host(address)
        common = self._headers(accept, etag, modified)
        private = [(name.encode("ascii"), value.encode("latin-1")) for name, value in (headers or {}).items()]
        for _ in range(REDIRECTS_MAX + 1):
            with self._turns.turn(_host(address), deadline_s) as waited_s, ExitStack() as stack:
                deadline.extend(waited_s)
                try:
                    with _within(deadline):
                        response = stack.enter_context(
                            self._open(address, common + private * (_host(address) == asked))
                        )
                except tuple(kind for kind, *_ in TRANSLATED) as exc:
                    self._note_dead(address, exc)
                    raise _translated(exc, address) from exc
                self._turns.answered(_host(address))
                location = self._checked_status(address, response)
                if location is None:
                    yield self._stream_of(address, response, bytes_max, deadline)
                    return
                address = self._checked(location)
        raise FetchRefused(
            f"The address redirects more than {REDIRECTS_MAX} times, last to {address}", remedy="Link to its end"
        )

    def _headers(self, accept: str, etag: str | None, modified: str | None) -> list[tuple[bytes, bytes]]:
        coding = "identity" if accept.startswith("image/") else "gzip"
        headers = {"User-Agent": self._settings.user_agent, "Accept": accept, "Accept-Encoding": coding}
        for name, value in (("If-None-Match", etag), ("If-Modified-Since", modified)):
            # Validators come from catalogues: one that could not stand in a header is no validator.
            if value is not None and _VALIDATOR.match(value):
                headers[name] = value.strip()
        return [(name.encode(), value.encode("ascii", "replace")) for name, value in headers.items()]

    def _checked(self, text: str) -> httpx.URL:
        """The address, normalised, if its form is one that Visor fetches. Where it leads is checked on connecting."""
        try:
            url = httpx.URL(text)
            host = url.raw_host.decode("ascii").rstrip(".")
            url = url.copy_with(host=host, fragment=None)
        except (httpx.InvalidURL, UnicodeError, TypeError, ValueError) as exc:
            raise FetchRefused(f"{text[:200]!r} is no address: {exc}", valid="http://… or https://…") from exc
        shown = repr(text[:200])
        if url.scheme not in ("http", "https"):
            raise FetchRefused(f"{shown} has the scheme {url.scheme[:40]!r}", valid="http and https are fetched")
        if not host or "%" in host:
            raise FetchRefused(
                f"{shown} names no host that can be fetched from", valid="http://host/… or https://host/…"
            )
        if url.userinfo:
            raise FetchRefused(
                f"The address on {host} carries a user name or password",
                valid="Addresses without 'user:password@' are fetched",
                remedy="Remove that part; what needs a password cannot be shown to others",
            )
        if _port(url) not in PORTS and _host(url) not in self._allow:
            raise FetchRefused(
                f"{shown} has the port {_port(url)}",
                valid="Fetched are the ports " + ", ".join(str(port) for port in sorted(PORTS)),
                remedy=f"If this is a server that you trust, name it in VISOR_ALLOW_HOSTS as {_host(url)}",
            )
        return url

    def _ask(self, url: httpx.URL, headers: list[tuple[bytes, bytes]], bytes_max: int) -> Fetched | str:
        """One request: what it gave, or the address that it redirects to."""
        try:
            with self._open(url, headers) as response:
                self._turns.answered(_host(url))
                return self._read(url, response, bytes_max)
        except tuple(kind for kind, *_ in TRANSLATED) as exc:
            self._note_dead(url, exc)
            raise _translated(exc, url) from exc

    def _note_dead(self, url: httpx.URL, exc: Exception) -> None:
        if isinstance(exc, httpcore.ConnectError | httpcore.ConnectTimeout):
            self._turns.failed(_host(url))

    def _open(self, url: httpx.URL, headers: list[tuple[bytes, bytes]]) -> AbstractContextManager[httpcore.Response]:
        return self._pool.stream(
            b"GET",
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=[(b"Host", url.netloc), *headers],
            extensions={
                "timeout": {
                    "connect": CONNECT_TIMEOUT_S,
                    "read": SILENCE_MAX_S,
                    "write": SILENCE_MAX_S,
                    "pool": SILENCE_MAX_S,
                }
            },
        )

    def _checked_status(self, url: httpx.URL, response: httpcore.Response) -> str | None:
        """The address that the answer redirects to; None if it is to be read."""
        fields = httpx.Headers(response.headers)
        if response.status in _REDIRECTS:
            if "location" not in fields:
                raise FetchFailed(f"{url.host} redirects ({response.status}) without saying where to")
            return str(_joined(url, fields["location"]))
        if response.status not in (200, 203, 304):
            raise self._rejection(url, response.status, fields)
        return None

    def _read(self, url: httpx.URL, response: httpcore.Response, bytes_max: int) -> Fetched | str:
        location = self._checked_status(url, response)
        if location is not None:
            return location
        fields = httpx.Headers(response.headers)
        body = b""
        if response.status != 304:
            body = read_body(
                response.iter_stream(),
                coding=fields.get("content-encoding", ""),
                length=fields.get("content-length"),
                bytes_max=bytes_max,
            )
        media_type, charset = _content_type(fields)
        return Fetched(
            body=body,
            url=str(url),
            media_type=media_type,
            charset=charset,
            etag=fields.get("etag"),
            modified=fields.get("last-modified"),
            not_modified=response.status == 304,
        )

    def _stream_of(
        self, url: httpx.URL, response: httpcore.Response, bytes_max: int, deadline: Deadline
    ) -> FetchedStream:
        fields = httpx.Headers(response.headers)
        media_type, charset = _content_type(fields)

        def pieces() -> Iterator[bytes]:
            if response.status == 304:
                return
            body = iter_body(
                response.iter_stream(),
                coding=fields.get("content-encoding", ""),
                length=fields.get("content-length"),
                bytes_max=bytes_max,
            )
            while True:
                try:
                    # The deadline is this thread's only while it reads: between two pieces others may fetch.
                    with _within(deadline):
                        piece = next(body, None)
                except tuple(kind for kind, *_ in TRANSLATED) as exc:
                    raise _translated(exc, url) from exc
                if piece is None:
                    return
                yield piece

        return FetchedStream(
            pieces=pieces(),
            url=str(url),
            media_type=media_type,
            charset=charset,
            etag=fields.get("etag"),
            modified=fields.get("last-modified"),
            not_modified=response.status == 304,
        )

    def _rejection(self, url: httpx.URL, status: int, fields: httpx.Headers) -> Exception:
        if status < 500 and status not in _UNAVAILABLE:
            return FetchFailed(
                f"{url.host} answered {status} for {url.raw_path.decode('ascii', 'replace')[:200]!r}",
                valid="200 is an answer to read",
                remedy="Check that the address opens in a browser without signing in",
                status=status,
            )
        wait_s = retry_after_s(fields.get("retry-after"))
        if status == 429 or (status == 503 and wait_s is not None):
            self._turns.pause(_host(url), PAUSE_UNNAMED_S if wait_s is None else wait_s)
        return FetchUnavailable(f"{url.host} answered {status} for now", remedy="Try again later", retry_after_s=wait_s)


def retry_after_s(text: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a `Retry-After` header asks for (a number or an HTTP date; RFC 9110, 10.2.3); none if unreadable."""
    if text is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}\s*", text):
        return float(text)
    try:
        then = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(0.0, (then - (now or datetime.now(UTC))).total_seconds())


def _expect(fetched: Fetched, accept: str) -> Fetched:
    """What was fetched, unless a picture was asked for and it is plainly something else."""
    if not accept.startswith("image/") or fetched.not_modified or picture_format(fetched.body):
        return fetched
    if not fetched.body:
        raise FetchFailed("The address gave an empty answer", valid="A picture", remedy="Correct the address")
    other = what_instead(fetched.body)
    claims_text = fetched.media_type.startswith("text/") or fetched.media_type == "application/json"
    if other in ("HTML", "JSON", "XML") or (other is None and claims_text):
        raise FetchFailed(
            f"The address gave {other or fetched.media_type}, not a picture",
            valid="The address of the picture itself",
            remedy="Open the page and copy the address of its picture, not of the page",
        )
    return fetched


@contextmanager
def _within(deadline: Deadline) -> Iterator[None]:
    token = deadline_of_fetch.set(deadline)
    try:
        yield
    finally:
        deadline_of_fetch.reset(token)


def _content_type(fields: httpx.Headers) -> tuple[str, str | None]:
    """Media type and charset that the origin claims."""
    media_type, _, parameters = fields.get("content-type", "").partition(";")
    charset = re.search(r"charset\s*=\s*\"?([\w.:-]+)", parameters, re.IGNORECASE)
    return media_type.strip().lower(), charset[1].lower() if charset else None


def _translated(exc: Exception, url: httpx.URL) -> Exception:
    if isinstance(exc, httpcore.ConnectError) and "CERTIFICATE_VERIFY_FAILED" in str(exc):
        return FetchFailed(f"{url.host} cannot prove its name: {exc}", remedy="Its owner has to renew its certificate")
    make, ending = next((make, ending) for kind, make, ending in TRANSLATED if isinstance(exc, kind))
    return make(f"{url.host} {ending} ({type(exc).__name__}: {exc})")


def _joined(url: httpx.URL, location: str) -> httpx.URL:
    try:
        return url.join(location)
    except (httpx.InvalidURL, UnicodeError, ValueError) as exc:
        raise FetchFailed(f"{url.host} redirects to {location[:200]!r}, which is no address: {exc}") from exc


def _port(url: httpx.URL) -> int:
    return url.port or {"http": 80, "https": 443}[url.scheme]


def _host(url: httpx.URL) -> str:
    return host_and_port(url.raw_host.decode("ascii"), _port(url))
