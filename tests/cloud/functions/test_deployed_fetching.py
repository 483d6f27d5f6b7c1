"""Addresses from outside, in the settings that Terraform deploys: no request leaves for anywhere that is not public."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import msgspec
import pytest
from flask import Flask, request
from tests.cloud.support.served import UNLIMITED, Served, served
from tests.deployed import deployed_environ
from tests.emulated import PROJECT, make_bucket
from tests.unit.http.images_origin import Origin, status

from visor.app import App
from visor.errors import FetchRefused
from visor.http.client import Fetcher
from visor.models.embedder import Embedder
from visor.settings import Settings
from visor_emulators.emulators import Emulators

METADATA = [
    "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token",
    "http://METADATA.google.internal./computeMetadata/v1/",
    "http://metadata/computeMetadata/v1/",
    "http://169.254.169.254/computeMetadata/v1/",
    "http://[::ffff:169.254.169.254]/computeMetadata/v1/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[fd00:ec2::254]/",
    "http://[fd20:ce::254]/",
    "http://0251.0376.0251.0376/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0xa9.0xfe.0xa9.0xfe/",
    "http://169.254.43518/",
]
PRIVATE = [
    "http://localhost/",
    "http://127.0.0.1/",
    "http://127.1/",
    "http://0177.0.0.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.0.1/",
    "http://100.64.0.1/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:10.0.0.1]/",
    "http://[64:ff9b::10.0.0.1]/",
    "http://[64:ff9b:1::10.0.0.1]/",
    "http://[2002:a00:1::1]/",
    "http://[fd12:3456::1]/",
    "http://[fe80::1]/",
]
OTHER = [
    "file:///etc/passwd",
    "gopher://127.0.0.1:70/",
    "ftp://127.0.0.1/",
    "http://user:pass@127.0.0.1/",
    "//127.0.0.1/",
]
EVERYWHERE = METADATA + PRIVATE + OTHER


@pytest.mark.parametrize("function", ["search", "embed", "crawl"])
def test_nothing_that_is_deployed_widens_what_may_be_fetched(function: str) -> None:
    settings = Settings.read(deployed_environ(function))
    assert (settings.allow_hosts, settings.allow_folders, settings.allow_buckets) == ((), (), ())


@pytest.mark.parametrize("function", ["embed", "crawl"])
def test_the_deployed_fetcher_refuses(function: str) -> None:
    with Fetcher(Settings.read(deployed_environ(function))) as fetcher:
        for address in EVERYWHERE:
            with pytest.raises(FetchRefused):
                fetcher.fetch(address)


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as running:
        for number, address in enumerate(EVERYWHERE):
            running.routes[f"/{number}"] = status(302, Location=address)
        running.routes["/secret"] = status(200, b"secret", Content_Type="image/png")
        yield running


@pytest.fixture(scope="module")
def endpoint(emulators: Emulators, origin: Origin) -> Iterator[Served]:
    """As deployed, but that one test server may be asked, which leads on to where nobody may."""
    index = Settings(backend="gcp", home=Settings.read().home, project=PROJECT, index="fetching", bucket="fetching")
    make_bucket(index)
    with served(index, allow_hosts=(f"127.0.0.1:{origin.port}",), **UNLIMITED) as running:
        yield running


def refused(endpoint: Served, url: str) -> httpx.Response:
    answer = httpx.post(endpoint.address + "/v1/search", json={"url": url}, timeout=60)
    assert answer.status_code == 422, answer.text
    assert answer.json()["type"] == "urn:visor:fetch_refused", answer.text
    return answer


@pytest.mark.parametrize("address", EVERYWHERE)
def test_a_search_leads_nowhere_that_is_not_public(endpoint: Served, address: str) -> None:
    refused(endpoint, address)


@pytest.mark.parametrize("number", range(len(EVERYWHERE)), ids=lambda n: EVERYWHERE[n])
def test_nor_does_a_redirect(endpoint: Served, origin: Origin, number: int) -> None:
    answer = httpx.post(endpoint.address + "/v1/search", json={"url": f"{origin.base}/{number}"}, timeout=60)
    assert answer.status_code == 422
    # In a Location, the octal spellings are no address at all; and "//127.0.0.1/" leads to this machine, too.
    assert answer.json()["type"] in ("urn:visor:fetch_refused", "urn:visor:fetch_failed"), answer.text
    assert origin.requests[-1][0] == f"/{number}"


def test_an_allowed_host_by_another_name_is_not_allowed(endpoint: Served, origin: Origin) -> None:
    refused(endpoint, f"http://localhost:{origin.port}/secret")
    assert "/secret" not in [path for path, _ in origin.requests]


def test_a_name_is_not_looked_up_again_between_check_and_connection(
    emulators: Emulators, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is dialled is the address that was checked, and a name that has turned to this machine is refused."""
    answers, dialled = iter([["93.184.216.34"], ["127.0.0.1"], ["169.254.169.254"]]), []

    def dial(address: tuple[str, int], *_: object, **__: object) -> socket.socket:
        dialled.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr("httpcore._backends.sync.socket.create_connection", dial)
    environ = deployed_environ("search") | {"VISOR_PROJECT": PROJECT, "VISOR_BUCKET": "fetching"}
    settings = msgspec.structs.replace(Settings.read(environ), index="rebinding")
    app = Flask("rebinding")
    with (
        Fetcher(settings, resolver=lambda host, port: next(answers)) as fetcher,
        App(settings, embedder=embedder, fetcher=fetcher) as parts,
    ):
        search = parts.http_api()
        app.add_url_rule("/v1/search", view_func=lambda: search(request), methods=["POST"])
        body = {"url": "http://rebinding.test/secret"}
        told = [app.test_client().post("/v1/search", json=body).get_json()["type"] for _ in range(3)]
    assert told == ["urn:visor:fetch_unavailable", "urn:visor:fetch_refused", "urn:visor:fetch_refused"]
    assert dialled == [("93.184.216.34", 80)]
