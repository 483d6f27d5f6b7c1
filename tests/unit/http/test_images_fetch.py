"""Fetching from real servers on 127.0.0.1 that behave as badly as servers can."""

from __future__ import annotations

import gzip
import inspect
import socket
import ssl
import threading
import tracemalloc

import httpcore
import httpx
import pytest
import trustme
from tests.unit.http.images_origin import PICTURE, Origin, raw, status

from visor.errors import FetchFailed, FetchRefused, FetchUnavailable
from visor.http.client import REDIRECTS_MAX, Fetcher
from visor.http.fetch import FetchOptions
from visor.http.limited_body import iter_body
from visor.http.transport import HTTPCORE_ERRORS
from visor.link_check.probe import UrlStatus, probe_url
from visor.settings import Settings

# What is fetched


def test_a_picture_comes_with_its_address_type_and_validators(origin: Origin, fetcher: Fetcher) -> None:
    origin.routes["/a.jpg"] = status(
        200, PICTURE, Content_Type='Image/JPEG; charset="UTF-8"', ETag='"v1"', Last_Modified="yesterday"
    )
    fetched = fetcher.fetch(origin.base + "/a.jpg#part")
    assert fetched.body == PICTURE
    assert fetched.url == origin.base + "/a.jpg"
    assert (fetched.media_type, fetched.charset) == ("image/jpeg", "utf-8")
    assert (fetched.etag, fetched.modified, fetched.not_modified) == ('"v1"', "yesterday", False)


def test_validators_are_sent_and_304_is_understood(origin: Origin, fetcher: Fetcher) -> None:
    origin.routes["/a.jpg"] = status(304, ETag='"v1"')
    fetched = fetcher.fetch(origin.base + "/a.jpg", FetchOptions(etag='"v1"', modified="Tue, 01 Jul 2025 00:00:00 GMT"))
    assert fetched.not_modified
    assert fetched.body == b""
    _, headers = origin.requests[0]
    assert headers["if-none-match"] == '"v1"'
    assert headers["if-modified-since"] == "Tue, 01 Jul 2025 00:00:00 GMT"


def test_a_validator_cannot_smuggle_headers(origin: Origin, fetcher: Fetcher) -> None:
    fetcher.fetch(origin.base + "/a.jpg", FetchOptions(etag='"v"\r\nX-Evil: 1'))
    _, headers = origin.requests[0]
    assert "x-evil" not in headers
    assert "if-none-match" not in headers


def test_the_request_names_us_and_keeps_no_cookies_and_uses_no_proxy(
    origin: Origin, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    origin.routes["/a.jpg"] = status(200, PICTURE, Set_Cookie="id=1; Path=/")
    fetcher.fetch(origin.base + "/a.jpg")
    fetcher.fetch(origin.base + "/a.jpg")
    _, headers = origin.requests[1]
    assert headers["user-agent"].startswith("Visor/")
    assert headers["host"] == f"127.0.0.1:{origin.port}"
    assert headers["accept-encoding"] == "identity"
    assert "cookie" not in headers


def test_connections_are_kept_for_the_next_fetch(origin: Origin, fetcher: Fetcher) -> None:
    for _ in range(5):
        fetcher.fetch(origin.base + "/a.jpg")
    assert len(origin.peers) == 1


def test_catalogue_pages_come_through_the_same_guard_unpacked(origin: Origin, fetcher: Fetcher) -> None:
    page = b'{"items": []}' * 100
    origin.routes["/api"] = status(
        200, gzip.compress(page), Content_Type="application/json; charset=utf-8", Content_Encoding="gzip"
    )
    fetched = fetcher.fetch(origin.base + "/api", FetchOptions(accept="application/json"))
    assert fetched.body == page
    assert (fetched.media_type, fetched.charset) == ("application/json", "utf-8")
    assert origin.requests[0][1]["accept-encoding"] == "gzip"


# What is not a picture


@pytest.mark.parametrize(
    ("body", "media_type", "name"),
    [
        (b"<!DOCTYPE html><title>Shop</title>", "image/jpeg", "HTML"),
        (b"\xef\xbb\xbf \n<html><body>Sign in", "application/octet-stream", "HTML"),
        (b'{"error": "gone"}', "application/json", "JSON"),
        (b"Not here", "text/plain", "text/plain"),
        (b"", "image/jpeg", "empty"),
    ],
)
def test_what_is_plainly_no_picture_fails_and_says_what_it_is(
    origin: Origin, fetcher: Fetcher, body: bytes, media_type: str, name: str
) -> None:
    origin.routes["/x"] = status(200, body, Content_Type=media_type)
    with pytest.raises(FetchFailed, match=name):
        fetcher.fetch(origin.base + "/x")


def test_a_picture_under_a_wrong_media_type_is_a_picture(origin: Origin, fetcher: Fetcher) -> None:
    origin.routes["/x"] = status(200, PICTURE, Content_Type="text/html")
    assert fetcher.fetch(origin.base + "/x").body == PICTURE


def test_html_is_welcome_where_html_was_asked_for(origin: Origin, fetcher: Fetcher) -> None:
    origin.routes["/x"] = status(200, b"<html>", Content_Type="text/html")
    assert fetcher.fetch(origin.base + "/x", FetchOptions(accept="text/html")).body == b"<html>"


# Statuses


@pytest.mark.parametrize("code", [204, 206, 300, 400, 401, 403, 404, 405, 410, 418, 451])
def test_a_no_for_good_is_a_failure(origin: Origin, fetcher: Fetcher, code: int) -> None:
    origin.routes["/x"] = status(code)
    with pytest.raises(FetchFailed, match=str(code)) as caught:
        fetcher.fetch(origin.base + "/x")
    assert not caught.value.retriable


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504, 520])
def test_a_no_for_now_is_retriable(origin: Origin, fetcher: Fetcher, code: int) -> None:
    origin.routes["/x"] = status(code)
    with pytest.raises(FetchUnavailable, match=str(code)) as caught:
        fetcher.fetch(origin.base + "/x")
    assert caught.value.retriable


def test_a_size_that_a_host_does_not_make_is_a_wrong_address(origin: Origin, fetcher: Fetcher) -> None:
    said = b"<title>Too many requests</title>Use thumbnail steps listed on https://w.wiki/GHai"
    origin.routes["/600px-x.jpg"] = status(429, said)
    with pytest.raises(FetchFailed, match="thumbnails of this size") as caught:
        fetcher.fetch(origin.base + "/600px-x.jpg")
    assert "Crawl the source again" in str(caught.value)
    assert fetcher.fetch(origin.base + "/a.jpg").body


# Redirects


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed(origin: Origin, fetcher: Fetcher, code: int) -> None:
    origin.routes["/r"] = status(code, Location="a.jpg")
    assert fetcher.fetch(origin.base + "/r").url == origin.base + "/a.jpg"


@pytest.mark.parametrize("path", ["/Grüße.jpg", "/a/../a b.jpg?x=ä", "/a.jpg#top", "/%e4.jpg"])
def test_another_spelling_of_a_url_is_no_move(origin: Origin, fetcher: Fetcher, path: str) -> None:
    asked = str(httpx.URL(origin.base + path).raw_path.decode())
    origin.routes[asked] = origin.routes["/new.jpg"] = status(200, PICTURE)
    assert probe_url(fetcher, origin.base + path, is_picture=True) == UrlStatus("there")
    for code, state in ((301, "moved"), (302, "there")):
        origin.routes[asked] = status(code, Location="/new.jpg")
        assert probe_url(fetcher, origin.base + path, is_picture=True).state == state


def test_five_redirects_are_followed_and_a_loop_ends(origin: Origin, fetcher: Fetcher) -> None:
    for hop in range(REDIRECTS_MAX):
        origin.routes[f"/{hop}"] = status(302, Location=f"/{hop + 1}")
    origin.routes[f"/{REDIRECTS_MAX}"] = status(200, PICTURE)
    assert fetcher.fetch(origin.base + "/0").body == PICTURE
    origin.requests.clear()
    origin.routes["/loop"] = status(302, Location="/loop")
    with pytest.raises(FetchRefused, match="redirects more than 5 times"):
        fetcher.fetch(origin.base + "/loop")
    assert len(origin.requests) == REDIRECTS_MAX + 1


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/computeMetadata/v1/",
        "http://metadata.google.internal/computeMetadata/v1/",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://10.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://localhost/",
        "http://localhost.:80/",
        "http://0x7f.1/",
        "http://2130706433/",
        "http://017700000001/",
        "http://127.1/",
        "http://0/",
        "//127.0.0.1/",
        "http://user:password@example.org/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:70/_x",
        "data:image/png;base64,AAAA",
        "http:///nowhere",
        "http://a%00b/",
        "http://exa mple.org/",
        "http://xn--/",
        "http://xn--i-7iq.ws/",
    ],
)
def test_a_redirect_leads_nowhere_that_an_address_may_not(origin: Origin, fetcher: Fetcher, target: str) -> None:
    origin.routes["/r"] = status(302, Location=target)
    with pytest.raises((FetchRefused, FetchFailed)) as caught:
        fetcher.fetch(origin.base + "/r")
    assert not caught.value.retriable
    with pytest.raises((FetchRefused, FetchFailed)):
        fetcher.fetch(target)


def test_a_redirect_to_this_machine_by_another_name_is_refused(origin: Origin, fetcher: Fetcher) -> None:
    origin.routes["/r"] = status(302, Location=f"http://localhost:{origin.port}/a.jpg")
    with pytest.raises(FetchRefused):
        fetcher.fetch(origin.base + "/r")
    assert [path for path, _ in origin.requests] == ["/r"]


def test_a_redirect_without_an_address_fails(origin: Origin, fetcher: Fetcher) -> None:
    origin.routes["/r"] = status(302)
    with pytest.raises(FetchFailed, match="without saying where"):
        fetcher.fetch(origin.base + "/r")


# Servers that take their time or never end


def test_a_body_that_trickles_ends_with_the_deadline(origin: Origin, fetcher: Fetcher) -> None:
    trickle = raw(b"x", wait=lambda: origin.stopping.wait(0.01), times=1_000_000)

    def slow(handler: object) -> None:
        raw(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n")(handler)  # type: ignore[arg-type]
        trickle(handler)  # type: ignore[arg-type]

    origin.routes["/slow"] = slow
    with pytest.raises(FetchUnavailable, match="in time"):
        fetcher.fetch(origin.base + "/slow", FetchOptions(deadline_s=0.2))


def test_headers_that_trickle_end_with_the_deadline(origin: Origin, fetcher: Fetcher) -> None:
    def slow(handler: object) -> None:
        raw(b"HTTP/1.1 200 OK\r\n")(handler)  # type: ignore[arg-type]
        raw(b"X-A: b\r\n", wait=lambda: origin.stopping.wait(0.01), times=1_000_000)(handler)  # type: ignore[arg-type]

    origin.routes["/slow"] = slow
    with pytest.raises(FetchUnavailable, match="in time"):
        fetcher.fetch(origin.base + "/slow", FetchOptions(deadline_s=0.2))


def test_interim_answers_without_end_end_with_the_deadline(origin: Origin, fetcher: Fetcher) -> None:
    origin.routes["/slow"] = raw(
        b"HTTP/1.1 103 Early Hints\r\n\r\n", wait=lambda: origin.stopping.wait(0.01), times=1_000_000
    )
    with pytest.raises(FetchUnavailable, match="in time"):
        fetcher.fetch(origin.base + "/slow", FetchOptions(deadline_s=0.2))


def test_a_server_that_says_nothing_ends_with_the_deadline(origin: Origin, fetcher: Fetcher) -> None:
    origin.routes["/mute"] = raw(b"", wait=origin.stopping.wait)
    with pytest.raises(FetchUnavailable, match="in time"):
        fetcher.fetch(origin.base + "/mute", FetchOptions(deadline_s=0.2))


def test_redirects_share_one_deadline(origin: Origin, fetcher: Fetcher) -> None:
    answered = threading.Event()

    def late(handler: object) -> None:
        answered.wait(0.15)
        status(302, Location="/late")(handler)  # type: ignore[arg-type]

    origin.routes["/late"] = late
    with pytest.raises(FetchUnavailable, match="in time"):
        fetcher.fetch(origin.base + "/late", FetchOptions(deadline_s=0.2))
    assert len(origin.requests) <= 2


@pytest.mark.parametrize("head", [b"", b"Transfer-Encoding: chunked\r\n"])
def test_a_body_without_end_stops_at_the_limit(origin: Origin, fetcher: Fetcher, head: bytes) -> None:
    block = bytes(65536)
    sent = b"10000\r\n" + block + b"\r\n" if head else block

    def endless(handler: object) -> None:
        raw(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")(handler)  # type: ignore[arg-type]
        raw(sent, times=1_000_000)(handler)  # type: ignore[arg-type]

    origin.routes["/endless"] = endless
    with pytest.raises(FetchFailed, match="more than 1,000,000 bytes"):
        fetcher.fetch(origin.base + "/endless", FetchOptions(bytes_max=1_000_000))


def test_a_body_announced_as_too_large_is_not_waited_for(origin: Origin, fetcher: Fetcher) -> None:
    origin.routes["/large"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\n\r\n", wait=origin.stopping.wait)
    with pytest.raises(FetchFailed, match="5,000,000,000 bytes"):
        fetcher.fetch(origin.base + "/large")


def test_a_body_shorter_than_announced_may_be_whole_next_time(origin: Origin, fetcher: Fetcher) -> None:
    origin.routes["/short"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + PICTURE)
    with pytest.raises(FetchUnavailable, match="proper HTTP"):
        fetcher.fetch(origin.base + "/short")


def test_a_body_longer_than_announced_is_cut(origin: Origin, fetcher: Fetcher) -> None:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(PICTURE)
    origin.routes["/long"] = raw(head + PICTURE + b"more of it")
    assert fetcher.fetch(origin.base + "/long").body == PICTURE


@pytest.mark.parametrize(
    "answer",
    [
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 300_000 + b"\r\n\r\n",
        b"",
    ],
)
def test_what_is_no_http_is_unavailable(origin: Origin, fetcher: Fetcher, answer: bytes) -> None:
    origin.routes["/bad"] = raw(answer)
    with pytest.raises(FetchUnavailable):
        fetcher.fetch(origin.base + "/bad")


def test_a_port_where_nobody_listens_is_unavailable(origin: Origin) -> None:
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        port = placeholder.getsockname()[1]
        with Fetcher(Settings(allow_hosts=(f"127.0.0.1:{port}",))) as fetcher, pytest.raises(FetchUnavailable):
            fetcher.fetch(f"http://127.0.0.1:{port}/")


# Bombs


@pytest.mark.parametrize("accept", ["text/html", "image/*"])
def test_a_gzip_bomb_is_not_unpacked(origin: Origin, fetcher: Fetcher, accept: str) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    origin.routes["/bomb"] = status(200, bomb, Content_Encoding="gzip")
    with pytest.raises(FetchFailed, match="more than 1,000,000 bytes"):
        fetcher.fetch(origin.base + "/bomb", FetchOptions(bytes_max=1_000_000, accept=accept))


def test_a_gzip_bomb_takes_no_more_memory_than_its_limit() -> None:
    bomb = gzip.compress(bytes(100_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(FetchFailed):
            list(iter_body([bomb], coding="gzip", length=None, bytes_max=1_000_000))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 5_000_000


def test_a_bomb_of_many_small_chunks_is_stopped_too() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    chunks = [bomb[i : i + 64] for i in range(0, len(bomb), 64)]
    with pytest.raises(FetchFailed, match="1,000,000"):
        list(iter_body(chunks, coding="gzip", length=None, bytes_max=1_000_000))


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "x" * 500])
def test_codings_that_were_not_asked_for_fail(coding: str) -> None:
    with pytest.raises(FetchFailed, match="not requested"):
        list(iter_body([b"x"], coding=coding, length=None, bytes_max=100))


@pytest.mark.parametrize("size", [1, 7, 20, 21, 1000])
def test_gzip_data_of_several_members_is_read_to_its_end(size: int) -> None:
    body = gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two")
    for padding in (b"", bytes(8)):
        chunks = [(body + padding)[i : i + size] for i in range(0, len(body + padding), size)]
        assert b"".join(iter_body(chunks, coding="gzip", length=None, bytes_max=1000)) == b"one two"
    with pytest.raises(FetchFailed, match="ends before its end"):
        list(iter_body([body[:-3]], coding="gzip", length=None, bytes_max=1000))
    with pytest.raises(FetchFailed, match="more than 1,000 bytes"):
        list(iter_body([body + gzip.compress(bytes(100_000))], coding="gzip", length=None, bytes_max=1000))


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b"x" * 1000)[:-9], b""], ids=["none", "cut", "empty"])
def test_broken_gzip_fails(body: bytes) -> None:
    with pytest.raises(FetchFailed):
        list(iter_body([body], coding="gzip", length=None, bytes_max=10_000))


# TLS


def test_names_are_proved_although_addresses_are_dialled() -> None:
    authority = trustme.CA()
    asked: list[str] = []
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("shop.test").configure_cert(served)
    served.sni_callback = lambda _socket, name, _context: asked.append(name)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with Origin(ssl_context=served) as origin:
        origin.routes["/a.jpg"] = status(200, PICTURE)
        allowed = (f"shop.test:{origin.port}", f"other.test:{origin.port}")
        with Fetcher(
            Settings(allow_hosts=allowed), resolver=lambda host, port: ["127.0.0.1"], ssl_context=trusting
        ) as fetcher:
            assert fetcher.fetch(f"https://shop.test.:{origin.port}/a.jpg").body == PICTURE
            assert asked == ["shop.test"]
            assert origin.requests[0][1]["host"] == f"shop.test:{origin.port}"
            with pytest.raises(FetchFailed, match="prove its name"):
                fetcher.fetch(f"https://other.test:{origin.port}/a.jpg")
        distrusting = Fetcher(Settings(allow_hosts=allowed), resolver=lambda host, port: ["127.0.0.1"])
        with distrusting, pytest.raises(FetchFailed, match="prove its name"):
            distrusting.fetch(f"https://shop.test:{origin.port}/a.jpg")


def test_a_handshake_that_stalls_ends_with_the_deadline(origin: Origin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        with Fetcher(Settings(allow_hosts=(f"127.0.0.1:{port}",))) as fetcher, pytest.raises(FetchUnavailable):
            fetcher.fetch(f"https://127.0.0.1:{port}/", FetchOptions(deadline_s=0.1))


# Errors


def test_every_error_of_the_http_library_is_translated() -> None:
    exported = [getattr(httpcore, name) for name in httpcore.__all__]
    errors = [kind for kind in exported if inspect.isclass(kind) and issubclass(kind, Exception)]
    assert len(errors) > 10
    for kind in errors:
        if kind not in (httpcore.TimeoutException,):  # a base that is never raised itself
            assert any(issubclass(kind, mapped) for mapped, *_ in HTTPCORE_ERRORS), kind
