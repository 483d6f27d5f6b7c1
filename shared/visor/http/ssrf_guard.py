"""The SSRF guard: connections to public unicast addresses only, and never to a cloud's metadata server.

httpcore asks its network backend for every connection, so a redirect, an address in any spelling and a name whose
addresses change all pass `GuardedBackend`. It resolves a name once and connects to the address that it checked. Host
header, SNI and certificate check keep the name.

For IPv6 only global unicast (2000::/3) is allowed. Ranges that older Pythons call global are listed here, so that the
result does not depend on the version of Python. Source: IANA IPv4 and IPv6 special-purpose address registries.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpcore

from visor.errors import FetchFailed, FetchRefused
from visor.http.deadline import CONNECT_TIMEOUT_S, DeadlineStream, left_of

Address = IPv4Address | IPv6Address
Resolver = Callable[[str, int], Sequence[str]]
"""Host name and port to addresses, best first. Raises `socket.gaierror` for a name without addresses."""

_METADATA = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # Google Cloud, AWS, Azure and most others
        "169.254.170.2",  # AWS container credentials
        "fd00:ec2::254",  # AWS over IPv6
        "fd20:ce::254",  # Google Cloud over IPv6
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # Azure's wire server: a public address by its range
    )
)
_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
_NOT_PUBLIC_V4 = (IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"))
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = (IPv6Network("2001::/23"), IPv6Network("2001:db8::/32"), IPv6Network("3fff::/20"))
_NAT64 = IPv6Network("64:ff9b::/96")


def resolve_host(host: str, port: int) -> Sequence[str]:
    """The system's resolver. It also reads octal, decimal and hexadecimal spellings of IPv4 addresses."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in answers))


class GuardedBackend(httpcore.NetworkBackend):
    """Resolves a name once, checks its addresses, and connects to a checked one.

    Args:
        allow: `host:port` pairs that may be connected to although they are not public. Metadata servers stay refused.
        resolver: Resolves host names.
        parallel: Names resolved at the same time.
    """

    def __init__(self, allow: Iterable[str] = (), resolver: Resolver = resolve_host, parallel: int = 8) -> None:
        self._allow = frozenset(pair.lower() for pair in allow)
        self._resolver = resolver
        self._tcp = httpcore.SyncBackend()
        # The system's resolver has no time-out, so it runs in a thread that a fetch can stop waiting for.
        self._resolving = ThreadPoolExecutor(parallel, thread_name_prefix="visor-dns")

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first allowed address of a host that answers.

        Raises:
            FetchRefused: None of its addresses may be connected to.
            FetchFailed: There is no such host.
            httpcore.ConnectError, httpcore.ConnectTimeout: None of them answers.
        """
        trouble: Exception = httpcore.ConnectError(f"no address of {host} answers")
        for address in self._addresses(host, port, timeout):
            try:
                stream = self._tcp.connect_tcp(
                    str(address), port, left_of(timeout, CONNECT_TIMEOUT_S), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                trouble = exc
            else:
                return DeadlineStream(stream)
        raise trouble

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        raise FetchRefused(f"{path} is a socket on this machine", valid="An image over http or https")

    def close(self) -> None:
        self._resolving.shutdown(wait=False, cancel_futures=True)

    def _addresses(self, host: str, port: int, timeout: float | None) -> list[Address]:
        """The addresses of a host that are allowed, at least one."""
        excepted = host_and_port(host, port) in self._allow
        allowed: list[Address] = []
        refusal, remedy = "no address", ""
        for address in self._resolve(host, port, timeout):
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
                valid="A public address",
                remedy=remedy,
            )
        return allowed

    def _resolve(self, host: str, port: int, timeout: float | None) -> list[Address]:
        try:
            return [ip_address(host)]
        except ValueError:
            pass
        if is_metadata_name(host):
            raise FetchRefused(f"{host} is a metadata server", valid="A public address")
        try:
            wait_s = left_of(CONNECT_TIMEOUT_S if timeout is None else timeout, CONNECT_TIMEOUT_S)
            texts = self._resolving.submit(self._resolver, host, port).result(wait_s)
            return [ip_address(text) for text in texts]
        except TimeoutError as exc:
            raise httpcore.ConnectTimeout(f"the name {host} was not resolved in time") from exc
        except socket.gaierror as exc:
            if exc.errno == socket.EAI_AGAIN:
                raise httpcore.ConnectError(f"the name server does not answer for {host}") from exc
            raise FetchFailed(f"There is no host {host}", remedy="Correct the address") from exc
        except (OSError, ValueError) as exc:
            raise FetchFailed(f"{host} is not a host name", remedy="Correct the address") from exc


def host_and_port(host: str, port: int) -> str:
    """A server as in `allow_hosts`: `host:port` in lower case, an IPv6 address in brackets."""
    return f"[{host}]:{port}".lower() if ":" in host else f"{host}:{port}".lower()


def is_metadata_name(host: str) -> bool:
    """Whether a host name is a metadata server's. Case and trailing dots do not matter."""
    return host.lower().rstrip(".") in _METADATA_NAMES


def is_metadata_address(address: Address) -> bool:
    """Whether an address, or the IPv4 address inside it, is a metadata server's or link-local."""
    return any(one in _METADATA or one.is_link_local for one in (address, *_embedded(address)))


def why_not_public(address: Address) -> str | None:
    """The kind of an address that is not public unicast; `None` if it is."""
    if is_metadata_address(address):
        return "the link-local network, where metadata servers live"
    inside = _embedded(address)
    if isinstance(address, IPv4Address):
        return _why_not_public_v4(address)
    if address in _NAT64 or address.ipv4_mapped is not None:
        return _why_not_public_v4(inside[0])
    if address not in _GLOBAL_UNICAST or any(address in network for network in _NOT_PUBLIC_V6):
        return "a private or reserved IPv6 network"
    return next((why for one in inside if (why := _why_not_public_v4(one))), None)


def _why_not_public_v4(address: IPv4Address) -> str | None:
    if address.is_loopback:
        return "this machine itself"
    if address.is_multicast:
        return "a multicast group"
    if not address.is_global or address.is_reserved or any(address in network for network in _NOT_PUBLIC_V4):
        return "a private or reserved network"
    return None


def _embedded(address: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses to which an IPv6 address is translated or tunnelled."""
    if isinstance(address, IPv4Address):
        return ()
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address in _NAT64:
        return (IPv4Address(int(address) & 0xFFFFFFFF),)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    is_isatap = (int(address) >> 32) & 0xFDFFFFFF == 0x00005EFE
    return (IPv4Address(int(address) & 0xFFFFFFFF),) if is_isatap else ()
