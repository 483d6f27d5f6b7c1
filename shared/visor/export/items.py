"""Items as an export shows them: what a page of results needs, small pictures, and nothing about this machine."""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import msgspec

from visor.errors import VisorError
from visor.export.files import DATA, ExportFiles
from visor.link_check.state import PICTURE_GONE
from visor.schema.items import IndexedItem, Item, Label, Record

LOG = logging.getLogger("visor.export")
SIDE = 320
"""Pixels of the longer side of a small picture."""
QUALITY = 80
_WEB = ("https:", "http:")
_FILE_URL = re.compile(r"file:/+[^\s\"'<>]*")


class ShownItem(Record, frozen=True, kw_only=True):
    """A record of a page of items."""

    item: Item
    width: int
    height: int
    labels: tuple[Label, ...] = ()
    indexed_at: str
    version: int
    blank: str | None = None

    @property
    def indexed(self) -> IndexedItem:
        """The item that it was made from, as far as the record has it."""
        told = {name: getattr(self, name) for name in self.__struct_fields__}
        return IndexedItem(**told, model="", shard="")


@dataclass
class ItemWriter:
    """Makes the records of items, and writes their pictures.

    read_image: Returns the bytes of an item's picture; None: items without a web address get no picture.
    originals: Copy the files themselves, too, with all their metadata.
    """

    files: ExportFiles
    read_image: Callable[[Item], bytes] | None
    pixels_max: int
    originals: bool = False
    pictures: Counter[str] = field(default_factory=Counter)
    """How many are there, and how many could not be read (`lost`); their `bytes`."""

    def record(self, indexed: IndexedItem | None) -> ShownItem | None:
        """None if there is no item that may be shown."""
        if indexed is None or (indexed.safety is not None and indexed.safety.unsafe):
            return None
        item = indexed.item
        image_url = item.image_url if item.image_url.startswith(_WEB) else ""
        page_url = item.page_url if item.page_url is not None and item.page_url.startswith(_WEB) else None
        if not image_url and item.image_url and PICTURE_GONE not in item.extra and self.read_image is not None:
            image_url, original = self._pictures(item, self.read_image)
            page_url = page_url or original
        shown = msgspec.structs.replace(
            without_paths(item), image_url=image_url, page_url=page_url, image_etag=None, image_modified=None
        )
        return ShownItem(
            item=shown,
            width=indexed.width,
            height=indexed.height,
            labels=indexed.labels,
            indexed_at=indexed.indexed_at,
            version=indexed.version,
            blank=indexed.blank,
        )

    def _pictures(self, item: Item, read_image: Callable[[Item], bytes]) -> tuple[str, str | None]:
        """URLs of the small picture and of the original; none if the file cannot be read."""
        drawn = hashlib.blake2b(item.id.encode() + item.image_signature() + bytes([QUALITY]), digest_size=16)
        small = f"{DATA}pictures/{drawn.hexdigest()}.webp"
        ending = PurePosixPath(urlsplit(item.image_url).path).suffix.lower()
        original = f"{DATA}originals/{drawn.hexdigest()}{ending}" if self.originals else None
        data: list[bytes] = []

        def read() -> bytes:
            data.append(data[0] if data else read_image(item))
            return data[0]

        try:
            self.pictures["bytes"] += self.files.keep(small, lambda: small_picture(read(), self.pixels_max))
            if original is not None:
                self.pictures["originals_bytes"] += self.files.keep(original, read)
        except VisorError as exc:
            LOG.info("Item %s has no picture in the export: %s", item.id, exc)
            self.pictures["lost"] += 1
            return "", None
        self.pictures["there"] += 1
        return f"./{small}", None if original is None else f"./{original}"


def small_picture(data: bytes, pixels_max: int) -> bytes:
    """A picture as WebP of at most `SIDE` pixels a side, without the camera's metadata. Raises an `ImageError`."""
    from PIL import Image

    from visor.imaging.decode import decode_image

    pixels = decode_image(data, pixels_max=pixels_max, side_hint=SIDE).pixels
    pixels.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    pixels.save(buffer, "WEBP", quality=QUALITY, method=4)
    return buffer.getvalue()


def without_paths(item: Item) -> Item:
    """The item without URLs of files, and without the paths of its source's folder and of the user's home."""
    roots = {str(Path.home())}
    if item.image_url.startswith("file:"):
        path = unquote(urlsplit(item.image_url).path)
        folder = path.removesuffix(f"/{item.key}") if path.endswith(f"/{item.key}") else str(PurePosixPath(path).parent)
        roots.add(folder)
    names = [name for root in roots if root.strip("/") for name in (root, quote(root))]
    longest = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    known = re.compile(rf"(?:{longest})(?:/|(?![\w.-]))") if longest else None

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            value = _FILE_URL.sub("", value)
            return known.sub("", value) if known else value
        if isinstance(value, Mapping):
            return {clean(name): clean(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [clean(inner) for inner in value]
        return value

    return msgspec.convert(clean(msgspec.to_builtins(item)), Item)


def page_records(writer: ItemWriter, found: Mapping[str, IndexedItem], ids: Sequence[str]) -> list[ShownItem | None]:
    """The records of these ids, in order."""
    return [writer.record(found.get(item)) for item in ids]
