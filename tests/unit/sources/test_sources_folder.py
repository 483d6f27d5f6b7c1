"""A tree of pictures as a source, and the reader that alone may open its files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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
        inner = name in ("DateTimeOriginal", "DateTimeDigitized", "OffsetTimeOriginal")
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
        ({"extra": {"": "x", "__x__": "y", "fit": "slim"}}, {"extra": {"fit": "slim"}}, ["extra has a name"]),
        ({"extra": {"n" * 501: "x", "fit": "slim"}}, {"extra": {"fit": "slim"}}, ["extra has a name"]),
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
        ("a.jpg", "A.JPG.json"),
        ("IMG_1.JPG", "img_1.JSON"),
        ("IMG_1-bearbeitet.jpg", "IMG_1.jpg.supplemental-metadata.json"),
        ("IMG_1-EFFECTS(1).jpg", "IMG_1.jpg.supplemental-metadata(1).json"),
        ("IMG_1-modifié.jpg", "IMG_1.jpg.json"),
    ],
)
def test_what_lies_beside_a_picture_is_found_by_any_of_its_names(tmp_path: Path, name: str, beside: str) -> None:
    picture(tmp_path / name)
    (tmp_path / beside).write_text('{"title": "Found"}')
    assert [item.title for item in items_of(read(tmp_path)).values()] == ["Found"]


def test_of_names_that_only_capitals_tell_apart_each_file_belongs_to_its_own(tmp_path: Path) -> None:
    for name in ("a.jpg", "A.jpg"):
        picture(tmp_path / name)
    (tmp_path / "a.json").write_text('{"title": "Small"}')
    assert {key: item.title for key, item in items_of(read(tmp_path)).items()} == {"a.jpg": "Small", "A.jpg": "A"}
    (tmp_path / "A.jpg.JSON").write_text('{"title": "Capital"}')
    assert {key: item.title for key, item in items_of(read(tmp_path)).items()} == {"a.jpg": "Small", "A.jpg": "Capital"}


@pytest.mark.parametrize(
    ("timestamp", "date"), [("1559400000", "2019-06-01T14:40:00Z"), ("94694400", "1973-01-01T00:00:00Z"), ("0", None),
    ("-86400", "1969-12-31T00:00:00Z"), (None, None), ("soon", None), ("1e999", None)],
)  # fmt: skip
def test_google_takeout_knows_when(tmp_path: Path, timestamp: str | None, date: str | None) -> None:
    picture(tmp_path / "red-shoe.jpg")
    picture(tmp_path / "own.jpg", DateTimeOriginal="2021:05:04 03:02:01")
    said = {"title": "red-shoe.jpg", "description": "At the lake", "photoTakenTime": {"timestamp": timestamp}}
    for name in ("red-shoe", "own"):
        (tmp_path / f"{name}.jpg.supplemental-metadata.json").write_text(json.dumps(said))
    items = items_of(read(tmp_path))
    first = items["red-shoe.jpg"]
    assert (first.title, first.description, first.date) == ("red-shoe.jpg", "At the lake", date)
    assert items["own.jpg"].date == "2021-05-04T03:02:01"


@pytest.mark.parametrize("name", ["a.jpg", "b.json", "list.json"])
def test_a_pipe_among_pictures_is_not_waited_for(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "b.jpg")
    os.mkfifo(tmp_path / name)
    (page,) = read(tmp_path)
    assert [item.key for item in page.items] == ["b.jpg"]
    assert "a pipe" in page.failed[0].reason


@pytest.mark.parametrize("name", ["a.json", "list.json"])
def test_what_describes_a_picture_is_read_of_the_folder_alone(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "in" / "a.jpg")
    (tmp_path / "secret.json").write_text('{"title": "Secret", "all": [{"image": "a.jpg", "title": "Secret"}]}')
    (tmp_path / "in" / name).symlink_to(tmp_path / "secret.json")
    (page,) = read(tmp_path / "in")
    assert page.items[0].title == "a"
    assert "leads out of the folder" in page.failed[0].reason


def test_a_list_that_is_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "LIST_BYTES_MAX", 10)
    picture(tmp_path / "a.jpg")
    (tmp_path / "list.json").write_text('[{"image": "a.jpg", "title": "A"}]')
    (page,) = read(tmp_path)
    assert [(one.key, one.dropped) for one in page.failed] == [("list.json", False)]
    assert "at most 10 are read" in page.failed[0].reason


def test_the_list_of_pictures_may_stand_behind_other_lists(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    rows = {"licenses": [{"id": 1, "name": "CC0"}], "images": [{"file_name": "a.jpg", "title": "As COCO has it"}]}
    (tmp_path / "annotations.json").write_text(json.dumps(rows))
    assert items_of(read(tmp_path))["a.jpg"].title == "As COCO has it"


XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:d="http://purl.org/dc/elements/1.1/" xmlns:p="http://ns.adobe.com/photoshop/1.0/"
 p:DateCreated="2021-05-04T03:02:01.00+02:00">
<d:title><rdf:Alt><rdf:li xml:lang="de">Boot</rdf:li><rdf:li xml:lang="x-default">Boat</rdf:li></rdf:Alt></d:title>
<d:creator><rdf:Seq><rdf:li>Jürgen</rdf:li><rdf:li>Ann</rdf:li></rdf:Seq></d:creator></rdf:Description>
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">CC0</rdf:li></rdf:Alt></dc:rights>
<dc:description>At the lake</dc:description></rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("name", ["a.xmp", "a.jpg.xmp", "A.XMP", "in the picture"])
def test_xmp_describes_a_picture(tmp_path: Path, name: str, encoding: str) -> None:
    """Of Lightroom, digiKam and Apple's Photos: beside it before what its EXIF says, within it after that."""
    path = picture(tmp_path / "a.jpg", Copyright="All rights reserved")
    if name == "in the picture":
        with Image.open(path) as image:
            image.save(path, xmp=XMP.encode(), exif=image.getexif())
    else:
        (tmp_path / name).write_bytes(XMP.encode(encoding))
    (item,) = items_of(read(tmp_path)).values()
    assert (item.title, item.description, item.author) == ("Boat", "At the lake", "Jürgen; Ann")
    assert item.date == "2021-05-04T03:02:01+02:00"
    assert item.licence == ("All rights reserved" if name == "in the picture" else "CC0")
    (tmp_path / "a.json").write_text('{"title": "Its own"}')
    (item,) = items_of(read(tmp_path)).values()
    assert (item.title, item.description) == ("Its own", "At the lake")


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>'


@pytest.mark.parametrize("text", ["", "<x", "{}", "<x>" * 100_000, BOMB])
def test_xmp_that_cannot_be_read_is_told(tmp_path: Path, text: str) -> None:
    picture(tmp_path / "a.jpg", Artist="Ann")
    (tmp_path / "a.xmp").write_text(text)
    (page,) = read(tmp_path)
    assert [(one.key, one.reason, one.dropped) for one in page.failed] == [("a.jpg", "a.xmp is not XMP", False)]
    assert page.items[0].author == "Ann"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "a.json cannot be read: it is empty"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"price": ' + b"9" * 5000 + b"}", "more than 4300 digits"),
    ],
)
def test_why_a_file_is_no_json_is_said_in_words(tmp_path: Path, text: bytes, why: str) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "a.json").write_bytes(text)
    (page,) = read(tmp_path)
    assert why in page.failed[0].reason


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
        ("DCIM\\100MEDIA\\DJI_0001.JPG", None),
        ("Maker:0x4c,Date:2017-11-13,Ver:4,Lens:Kan03,Act:Lar02,E-Y", None),
        ("SAMSUNG CAMERA PICTURES", None),
        ("cof_vivid_32", None),
        ("charset=Ascii Screenshot", None),
        ("DCIM of my summer", "DCIM of my summer"),
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


@pytest.mark.parametrize(
    ("taken", "date"),
    [
        ("2021-05-04 03:02:01", "2021-05-04T03:02:01"),
        ("2021/05/04 03:02:01.5", "2021-05-04T03:02:01"),
        ("2021-05-04T03:02:01+02:00", "2021-05-04T03:02:01+02:00"),
        ("2021:05:04 03:02", "2021-05-04T03:02:00"),
        ("2021:05:04", "2021-05-04"),
        ("2021:05:04 03:02:01 PM", None),
        ("04.05.2021", None),
    ],
)
def test_dates_in_exif_are_read_as_programs_write_them(tmp_path: Path, taken: str, date: str | None) -> None:
    picture(tmp_path / "a.jpg", DateTimeOriginal=taken)
    assert items_of(read(tmp_path))["a.jpg"].date == date


def test_a_date_that_is_none_hides_no_other(tmp_path: Path) -> None:
    none = "0000:00:00 00:00:00"
    picture(tmp_path / "a.jpg", DateTimeOriginal=none, DateTimeDigitized="2021:05:04 03:02:01")
    picture(tmp_path / "b.jpg", DateTimeOriginal=none, DateTime="2022:05:04 03:02:01")
    assert [item.date for item in items_of(read(tmp_path)).values()] == ["2021-05-04T03:02:01", "2022-05-04T03:02:01"]


def test_the_exif_of_heic_is_read_by_whatever_process_comes_first(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from PIL import Image
import pillow_heif

tags = Image.Exif()
tags[0x010E] = "A shoe"
pillow_heif.from_pillow(Image.new("RGB", (64, 64))).save(sys.argv[1], exif=tags.tobytes())
from visor.sources.folder.exif import read_exif
print(read_exif(Path(sys.argv[1])).description)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.heic"], capture_output=True, text=True)
    assert done.stdout == "A shoe\n", done.stderr


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
    with pytest.raises(SourceError, match=r"(?s)gone is not a folder.*sources\.mine\.path.*visor source forget mine"):
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
