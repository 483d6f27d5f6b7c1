"""Thumbnails: frames of videos, which have no URL of their own, kept in the object store.

A thumbnail's URL is `frame:NAME`; its object is `frames/NAME`, named by its item and content, and never changed.
Embed reads it from there, and the page gets it from `GET /v1/thumbnails/NAME`.
"""

from __future__ import annotations

import hashlib
import re

from visor.errors import FetchFailed, FetchUnavailable, StoreError
from visor.http.fetch import IMAGE, Fetched, FetchOptions
from visor.schema.items import item_id
from visor.storage.objects import ObjectStore

THUMBNAIL_SCHEME = "frame:"
THUMBNAIL_BYTES_MAX = 200_000
FOLDER = "frames/"
ID_LENGTH = 32
"""A name begins with the id of the frame's item."""
NAME = re.compile(r"[0-9a-f]{48}\.jpg\Z")


def put_thumbnail(objects: ObjectStore, source: str, key: str, data: bytes) -> str:
    """Store a frame's JPEG and return its URL. Storing the same one again overwrites it with itself."""
    name = item_id(source, key) + hashlib.blake2b(data, digest_size=8).hexdigest() + ".jpg"
    objects.put(FOLDER + name, data)
    return THUMBNAIL_SCHEME + name


def get_thumbnail(objects: ObjectStore, name: str) -> bytes:
    """A frame's JPEG.

    Raises:
        FetchFailed: There is no thumbnail of that name.
        FetchUnavailable: The store did not answer.
    """
    if not NAME.match(name):
        raise FetchFailed(f"{name[:80]!r} is not the name of a frame", valid="48 hexadecimal digits and .jpg")
    try:
        return bytes(objects.get(FOLDER + name))
    except StoreError as exc:
        kind = FetchUnavailable if exc.retriable else FetchFailed
        raise kind(f"Frame {name}: {exc.found}") from exc


class ThumbnailReader:
    """Reads `frame:` URLs."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def fetch(self, url: str, options: FetchOptions = IMAGE) -> Fetched:
        """The frame. Raises as `get_thumbnail`."""
        return Fetched(
            body=get_thumbnail(self._objects, url.removeprefix(THUMBNAIL_SCHEME)), url=url, media_type="image/jpeg"
        )
