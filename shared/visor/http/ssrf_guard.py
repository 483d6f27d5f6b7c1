"""Connections that cannot be led astray: the address that was checked is the address that is connected to.

httpcore asks its network backend for every connection, so the guard sits where a redirect, a literal address in any
spelling and a name whose answer changes all have to pass. Host header, SNI and certificate check keep the name.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from ipaddress import ip_address
from typing import Any

import httpcore

from visor.errors import FetchFailed, FetchRefused
from visor.http.public_addresses import Address, host_and_port, is_metadata_address, is_metadata_name, why_not_public

Resolver = Callable[[str, int], Sequence[str]]
"""Host name and port to addresses, best first. Raises `socket.gaierror` for a name without any."""

CONNECT_TIMEOUT_S = 5.0
"""Longest wait for one address to accept a connection."""


def resolve(host: str, port: int) -> Sequence[str]:
    """The system's resolver. It also reads octal, decimal and hexadecimal spellings of IPv4 addresses."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in answers))


class Deadline:
    """The moment at which a fetch must have ended, whatever its origin does."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    def left(self, at_most: float | None = None) -> float:
        """Seconds left, at most `at_most`, at least 0."""
        left = max(0.0, self._at - time.monotonic())
        return left if at_most is None else min(left, at_most)

    def extend(self, seconds: float) -> None:
        """Do not count a wait that was not the origin's doing."""
        self._at += seconds


deadline_of_fetch: ContextVar[Deadline | None] = ContextVar("deadline_of_fetch", default=None)
"""A pooled connection outlives its fetch, so each read looks up the deadline of the fetch that it belongs to."""


def _left(timeout: float | None) -> float | None:
    deadline = deadline_of_fetch.get()
    return timeout if deadline is None else deadline.left(timeout)


class GuardedBackend(httpcore.NetworkBackend):
    """Resolves once, checks, connects to what was checked.

    Args:
        allow: `host:port` pairs that may be connected to although they are not public. Metadata servers stay refused.
        resolver: Where addresses come from.
        parallel: Names resolved at the same time.
    """

    def __init__(self, allow: Iterable[str] = (), resolver: Resolver = resolve, parallel: int = 8) -> None:
        self._allow = frozenset(pair.lower() for pair in allow)
        self._resolver = resolver
        self._tcp = httpcore.SyncBackend()
        # The system's resolver takes no time-out, so it runs where a fetch can stop waiting for it.
        self._resolving = ThreadPoolExecutor(parallel, thread_name_prefix="visor-dns")

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of a host that is allowed and answers.

        Raises:
            FetchRefused: None of its addresses may be connected to.
            FetchFailed: There is no such host.
            httpcore.ConnectError, httpcore.ConnectTimeout: None answers.
        """
        trouble: Exception = httpcore.ConnectError(f"no address of {host} answers")
        for address in self._addresses(host, port):
            try:
                stream = self._tcp.connect_tcp(str(address), port, _left(timeout), local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                trouble = exc
            else:
                return _DeadlineStream(stream)
        raise trouble

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        raise FetchRefused(f"{path} is a socket of this machine", valid="Pictures are fetched over http and https")

    def close(self) -> None:
        self._resolving.shutdown(wait=False, cancel_futures=True)

    def _addresses(self, host: str, port: int) -> list[Address]:
        """The addresses of a host that may be connected to, at least one."""
        excepted = host_and_port(host, port) in self._allow
        allowed: list[Address] = []
        refusal, remedy = "no address", ""
        for address in self._resolve(host, port):
            why = why_not_public(address)
            if why is None or (excepted and not is_metadata_address(address)):
                allowed.append(address)
            else:
                refusal = why
                if not is_metadata_address(address):
                    remedy = f"If this is your own server, name it in VISOR_ALLOW_HOSTS as {host_and_port(host, port)}"
        if not allowed:
            raise FetchRefused(
                f"{host} leads to {refusal}",
                valid="Only public addresses are fetched",
                remedy=remedy,
            )
        return allowed

    def _resolve(self, host: str, port: int) -> list[Address]:
        try:
            return [ip_address(host)]
        except ValueError:
            pass
        if is_metadata_name(host):
            raise FetchRefused(f"{host} is a metadata server", valid="Only public addresses are fetched")
        try:
            texts = self._resolving.submit(self._resolver, host, port).result(_left(CONNECT_TIMEOUT_S))
            return [ip_address(text) for text in texts]
        except TimeoutError as exc:
            raise httpcore.ConnectTimeout(f"the name {host} was not resolved in time") from exc
        except socket.gaierror as exc:
            if exc.errno == socket.EAI_AGAIN:
                raise httpcore.ConnectError(f"the name server does not answer for {host}") from exc
            raise FetchFailed(f"There is no host {host}", remedy="Correct the address") from exc
        except (OSError, ValueError) as exc:
            raise FetchFailed(f"{host} is not a host name", remedy="Correct the address") from exc


class _DeadlineStream(httpcore.NetworkStream):
    """A connection whose every wait ends with the fetch's deadline, so that trickling bytes cannot prolong it."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = _left(timeout)
        if left == 0:
            raise httpcore.ReadTimeout("the deadline of the fetch has passed")
        return self._stream.read(max_bytes, left)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        left = _left(timeout)
        if left == 0:
            raise httpcore.WriteTimeout("the deadline of the fetch has passed")
        self._stream.write(buffer, left)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(timeout)
        if left == 0:
            raise httpcore.ConnectTimeout("the deadline of the fetch has passed")
        return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
