"""Turns a table of a configuration file into its typed record, or says which key is wrong and what is valid.

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
        message, _, path = str(exc).partition(" - at `$")
        path = path.rstrip("`").lstrip(".")
        field = _FIELD.search(message)
        key = ".".join(part for part in (where, path, field[2] if field else "") if part)
        if field is None:
            found, remedy = f"{key} of {what} cannot be used: {message[:1].lower()}{message[1:]}", "Correct it"
        elif field[1] == "unknown":
            found, remedy = f"{key} is not a key of {what}", "Correct or remove it"
        else:
            found, remedy = f"{key} is missing from {what}", "Add it"
        raise SettingsError(found, valid=_valid(cls, path), remedy=remedy) from exc


def _valid(cls: type[msgspec.Struct], path: str) -> str:
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
        return _in_words(args[0])
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return "a table with the keys " + ", ".join(field.encode_name for field in fields(hint))
    return _TYPES.get(hint, getattr(hint, "__name__", str(hint)))
