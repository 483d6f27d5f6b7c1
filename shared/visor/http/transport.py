"""httpx over guarded connections: `httpx.Client(transport=GuardedTransport())` reaches nothing but public addresses."""

from __future__ import annotations

import functools
import os
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import httpcore
import httpx

from visor.errors import FetchFailed, FetchRefused, FetchUnavailable
from visor.http.ssrf_guard import GuardedBackend, Resolver, resolve_host

HTTPCORE_ERRORS: tuple[tuple[type[Exception], Callable[[str], Exception], str], ...] = (
    (httpcore.ConnectTimeout, FetchUnavailable, "does not accept connections in time"),
    (httpcore.ReadTimeout, FetchUnavailable, "does not answer in time"),
    (httpcore.WriteTimeout, FetchUnavailable, "does not accept the request in time"),
    (httpcore.PoolTimeout, FetchUnavailable, "could not be reached: all connections are in use"),
    (httpcore.ConnectError, FetchUnavailable, "cannot be connected to"),
    (httpcore.NetworkError, FetchUnavailable, "broke off the connection"),
    (httpcore.RemoteProtocolError, FetchUnavailable, "does not answer in proper HTTP"),
    (httpcore.ProtocolError, FetchFailed, "cannot be sent this request"),
    (httpcore.ConnectionNotAvailable, FetchUnavailable, "could not be reached: its connection was in use"),
    (httpcore.UnsupportedProtocol, FetchRefused, "would need a protocol that Visor does not speak"),
    (httpcore.ProxyError, FetchUnavailable, "is behind a proxy that failed"),
)
"""Errors of httpcore (the first that fits counts), our error for each, and its message after the host's name."""


class GuardedTransport(httpx.BaseTransport):
    """A pool of connections that `GuardedBackend` opens. Raises Visor's errors, also while a body is read.

    Args:
        allow: `host:port` pairs that may be connected to although they are not public.
        resolver: Resolves host names.
        ssl_context: How servers prove their names; by default as in httpx (`SSL_CERT_FILE` counts).
        connections_max: Most concurrent connections, and most names resolved at once.
    """

    def __init__(
        self,
        allow: Iterable[str] = (),
        *,
        resolver: Resolver = resolve_host,
        ssl_context: ssl.SSLContext | None = None,
        connections_max: int = 10,
    ) -> None:
        self._backend = GuardedBackend(allow, resolver, connections_max)
        self._pool = httpcore.ConnectionPool(
            ssl_context=_trust(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
            if ssl_context is None
            else ssl_context,
            max_connections=connections_max,
            keepalive_expiry=5.0,
            network_backend=self._backend,
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        asked = httpcore.Request(
            request.method,
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _mapping_errors(url):
            response = self._pool.handle_request(asked)
        stream = _MappedStream(response, url)
        return httpx.Response(response.status, headers=response.headers, stream=stream, extensions=response.extensions)

    def close(self) -> None:
        self._pool.close()
        self._backend.close()


@functools.cache
def _trust(cert_file: str | None, cert_dir: str | None) -> ssl.SSLContext:
    """The authorities that these variables name, or certifi's; shared by all pools, since reading takes 20 ms."""
    return httpx.create_ssl_context()


class _MappedStream(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response, url: httpx.URL) -> None:
        self._response, self._url = response, url

    def __iter__(self) -> Iterator[bytes]:
        with _mapping_errors(self._url):
            yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


@contextmanager
def _mapping_errors(url: httpx.URL) -> Iterator[None]:
    try:
        yield
    except tuple(kind for kind, *_ in HTTPCORE_ERRORS) as exc:
        raise map_httpcore_error(exc, url) from exc


def map_httpcore_error(exc: Exception, url: httpx.URL) -> Exception:
    """Our error for one in `HTTPCORE_ERRORS`, for the requested URL."""
    if isinstance(exc, httpcore.ConnectError) and "CERTIFICATE_VERIFY_FAILED" in str(exc):
        return FetchFailed(f"{url.host} cannot prove its name: {exc}", remedy="Its owner has to renew its certificate")
    make, ending = next((make, ending) for kind, make, ending in HTTPCORE_ERRORS if isinstance(exc, kind))
    return make(f"{url.host} {ending} ({type(exc).__name__}: {exc})")
