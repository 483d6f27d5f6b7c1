"""Downloads from untrusted URLs within limits: an image, a catalogue page or a JSON document.

Every connection passes the SSRF guard, so nothing here can reach a private network, whatever the URL, its redirects or
its name server are.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Any, NamedTuple

import httpcore
import httpx

from visor.errors import FetchFailed, FetchRefused, FetchUnavailable, ImageError
from visor.http.deadline import Deadline
from visor.http.fetch import IMAGE, Fetched, FetchedStream, FetchOptions, Probed
from visor.http.limited_body import iter_body
from visor.http.response import ensure_image, head_fields, status_error
from visor.http.ssrf_guard import Resolver, resolve_host
from visor.http.throttle import HostThrottle
from visor.http.transport import GuardedTransport
from visor.http.url_policy import host_key, resolve_redirect, validate_url
from visor.settings import Settings

REDIRECTS_MAX = 5
SLOT_WAIT_DEADLINES = 4
"""Longest wait for a slot at a busy host, in deadlines of a whole fetch."""
ERROR_BYTES_MAX = 16_384
"""An error whose JSON is longer is not read."""
PROBE_BYTES = 4096
"""Bytes that a probe of an image requests: enough to detect its format."""

_OK = frozenset({200, 203, 304})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PERMANENT = frozenset({301, 308})
_VALIDATOR = re.compile(r"[\x20-\x7e]{1,512}\Z")


class _Answer(NamedTuple):
    """The first response that is not a redirect."""

    response: httpx.Response
    permanent_url: httpx.URL

    @property
    def head(self) -> dict[str, Any]:
        return {"url": str(self.response.url), **head_fields(self.response)}

    def chunks(self, bytes_max: int) -> Iterator[bytes]:
        """The decoded body."""
        if self.response.status_code == 304:
            return iter(())
        headers = self.response.headers
        return iter_body(
            self.response.iter_raw(),
            coding=headers.get("content-encoding", ""),
            length=headers.get("content-length"),
            bytes_max=bytes_max,
        )


class Fetcher:
    """Fetches over one pool of connections: no credentials, no proxy, and cookies only within a chain of redirects,
    since some sites redirect to themselves until a cookie comes back. Thread-safe; use it in a `with`.

    Args:
        settings: Limits, user agent, `allow_hosts`.
        resolver, ssl_context: See `GuardedTransport`.
    """

    def __init__(
        self, settings: Settings, *, resolver: Resolver = resolve_host, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._settings = settings
        self._allow = frozenset(pair.lower() for pair in settings.allow_hosts)
        self._throttle = HostThrottle(
            settings.fetch_parallel, max(1, settings.fetch_parallel_per_host // max(1, settings.fetch_instances))
        )
        self._client = httpx.Client(
            transport=GuardedTransport(
                self._allow, resolver=resolver, ssl_context=ssl_context, connections_max=settings.fetch_parallel
            ),
            headers={b"User-Agent": settings.user_agent.encode("ascii", "replace")},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            trust_env=False,
        )

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def fetch(self, url: str, options: FetchOptions = IMAGE) -> Fetched:
        """See `visor.http.fetch.Fetch`."""
        is_image = options.accept.startswith("image/")
        # 206 is fine from an API, where a page is a part of all rows; a part of a picture or a text is not enough.
        is_whole = options.accept.startswith(("image/", "text/"))
        with self._answered(url, options, ok=_OK if is_whole else _OK | {206}) as answer:
            body = b"".join(answer.chunks(self._bytes_max(options)))
            fetched = Fetched(body=body, **answer.head)
        if is_image and not fetched.not_modified:
            ensure_image(fetched.body, fetched.media_type)
        return fetched

    @contextmanager
    def stream(self, url: str, options: FetchOptions) -> Iterator[FetchedStream]:
        """See `visor.http.fetch.StreamingFetch`."""
        with self._answered(url, options) as answer:
            yield FetchedStream(chunks=answer.chunks(self._bytes_max(options)), **answer.head)

    def probe(self, url: str, *, is_image: bool) -> Probed:
        """See `visor.http.fetch.Prober`."""
        accept = "image/*" if is_image else "text/html,*/*;q=0.8"
        options = FetchOptions(accept=accept, slot_wait_s=self._settings.fetch_timeout_s)
        part = {"Range": f"bytes=0-{PROBE_BYTES - 1}"} if is_image else {}
        with self._answered(url, options, part, ok=_OK | {206}) as answer:
            start = b""
            for chunk in answer.response.iter_raw() if is_image else ():
                start += chunk
                if len(start) >= PROBE_BYTES:
                    break
            if is_image:
                ensure_image(start, answer.head["media_type"])
            # Another spelling of the same URL is not a move.
            is_same = answer.permanent_url == validate_url(url, self._allow)
            return Probed(url=answer.head["url"], permanent_url=url if is_same else str(answer.permanent_url))

    def _bytes_max(self, options: FetchOptions) -> int:
        return self._settings.fetch_bytes_max if options.bytes_max is None else options.bytes_max

    @contextmanager
    def _answered(
        self, url: str, options: FetchOptions, part: Mapping[str, str] | None = None, ok: frozenset[int] = _OK
    ) -> Iterator[_Answer]:
        """The first response that is not a redirect. The slot at its host is held while the response is read."""
        timeout_s = self._settings.fetch_timeout_s
        deadline = Deadline(timeout_s if options.deadline_s is None else options.deadline_s)
        slot_wait_s = deadline * SLOT_WAIT_DEADLINES if options.slot_wait_s is None else options.slot_wait_s
        headers = _headers(options) | dict(part or {})
        target = permanent = first = validate_url(url, self._allow)
        first_host, is_permanent, cookies = host_key(target), True, httpx.Cookies()
        for _ in range(REDIRECTS_MAX + 1):
            host = host_key(target)
            own = headers | dict(options.headers) if host == first_host else headers
            request = self._client.build_request(
                "GET", target, headers=httpx.Headers(own, "latin-1"), extensions={"timeout": deadline.timeouts}
            )
            cookies.set_cookie_header(request)
            with self._throttle.slot(host, slot_wait_s) as waited_s:
                deadline.extend(waited_s)
                slot_wait_s = max(0.0, slot_wait_s - waited_s)
                with closing(self._send(request)) as response:
                    if response.status_code not in _REDIRECTS:
                        self._raise_for_status(response, ok, options.pause_max_s, first=first.host)
                        yield _Answer(response, permanent)
                        return
            cookies.extract_cookies(response)
            target = resolve_redirect(response, self._allow)
            is_permanent = is_permanent and response.status_code in _PERMANENT
            permanent = target if is_permanent else permanent
        raise FetchRefused(
            f"The URL redirects more than {REDIRECTS_MAX} times, last to {target.host}{target.path:.100}",
            remedy="Link to its end",
        )

    def _send(self, request: httpx.Request) -> httpx.Response:
        """The response, its body not yet read. Notes whether the host is alive."""
        host = host_key(request.url)
        try:
            response = self._client.send(request, stream=True)
        except FetchUnavailable as exc:
            if isinstance(exc.__cause__, httpcore.ConnectError | httpcore.ConnectTimeout):
                self._throttle.failed(host)
            raise
        except (httpx.InvalidURL, httpx.RemoteProtocolError, UnicodeError) as exc:
            raise FetchFailed(f"{request.url.host} redirects to something that is not a URL: {exc}") from exc
        self._throttle.answered(host)
        return response

    def _raise_for_status(
        self, response: httpx.Response, ok: frozenset[int], pause_max_s: float, *, first: str
    ) -> None:
        host = host_key(response.url)
        if response.status_code in ok:
            self._throttle.served(host)
            return
        is_json, body = "json" in response.headers.get("content-type", ""), b""
        if is_json or response.status_code == 429:
            with suppress(ImageError):
                body = b"".join(_Answer(response, response.url).chunks(ERROR_BYTES_MAX))
        error = status_error(response, body)
        error.answer = body if is_json else b""
        if isinstance(error, FetchFailed) and response.url.host.removeprefix("www.") != first.removeprefix("www."):
            error.elsewhere = str(response.url)
        if isinstance(error, FetchUnavailable):
            wait_s = error.retry_after_s
            if response.status_code == 429 or (response.status_code == 503 and wait_s is not None):
                error.retry_after_s = self._throttle.refused(host, wait_s, pause_max_s)
        raise error


def _headers(options: FetchOptions) -> dict[str, str]:
    coding = "identity" if options.accept.startswith("image/") else "gzip"
    headers = {"Accept": options.accept, "Accept-Encoding": coding}
    for name, value in (("If-None-Match", options.etag), ("If-Modified-Since", options.modified)):
        # Validators come from catalogues: one that is not valid in a header is left out.
        if value is not None and _VALIDATOR.match(value):
            headers[name] = value.strip()
    return headers
