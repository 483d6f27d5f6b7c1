"""Which network addresses Visor may connect to: public unicast ones, and never a cloud's metadata server.

The rule is positive for IPv6 (only global unicast, 2000::/3) and repeats ranges that older Pythons call global, so that
the answer does not depend on the Python that runs it. Source: IANA IPv4 and IPv6 special-purpose address registries.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

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


def host_and_port(host: str, port: int) -> str:
    """How `allow_hosts` writes one server: `host:port` in lower case, an IPv6 address in brackets."""
    return f"[{host}]:{port}".lower() if ":" in host else f"{host}:{port}".lower()


def is_metadata_name(host: str) -> bool:
    """Whether a host name is a metadata server's. Case and trailing dots do not matter."""
    return host.lower().rstrip(".") in _METADATA_NAMES


def is_metadata_address(address: Address) -> bool:
    """Whether an address, or the IPv4 address inside it, is a metadata server's or link-local at all."""
    return any(one in _METADATA or one.is_link_local for one in (address, *_embedded(address)))


def why_not_public(address: Address) -> str | None:
    """The kind of address that this is, if it is not a public unicast one; else `None`."""
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
    """The IPv4 addresses that an IPv6 address is translated or tunnelled to."""
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
