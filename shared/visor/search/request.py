"""Requests: how a path, a URL, bytes, a picture, a vector or an item becomes a request to search or compare."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from visor.config_errors import misfit
from visor.errors import BadRequest
from visor.schema.items import ITEM_ID, Item
from visor.schema.search import Example, Picture, SearchRequest

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

Query: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | np.ndarray | Item"


def request_of(query: Query | None, options: dict[str, Any]) -> tuple[SearchRequest, bytes | None]:
    """The request, and the image that goes with it."""
    field, value = ("", None) if query is None else query_field(query)
    fields = options | ({field: value} if field else {})
    if "examples" in fields:
        fields["examples"] = [
            one if isinstance(one, Mapping | Example) else _example(one) for one in fields["examples"]
        ]
    built = msgspec.to_builtins(fields)
    try:
        request = msgspec.convert(built, SearchRequest)
    except msgspec.ValidationError as exc:
        found, valid, remedy = misfit(exc, SearchRequest, built, what="the search")
        raise BadRequest(found, valid=valid, remedy=remedy) from exc
    return request, None if field else value


def _example(one: Any) -> dict[str, Any]:
    query, weight = one if isinstance(one, tuple) else (one, 1.0)
    field, value = query_field(query)
    return {"weight": weight, field or "image": value if field else base64.b64encode(value).decode()}


def picture_of(query: Query) -> tuple[Picture, bytes | None]:
    field, value = query_field(query)
    if field == "vector":
        valid = "A path, URL, item, bytes or Pillow image"
        raise BadRequest("A vector holds no picture to compare", valid=valid, remedy="Pass the picture")
    return (Picture(**{field: value}), None) if field else (Picture(), value)


def given_path(path: str | os.PathLike[str]) -> Path:
    """A path as a caller gave it. Raises `BadRequest` if it is not a path, or empty, which would mean the current
    folder."""
    if not os.fspath(path):
        remedy = "Give it, `.` for the current folder; a variable that is not set is empty, too"
        raise BadRequest("The path is empty", valid="The path of a file or folder", remedy=remedy)
    try:
        if "\0" in os.fspath(path):
            raise RuntimeError("it holds a null character")
        return Path(path).expanduser()
    except RuntimeError as exc:  # for example `~` with an unknown name
        found = f"{os.fspath(path)!r:.200} is not a path: {exc}"
        raise BadRequest(found, valid="The path of a file or folder", remedy="Correct it") from exc


def query_field(query: object) -> tuple[str, Any]:
    """The field of a `SearchRequest` that a query belongs in, and its value; "" for the bytes of an image."""
    if isinstance(query, bytes | bytearray | memoryview):
        return "", bytes(query)
    if isinstance(query, Item):
        return "item", query.id
    if isinstance(query, str) and ITEM_ID.match(query):
        return "item", query
    if isinstance(query, str) and query.startswith(("http://", "https://")):
        return "url", query
    if isinstance(query, str | os.PathLike):
        try:
            return "", given_path(query).read_bytes()
        except OSError as exc:
            valid = "The path of an image, its http(s) URL or an item's id"
            found = f"{os.fspath(query)!r:.200} cannot be read: {exc.strerror}"
            raise BadRequest(found, valid=valid, remedy="Correct it") from exc
    if getattr(query, "ndim", 0) == 1:
        import numpy as np

        vector = np.asarray(query, np.float32)
        unit = vector / (np.linalg.norm(vector) or 1)
        return "vector", base64.b64encode(unit.astype("<f2").tobytes()).decode()
    if hasattr(query, "save") and hasattr(query, "mode"):
        return "", _png(query)
    raise BadRequest(
        f"A value of type {type(query).__name__} cannot be searched for",
        valid="A path, URL, item id, Item, bytes, Pillow image, or vector of shape (d,); or a list of these",
        remedy="Give one of these",
    )


def _png(image: Any) -> bytes:
    """A Pillow image, turned as its EXIF says, with 8 bits per channel."""
    from PIL import ImageOps

    from visor.imaging.pixels import bands_of, flattened, in_srgb, reduced

    upright = ImageOps.exif_transpose(image)
    if upright.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        # As in a file: Pillow itself turns 16 bits from 255 on into white, and floats up to 1 into black.
        whole = flattened(reduced(bands_of(upright), upright.size, 1))
        upright = in_srgb(whole, upright.info.get("icc_profile"))
    buffer = io.BytesIO()
    upright.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
