"""Names the wrong key, and valid values, of a table, document or environment that does not fit its record.

msgspec names the key and its path only in the text of its errors. A test pins that text.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec.structs import fields

from visor.errors import SettingsError

Config = TypeVar("Config", bound=msgspec.Struct)

_FIELD = re.compile(r"(unknown|missing required) field `([^`]+)`")
_TYPES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_GOT = re.compile(r"got `(\w+)`$")
_JSON_TYPES = {kind.__name__: words for kind, words in _TYPES.items()} | {"array": "a list", "object": "a table"}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "pattern": "that matches"}
_LENGTHS = {"min_length": "length at least", "max_length": "length at most"}


def parse_config(values: Mapping[str, Any], cls: type[Config], *, where: str, what: str) -> Config:
    """`values` as a `cls`.

    Args:
        where: The table's place in the file, such as `sources.shop`; prefixes every key that an error names.
        what: What the table describes, for the error.

    Raises:
        SettingsError: A key is unknown or missing, or its value is of the wrong type.
    """
    try:
        return msgspec.convert(dict(values), cls)
    except msgspec.ValidationError as exc:
        found, valid, remedy = misfit(exc, cls, where=where, what=what)
        raise SettingsError(found, valid=valid, remedy=remedy) from exc


def misfit(
    exc: msgspec.ValidationError, cls: type, values: Any = None, *, where: str = "", what: str = ""
) -> tuple[str, str, str]:
    """What was found, what is valid and what to do, for data that could not be converted to a `cls`.

    Args:
        values: The data, or its JSON, for an error that shows the value; None if the data may hold a secret.
        where, what: As in `parse_config`.
    """
    message, _, path = str(exc).partition(" - at `$")
    valid, field = _valid(cls, path.rstrip("`").lstrip(".")), _FIELD.search(message)
    path = path.rstrip("`").lstrip(".").replace("[...]", "")
    key = ".".join(part for part in (where, path, field[2] if field else "") if part)
    of = f" of {what}" if what else ""
    if field is not None and field[1] == "unknown":
        return f"{key} is not a key{of}", valid, "Correct or remove it"
    if field is not None:
        return f"{key} is missing{of.replace(' of ', ' from ', 1)}", valid, "Add it"
    subject = key + of if key else (what or "it").capitalize()
    value, got = _value_at(values, path), _GOT.search(message)
    if value is None and got is None and message.startswith("Expected"):  # in msgspec's words, as `int` >= 1
        return f"{subject} does not fit", valid, "Correct it"
    if value is None and got is None:
        return f"{subject} cannot be used: {message[:1].lower()}{message[1:]}", valid, "Correct it"
    kind = got[1] if got else "null"
    other = "empty" if kind in ("null", "None", "NoneType") else f"of type {kind}"
    return f"{subject} is {value or _JSON_TYPES.get(kind, other):.80}", valid, "Correct it"


def _value_at(values: Any, path: str) -> str | None:
    """The value at a path, as JSON; None if there is none."""
    try:
        values = msgspec.json.decode(values) if isinstance(values, bytes) else values
        for part in re.findall(r"[^.\[\]]+", path):
            values = values[int(part)] if isinstance(values, list | tuple) else values[part]
        return None if values is None else msgspec.json.encode(values).decode()
    except (LookupError, TypeError, ValueError, RecursionError):  # msgspec's own are ValueErrors
        return None


def _valid(cls: type, path: str) -> str:
    """Valid values of the key at `path`; if the path leads to a table, or one of several, the keys of that table."""
    for part in path.split("."):
        name, within, _ = part.partition("[")
        field = next((field for field in fields(cls) if field.encode_name == name), None)
        inner = next(structs(field.type, within=bool(within)), None) if field else None
        if field is None or inner is None:
            break
        cls = inner
    if field is not None and inner is None:
        return in_words(field.type)
    return "The keys " + ", ".join(f"{field.encode_name}{' (required)' * field.required}" for field in fields(cls))


def structs(hint: Any, *, within: bool = False) -> Iterator[type[msgspec.Struct]]:
    """The records that a type is; with `within`, also those that its lists and tables hold."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield hint
    if within or get_origin(hint) in (Annotated, Union, types.UnionType):
        for part in get_args(hint):
            yield from structs(part, within=within)


def in_words(hint: Any) -> str:
    """A type in words: `one of 'a', 'b'`, `a text`, `a list of texts`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(repr(value) for value in args)
    if origin in (Union, types.UnionType):
        return " or ".join(in_words(part) for part in args if part is not type(None))
    if origin in (tuple, list):
        count = f" of {len(args)}" if origin is tuple and ... not in args else ""
        return f"a list{count} (each {in_words(args[0])})"
    if origin is dict:
        return f"a table (each {in_words(args[1])})"
    if origin is Annotated:
        limits = (
            (words, getattr(meta, name, None)) for name, words in (_BOUNDS | _LENGTHS).items() for meta in args[1:]
        )
        bounds = [f"{words} {limit}" for words, limit in limits if limit is not None]
        return in_words(args[0]) + (f" ({', '.join(bounds)})" if bounds else "")
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return "a table with the keys " + ", ".join(field.encode_name for field in fields(hint))
    return _TYPES.get(hint, getattr(hint, "__name__", str(hint)))
