"""Debian's `tuxpaint-stamps-default`: photo cut-outs and drawings of animals, food, clothes, tools and more."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from PIL import Image

from visor.demo.catalogue import DemoCatalogue, Notice, Product, product_id
from visor.demo.packages import deb_contents, download_deb
from visor.errors import SourceUnavailable

PACKAGE = "tuxpaint-stamps-default"
SIDE_MIN = 32
"""Pixels of a picture's longer side; below it there is nothing to recognise."""
COLLECTION_MIN = 5
"""A sub-folder with this many pictures is its own collection; the pictures of a smaller one join the folder above."""

_STAMPS = "usr/share/tuxpaint/stamps/"
_LEFT_OUT = frozenset({"symbols"})
_NAMES = {"naturalforces": "Natural forces", "newyears": "New Year", "roadsigns": "Road signs", "arttools": "Art tools"}


def stamps(work: Path, folder: Path, say: Callable[[str], None]) -> DemoCatalogue:
    """Download the package into `work` and unpack its pictures into `folder`.

    Raises:
        SourceUnavailable: apt is not installed or cannot download it.
    """
    say(f"Downloading the demo's pictures: Debian's {PACKAGE} (160 MB, most of it sounds) …")
    deb = download_deb(PACKAGE, work)
    version = deb.name.split("_")[1]
    say("Unpacking its pictures …")
    titles = _unpack(deb, folder)
    products = _products(folder, titles)
    if not products:
        raise SourceUnavailable(f"{deb.name} holds no pictures")
    names = {product.collection: _name(product.collection) for product in products}
    return DemoCatalogue.of(_notice(version), names, products, folder)


def _notice(version: str) -> Notice:
    return Notice(
        title="Stamps of the children's drawing program Tux Paint",
        package=f"Debian's {PACKAGE}",
        version=version,
        copyright="2002-2022 Bill Kendrick and the Tux Paint contributors",
        licence="GPL-2.0-or-later",
        licence_url="https://www.gnu.org/licenses/old-licenses/gpl-2.0.html",
        url="https://tuxpaint.org/stamps/",
        link_text="Tux Paint's stamps",
        text=(
            "The demo shop's pictures are stamps of the drawing program Tux Paint, © 2002-2022 Bill Kendrick and "
            "contributors, GPL version 2 or later. Its prices, sellers and countries are made up."
        ),
    )


def _unpack(deb: Path, folder: Path) -> dict[str, str]:
    """Write the package's PNGs below `folder`. Returns the English texts, by path without ending."""
    texts: dict[str, str] = {}
    with deb_contents(deb) as files:
        for member in files:
            path = PurePosixPath(member.name)
            relative = str(path).removeprefix("./").removeprefix("/").removeprefix(_STAMPS)
            if not member.isfile() or _STAMPS not in member.name or relative.split("/")[0] in _LEFT_OUT:
                continue
            if path.suffix == ".txt":
                texts[relative.removesuffix(".txt")] = _read(files, member).decode("utf-8", "replace").split("\n")[0]
            elif path.suffix == ".png":
                target = folder / relative
                if not target.resolve().is_relative_to(folder.resolve()):
                    raise SourceUnavailable(f"{deb.name} holds a path that leads out of it: {member.name}")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(_read(files, member))
    return texts


def _read(files: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = files.extractfile(member)
    assert file is not None
    return file.read()


def _products(folder: Path, texts: dict[str, str]) -> list[Product]:
    """One product per picture. Mirrored and duplicate pictures, and those too small or without a text, are left out."""
    kept: dict[str, tuple[int, int]] = {}
    seen: set[bytes] = set()
    for path in sorted(folder.rglob("*.png")):
        relative = path.relative_to(folder).as_posix()
        digest = hashlib.sha256(path.read_bytes()).digest()
        with Image.open(path) as picture:
            size = picture.size
        if texts.get(relative.removesuffix(".png"), "").strip() and digest not in seen and max(size) >= SIDE_MIN:
            seen.add(digest)
            kept[relative] = size
        else:
            path.unlink()
    folders = Counter(_folder(relative, 2) for relative in kept)
    products = []
    for relative, (width, height) in kept.items():
        deep = _folder(relative, 2)
        collection = deep if folders[deep] >= COLLECTION_MIN else _folder(relative, 1)
        text = " ".join(texts[relative.removesuffix(".png")].split())
        products.append(
            Product(
                id=product_id(relative),
                title=_title(text),
                description=text,
                collection=collection.replace("/", "-"),
                picture=relative,
                width=width,
                height=height,
            )
        )
    return products


def _folder(relative: str, depth: int) -> str:
    """The first folders of a path. `cartoon`, `toys` and `plastic` say how a thing is drawn, not what it is."""
    parts = [part for part in relative.split("/")[:-1] if part not in ("cartoon", "toys", "plastic")]
    return "/".join(parts[:depth])


def _name(collection: str) -> str:
    last = collection.rpartition("-")[2]
    return _NAMES.get(last, last.capitalize())


def _title(text: str) -> str:
    """`An albino peahen (a female peafowl).` is sold as `Albino peahen`."""
    words = re.sub(r"\s*\([^)]*\)", "", text.split(". ")[0]).strip().rstrip(".!")
    words = re.sub(r"^(?:an?|the|some|this is an?)\s+", "", words, flags=re.IGNORECASE)
    return (words[:1].upper() + words[1:]) or text
