"""Which addresses may be connected to, by themselves and through a fetch."""

from __future__ import annotations

import socket
import threading
from ipaddress import ip_address

import pytest
from tests.unit.http.images_origin import PICTURE, Origin, status

from visor.errors import FetchFailed, FetchRefused, FetchUnavailable
from visor.http.client import Fetcher
from visor.http.fetch import FetchOptions
from visor.http.ssrf_guard import GuardedBackend, host_and_port, is_metadata_address, is_metadata_name, why_not_public
from visor.settings import Settings

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


# Addresses


@pytest.mark.parametrize("port", [1, 22, 25, 3306, 6379, 11211, 65535, 99999])
def test_ports_of_other_services_are_refused(fetcher: Fetcher, port: int) -> None:
    with pytest.raises(FetchRefused, match=f"port {port}"):
        fetcher.fetch(f"http://93.184.216.34:{port}/")


@pytest.mark.parametrize("host", ["localhost", "0x7f.1", "2130706433", "017700000001", "127.1", "0"])
def test_the_guard_refuses_this_machine_in_every_spelling(origin: Origin, host: str) -> None:
    backend = GuardedBackend()
    with pytest.raises(FetchRefused, match="leads to"):
        backend.connect_tcp(host, origin.port)
    assert origin.peers == set()


def test_ipv6_loopback_is_refused_unless_allowed() -> None:
    try:
        server = Origin("::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server as origin:
        origin.routes["/a.jpg"] = status(200, PICTURE)
        with pytest.raises(FetchRefused, match="IPv6"):
            GuardedBackend().connect_tcp("::1", origin.port)
        with Fetcher(Settings(allow_hosts=(f"[::1]:{origin.port}",))) as fetcher:
            assert fetcher.fetch(origin.base + "/a.jpg").body == PICTURE
            assert origin.requests[0][1]["host"] == f"[::1]:{origin.port}"


def test_an_allowed_host_is_allowed_at_its_port_only(origin: Origin) -> None:
    with Origin() as other, Fetcher(Settings(allow_hosts=(f"127.0.0.1:{other.port}",))) as fetcher:
        with pytest.raises(FetchRefused):
            fetcher.fetch(origin.base + "/a.jpg")
        with pytest.raises(FetchRefused):
            GuardedBackend((f"127.0.0.1:{other.port}",)).connect_tcp("127.0.0.1", origin.port)
    assert origin.requests == []


@pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254"])
def test_no_exception_reaches_a_metadata_server(address: str) -> None:
    named = GuardedBackend(("shop.test:80",), resolver=lambda host, port: [address])
    with pytest.raises(FetchRefused, match="metadata"):
        named.connect_tcp("shop.test", 80)
    bracketed = f"[{address}]:80" if ":" in address else f"{address}:80"
    with pytest.raises(FetchRefused, match="metadata"):
        GuardedBackend((bracketed,)).connect_tcp(address, 80)


# Name servers that lie


class ChangingResolver:
    """Gives its answers one after the other, the last one for ever."""

    def __init__(self, *answers: list[str] | Exception) -> None:
        self.answers = list(answers)
        self.calls = 0

    def __call__(self, host: str, port: int) -> list[str]:
        answer = self.answers[min(self.calls, len(self.answers) - 1)]
        self.calls += 1
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_the_checked_address_is_the_one_connected_to(origin: Origin) -> None:
    """A second look-up would give 127.0.0.2."""
    resolver = ChangingResolver(["127.0.0.1"], ["127.0.0.2"])
    allowing = GuardedBackend((f"rebinding.test:{origin.port}",), resolver=resolver)
    stream = allowing.connect_tcp("rebinding.test", origin.port, timeout=5)
    assert stream.get_extra_info("server_addr") == ("127.0.0.1", origin.port)
    assert resolver.calls == 1
    stream.close()


def test_a_name_that_throttle_private_after_its_check_is_refused_at_the_next_connection(origin: Origin) -> None:
    resolver = ChangingResolver(["93.184.216.34"], ["127.0.0.1"])
    with Fetcher(Settings(), resolver=resolver) as fetcher:
        # The public address is checked, then dialled: there is no second look-up that could bring us to 127.0.0.1.
        with pytest.raises((FetchUnavailable, FetchFailed)):
            fetcher.fetch("http://rebinding.test/", FetchOptions(deadline_s=0.2))
        assert resolver.calls == 1
        with pytest.raises(FetchRefused, match="this machine itself"):
            fetcher.fetch("http://rebinding.test/", FetchOptions(deadline_s=0.2))
    assert origin.peers == set()


def test_private_addresses_among_public_ones_are_not_dialled(origin: Origin) -> None:
    backend = GuardedBackend(resolver=lambda host, port: ["127.0.0.1", "10.0.0.1"])
    with pytest.raises(FetchRefused):
        backend.connect_tcp("mixed.test", origin.port)
    assert origin.peers == set()


def test_the_next_address_is_tried_if_one_does_not_answer(origin: Origin) -> None:
    with Fetcher(
        Settings(allow_hosts=(f"two.test:{origin.port}",)), resolver=lambda host, port: ["127.0.0.77", "127.0.0.1"]
    ) as fetcher:
        assert fetcher.fetch(f"http://two.test:{origin.port}/a.jpg").body == PICTURE
    assert origin.requests[0][1]["host"] == f"two.test:{origin.port}"


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), FetchFailed),
        (socket.gaierror(socket.EAI_AGAIN, "later"), FetchUnavailable),
        (UnicodeError("label too long"), FetchFailed),
        (OSError("odd"), FetchFailed),
    ],
)
def test_trouble_with_names_is_told_apart(trouble: Exception, expected: type[Exception]) -> None:
    with Fetcher(Settings(), resolver=ChangingResolver(trouble)) as fetcher, pytest.raises(expected):
        fetcher.fetch("http://shop.test/")


def test_a_name_server_that_does_not_answer_ends_with_the_deadline() -> None:
    done = threading.Event()

    def never(host: str, port: int) -> list[str]:
        done.wait()
        return []

    try:
        with Fetcher(Settings(), resolver=never) as fetcher, pytest.raises(FetchUnavailable, match="not resolved"):
            fetcher.fetch("http://shop.test/", FetchOptions(deadline_s=0.05))
    finally:
        done.set()
