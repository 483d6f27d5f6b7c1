"""Says of a table, document or environment that does not fit its record which key is wrong and what is valid.

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
_GOT = re.compile(r"got `(\w+)`$")
_JSON_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "empty",
}
_BOUNDS = (
    ("ge", "at least"),
    ("gt", "above"),
    ("le", "at most"),
    ("lt", "below"),
    ("min_length", "length at least"),
    ("max_length", "length at most"),
    ("pattern", "that matches"),
)
_TYPES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


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
    """What was found, what is valid and what to do, where something did not become a `cls`.

    Args:
        values: What it was, or its JSON, for an error that shows the value; None where that may hold a secret.
        where, what: As those of `parse_config`.
    """
    message, _, path = str(exc).partition(" - at `$")
    path = path.rstrip("`").lstrip(".").replace("[...]", "")
    field = _FIELD.search(message)
    key = ".".join(part for part in (where, path, field[2] if field else "") if part)
    if field is None:
        subject = f"{key}{what and f' of {what}'}" if key else f"{(what or 'it')[:1].upper()}{(what or 'it')[1:]}"
        value, got = _value_at(values, path), _GOT.search(message)
        found = (
            f"{subject} is {value:.80}"
            if value is not None
            else f"{subject} is {_JSON_TYPES.get(got[1], got[1])}"
            if got
            else f"{subject} cannot be used: {message[:1].lower()}{message[1:]}"
        )
        remedy = "Correct it"
    elif field[1] == "unknown":
        found, remedy = f"{key} is not a key{what and f' of {what}'}", "Correct or remove it"
    else:
        found, remedy = f"{key} is missing{what and f' from {what}'}", "Add it"
    return found, _valid(cls, path), remedy


def _value_at(values: Any, path: str) -> str | None:
    """The value at a path, as JSON; None where there is none."""
    try:
        values = msgspec.json.decode(values) if isinstance(values, bytes) else values
        for part in re.findall(r"[^.\[\]]+", path):
            values = values[int(part)] if isinstance(values, list | tuple) else values[part]
        return None if values is None else msgspec.json.encode(values).decode()
    except (LookupError, TypeError, ValueError, RecursionError):  # msgspec's own are ValueErrors
        return None


def _valid(cls: type, path: str) -> str:
    """What the key at `path` takes; the keys of its table where the path leads to a table."""
    names = [part.partition("[")[0] for part in path.split(".")]
    for name in names:
        field = next((field for field in fields(cls) if field.encode_name == name), None)
        inner = next(_structs(field.type), None) if field else None
        if field is None or inner is None:
            break
        cls = inner
    if field is not None and inner is None:
        return _in_words(field.type)
    return "The keys " + ", ".join(f"{field.encode_name}{' (required)' * field.required}" for field in fields(cls))


def _structs(hint: Any) -> Iterator[type[msgspec.Struct]]:
    """The records within a type."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield hint
    for part in get_args(hint):
        yield from _structs(part)


def _in_words(hint: Any) -> str:
    """A type in words: `one of 'a', 'b'`, `a text`, `a list of texts`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(repr(value) for value in args)
    if origin in (Union, types.UnionType):
        return " or ".join(_in_words(part) for part in args if part is not type(None))
    if origin in (tuple, list):
        return f"a list (each {_in_words(args[0])})"
    if origin is dict:
        return f"a table (each {_in_words(args[1])})"
    if origin is Annotated:
        bounds = [f"{words} {limit}" for name, words in _BOUNDS for limit in _limits(args[1:], name)]
        return _in_words(args[0]) + (f" ({', '.join(bounds)})" if bounds else "")
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return "a table with the keys " + ", ".join(field.encode_name for field in fields(hint))
    return _TYPES.get(hint, getattr(hint, "__name__", str(hint)))


def _limits(metas: tuple[Any, ...], name: str) -> list[float | str]:
    return [limit for meta in metas if (limit := getattr(meta, name, None)) is not None]
