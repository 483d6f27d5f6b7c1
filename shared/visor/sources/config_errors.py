"""Turns a table of a configuration file into its typed record, or says which key is wrong and what is valid."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from visor.errors import SettingsError

Config = TypeVar("Config", bound=msgspec.Struct)


def checked(values: Mapping[str, Any], cls: type[Config], *, where: str, what: str) -> Config:
    """`values` as a `cls`.

    Args:
        where: The table's place in the file, such as `sources.shop`; starts every key that an error names.
        what: What the table describes, for the error.

    Raises:
        SettingsError: A key is unknown or missing, or its value is of the wrong type.
    """
    try:
        return msgspec.convert(dict(values), cls)
    except msgspec.ValidationError as exc:
        message, _, path = str(exc).partition(" - at `$")
        path = path.rstrip("`").lstrip(".")
        owner = _struct_at(cls, path)
        unknown = re.search(r"unknown field `([^`]+)`", message)
        missing = re.search(r"missing required field `([^`]+)`", message)
        key = ".".join(part for part in (where, path, (unknown or missing or [None, ""])[1]) if part)
        if unknown:
            found, remedy = f"{key} is no key of {what}", "Correct or remove it"
        elif missing:
            found, remedy = f"{key} is missing from {what}", "Add it"
        else:
            found, remedy = f"{key} of {what} cannot be used: {message[:1].lower()}{message[1:]}", "Correct it"
        raise SettingsError(found, valid=_valid(owner, path), remedy=remedy) from exc


def _valid(owner: type[msgspec.Struct], path: str) -> str:
    last = path.rpartition(".")[2].partition("[")[0]
    for field in msgspec.structs.fields(owner):
        if field.encode_name == last:
            return f"It takes {_said(field.type)}"
    return "Keys are " + ", ".join(
        f"{field.encode_name}{' (required)' if field.required else ''}" for field in msgspec.structs.fields(owner)
    )


def _struct_at(cls: type[msgspec.Struct], path: str) -> type[msgspec.Struct]:
    """The innermost record on the way of `path` from `cls`."""
    for part in path.split("."):
        hint = get_type_hints(cls).get(part.partition("[")[0])
        inner = next(
            (kind for kind in _flat(hint) if isinstance(kind, type) and issubclass(kind, msgspec.Struct)), None
        )
        if inner is None:
            return cls
        cls = inner
    return cls


def _flat(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, types.UnionType, tuple, list, dict):
        return [kind for part in get_args(hint) for kind in _flat(part)]
    return [hint]


def _said(hint: Any) -> str:
    """A type in words: `one of 'a', 'b'`, `a text`, `a list of texts`."""
    origin = get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(repr(value) for value in get_args(hint))
    if origin in (Union, types.UnionType):
        return " or ".join(_said(part) for part in get_args(hint) if part is not type(None))
    if origin in (tuple, list):
        return f"a list (each {_said(get_args(hint)[0])})"
    if origin is dict:
        return f"a table (each {_said(get_args(hint)[1])})"
    if origin is not None and hasattr(hint, "__metadata__"):
        return _said(get_args(hint)[0])
    words = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return "a table with the keys " + ", ".join(field.encode_name for field in msgspec.structs.fields(hint))
    return words.get(hint, getattr(hint, "__name__", str(hint)))
