"""Requests: how a path, a URL, bytes, a picture, a vector or an item becomes a request to search or compare."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from visor.config_errors import misfit
from visor.errors import BadRequest, UndecodableImage
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
    given = fields.get("examples")
    if isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping):
        fields["examples"] = [one if isinstance(one, Mapping | Example) else _example(one) for one in given]
    built = plain(fields, "the search")
    try:
        request = msgspec.convert(built, SearchRequest)
    except msgspec.ValidationError as exc:
        found, valid, remedy = misfit(exc, SearchRequest, built, what="the search")
        raise BadRequest(found, valid=valid, remedy=remedy) from exc
    return request, None if field else value


def _example(one: Any) -> dict[str, Any]:
    if isinstance(one, tuple) and len(one) != 2:
        found = f"An example is a tuple of {len(one)}"
        raise BadRequest(found, valid="A picture, or a pair of one and its weight", remedy="Correct it")
    query, weight = one if isinstance(one, tuple) else (one, 1.0)
    field, value = query_field(query)
    return {"weight": weight, field or "image": value if field else base64.b64encode(value).decode()}


def plain(value: Any, what: str) -> Any:
    """What a value is in JSON, which is what a server is sent: NumPy's numbers and arrays become Python's, paths texts.

    Raises:
        BadRequest: There is none: a number is not finite, a text not Unicode, or something of another type; `what`
            names the whole.
    """
    try:
        built = msgspec.to_builtins(value, builtin_types=(bytes, bytearray, memoryview), enc_hook=_unpacked)
    except (TypeError, ValueError) as exc:
        found = f"{what[:1].upper()}{what[1:]} holds something that cannot be sent: {exc}"
        raise BadRequest(found, valid="Texts, numbers, lists and tables", remedy="Leave it out") from exc
    for path, part in _parts(built, ""):
        of = f"{path} of {what}" if path else what
        if isinstance(part, float) and not math.isfinite(part):
            raise BadRequest(f"{of} is {part}", valid="A finite number", remedy="Correct it or leave it out")
        if isinstance(part, str) and not _is_unicode(part):
            raise BadRequest(f"{of} is not Unicode", valid="Unicode text", remedy="Decode it by its encoding")
        if isinstance(part, bytes | bytearray | memoryview):
            found = f"{of} is of type {type(part).__name__}"
            raise BadRequest(found, valid="A text, number, list or table", remedy="Decode it")
    return built


def _unpacked(value: Any) -> Any:
    """A value of a type that msgspec does not know."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value).__module__.partition(".")[0] == "numpy":
        return value.tolist()
    raise TypeError(f"a value of type {type(value).__name__}")


def _parts(value: Any, path: str) -> Iterable[tuple[str, Any]]:
    """Each number and text within, keys included, with the path to it."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield path, key
            yield from _parts(part, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _parts(part, f"{path}[{number}]")
    else:
        yield path, value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def picture_of(query: Query) -> tuple[Picture, bytes | None]:
    field, value = query_field(query)
    if field == "vector":
        valid = "A path, URL, item, bytes or Pillow image"
        raise BadRequest("A vector holds no picture to compare", valid=valid, remedy="Pass the picture")
    return (Picture(**{field: value}), None) if field else (Picture(), value)


def given_path(path: str | os.PathLike[str]) -> Path:
    """A path as a caller gave it. Raises `BadRequest` if it is not a path, or empty, which would mean the current
    folder."""
    if not isinstance(path, str | os.PathLike):
        found = f"A value of type {type(path).__name__} is not a path"
        raise BadRequest(found, valid="The path of a file or folder, as a text or a Path", remedy="Give it")
    if not os.fspath(path):
        remedy = "Give it, `.` for the current folder; a variable that is not set is empty, too"
        raise BadRequest("The path is empty", valid="The path of a file or folder", remedy=remedy)
    try:
        if "\0" in os.fspath(path):
            raise RuntimeError("it holds a null character")
        given = Path(path).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError):
            given.stat()
        return given
    except (RuntimeError, OSError) as exc:  # `~` with an unknown name; a name that is too long, a link to itself
        why = f"cannot be read: {exc.strerror}" if isinstance(exc, OSError) else f"is not a path: {exc}"
        found = f"{os.fspath(path)!r:.200} {why}"
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
        return "vector", _unit_vector(query)
    if hasattr(query, "save") and hasattr(query, "mode"):
        return "", _png(query)
    raise BadRequest(
        f"A value of type {type(query).__name__} cannot be searched for",
        valid="A path, URL, item id, Item, bytes, Pillow image, or vector of shape (d,); or a list of these",
        remedy="Give one of these",
    )


def _unit_vector(query: Any) -> str:
    """Base64 of a vector of any numbers and length, as little-endian float16 of unit length. What it holds beside
    finite numbers is refused where it is searched with."""
    import numpy as np

    numbers = np.asarray(query)
    if numbers.dtype.kind not in "fiub":
        found = f"A vector of dtype {numbers.dtype} cannot be searched for"
        raise BadRequest(found, valid="Real numbers, as the `vector` of a result", remedy="Give these")
    with np.errstate(all="ignore"):
        vector = numbers.astype(np.float64)
        unit = vector / (np.linalg.norm(vector) or 1)
        return base64.b64encode(unit.astype("<f2").tobytes()).decode()


def _png(image: Any) -> bytes:
    """A Pillow image, turned as its EXIF says, with 8 bits a channel. Raises `UndecodableImage` if it has no pixels:
    it is closed, cut off or empty."""
    try:
        return _encoded(image)
    except (OSError, ValueError, SyntaxError) as exc:
        raise UndecodableImage(
            f"The Pillow image cannot be read: {exc}",
            valid="An image that is open, whole and not empty",
            remedy="Open it again, and search before it is closed",
        ) from exc


def _encoded(image: Any) -> bytes:
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
