"""The library: the same methods on an opened index and on a server's, on a small catalogue made here."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image
from tests.unit.imaging.empty_pictures import scene

import visor
from visor.app import App
from visor.cli.index import crawl_and_embed
from visor.imaging.decode import decode_image
from visor.library.remote import RemoteIndex
from visor.schema.collections import ITEMS
from visor.schema.search import IndexAnswer, QueryAnswer
from visor.search.request import request_of
from visor.sources.contract import Page
from visor.sources.folder import source as folder_source
from visor.sources.folder.source import FolderSource
from visor.storage.documents import Delete
from visor.web.site import Server


@contextmanager
def served(home: Path, name: str) -> Iterator[Server]:
    settings = visor.Settings(home=home, index=name, freshness_s=0.0, owner_key="the owner's")
    with App(settings) as app:
        server = Server(app.site({})).start()
        yield server
        server.stop()


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    with served(home, "small") as server:
        yield server


@pytest.fixture(params=["open", "connect"])
def index(request: pytest.FixtureRequest, home: Path) -> Iterator[visor.Index]:
    if request.param == "open":
        opened = visor.open(home, name="small")
    else:
        opened = visor.connect(request.getfixturevalue("server").address)
    with opened as index:
        yield index


def test_everything_that_can_be_searched_for(index: visor.Index, folder: Path) -> None:
    path = folder / "warm" / "red.png"
    first = index.search(path, k=2)
    assert (first[0].item.title, first[0].verdict, len(first)) == ("red", "exact", 2)
    item = first[0].item
    with Image.open(path) as image:
        queries = [str(path), path.read_bytes(), image, first.vector]
        assert [result[0].item.id for result in index.search(queries)] == [item.id] * 4
    assert item.id not in {match.item.id for match in index.search(item)}
    assert index.search(item.id)[0] == index.search(item)[0]
    assert len(index.search(np.stack([first.vector, first.vector]), k=1)) == 2


def test_a_result_is_a_sequence_of_matches(index: visor.Index, folder: Path) -> None:
    result = index.search(folder / "warm" / "red.png", facets=True)
    assert isinstance(result, Sequence)
    assert [match.item.id for match in result] == [result[n].item.id for n in range(3)]
    assert result[:2] == tuple(result)[:2]
    assert isinstance(result[-1], visor.Match)
    assert 0.9 < result.confidence <= 1
    assert not result.no_confident_match
    assert result.labels[0].name
    assert result.timing_ms["total"] > 0
    assert result.facets is not None
    assert result.vector.dtype == np.float32
    assert repr(result) == f"<SearchResult: 3 matches, confidence {result.confidence:.2f}>"


def test_options_are_those_of_the_endpoint(index: visor.Index, folder: Path) -> None:
    path = folder / "warm" / "red.png"
    found = index.search(path, filters=visor.Filters(collection=["cold"]), mode="exact", box=(0, 0, 1, 0.9))
    assert ([match.item.title for match in found], found.mode) == (["blue"], "exact")
    assert index.search(path, metric="cityblock").metric == "cityblock"


def test_pages_examples_and_orders(index: visor.Index, folder: Path) -> None:
    red, blue = folder / "warm" / "red.png", folder / "cold" / "blue.png"
    pages = list(index.pages(red, k=2))
    assert [len(page) for page in pages] == [2, 1]
    assert {match.item.title for page in pages for match in page} == {"red", "amber", "blue"}
    both = index.search(red, examples=[blue], k=2)
    assert {match.item.title for match in both} == {"red", "blue"}
    assert index.search(examples=[red, (blue, -0.5)])[0].item.title == "red"
    assert len(index.search(red, min_similarity=0.999, sort="newest")) == 1


def test_more_searches_than_a_server_takes_at_once(index: visor.Index, folder: Path) -> None:
    paths = [folder / "warm" / "red.png", folder / "cold" / "blue.png"] * 9
    found = index.search(paths, k=1)
    assert [result[0].item.title for result in found] == ["red", "blue"] * 9
    with pytest.raises(visor.UnknownItem):
        index.search([paths[0], "0" * 32], k=1)


@pytest.mark.slow
def test_two_pictures_are_compared(index: visor.Index, folder: Path) -> None:
    red, blue = folder / "warm" / "red.png", folder / "cold" / "blue.png"
    same, other = index.compare(red, red.read_bytes()), index.compare(index.search(red)[0].item, blue)
    assert (same.verdict, same.is_aligned, same.confidence > 0.9) == ("exact", True, True)
    assert other.similarity < same.similarity
    with pytest.raises(visor.BadRequest, match="holds no picture"):
        index.compare(red, index.search(blue).vector)


def test_words_are_searched_for(index: visor.Index, folder: Path) -> None:
    found = index.search(text="ambre")
    assert [(match.item.title, match.similarity) for match in found] == [("amber", None)]
    assert found[0].highlights[0].spans == ((0, 5),)
    both = index.search(folder / "warm" / "red.png", text="blue")
    assert {match.item.title for match in both[:2]} == {"red", "blue"}
    assert [match.text_score is not None for match in both].count(True) == 1


def test_a_picture_is_sent_and_looked_at_once(index: visor.Index, folder: Path) -> None:
    path = folder / "warm" / "amber.png"
    assert index.search(path)[0].item.title == "amber"
    again = index.search(path, filters=visor.Filters(collection=["cold"]))
    assert ([match.item.title for match in again], "embed" in again.timing_ms) == (["blue"], False)
    if isinstance(index, RemoteIndex):
        for picture in index._handles:  # as a server that was started anew answers
            index._handles[picture] = "0" * 32
        assert index.search(path)[0].item.title == "amber"
        assert "0" * 32 not in index._handles.values()


def test_a_picture_is_turned_as_its_exif_says(index: visor.Index, folder: Path) -> None:
    with Image.open(folder / "warm" / "amber.png") as image:
        turned = image.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    assert (index.search(turned)[0].item.title, index.search(turned)[0].verdict) == ("amber", "exact")


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "CMYK", "LAB", "HSV", "La"])
def test_a_pillow_image_of_any_mode_is_what_its_file_is(mode: str) -> None:
    grey = Image.linear_gradient("L")
    deep = {"I;16": np.uint16(257), "I": np.int32(257), "F": np.float32(1 / 255)}.get(mode)
    image = grey.convert("RGB").convert(mode) if mode in ("CMYK", "LAB", "HSV") else grey.convert("LA").convert("La")
    if deep is not None:
        image = Image.fromarray(np.asarray(grey).astype(deep.dtype) * deep)
    assert image.mode == mode
    sent = decode_image(request_of(image, {})[1] or b"", pixels_max=1_000_000).pixels
    assert np.abs(np.asarray(sent, int) - np.asarray(grey, int)[..., None]).max() <= 2


@pytest.mark.parametrize(
    ("query", "options", "error", "words"),
    [
        (3, {}, visor.BadRequest, "A value of type int cannot be searched for"),
        ("nowhere.png", {}, visor.BadRequest, "'nowhere.png' cannot be read: No such file"),
        ("no\0where.png", {}, visor.BadRequest, "is not a path: it holds a null"),
        ("~nobody-of-this-name/red.png", {}, visor.BadRequest, "~nobody-of-this-name/red.png' is not a path: "),
        (b"no image", {}, visor.UndecodableImage, "8 bytes"),
        (b"", {"k": 0}, visor.BadRequest, "k of the search is 0. Valid: a whole number"),
        (b"", {"mode": "slow"}, visor.BadRequest, 'mode of the search is "slow"'),
        (
            b"",
            {"box": (0, 0, 1)},
            visor.BadRequest,
            r"box of the search is \[0,0,1\]. Valid: a list of 4 \(each a number",
        ),
        (b"", {"exclude": [(0, 0)]}, visor.BadRequest, r"exclude.* is \[0,0\]. Valid: a list \(each a list of 4 "),
        (b"", {"colour": "red"}, visor.BadRequest, "colour is not a key of the search"),
        (np.ones(3), {}, visor.BadRequest, "vector has 6 bytes"),
        (np.zeros(3328), {}, visor.BadRequest, "all zeros"),
        ("0" * 32, {}, visor.UnknownItem, "No item 000"),
        ("http://127.0.0.1:9/x.jpg", {}, visor.FetchRefused, "port 9"),
        (np.full(3328, np.inf), {}, visor.BadRequest, "not finite"),
        (np.full(3328, 1e300), {}, visor.BadRequest, "not finite"),
        (np.array(["a"]), {}, visor.BadRequest, "dtype <U1"),
        (np.ones(3328, complex), {}, visor.BadRequest, "dtype complex128"),
        (memoryview(np.zeros((4, 4))), {}, visor.UndecodableImage, "128 bytes"),
        (Image.new("RGB", (0, 5)), {}, visor.UndecodableImage, "empty image"),
        (None, {"text": "\ud800"}, visor.BadRequest, "text of the search is not Unicode"),
        (None, {"text": b"red"}, visor.BadRequest, "text of the search is of type bytes"),
        (None, {"text": object()}, visor.BadRequest, "The search holds something .* of type object"),
        (b"", {"handle": "x"}, visor.BadRequest, "image and handle"),
        (b"", {"examples": None}, visor.BadRequest, "examples of the search is empty"),
        (b"", {"examples": 5}, visor.BadRequest, r"examples of the search is 5. Valid: a list \(each a table"),
        (b"", {"examples": "red.png"}, visor.BadRequest, 'examples of the search is "red.png"'),
        (b"", {"examples": [(b"",)]}, visor.BadRequest, "a tuple of 1"),
        (b"", {"examples": [{"item": "0" * 32}] * 9}, visor.BadRequest, "length at most 8"),
        (b"", {"filters": {"price": {"min": float("nan")}}}, visor.BadRequest, "price.min of the search is nan"),
        (b"", {"filters": {"attributes": {"price": {"max": float("-inf")}}}}, visor.BadRequest, "price.max .* -inf"),
        (b"", {"filters": {"price": {"maximum": 5}}}, visor.BadRequest, "filters.price.maximum is not a key"),
    ],
)
def test_errors_are_of_the_tree(index: visor.Index, query: object, options: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        index.search(query, **options)
    assert isinstance(caught.value, visor.VisorError)
    assert type(caught.value) is error


def test_a_handle_beside_a_picture_that_was_sent_before_is_refused(index: visor.Index, folder: Path) -> None:
    index.search(folder / "warm" / "red.png")
    with pytest.raises(visor.BadRequest, match="image and handle"):
        index.search(folder / "warm" / "red.png", handle="x")


def test_numbers_of_numpy_are_numbers(index: visor.Index, folder: Path) -> None:
    picture = folder / "warm" / "red.png"
    whole = np.array([0.0, 0.0, 1.0, 1.0])
    found = index.search(picture, k=np.int64(2), box=whole, min_similarity=np.float32(-1), group=np.bool_(True))
    assert len(found) == 2
    weighed = index.search(picture, k=2, examples=[(found[1].item, np.float32(0.5))])
    assert len(weighed) == 2
    other = index.search(picture, k=2, examples=iter([(found[1].item, 0.5)]))
    assert [match.item.id for match in other] == [match.item.id for match in weighed]


@pytest.mark.parametrize("make", [lambda image: image.close(), lambda image: image.fp.truncate(1000)])
def test_a_pillow_image_that_cannot_be_read_says_so(tmp_path: Path, make: Callable) -> None:
    scene(5).resize((64, 64)).save(tmp_path / "photo.png")
    with (tmp_path / "photo.png").open("r+b") as file, Image.open(file) as image:
        make(image)
        with pytest.raises(visor.UndecodableImage, match="The Pillow image cannot be read: "):
            request_of(image, {})


def test_pages_are_of_one_picture(index: visor.Index) -> None:
    with pytest.raises(visor.BadRequest, match="for several pictures at once"):
        next(index.pages([b"", b""]))


@pytest.mark.parametrize(
    ("item", "error", "words"),
    [
        ("", visor.UnknownItem, "'' is not an item's id"),
        ("../x", visor.UnknownItem, "'../x' is not an item's id"),
        ("\ud800", visor.UnknownItem, "is not an item's id"),
        ("a" * 100_000, visor.UnknownItem, "is not an item's id"),
        (None, visor.BadRequest, "A value of type NoneType is not an item"),
        (["0" * 32], visor.BadRequest, "A value of type list is not an item"),
    ],
)
def test_what_is_no_item_is_said_by_both(index: visor.Index, item: Any, error: type, words: str) -> None:
    for method in (index.get, index.delete):
        with pytest.raises(error, match=words):
            method(item)


def test_a_closed_index_says_so(home: Path, server: Server) -> None:
    for index in (visor.open(home, name="small"), visor.connect(server.address)):
        index.close()
        index.close()
        for call in (index.stats, lambda: index.search(text="red"), lambda: index.get("0" * 32)):  # noqa: B023
            with pytest.raises(visor.BadRequest, match="The index is closed"):
                call()


FORKED = """
import os, sys, threading, visor
from visor.web.site import Server

home, picture, another = sys.argv[1:]
ports = []

def application(environ, start_response):
    ports.append(environ["REMOTE_PORT"])
    start_response("202 Accepted", [])
    return [b'{"accepted": 1}']

server = Server(application).start()
local, remote = visor.open(home, name="small"), visor.connect(server.address)
best = local.search(picture, k=1)[0]
remote.delete("0" * 32)
child = os.fork()
if child == 0:
    with local, remote:
        remote.delete("0" * 32)
        os._exit(local.search(another, k=1)[0].verdict != "exact")
hangs = threading.Timer(30, os.kill, (child, 9))
hangs.start()
_, status = os.waitpid(child, 0)
hangs.cancel()
assert status == 0, status
assert local.search(picture, k=1)[0] == best
remote.delete("0" * 32)
server.stop()
assert ports[0] == ports[2] != ports[1], ports
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_process_answers_and_leaves_the_parents_connections_alone(home: Path, folder: Path) -> None:
    """As in a pool of workers: the search of the child never ended."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        FORKED,
        str(home),
        str(folder / "warm" / "red.png"),
        str(folder / "cold" / "blue.png"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_an_item_is_added_shown_and_deleted(home: Path, folder: Path) -> None:
    with visor.open(home, name="added") as index:
        green = folder.parent / "green.png"
        scene(7).resize((64, 64)).save(green)
        try:
            answer = index.add(
                [
                    {"key": "green", "image_url": green, "title": "Green", "price": 3.5, "currency": "eur"},
                    visor.PushItem(key="lost", image_url="/nowhere.png"),
                    visor.PushItem(key="odd", image_url="ftp://host/x.png"),
                    visor.PushItem(key="none", image_url="~nobody-here/x.png"),
                ]
            )
            assert [item.state for item in answer.items] == ["accepted", "refused", "refused", "refused"]
            assert (answer.accepted, answer.refused) == (1, 3)
            assert "cannot be read" in str(answer.items[1].reason)
            found = index.get(str(answer.items[0].id))
            assert (found.item.title, found.item.price, found.width) == ("Green", 3.5, 64)
            assert index.search(green)[0].item == found.item
            copied = index.add([found.item])
            assert copied.items[0].id == found.item.id
            assert index.compact().images == index.stats().images == 1
            index.delete(found.item)
            assert len(index.search(green)) == 0
            with pytest.raises(visor.UnknownItem, match=found.item.id):
                index.get(found.item)
        finally:
            green.unlink()


def test_what_was_deleted_a_moment_ago_is_not_called_lost(home: Path, folder: Path) -> None:
    settings = visor.Settings(home=home, index="fading", freshness_s=3600.0)
    request, picture = request_of(folder / "warm" / "red.png", {"k": 1})
    with visor.open(home, name="fading") as index, App(settings) as app:
        added = index.add([{"key": "red", "image_url": folder / "warm" / "red.png"}]).items[0].id
        service = app.search_service()
        service.refresh()
        index.delete(str(added))
        answer = service.search(request, picture)
        assert (answer.matches, answer.notice) == ((), None)
        app.stores.documents.commit([Delete(collection=ITEMS, key=str(added))])
        service.items.invalidate(None)
        assert "lost" in str(service.search(request, picture).notice)


def test_items_are_pushed_to_a_server(home: Path) -> None:
    done: list[tuple[int, int]] = []
    pushed = [{"key": str(n), "image_url": f"https://shop.example/{n}.jpg"} for n in range(1001)]
    with served(home, "pushed") as server, visor.connect(server.address, key="the owner's") as index:
        answer = index.add(pushed, progress=lambda count, total: done.append((count, total)))
        assert (answer.accepted, done) == (1001, [(1000, 1000), (1, 1)])
        assert [item.line for item in answer.items] == list(range(1, 1002))
        index.delete(str(answer.items[0].id))
        assert index.add([{"key": "file", "image_url": "photo.jpg"}]).items[0].state == "refused"


def test_the_key_is_sent() -> None:
    seen: list[str | None] = []

    def application(environ: dict, start_response: Callable) -> list[bytes]:
        seen.append(environ.get("HTTP_X_VISOR_KEY"))
        start_response("401 Unauthorized", [])
        return [b'{"type": "urn:visor:key_required", "title": "", "status": 401, "detail": ""}']

    server = Server(application).start()
    for key in ("secret", ""):
        with visor.connect(server.address, key=key) as index, pytest.raises(visor.KeyRequired):
            index.delete("0" * 32)
    server.stop()
    assert seen == ["secret", None]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect"])
def test_a_redirect_keeps_method_and_body_and_takes_the_key_to_no_other_server(status: str) -> None:
    """As a GET, a deletion is answered with the item: `delete` returned as if it was gone."""
    seen: list[tuple[str, str, bytes, str | None]] = []

    def application(environ: dict, start_response: Callable) -> list[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        seen.append((method, path, body, environ.get("HTTP_X_VISOR_KEY")))
        if path.startswith("/old"):
            start_response(status, [("Location", path.removeprefix("/old"))])
        elif path.startswith("/other"):
            start_response(status, [("Location", server.address.replace("127.0.0.1", "localhost") + "/v1/stats")])
        else:
            start_response("200 OK", [])
        return [b'{"accepted": 1, "items": []}']

    server = Server(application).start()
    with visor.connect(f"{server.address}/old", key="the owner's") as index:
        index.delete("0" * 32)
        index.add([{"key": "a", "image_url": "https://shop.example/a.jpg"}])
    with (
        visor.connect(f"{server.address}/other", key="the owner's") as index,
        pytest.raises(
            visor.RequestError, match=r"redirects to http://localhost.* If you trust that server, connect to"
        ),
    ):
        index.stats()
    server.stop()
    assert [(method, path) for method, path, *_ in seen] == [
        ("DELETE", "/old/v1/items/" + "0" * 32),
        ("DELETE", "/v1/items/" + "0" * 32),
        ("POST", "/old/v1/items"),
        ("POST", "/v1/items"),
        ("GET", "/other/v1/stats"),
    ]
    assert seen[3][2] == seen[2][2] != b""
    assert {key for *_, key in seen} == {"the owner's"}


def test_an_item_that_is_none_is_refused(index: visor.Index) -> None:
    wrong: list[Any] = [{"key": "a", "colour": "red"}, "photo.jpg", {"key": ""}, visor.PushItem(key=5, image_url=5)]  # type: ignore[arg-type]
    for item in wrong:
        with pytest.raises(visor.BadRequest, match="cannot be added"):
            index.add([item])
    with pytest.raises(visor.BadRequest, match="A value of type int holds no items"):
        index.add(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("price", float("nan"), "price of the item 'a' is nan"),
        ("price", np.float32("inf"), "price of the item 'a' is inf"),
        ("title", "\ud800", "title of the item 'a' is not Unicode"),
        ("image_url", Image.new("RGB", (5, 5)), "The item 'a' holds something that cannot be sent: .*Image"),
    ],
)
def test_what_no_server_could_be_sent_is_not_dropped(index: visor.Index, field: str, value: Any, words: str) -> None:
    for item in ({"key": "a", field: value}, visor.PushItem(**{"key": "a", field: value})):
        with pytest.raises(visor.BadRequest, match=words):
            index.add([item])


def test_what_http_does_not_offer_says_so() -> None:
    index = visor.connect("https://search.example")
    for call in (lambda: index.add_folder("."), lambda: index.crawl("shop"), index.compact):
        with pytest.raises(visor.BadRequest, match=r"on its own, not over HTTP. Valid: An index of visor.open"):
            call()
    with pytest.raises(visor.BadRequest, match="not the URL of a server"):
        visor.connect("search.example")


@pytest.mark.slow
def test_a_source_by_its_keys_and_by_its_name(home: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "visor.toml").write_text(f'[sources.mine]\nkind = "folder"\npath = "{folder}"\n')
    settings = visor.Settings(config=tmp_path / "visor.toml")
    (folder / "broken.png").write_bytes(b"broken")
    try:
        with visor.open(home, name="crawled", settings=settings) as index:
            run = index.crawl("mine")
            assert (run.published, run.failed, run.failures) == (4, 1, {"undecodable_image": 1})
            assert index.stats().images == 3
            with pytest.raises(visor.SettingsError, match="no source 'other'"):
                index.crawl("other")
            with pytest.raises(visor.SettingsError, match="cloud"):
                index.crawl({"kind": "cloud"})
            keys = {"kind": "folder", "path": str(folder)}
            some = index.crawl(keys, name="again", limit=1)
            assert (some.state, some.source, some.published) == ("postponed", "again", 1)
            assert index.crawl(keys, name="again").published == 3
    finally:
        (folder / "broken.png").unlink()


def test_a_source_that_cannot_be_one_says_so(home: Path, folder: Path) -> None:
    with visor.open(home, name="odd") as index:
        wrong: list[tuple[Any, dict[str, Any], type, str]] = [
            (5, {}, visor.BadRequest, "A value of type int is not a source"),
            ({"path": "x"}, {}, visor.SettingsError, "does not name the source's kind. Valid: bucket, feed"),
            ({"kind": "folder", "path": folder}, {"limit": 0}, visor.BadRequest, "limit is 0"),
            ({"kind": "folder", "path": folder}, {"limit": float("nan")}, visor.BadRequest, "limit is nan"),
            ({"kind": "folder", "path": folder}, {"name": 5}, visor.SettingsError, "5 cannot name a source"),
        ]
        for source, options, error, words in wrong:
            with pytest.raises(error, match=words):
                index.crawl(source, **options)
        for path in (None, 5, b"x"):
            with pytest.raises(visor.BadRequest, match="is not a path"):
                index.add_folder(path)  # type: ignore[arg-type]


def test_a_file_in_place_of_the_home_has_no_model() -> None:
    with visor.open(__file__) as index, pytest.raises(visor.ModelNotBuilt, match="There is no model in "):
        index.search(b"")


@pytest.mark.slow
@pytest.mark.parametrize("by", ["library", "command"])
def test_what_a_source_gave_before_it_failed_is_found(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """It counts as published: no later run would publish it again, and each ends in the same error."""
    whole = FolderSource.read

    def failing(self: FolderSource, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        yield next(whole(self, checkpoint))
        raise visor.SourceError("The share is gone")

    monkeypatch.setattr(folder_source, "PAGE_SIZE", 2)
    monkeypatch.setattr(FolderSource, "read", failing)
    settings = visor.Settings(allow_folders=(str(folder),))
    own = msgspec.structs.replace(settings, home=home, index=f"failed-{by}")
    with visor.open(home, name=own.index, settings=settings) as index, App(own) as app:

        def crawl() -> None:
            if by == "library":
                index.crawl({"kind": "folder", "path": str(folder)}, name="mine")
            else:
                crawl_and_embed(app, app.open_folder(folder))

        with pytest.raises(visor.SourceError, match="The share is gone"):
            crawl()
        assert index.stats().images == 2


def test_a_folder_that_is_none_and_a_model_that_is_not_there(tmp_path: Path) -> None:
    with visor.open(tmp_path) as index:
        with pytest.raises(visor.BadRequest, match="is not a folder"):
            index.add_folder(tmp_path / "nothing")
        with pytest.raises(visor.ModelError):
            index.search(b"")
        assert os.listdir(tmp_path) in ([], ["indexes"])  # noqa: PTH208


def test_stats_say_the_same(home: Path, server: Server) -> None:
    with visor.open(home, name="small") as opened, visor.connect(server.address) as connected:
        assert opened.stats().images == connected.stats().images == 3
        assert msgspec.structs.asdict(opened.stats().model) == msgspec.structs.asdict(connected.stats().model)


def test_stats_write_no_owners_key_and_need_none(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("owner_key"))
    (tmp_path / "owner_key").mkdir()  # such as a full disk: none can be written
    settings = visor.Settings(home=tmp_path, index="small")
    with visor.open(settings=settings) as index:
        assert index.stats().images == 3
    (tmp_path / "owner_key").rmdir()
    with visor.open(settings=settings) as index:
        index.stats()
    assert not (tmp_path / "owner_key").exists()


@pytest.mark.parametrize("look", [b"", bytes(range(1, 256)) + b"abc"])
def test_a_results_vector_leaves_out_what_stands_behind_it(look: bytes) -> None:
    unit = np.full(64, 1 / 8, "<f2")
    query = QueryAnswer(vector=base64.b64encode(unit.tobytes() + look).decode())
    index = IndexAnswer(images=0, generation=0, model="m")
    result = visor.SearchResult(
        matches=(), confidence=0.0, no_confident_match=True, mode="fast", query=query, index=index, timing_ms={}
    )
    assert result.vector.tolist() == unit.tolist()


@pytest.mark.parametrize(
    "call",
    [
        lambda index: index.add_folder(""),
        lambda index: index.export(""),
        lambda index: index.search(""),
        lambda _: visor.open(""),
    ],
)
def test_an_empty_path_is_not_the_current_folder(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[visor.Index], object]
) -> None:
    monkeypatch.chdir(folder)
    with visor.open(home, name="small") as index, pytest.raises(visor.BadRequest, match="path is empty"):
        call(index)
