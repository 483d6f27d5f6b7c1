"""Reads a folder of Terraform files into blocks, for `visor deploy --plan`, `visor cost` and the schema check."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visor.errors import SettingsError

Value = Any
"""None, bool, int, float, list, dict, or str. A str is HCL source: `"text"` with its quotes, or `${expression}`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TerraformBlock:
    """One block: `type "label" "label" { attribute = value, … block { … } }`."""

    type: str
    labels: tuple[str, ...]
    attributes: Mapping[str, Value]
    blocks: Sequence[TerraformBlock]
    file: str

    @property
    def address(self) -> str:
        """The address as Terraform writes it: `google_x.name`, `data.google_x.name`, `var.name` …"""
        prefix = {"resource": (), "variable": ("var",)}.get(self.type, (self.type,))
        return ".".join((*prefix, *self.labels))

    def inner(self, type_: str) -> list[TerraformBlock]:
        """The nested blocks of that type, written out or made by `dynamic`."""
        return [b for b in self.blocks if b.type == type_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Terraform:
    """The contents of a folder of .tf files."""

    blocks: Sequence[TerraformBlock]

    def of(self, type_: str) -> dict[str, TerraformBlock]:
        """The blocks of a type by address."""
        return {block.address: block for block in self.blocks if block.type == type_}

    @property
    def local_values(self) -> dict[str, Value]:
        every = (block.attributes for block in self.blocks if block.type == "locals")
        return {name: value for attributes in every for name, value in attributes.items()}


def read_terraform(folder: Path) -> Terraform:
    """All `*.tf` of a folder.

    Raises:
        SettingsError: The folder holds none, or one does not parse, or python-hcl2 is not installed.
    """
    paths = sorted(folder.glob("*.tf"))
    if not paths:
        raise SettingsError(
            f"There are no Terraform files in {folder}",
            valid="The folder terraform/ of a checkout of Visor",
            remedy="Run `visor deploy` in a checkout, or name the folder with --terraform",
        )
    return Terraform(blocks=[block for path in paths for block in _parse(path)])


def _parse(path: Path) -> list[TerraformBlock]:
    try:
        import hcl2
    except ImportError as exc:
        raise SettingsError(
            "Terraform files cannot be read: python-hcl2 is not installed",
            remedy="Install Visor with its extra `deploy`: pip install 'visor-search[deploy]'",
        ) from exc
    try:
        return _parse_text(hcl2.loads, path.read_text(encoding="utf-8"), path.name)
    except Exception as exc:
        raise SettingsError(f"{path} is not Terraform: {exc}", remedy="Run `terraform fmt` on it") from exc


@functools.lru_cache(maxsize=64)
def _parse_text(loads: Callable[[str], Mapping[str, Any]], text: str, file: str) -> list[TerraformBlock]:
    """Cached: the plan, checks and steps of one command each read the folder, and python-hcl2 takes a second for it."""
    return _blocks(loads(text), file)


def _blocks(body: Mapping[str, Any], file: str) -> list[TerraformBlock]:
    """The blocks of a parsed body: python-hcl2 makes a list of marked dicts of each kind; labels are nested keys."""
    lists = {type_: v for type_, v in body.items() if isinstance(v, list) and v and all(_is_block(b) for b in v)}
    return [_block(type_, value, file) for type_, values in lists.items() for value in values]


def _is_block(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    labelled = len(value) == 1 and all(k.startswith('"') and _is_block(v) for k, v in value.items())
    return "__is_block__" in value or labelled


def _block(type_: str, value: Mapping[str, Any], file: str) -> TerraformBlock:
    labels: list[str] = []
    while "__is_block__" not in value:
        [(label, value)] = value.items()
        labels.append(label.strip('"'))
    if type_ == "dynamic":
        return _block(labels[0], value["content"][0], file)
    blocks = _blocks(value, file)
    nested = {b.type for b in blocks} | {"dynamic"}
    attributes = {name: v for name, v in value.items() if name not in nested and not name.startswith("__")}
    return TerraformBlock(type=type_, labels=tuple(labels), attributes=attributes, blocks=blocks, file=file)


def text_of(value: Value) -> str | None:
    """The text of a plain string; None if it is or contains an expression."""
    if isinstance(value, str) and value.startswith('"') and "${" not in value:
        return value[1:-1]
    return None
