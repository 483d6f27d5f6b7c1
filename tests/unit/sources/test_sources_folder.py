"""A tree of pictures as a source, and the reader that alone may open its files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image
from tests.unit.sources.catalogue_server import context_for

from visor.errors import FetchFailed, FetchRefused, SourceError
from visor.http.fetch import Fetched, FetchOptions
from visor.image_readers.readers import FolderReader, ImageReaders
from visor.schema.items import Item
from visor.sources.contract import Page
from visor.sources.folder import source as folder
from visor.sources.registry import open_source


def picture(path: Path, **exif: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (24, 16), (1, 2, 3))
    tags = Image.Exif()
    for name, value in exif.items():
        inner = name in ("DateTimeOriginal", "OffsetTimeOriginal")
        (tags.get_ifd(ExifTags.IFD.Exif) if inner else tags)[ExifTags.Base[name]] = value
    image.save(path, exif=tags)
    return path


def read(root: Path, checkpoint: Any = None, **keys: Any) -> list[Page]:
    with context_for() as context:
        return list(open_source("mine", {"kind": "folder", "path": str(root), **keys}, context).read(checkpoint))


def items_of(pages: list[Page]) -> dict[str, Item]:
    items = [item for page in pages for item in page.items]
    assert len({item.key for item in items}) == len(items)
    return {item.key: item for item in items}


def test_sub_folders_are_collections(tmp_path: Path) -> None:
    for name in ("top.jpg", "shoes/a.png", "shoes/high/b.WEBP", "hats/c.jpg"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden").mkdir()
    picture(tmp_path / ".hidden" / "d.jpg")
    picture(tmp_path / ".e.jpg")
    assert {key: item.collection for key, item in items_of(read(tmp_path)).items()} == {
        "hats/c.jpg": "hats",
        "shoes/a.png": "shoes",
        "shoes/high/b.WEBP": "shoes/high",
        "top.jpg": None,
    }
    assert items_of(read(tmp_path, collection="All"))["top.jpg"].collection == "All"
    assert set(items_of(read(tmp_path, hidden=True))) >= {".hidden/d.jpg", ".e.jpg"}


def test_exif_and_the_file_beside_a_picture_describe_it(tmp_path: Path) -> None:
    picture(
        tmp_path / "a_red-shoe.jpg",
        ImageDescription="A shoe\0",
        Artist=" Ann ",
        Copyright="CC0",
        DateTimeOriginal="2021:05:04 03:02:01",
        OffsetTimeOriginal="+02:00",
        XPTitle="Schuh".encode("utf-16-le"),
    )
    item = items_of(read(tmp_path))["a_red-shoe.jpg"]
    assert (item.title, item.description, item.author, item.licence) == ("Schuh", "A shoe", "Ann", "CC0")
    assert item.date == "2021-05-04T03:02:01+02:00"

    beside = {
        "title": "Red &amp; shoe",
        "price": 12.5,
        "currency": "EUR",
        "page_url": "https://e.org/1",
        "collection": "Shoes",
        "extra": {"size": "41"},
        "anything": [1],
    }
    (tmp_path / "a_red-shoe.json").write_text(json.dumps(beside))
    item = items_of(read(tmp_path))["a_red-shoe.jpg"]
    assert (item.title, item.price, item.currency, item.page_url) == ("Red & shoe", 12.5, "EUR", "https://e.org/1")
    assert (item.collection, item.author, item.extra) == ("Shoes", "Ann", {"size": "41"})


@pytest.mark.parametrize(
    ("written", "expected", "told"),
    [
        ({"price": "19.99", "currency": "EUR"}, {"price": 19.99, "currency": "EUR"}, []),
        ({"price": "1.299,00 EUR"}, {"price": 1299, "currency": "EUR"}, []),
        ({"price": -5, "currency": "EUR"}, {"price": None, "currency": None}, ["price -5"]),
        ({"price": "nan"}, {"price": None}, ["price 'nan'"]),
        ({"price": "inf"}, {"price": None}, ["price 'inf'"]),
        ({"price": [5]}, {"price": None}, ["price [5]"]),
        ({"price": "ab 5 €"}, {"price": 5, "extra": {"price_text": "ab 5 €"}}, []),
        ({"price": 5, "currency": "euro"}, {"price": 5, "currency": None}, ["currency 'euro'"]),
        ({"date": "last week"}, {"date": None}, ["date 'last week'"]),
        ({"page_url": "javascript:alert(1)"}, {"page_url": None}, ["its address of a page"]),
        ({"title": ["x"]}, {"title": "a"}, ["title ['x']"]),
        ({"title": 1984}, {"title": "1984"}, []),
        (
            {"extra": {"size": 42, "fit": "slim", "x": {}, "y": None}},
            {"extra": {"size": "42", "fit": "slim"}},
            ["extra"],
        ),
        ({"extra": "none"}, {"extra": {}}, ["extra 'none'"]),
        ({"country": "de"}, {"country": "DE"}, []),
    ],
)
def test_each_value_beside_a_picture_stands_for_itself(
    tmp_path: Path, written: dict[str, Any], expected: dict[str, Any], told: list[str]
) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"author": "Ann", **written}).encode())
    (page,) = read(tmp_path)
    assert page.items[0].author == "Ann"
    assert {name: getattr(page.items[0], name) for name in expected} == expected
    assert all(reason in failure.reason for failure, reason in zip(page.failed, told, strict=True))
    assert not any(failure.dropped for failure in page.failed)


LONG = "IMG_20230904_193742_long_name_of_a_photo"


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("a.jpg", "a.jpg.json"),
        ("a.jpg", "a.json"),
        ("a.JPG", "a.JPG.supplemental-metadata.json"),
        (f"{LONG}.jpg", f"{LONG}.jpg.s.json"),
        (f"{LONG}_2023.jpg", f"{LONG}_2023..json"),
        ("IMG_1(1).jpg", "IMG_1.jpg(1).json"),
        ("IMG_1(2).jpg", "IMG_1.jpg.supplemental-metadata(2).json"),
        ("IMG_1-edited.jpg", "IMG_1.jpg.supplemental-metadata.json"),
        ("A\u0308pfel.jpg", "\u00c4pfel.json"),
        ("\u00c4pfel.jpg", "A\u0308pfel.jpg.json"),
    ],
)
def test_what_lies_beside_a_picture_is_found_by_any_of_its_names(tmp_path: Path, name: str, beside: str) -> None:
    picture(tmp_path / name)
    (tmp_path / beside).write_text('{"title": "Found"}')
    assert [item.title for item in items_of(read(tmp_path)).values()] == ["Found"]


def test_what_systems_put_among_pictures_is_passed_over(tmp_path: Path) -> None:
    for folder_ in ("@eaDir/a.jpg", "#recycle", "$RECYCLE.BIN", "lost+found", "__MACOSX", ".thumbnails", "#snapshot"):
        picture(tmp_path / folder_ / "x.jpg")
    for name in ("._a.jpg", "a.jpg", "b_small.jpg", "2019/c.jpg", "drafts/d.jpg"):
        picture(tmp_path / name)
    pages = read(tmp_path, hidden=True, exclude=["*_small.jpg", "2019/*", "drafts"])
    assert set(items_of(pages)) == {"a.jpg"}
    assert pages[0].passed_over == {
        "a folder or file of the system, such as @eaDir or #recycle": 8,
        "left out by exclude": 3,
    }


def test_files_that_are_not_read_are_counted_by_their_ending(tmp_path: Path) -> None:
    for name in ("1.NEF", "2.NEF", "3.mov", "odd.2024-05-01 backup", "a.json", "Thumbs.db", "a.xmp", "a.jpg"):
        (tmp_path / name).write_bytes(b"{}")
    (page,) = read(tmp_path)
    rest = "files: not an ending of the pictures that are read"
    assert page.passed_over == {f".NEF {rest}": 2, f".mov {rest}": 1, f"other {rest}": 1}


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("Jürgen".encode().decode("latin-1"), "Jürgen"),
        ("J\xfcrgen", "Jürgen"),
        ("OLYMPUS DIGITAL CAMERA         ", None),
        ("SONY DSC", None),
        ("Exif_JPEG_PICTURE", None),
        ("My digital camera", "My digital camera"),
    ],
)
def test_descriptions_in_exif_are_peoples_own(tmp_path: Path, written: str, read_as: str | None) -> None:
    picture(tmp_path / "a.jpg", ImageDescription=written.encode("latin-1"))
    assert items_of(read(tmp_path))["a.jpg"].description == read_as


def test_without_a_description_the_name_is_the_title(tmp_path: Path) -> None:
    picture(tmp_path / "a_red--shoe 2.png")
    assert items_of(read(tmp_path))["a_red--shoe 2.png"].title == "a red shoe 2"


@pytest.mark.parametrize("taken", ["0000:00:00 00:00:00", "garbage", "", "2021:13:45 99:99:99"])
def test_a_broken_camera_clock_is_no_date(tmp_path: Path, taken: str) -> None:
    picture(tmp_path / "a.jpg", DateTimeOriginal=taken)
    assert items_of(read(tmp_path))["a.jpg"].date is None


def test_pictures_that_cannot_be_decoded_are_still_items(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe1\x00\x20Exif\0\0MM\0*" + b"\xff" * 40)
    (tmp_path / "empty.png").write_bytes(b"")
    assert set(items_of(read(tmp_path))) == {"broken.jpg", "empty.png"}


@pytest.mark.parametrize("name", ["image", "file_name", "path"])
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_list_describes_the_pictures_below_it(tmp_path: Path, name: str, is_wrapped: bool) -> None:
    for one in "abé":
        picture(tmp_path / f"shop/images/{one}.png")
    rows = [
        {name: "images/a.png", "title": "Granny Smith", "collection": "Fruit", "category": "Apple", "price": 2},
        {name: "./images/e\u0301.png", "title": "Éclair"},
        {name: "images/b.png", "title": "Told by its own file"},
        {name: "images/none.png", "title": "Nowhere"},
        {"title": "No picture"},
        "no object",
    ]
    document = {"version": 1, "items": rows} if is_wrapped else rows
    (tmp_path / "shop/catalogue.json").write_text(json.dumps(document))
    (tmp_path / "shop/images/b.json").write_text('{"title": "Its own"}')
    (tmp_path / "shop/settings.json").write_text('{"colour": "red"}')
    items = items_of(read(tmp_path))
    first = items["shop/images/a.png"]
    assert (first.title, first.collection, first.price, first.extra["category"]) == (
        "Granny Smith",
        "Fruit",
        2,
        "Apple",
    )
    assert [items[f"shop/images/{one}.png"].title for one in "bé"] == ["Its own", "Éclair"]
    assert items.keys() == {"shop/images/a.png", "shop/images/b.png", "shop/images/é.png"}


def test_a_broken_file_beside_a_picture_is_told_and_left_out(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "a.jpg.json").write_text('{"price": "much"}')
    (page,) = read(tmp_path)
    assert [item.key for item in page.items] == ["a.jpg"]
    assert [(failure.key, failure.dropped) for failure in page.failed] == [("a.jpg", False)]
    assert page.failed[0].reason == "price 'much' is not an amount of money"
    (tmp_path / "a.jpg.json").write_text('["no object"]')
    (page,) = read(tmp_path)
    assert page.failed[0].reason == "a.jpg.json cannot be read: it is not a JSON object"


def test_links_make_no_loops_and_lead_nowhere_else(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    picture(root / "real" / "a.jpg")
    picture(outside / "secret.jpg")
    (root / "real" / "loop").symlink_to(root)
    (root / "elsewhere").symlink_to(outside)
    (root / "inside.jpg").symlink_to(root / "real" / "a.jpg")
    (root / "secret.jpg").symlink_to(outside / "secret.jpg")
    (root / "dangling.jpg").symlink_to(root / "nothing.jpg")
    (root / "itself.jpg").symlink_to(root / "itself.jpg")
    pages = read(root)
    assert set(items_of(pages)) == {"real/a.jpg", "inside.jpg"}
    assert {failure.key for page in pages for failure in page.failed} == {
        "dangling.jpg",
        "elsewhere",
        "itself.jpg",
        "real/loop",
        "secret.jpg",
    }


def test_names_that_are_no_utf_8_are_told(tmp_path: Path) -> None:
    picture(tmp_path / "good.jpg")
    (tmp_path / "good.jpg").rename(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.jpg"))
    (page,) = read(tmp_path)
    assert page.items == ()
    assert page.failed[0].reason == "its name is not UTF-8"
    assert page.failed[0].key.encode() == rb"'b\udcff.jpg'"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg").chmod(0)
    picture(tmp_path / "locked" / "b.jpg")
    (tmp_path / "locked").chmod(0)
    (page,) = read(tmp_path)
    (tmp_path / "locked").chmod(0o700)
    assert {failure.key for failure in page.failed} == {"a.jpg", "locked"}


def test_goes_on_from_every_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "PAGE_SIZE", 2)
    # Names around '/' in the order of characters, and a folder beside a file of the same stem.
    for name in ("a.jpg", "a/1.jpg", "a/2.jpg", "a/z/3.jpg", "a!/4.jpg", "a0.jpg", "b/5.jpg", "b/6.jpg", "c.jpg"):
        picture(tmp_path / name)
    whole = read(tmp_path)
    assert len(items_of(whole)) == 9
    for at, page in enumerate(whole[:-1]):
        assert read(tmp_path, json.loads(json.dumps(page.checkpoint))) == whole[at + 1 :]
    assert read(tmp_path) == whole


def test_a_resumed_pass_does_not_need_the_file_that_it_stopped_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "PAGE_SIZE", 1)
    for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg"):
        picture(tmp_path / name)
    first = read(tmp_path)[0]
    (tmp_path / "a" / "1.jpg").unlink()
    assert set(items_of(read(tmp_path, first.checkpoint))) == {"a/2.jpg", "b/3.jpg"}


def test_a_changed_file_is_another_picture(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.jpg")
    before = items_of(read(tmp_path))["a.jpg"]
    assert items_of(read(tmp_path))["a.jpg"].image_signature() == before.image_signature()
    os.utime(path, ns=(1, 1))
    assert items_of(read(tmp_path))["a.jpg"].image_signature() != before.image_signature()


def test_an_empty_folder_is_an_empty_catalogue_and_none_is_an_error(tmp_path: Path) -> None:
    (page,) = read(tmp_path)
    assert (page.items, page.passed_over) == ((), {"no picture in the folder": 1})
    with pytest.raises(SourceError, match=r"(?s)gone is not a folder.*sources\.mine\.path"):
        read(tmp_path / "gone")


# Reading the files


def test_the_reader_reads_what_the_source_names(tmp_path: Path) -> None:
    path = picture(tmp_path / "ä b%20c#d?.jpg")
    (item,) = items_of(read(tmp_path)).values()
    reader = FolderReader([tmp_path], bytes_max=10_000)
    fetched = reader.fetch(item.image_url)
    assert fetched.body == path.read_bytes()
    assert fetched.modified == item.image_modified
    assert reader.fetch(item.image_url, FetchOptions(modified=item.image_modified)) == Fetched(
        body=b"", url=item.image_url, modified=item.image_modified, not_modified=True
    )


def test_the_reader_stays_in_its_folders(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "in-other"
    picture(inside / "a.jpg")
    picture(outside / "b.jpg")
    (inside / "link.jpg").symlink_to(outside / "b.jpg")
    reader = FolderReader([inside], bytes_max=10_000)
    for url in (
        (outside / "b.jpg").as_uri(),
        f"{inside.as_uri()}/../in-other/b.jpg",
        f"{inside.as_uri()}/%2e%2e/in-other/b.jpg",
        f"{inside.as_uri()}/link.jpg",
        "file:///etc/passwd",
        f"file://elsewhere{inside}/a.jpg",
    ):
        with pytest.raises(FetchRefused, match=r"(?s)outside the folders that may be read.*VISOR_ALLOW_FOLDERS"):
            reader.fetch(url)
    with pytest.raises(FetchRefused, match="no folder so far"):
        FolderReader([], bytes_max=10_000).fetch((inside / "a.jpg").as_uri())


def test_the_reader_waits_for_no_pipe_and_reads_nothing_huge(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "big.jpg").write_bytes(b"x" * 11)
    reader = FolderReader([tmp_path], bytes_max=10)
    for name, told in (
        ("pipe.jpg", "not a regular file"),
        ("big.jpg", "11 bytes"),
        ("none.jpg", "No such file"),
        ("", "Is a directory|no regular"),
    ):
        with pytest.raises(FetchFailed, match=told):
            reader.fetch(f"{tmp_path.as_uri()}/{name}")


def test_each_scheme_has_its_reader(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    pictures = ImageReaders({"file": FolderReader([tmp_path], bytes_max=10_000)})
    assert pictures.fetch((tmp_path / "a.jpg").as_uri()).body
    with pytest.raises(FetchRefused, match=r"(?s)scheme 'gopher'.*The schemes file"):
        pictures.fetch("gopher://x/")
