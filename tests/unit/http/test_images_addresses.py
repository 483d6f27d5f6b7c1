from __future__ import annotations

from ipaddress import ip_address

import pytest

from visor.http.ssrf_guard import host_and_port, is_metadata_address, is_metadata_name, why_not_public

PUBLIC = [
    "93.184.216.34",
    "8.8.8.8",
    "2606:2800:220:1:248:1893:25c8:1946",
    "2a00:1450:4001:81b::200e",
    "64:ff9b::808:808",  # NAT64 of 8.8.8.8
    "2002:808:808::1",  # 6to4 of 8.8.8.8
    "::ffff:8.8.8.8",
]
NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.1.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "100.100.100.200",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::1",
    "2002:a00:1::1",
    "2606:2800:220:1:0:5efe:7f00:1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_pass(text: str) -> None:
    assert why_not_public(ip_address(text)) is None


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_every_other_address_has_a_reason(text: str) -> None:
    assert why_not_public(ip_address(text))


@pytest.mark.parametrize(
    "text",
    ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fd00:ec2::254", "fe80::a9fe:a9fe"],
)
def test_metadata_servers_are_told_in_every_spelling(text: str) -> None:
    assert is_metadata_address(ip_address(text))


def test_own_networks_are_not_metadata_servers() -> None:
    assert not is_metadata_address(ip_address("127.0.0.1"))
    assert not is_metadata_address(ip_address("10.0.0.1"))


def test_metadata_names_are_told_whatever_their_case_and_dots() -> None:
    assert is_metadata_name("Metadata.Google.Internal.")
    assert not is_metadata_name("metadata.example.org")


def test_hosts_are_written_with_brackets_only_for_ipv6() -> None:
    assert host_and_port("Shop.Example", 80) == "shop.example:80"
    assert host_and_port("::1", 8080) == "[::1]:8080"
