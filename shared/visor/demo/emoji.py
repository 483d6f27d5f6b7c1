"""npm's `@lobehub/fluent-emoji-3d` with the names of `emojibase-data`: the demo's pictures on a machine without apt."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
from PIL import Image

from visor.demo.catalogue import DemoCatalogue, Notice, Product, product_id
from visor.demo.packages import download_npm
from visor.errors import SourceUnavailable

PICTURES = "@lobehub/fluent-emoji-3d"
PICTURES_VERSION = "1.1.0"
PICTURES_INTEGRITY = "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g=="
NAMES = "emojibase-data"
NAMES_VERSION = "17.0.0"
NAMES_INTEGRITY = "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA=="

NOTICE = Notice(
    title="Microsoft's Fluent emoji in three dimensions",
    package=f"npm's {PICTURES}",
    version=PICTURES_VERSION,
    copyright="Microsoft Corporation",
    licence="MIT",
    licence_url="https://github.com/microsoft/fluentui-emoji/blob/main/LICENSE",
    url="https://github.com/microsoft/fluentui-emoji",
    link_text="Fluent emoji",
    text="The demo shop's pictures are Microsoft's Fluent emoji, MIT licence, named by emojibase (MIT). Its prices, "
    "sellers and countries are made up.",
)
_GROUPS = {
    3: ("animals-nature", "Animals and nature"),
    4: ("food-drink", "Food and drink"),
    5: ("travel-places", "Travel and places"),
    6: ("activities", "Activities"),
    7: ("objects", "Objects"),
}
"""The groups of `emojibase-data` (meta/groups.json) that show things; faces, people, signs and flags are left out."""


def emoji(work: Path, folder: Path, say: Callable[[str], None]) -> DemoCatalogue:
    """Download the packages into `work` and unpack their pictures into `folder`.

    Raises:
        SourceUnavailable: npm is not installed or cannot download them.
    """
    say(f"Downloading the demo's pictures: npm's {PICTURES} {PICTURES_VERSION} (16 MB) …")
    names = _names(download_npm(NAMES, NAMES_VERSION, NAMES_INTEGRITY, work))
    tarball = download_npm(PICTURES, PICTURES_VERSION, PICTURES_INTEGRITY, work)
    products = []
    with tarfile.open(tarball, "r:gz") as files:
        for member in files:
            path = PurePosixPath(member.name)
            entry = names.get(_plain(path.stem))
            if not member.isfile() or path.suffix != ".webp" or entry is None:
                continue
            file = files.extractfile(member)
            assert file is not None
            (folder / path.name).write_bytes(file.read())
            products.append(_product(folder, path.name, entry))
    if not products:
        raise SourceUnavailable(f"{tarball.name} holds no pictures")
    return DemoCatalogue.of(NOTICE, dict(_GROUPS.values()), products, folder)


def _names(tarball: Path) -> dict[str, dict[str, Any]]:
    with tarfile.open(tarball, "r:gz") as files:
        file = files.extractfile("package/en/data.json")
        assert file is not None
        entries = msgspec.json.decode(file.read())
    return {_plain(entry["hexcode"]): entry for entry in entries if entry.get("group") in _GROUPS}


def _plain(hexcode: str) -> str:
    """A code sequence without the selector of the coloured form, which only one of the packages writes."""
    return "-".join(part for part in hexcode.lower().split("-") if part != "fe0f")


def _product(folder: Path, name: str, entry: dict[str, Any]) -> Product:
    with Image.open(folder / name) as picture:
        width, height = picture.size
    label = str(entry["label"])
    return Product(
        id=product_id(name),
        title=label[:1].upper() + label[1:],
        description=f"{label[:1].upper()}{label[1:]} ({', '.join(entry.get('tags', [])[:8])})",
        collection=_GROUPS[entry["group"]][0],
        picture=name,
        width=width,
        height=height,
    )
