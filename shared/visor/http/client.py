"""Downloads what an untrusted address names, within limits: picture, catalogue page or JSON document.

Every connection passes `GuardedBackend`, so nothing here can reach a private network, whatever the address, its
redirects or its name server say.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import NamedTuple

import httpcore
import httpx

from visor.errors import FetchFailed, FetchRefused, FetchUnavailable
from visor.http.limited_body import iter_body, read_body
from visor.http.response import (
    TRANSLATED,
    Fetched,
    FetchedStream,
    Probed,
    content_type,
    expect,
    rejection,
    translated,
)
from visor.http.ssrf_guard import CONNECT_TIMEOUT_S, Deadline, GuardedBackend, Resolver, deadline_of_fetch, resolve
from visor.http.throttle import Turns
from visor.http.url_policy import checked, host_of, joined
from visor.settings import Settings

REDIRECTS_MAX = 5
SILENCE_MAX_S = 10.0
"""Longest wait for the next byte."""
TURN_TIMEOUTS = 4
"""A turn at a busy host is waited for as long as so many whole fetches may take."""
PAUSE_UNNAMED_S = 10.0
"""How long a host that says 'too many requests' without a time is left alone."""
PROBE_BYTES = 4096
"""What a probe of a picture asks for: enough to tell its format."""

_OK = frozenset({200, 203, 304})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LASTING = frozenset({301, 308})
_VALIDATOR = re.compile(r"[\x20-\x7e]{1,512}\Z")
_FOREIGN = tuple(kind for kind, *_ in TRANSLATED)
Headers = list[tuple[bytes, bytes]]


class _Answer(NamedTuple):
    """An answer that is no redirect."""

    address: httpx.URL
    response: httpcore.Response
    lasting: httpx.URL
    """Where redirects that are meant to last lead: the address to ask for from now on."""


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
        self._turns = Turns(
            settings.fetch_parallel, max(1, settings.fetch_parallel_per_host // max(1, settings.fetch_instances))
        )
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
        common = self._headers(accept, etag, modified)
        with self._answered(url, common, headers, deadline, turn_s) as answer:
            fields, body = httpx.Headers(answer.response.headers), b""
            if answer.response.status != 304:
                with _translating(answer.address), _within(deadline):
                    body = read_body(
                        answer.response.iter_stream(),
                        coding=fields.get("content-encoding", ""),
                        length=fields.get("content-length"),
                        bytes_max=bytes_max,
                    )
        media_type, charset = content_type(fields)
        fetched = Fetched(
            body=body,
            url=str(answer.address),
            media_type=media_type,
            charset=charset,
            etag=fields.get("etag"),
            modified=fields.get("last-modified"),
            not_modified=answer.response.status == 304,
        )
        return expect(fetched, accept)

    def probe(self, url: str, *, is_picture: bool, deadline_s: float | None = None) -> Probed:
        """Whether an address still gives what it should, for the price of its first bytes. Errors as `fetch`.

        Args:
            is_picture: What it gives has to begin as a picture; else any answer will do.
        """
        deadline = Deadline(self._settings.fetch_timeout_s if deadline_s is None else deadline_s)
        common = self._headers("image/*" if is_picture else "text/html,*/*;q=0.8", None, None)
        if is_picture:
            common.append((b"Range", f"bytes=0-{PROBE_BYTES - 1}".encode()))
        with self._answered(url, common, None, deadline, deadline.seconds, ok=_OK | {206}) as answer:
            fields, start = httpx.Headers(answer.response.headers), b""
            if is_picture:
                with _translating(answer.address), _within(deadline):
                    for piece in answer.response.iter_stream():
                        start += piece
                        if len(start) >= PROBE_BYTES:
                            break
        if is_picture:
            media_type, _ = content_type(fields)
            expect(Fetched(body=start, url=str(answer.address), media_type=media_type), "image/*")
        return Probed(url=str(answer.address), lasting_url=str(answer.lasting))

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
        common = self._headers(accept, etag, modified)
        with self._answered(url, common, headers, deadline, deadline_s) as answer:
            yield self._stream_of(answer.address, answer.response, bytes_max, deadline)

    @contextmanager
    def _answered(
        self,
        url: str,
        common: Headers,
        private: Mapping[str, str] | None,
        deadline: Deadline,
        turn_s: float,
        ok: frozenset[int] = _OK,
    ) -> Iterator[_Answer]:
        """The first answer that is no redirect. The turn at its host is held while it is read."""
        address = lasting = checked(url, self._allow)
        asked = host_of(address)
        own = [(name.encode("ascii"), value.encode("latin-1")) for name, value in (private or {}).items()]
        lasts = True
        for _ in range(REDIRECTS_MAX + 1):
            host = host_of(address)
            with self._turns.turn(host, turn_s) as waited_s, ExitStack() as stack:
                deadline.extend(waited_s)
                turn_s = max(0.0, turn_s - waited_s)
                try:
                    with _translating(address), _within(deadline):
                        response = stack.enter_context(self._open(address, common + own * (host == asked)))
                except FetchUnavailable as exc:
                    if isinstance(exc.__cause__, httpcore.ConnectError | httpcore.ConnectTimeout):
                        self._turns.failed(host)
                    raise
                self._turns.answered(host)
                location = self._location(address, response, ok)
                if location is None:
                    yield _Answer(address, response, lasting)
                    return
            address = checked(location, self._allow)
            lasts = lasts and response.status in _LASTING
            lasting = address if lasts else lasting
        raise FetchRefused(
            f"The address redirects more than {REDIRECTS_MAX} times, last to {address}", remedy="Link to its end"
        )

    def _headers(self, accept: str, etag: str | None, modified: str | None) -> Headers:
        coding = "identity" if accept.startswith("image/") else "gzip"
        headers = {"User-Agent": self._settings.user_agent, "Accept": accept, "Accept-Encoding": coding}
        for name, value in (("If-None-Match", etag), ("If-Modified-Since", modified)):
            # Validators come from catalogues: one that could not stand in a header is no validator.
            if value is not None and _VALIDATOR.match(value):
                headers[name] = value.strip()
        return [(name.encode(), value.encode("ascii", "replace")) for name, value in headers.items()]

    def _open(self, url: httpx.URL, headers: Headers) -> AbstractContextManager[httpcore.Response]:
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

    def _location(self, url: httpx.URL, response: httpcore.Response, ok: frozenset[int]) -> str | None:
        """The address that the answer redirects to; None if it is to be read."""
        fields = httpx.Headers(response.headers)
        if response.status in _REDIRECTS:
            if "location" not in fields:
                raise FetchFailed(f"{url.host} redirects ({response.status}) without saying where to")
            return str(joined(url, fields["location"]))
        if response.status in ok:
            return None
        error = rejection(url, response.status, fields)
        if isinstance(error, FetchUnavailable):
            wait_s = error.retry_after_s
            if response.status == 429 or (response.status == 503 and wait_s is not None):
                self._turns.pause(host_of(url), PAUSE_UNNAMED_S if wait_s is None else wait_s)
        raise error

    def _stream_of(
        self, url: httpx.URL, response: httpcore.Response, bytes_max: int, deadline: Deadline
    ) -> FetchedStream:
        fields = httpx.Headers(response.headers)
        media_type, charset = content_type(fields)

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
                # The deadline is this thread's only while it reads: between two pieces others may fetch.
                with _translating(url), _within(deadline):
                    piece = next(body, None)
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


@contextmanager
def _within(deadline: Deadline) -> Iterator[None]:
    token = deadline_of_fetch.set(deadline)
    try:
        yield
    finally:
        deadline_of_fetch.reset(token)


@contextmanager
def _translating(url: httpx.URL) -> Iterator[None]:
    try:
        yield
    except _FOREIGN as exc:
        raise translated(exc, url) from exc
