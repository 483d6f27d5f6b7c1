"""The demo shop over HTTP, crawled as production crawls, with pictures made here and, where apt is, the real ones."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image
from tests.unit.sources.catalogue_server import context_for

from visor.cli.doctor import look
from visor.cli.main import cli
from visor.cli.serve import _called, _emulated, _local
from visor.demo import pictures
from visor.demo.catalogue import DemoCatalogue, DemoCollection, Notice, Product, product_id
from visor.demo.packages import deb_contents, download_deb, download_npm
from visor.demo.pictures import ensure_demo_pictures
from visor.demo.prices import made_up_price
from visor.demo.shop import DemoShop, demo_source
from visor.demo.stamps import stamps
from visor.errors import FetchFailed, SettingsError, SourceError, SourceUnavailable
from visor.http.client import Fetcher
from visor.http.fetch import FetchOptions
from visor.settings import Settings
from visor.sources.registry import open_source

NOTICE = Notice(
    title="Squares",
    package="none",
    version="1",
    copyright="nobody",
    licence="CC0-1.0",
    licence_url="https://e.org/cc0",
    url="https://e.org",
    link_text="here",
    text="Made in a test. Its prices are made up.",
)


@pytest.fixture
def catalogue(tmp_path: Path) -> DemoCatalogue:
    """230 squares in three collections of 120, 109 and 1, with a name that HTML has to escape."""
    products = []
    for at in range(230):
        name = f"{at}.png"
        Image.new("RGB", (40, 40), (at, 255 - at, 90)).save(tmp_path / name)
        products.append(
            Product(
                id=product_id(name),
                title=f"Square <{at}>",
                description="A square.",
                collection="red" if at < 120 else "green" if at < 229 else "blue",
                picture=name,
                width=40,
                height=40,
            )
        )
    collections = tuple(DemoCollection(id=name, name=name.title()) for name in ("blue", "green", "red"))
    return DemoCatalogue(notice=NOTICE, collections=collections, products=tuple(products), folder=str(tmp_path))


@pytest.fixture
def shop(catalogue: DemoCatalogue) -> Iterator[DemoShop]:
    with DemoShop(catalogue) as shop:
        yield shop


def test_a_crawl_sees_every_product_once_and_as_it_is(shop: DemoShop, catalogue: DemoCatalogue) -> None:
    with context_for(shop.host) as context:
        pages = list(open_source("demo", demo_source(shop.url), context).read(None))
        again = list(open_source("demo", demo_source(shop.url), context).read(None))
    items = {item.key: item for page in pages for item in page.items}
    assert sum(len(page.items) for page in pages) == len(items) == 230
    assert again == pages
    assert [page.failed for page in pages if page.failed] == []
    for product in catalogue.products:
        item, price = items[str(product.id)], made_up_price(product.id)
        assert item.title == product.title
        assert item.image_url == f"{shop.url}/pictures/{product.id}"
        assert item.page_url == f"{shop.url}/products/{product.id}"
        assert (item.price, item.currency, item.country) == (float(price.amount), price.currency, price.country)
        assert item.collection == product.collection.title()
        assert (item.licence, item.author) == ("CC0-1.0", "© nobody")


def test_a_crawl_goes_on_from_every_checkpoint(shop: DemoShop) -> None:
    with context_for(shop.host) as context:
        source = open_source("demo", demo_source(shop.url), context)
        whole = list(source.read(None))
        assert len(whole) == 3 + 3 + 1
        for at, page in enumerate(whole[:-1]):
            assert list(source.read(page.checkpoint)) == whole[at + 1 :]


def test_pictures_have_validators(shop: DemoShop, catalogue: DemoCatalogue) -> None:
    product = catalogue.products[7]
    with Fetcher(Settings(allow_hosts=(shop.host,))) as fetcher:
        first = fetcher.fetch(f"{shop.url}/pictures/{product.id}")
        assert first.body == catalogue.picture(product).read_bytes()
        assert first.media_type == "image/png"
        assert fetcher.fetch(first.url, FetchOptions(etag=first.etag)).not_modified
        assert fetcher.fetch(first.url, FetchOptions(modified=first.modified)).not_modified
        assert not fetcher.fetch(first.url, FetchOptions(etag='"other"', modified=first.modified)).not_modified


def test_pages_say_that_prices_are_made_up_and_whose_the_pictures_are(shop: DemoShop, catalogue: DemoCatalogue) -> None:
    with Fetcher(Settings(allow_hosts=(shop.host,))) as fetcher:
        page = fetcher.fetch(
            f"{shop.url}/products/{catalogue.products[0].id}", FetchOptions(accept="text/html")
        ).body.decode()
        front = fetcher.fetch(f"{shop.url}/", FetchOptions(accept="text/html")).body.decode()
    assert "This price is made up" in page
    assert "Square &lt;0&gt;" in page
    assert "<0>" not in page
    for text in (page, front):
        assert NOTICE.text in text
        assert 'href="https://e.org"' in text
    assert front.count("<li>") == 230


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/pictures/1", "/products/1", "/v1/products/1", "/v1/collections/none/products", "/pictures/../x"],
)
def test_what_is_not_there_is_404(shop: DemoShop, path: str) -> None:
    with Fetcher(Settings(allow_hosts=(shop.host,))) as fetcher, pytest.raises(FetchFailed) as failed:
        fetcher.fetch(shop.url + path, FetchOptions(accept="*/*"))
    assert failed.value.status == 404


@pytest.mark.parametrize("query", ["start=-1", "count=0", "count=101", "start=x"])
def test_impossible_pages_are_400(shop: DemoShop, query: str) -> None:
    with Fetcher(Settings(allow_hosts=(shop.host,))) as fetcher, pytest.raises(FetchFailed) as failed:
        fetcher.fetch(f"{shop.url}/v1/collections/red/products?{query}", FetchOptions(accept="*/*"))
    assert failed.value.status == 400


def test_prices_are_the_same_everywhere_and_spread() -> None:
    assert made_up_price(1714641146) == ("9.99", "USD", "US")
    prices = [made_up_price(at) for at in range(2000)]
    assert {price.currency for price in prices} == {"EUR", "USD", "CAD", "GBP", "JPY", "INR"}
    assert all(price.amount.isdigit() for price in prices if price.currency == "JPY")
    euros = sorted(float(price.amount) for price in prices if price.currency == "EUR")
    assert 10 < euros[len(euros) // 4] < 15 < 20 < euros[len(euros) // 2] < 30


# The packages


def make_deb(path: Path, files: dict[str, bytes], compression: str = "xz") -> None:
    """A .deb as dpkg-deb makes it: an ar archive of debian-binary, control.tar and data.tar."""

    def tar(contents: dict[str, bytes]) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode=f"w:{compression}") as archive:
            for name, body in contents.items():
                member = tarfile.TarInfo(name)
                member.size = len(body)
                archive.addfile(member, io.BytesIO(body))
        return out.getvalue()

    members = {
        "debian-binary": b"2.0\n",
        f"control.tar.{compression}": tar({"./control": b"Package: x\nVersion: 1\nArchitecture: all\n"}),
        f"data.tar.{compression}": tar(files),
    }
    with path.open("wb") as deb:
        deb.write(b"!<arch>\n")
        for name, body in members.items():
            deb.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(body):<10}`\n".encode())
            deb.write(body + b"\n" * (len(body) % 2))


def picture(color: tuple[int, int, int], side: int = 50) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), color).save(out, "PNG")
    return out.getvalue()


STAMPS = "./usr/share/tuxpaint/stamps/"


needs_dpkg = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is not installed")


@needs_dpkg
def test_stamps_are_unpacked_and_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{STAMPS}animals/birds/b{at}.png": picture((at, 0, 0)) for at in range(5)}
    files |= {f"{STAMPS}animals/birds/b{at}.txt": b"A grey bird (small).\nde.utf8=Ein Vogel.\n" for at in range(5)}
    files |= {
        f"{STAMPS}animals/fish/cartoon/eel.png": picture((0, 9, 0)),
        f"{STAMPS}animals/fish/cartoon/eel.txt": "An eel.\nfr.utf8=É\n".encode(),
        f"{STAMPS}animals/fish/twin.png": picture((0, 9, 0)),
        f"{STAMPS}animals/fish/twin.txt": b"The same eel.\n",
        f"{STAMPS}animals/fish/eel_mirror.png": picture((0, 8, 0)),
        f"{STAMPS}animals/fish/tiny.png": picture((0, 7, 0), side=20),
        f"{STAMPS}animals/fish/tiny.txt": b"Tiny.\n",
        f"{STAMPS}animals/fish/only.svg": b"<svg/>",
        f"{STAMPS}symbols/one.png": picture((1, 1, 1)),
        f"{STAMPS}symbols/one.txt": b"One.\n",
        "./usr/share/doc/x.png": picture((2, 2, 2)),
    }
    make_deb(tmp_path / "made.deb", files)

    def download(package: str, folder: Path) -> Path:
        return Path(shutil.copy(tmp_path / "made.deb", folder / f"{package}_7.1-2_all.deb"))

    monkeypatch.setattr("visor.demo.stamps.download_deb", download)
    said: list[str] = []
    catalogue = ensure_demo_pictures(tmp_path / "home", said.append)
    assert {(product.title, product.collection) for product in catalogue.products} == {
        ("Grey bird", "animals-birds"),
        ("Eel", "animals"),
    }
    assert len(catalogue.products) == 6
    assert catalogue.notice.version == "7.1-2"
    assert all(catalogue.picture(product).is_file() for product in catalogue.products)
    assert sorted(path.name for path in Path(catalogue.folder).rglob("*.*")) == sorted(
        ["catalogue.json", "eel.png", *(f"b{at}.png" for at in range(5))]
    )
    count = len(said)
    assert ensure_demo_pictures(tmp_path / "home", said.append) == catalogue
    assert len(said) == count, "the second time nothing is downloaded"
    assert [path.name for path in (tmp_path / "home" / "demo").iterdir()] == ["stamps"]


@needs_dpkg
def test_a_package_that_leads_out_of_its_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deb = tmp_path / "x_1_all.deb"
    make_deb(deb, {f"{STAMPS}../../../../../../escaped.png": picture((1, 2, 3))})
    monkeypatch.setattr("visor.demo.stamps.download_deb", lambda package, folder: deb)
    target = tmp_path / "deep" / "er" / "target"
    target.mkdir(parents=True)
    with pytest.raises(SourceUnavailable, match="leads out"):
        stamps(tmp_path, target, lambda line: None)
    assert list(tmp_path.rglob("escaped.png")) == []


def test_the_next_provider_is_taken_and_all_reasons_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(work: Path, folder: Path, say: object) -> DemoCatalogue:
        raise SourceUnavailable("apt-get is not installed")

    def one(work: Path, folder: Path, say: object) -> DemoCatalogue:
        return DemoCatalogue(notice=NOTICE, collections=(), products=(), folder=str(folder))

    said: list[str] = []
    monkeypatch.setattr(pictures, "PROVIDERS", {"stamps": nothing, "emoji": one})
    assert ensure_demo_pictures(tmp_path / "a", said.append).folder == str(tmp_path / "a" / "demo" / "emoji")
    assert said == ["Not available here: apt-get is not installed"]
    monkeypatch.setattr(pictures, "PROVIDERS", {"stamps": nothing, "emoji": nothing})
    with pytest.raises(SourceUnavailable, match=r"(?s)stamps: apt-get.*emoji: apt-get.*Go online"):
        ensure_demo_pictures(tmp_path / "b", said.append)


def test_a_broken_download_is_gotten_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "demo" / "stamps"
    broken.mkdir(parents=True)
    (broken / "catalogue.json").write_text('{"notice":')

    def one(work: Path, folder: Path, say: object) -> DemoCatalogue:
        return DemoCatalogue(notice=NOTICE, collections=(), products=(), folder=str(folder))

    monkeypatch.setattr(pictures, "PROVIDERS", {"stamps": one})
    assert ensure_demo_pictures(tmp_path, lambda line: None).notice == NOTICE


def test_what_a_killed_download_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one(work: Path, folder: Path, say: object) -> DemoCatalogue:
        return DemoCatalogue(notice=NOTICE, collections=(), products=(), folder=str(folder))

    left = tmp_path / "demo" / ".stamps-left"
    left.mkdir(parents=True)
    (left / "tuxpaint.deb").touch()
    os.utime(left, (time.time() - 3 * 86_400,) * 2)
    monkeypatch.setattr(pictures, "PROVIDERS", {"stamps": one})
    ensure_demo_pictures(tmp_path, lambda line: None)
    assert not left.exists()


def test_of_several_at_once_one_downloads_and_the_others_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second download would take away the folder from which a shop already serves."""
    begun: list[Path] = []
    said: list[str] = []

    def slow(work: Path, folder: Path, say: object) -> DemoCatalogue:
        begun.append(work)
        time.sleep(0.2)
        return DemoCatalogue(notice=NOTICE, collections=(), products=(), folder=str(folder))

    monkeypatch.setattr(pictures, "PROVIDERS", {"stamps": slow})
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: ensure_demo_pictures(tmp_path, said.append), range(3)))
    assert len(begun) == 1
    assert said == [f"Waiting for another process, which makes {tmp_path / 'demo'} …"] * 2
    assert {one.folder for one in found} == {str(tmp_path / "demo" / "stamps")}


@needs_dpkg
def test_what_is_no_deb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(b"<html>")
    with pytest.raises(SourceError, match="not a Debian package"), deb_contents(tmp_path / "x.deb"):
        pass


def fake_tool(folder: Path, name: str, script: str) -> None:
    """A command of that name, as the registry's own tool behaves."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_apt_without_lists_fetches_lists_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tool(
        tmp_path,
        "apt-get",
        'echo "$@" >> log\n'
        'case "$*" in *update*) exit 0;; *Dir::State*download*) touch pictures_1_all.deb; exit 0;; esac\n'
        'echo "E: Unable to locate package pictures" >&2; exit 100',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert download_deb("pictures", tmp_path) == tmp_path / "pictures_1_all.deb"
    calls = (tmp_path / "log").read_text().splitlines()
    assert calls[0] == "-qq download pictures"
    assert [call.split()[-1] for call in calls] == ["pictures", "update", "pictures"]
    assert f"Dir::State::Lists={tmp_path}" in calls[1]


def test_npm_content_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tool(tmp_path, "npm", "printf hello > scope-name-1.2.tgz")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    right = "sha512-m3HSJL1i83hdltRq0+o9czGb+8KJDKra4t/3JRlnPKcjI8PZm6XBHXx6zG4UuMXaDEZjR1wuXDre9G9zvN7AQw=="
    assert download_npm("@scope/name", "1.2", right, tmp_path).read_bytes() == b"hello"
    with pytest.raises(SourceError, match="when Visor was made"):
        download_npm("@scope/name", "1.2", "sha512-AAAA", tmp_path)


@pytest.mark.slow
def test_the_shop_runs_alone(tmp_path: Path, catalogue: DemoCatalogue) -> None:
    home = tmp_path / "home"
    (home / "demo").mkdir(parents=True)
    shutil.copytree(catalogue.folder, home / "demo" / "stamps", ignore=shutil.ignore_patterns("home"))
    catalogue.save(home / "demo" / "stamps")
    import sys

    with subprocess.Popen(
        [sys.executable, "-m", "visor.demo.shop", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "VISOR_HOME": str(home), "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()
    assert "The demo shop is at http://127.0.0.1:" in line
    assert "230 products" in line


def test_the_emulated_demo_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "visor_emulators.demo", None)
    wanted = r"--backend gcp-emulators needs visor_emulators.demo: .*\./devtools"
    with pytest.raises(click.UsageError, match=wanted), _emulated(Settings(home=tmp_path), ("demo", {}), {}):
        pass  # entering fails


@pytest.mark.parametrize("wrong", ["missing", "file.png"])
def test_a_folder_that_is_none_is_said_before_anything_begins(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISOR_HOME", str(tmp_path / "home"))
    (tmp_path / "file.png").write_bytes(b"")
    said = CliRunner().invoke(cli, ["demo", "--once", "--source", str(tmp_path / wrong)])
    assert f"{wrong} is not a folder. Valid: A folder of images" in str(said.exception)
    assert not (tmp_path / "home").exists()


def test_a_second_shop_says_how_to_choose_its_port(catalogue: DemoCatalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_: object, **__: object) -> None:
        raise SettingsError("Port 8091 of 127.0.0.1 cannot be used: Address already in use")

    monkeypatch.setattr("visor.demo.shop.Server", taken)
    with pytest.raises(SettingsError, match="make demo SHOP_PORT=8092, visor demo --shop-port"):
        DemoShop(catalogue, 8091)


def test_a_search_from_the_terminal_reaches_the_shop_as_the_demo_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visor.cli.index.crawl_and_embed", lambda app, source: None)
    settings = Settings(home=tmp_path, index="demo", allow_hosts=("127.0.0.1:8091", "shop.test"))
    with _local(settings, ("demo-shop", demo_source("http://127.0.0.1:8091")), {}, None) as (_, _, variables):
        assert Settings.read({"VISOR_HOME": str(tmp_path), **variables}) == settings


def test_the_doctor_asks_for_tensorflow_only_where_there_is_no_model(
    tmp_path: Path, built_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("visor.cli.doctor.version", nowhere)
    monkeypatch.setattr("visor.cli.doctor.shutil.which", lambda name: None)
    for home, is_asked in ((built_settings.home, False), (tmp_path, True)):
        monkeypatch.setenv("VISOR_HOME", str(home))
        monkeypatch.setenv("VISOR_INDEX", "none")
        assert any("tensorflow" in finding.what for finding in look()) == is_asked


def test_the_doctor_takes_no_program_for_there_that_does_not_run(
    tmp_path: Path, built_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "java").write_text("#!/bin/sh\necho Unable to locate a Java Runtime >&2\nexit 1\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("VISOR_HOME", str(built_settings.home))
    [java] = [finding for finding in look() if finding.what == "java"]
    assert (java.state, "Unable to locate" in java.found, "Java 11" in java.remedy) == ("absent", True, True)


def test_without_a_model_nothing_is_crawled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISOR_HOME", str(tmp_path / "home"))
    Image.new("RGB", (40, 40), "teal").save(tmp_path / "teal.png")
    said = CliRunner().invoke(cli, ["index", str(tmp_path)])
    assert "Run `visor model build`" in str(said.exception)
    assert "Crawling" not in said.stderr


@pytest.mark.parametrize(
    ("called", "words"),
    [
        ("/opt/venv/bin/visor", ["/opt/venv/bin/visor"]),
        ("/home/Ann Lee/venv/bin/visor", ["/home/Ann Lee/venv/bin/visor"]),
        ("/site-packages/visor/__main__.py", [sys.executable, "-m", "visor"]),
    ],
)
def test_the_command_that_searches_can_be_pasted(
    called: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [called, "demo"])
    assert shlex.split(_called()) == words
