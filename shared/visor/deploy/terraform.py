"""Reads a folder of Terraform files into blocks, for the plan that `visor deploy` prints and for the schema check."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visor.errors import SettingsError

Value = Any
"""None, bool, int, float, list, dict, or str. A str is HCL source: `"text"` with its quotes, or `${expression}`."""

REFERENCE = re.compile(
    r"(?<![\w.\"-])(?P<root>var|local|each|path|data|google_\w+|secret_environment_variables)"
    r"(?P<rest>(?:\.[A-Za-z_]\w*|\[(?:[^\[\]]|\[[^\]]*\])*\])+)"
)
STEP = re.compile(r"\.([A-Za-z_]\w*)|\[((?:[^\[\]]|\[[^\]]*\])*)\]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One block: `type "label" "label" { attribute = value, … block { … } }`."""

    type: str
    labels: tuple[str, ...]
    attributes: Mapping[str, Value]
    blocks: Sequence[Block]
    file: str

    @property
    def address(self) -> str:
        """As Terraform writes it: `google_x.name`, `data.google_x.name`, `var.name` …"""
        prefix = {"resource": (), "variable": ("var",)}.get(self.type, (self.type,))
        return ".".join((*prefix, *self.labels))

    def inner(self, type_: str) -> list[Block]:
        """The nested blocks of that type, written out or made by `dynamic`."""
        return [b for b in self.blocks if b.type == type_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """Everything that a folder of .tf files says."""

    blocks: Sequence[Block]

    def of(self, type_: str) -> dict[str, Block]:
        """The blocks of a type by address."""
        return {block.address: block for block in self.blocks if block.type == type_}

    @property
    def local_values(self) -> dict[str, Value]:
        every = (block.attributes for block in self.blocks if block.type == "locals")
        return {name: value for attributes in every for name, value in attributes.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A traversal in an expression, e.g. `google_x.name["key"].block[0].attribute`."""

    text: str
    root: str
    steps: tuple[tuple[str, str], ...]
    """Each is ("attribute", name) or ("index", expression)."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for kind, name in self.steps if kind == "attribute")


def read_terraform(folder: Path) -> Configuration:
    """All `*.tf` of a folder.

    Raises:
        SettingsError: The folder holds none, or one does not parse, or python-hcl2 is not installed.
    """
    paths = sorted(folder.glob("*.tf"))
    if not paths:
        raise SettingsError(
            f"{folder} holds no Terraform files",
            valid="The folder terraform/ of a checkout of Visor",
            remedy="Run `visor deploy` in a checkout, or name the folder with --terraform",
        )
    blocks: list[Block] = []
    for path in paths:
        blocks += _parse(path)
    return Configuration(blocks=blocks)


def _parse(path: Path) -> list[Block]:
    try:
        import hcl2
    except ImportError as exc:
        raise SettingsError(
            "Terraform files cannot be read: python-hcl2 is not installed",
            remedy="Install Visor with its extra `deploy`: pip install 'visor-search[deploy]'",
        ) from exc
    try:
        parsed = hcl2.loads(path.read_text(encoding="utf-8"))
    except Exception as exc:
        raise SettingsError(f"{path} is not Terraform: {exc}", remedy="Run `terraform fmt` on it") from exc
    return _blocks(parsed, path.name)


def _blocks(body: Mapping[str, Any], file: str) -> list[Block]:
    """The blocks of a parsed body: python-hcl2 makes a list of marked dicts of each kind, labels being nested keys."""
    found = []
    for type_, value in body.items():
        if isinstance(value, list) and value and all(_is_block(v) for v in value):
            found += [_block(type_, v, file) for v in value]
    return found


def _is_block(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    labelled = len(value) == 1 and all(k.startswith('"') and _is_block(v) for k, v in value.items())
    return "__is_block__" in value or labelled


def _block(type_: str, value: Mapping[str, Any], file: str) -> Block:
    labels: list[str] = []
    while "__is_block__" not in value:
        [(label, value)] = value.items()
        labels.append(label.strip('"'))
    if type_ == "dynamic":
        content = value["content"][0]
        return _block(labels[0], content, file)
    blocks = _blocks(value, file)
    nested = {b.type for b in blocks} | {"dynamic"}
    attributes = {name: v for name, v in value.items() if name not in nested and not name.startswith("__")}
    return Block(type=type_, labels=tuple(labels), attributes=attributes, blocks=blocks, file=file)


def text_of(value: Value) -> str | None:
    """The text of a plain string; none if it is an expression or holds one."""
    if isinstance(value, str) and value.startswith('"') and "${" not in value:
        return value[1:-1]
    return None


def references(value: Value) -> Iterator[Reference]:
    """Every traversal in a value, nested ones included."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from references(key)
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)
    elif isinstance(value, str) and "${" in value:
        for found in REFERENCE.finditer(value):
            steps = tuple(
                ("index", s[2]) if s[1] is None else ("attribute", s[1]) for s in STEP.finditer(found["rest"])
            )
            yield Reference(text=found[0], root=found["root"], steps=steps)
            for kind, inner in steps:
                if kind == "index":
                    yield from references("${" + inner + "}")


def all_references(block: Block) -> Iterator[Reference]:
    """Every traversal in a block and the blocks in it."""
    for value in block.attributes.values():
        yield from references(value)
    for inner in block.blocks:
        yield from all_references(inner)
