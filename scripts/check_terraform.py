"""Check terraform/ against the schema of the Google provider (tests/unit/deploy/terraform_schema.json), offline.

Finds unknown resource types, arguments and blocks, missing required ones, literals of the wrong type, blocks that may
stand once and stand twice, and references to nothing. Prints one line a finding; exit status 1 if there is any.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visor.deploy.terraform import Terraform, TerraformBlock, Value, read_terraform, text_of

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "tests" / "unit" / "deploy" / "terraform_schema.json"
META_ARGUMENTS = {"for_each", "count", "depends_on", "provider"}
META_BLOCKS = {"lifecycle", "provisioner", "connection"}
ITERATORS = {"secret_environment_variables"}

REFERENCE = re.compile(
    r"(?<![\w.\"-])(?P<root>var|local|each|path|data|google_\w+|secret_environment_variables)"
    r"(?P<rest>(?:\.[A-Za-z_]\w*|\[(?:[^\[\]]|\[[^\]]*\])*\])+)"
)
STEP = re.compile(r"\.([A-Za-z_]\w*)|\[((?:[^\[\]]|\[[^\]]*\])*)\]")


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


def all_references(block: TerraformBlock) -> Iterator[Reference]:
    """Every traversal in a block and the blocks in it."""
    for value in block.attributes.values():
        yield from references(value)
    for inner in block.blocks:
        yield from all_references(inner)


def check(folder: Path, schema: dict[str, Any]) -> list[str]:
    """The findings about a folder of Terraform files, one sentence each; none if all is well."""
    config = read_terraform(folder)
    return [*_shapes(config, schema), *_references(config, schema), *_unused(config), *_variables(config)]


def _shapes(config: Terraform, schema: dict[str, Any]) -> Iterator[str]:
    for kind, known in (("resource", schema["resources"]), ("data", schema["data"])):
        for address, block in config.of(kind).items():
            if block.labels[0] not in known:
                yield f"{block.file}: {address}: no such resource type in {schema['provider']} {schema['version']}"
            else:
                yield from _shape(block, known[block.labels[0]], f"{block.file}: {address}")


def _shape(block: TerraformBlock, schema: dict[str, Any], where: str) -> Iterator[str]:
    arguments, blocks = schema["arguments"], schema["blocks"]
    for name, value in block.attributes.items():
        if name in META_ARGUMENTS:
            continue
        if name in blocks:
            yield f"{where}: {name} is a block, not an argument"
        elif name not in arguments:
            yield f"{where}: unknown argument {name}"
        elif (found := _mismatch(value, arguments[name]["type"])) is not None:
            yield f"{where}: {name} is {found}, valid is {arguments[name]['type']}"
    for name in sorted({inner.type for inner in block.blocks}):
        if name in META_BLOCKS:
            continue
        if name not in blocks:
            yield f"{where}: unknown block {name}"
            continue
        inner = block.inner(name)
        if len(inner) > 1 and not blocks[name]["many"]:
            yield f"{where}: block {name} stands {len(inner)} times, valid is once"
        for each in inner:
            yield from _shape(each, blocks[name], f"{where}.{name}")
    required = [name for name, argument in arguments.items() if argument["required"]]
    yield from (f"{where}: missing argument {name}" for name in required if name not in block.attributes)
    required = [name for name, inner in blocks.items() if inner["required"]]
    yield from (f"{where}: missing block {name}" for name in required if not block.inner(name))


def _mismatch(value: Any, wanted: str) -> str | None:
    """What a literal is instead of `wanted`; none if it fits or cannot be known without evaluating."""
    if value is None or wanted == "any" or (isinstance(value, str) and value.startswith("${")):
        return None
    if isinstance(value, list):
        if not wanted.startswith("list("):
            return "a list"
        return next((f"a list with {m}" for v in value if (m := _mismatch(v, wanted[5:-1]))), None)
    if isinstance(value, dict):
        if not wanted.startswith("map("):
            return "a map"
        return next((f"a map with {m}" for v in value.values() if (m := _mismatch(v, wanted[4:-1]))), None)
    kind = {bool: "boolean", int: "number", float: "number", str: "string"}[type(value)]
    return None if kind == wanted else f"a {kind}"


def _references(config: Terraform, schema: dict[str, Any]) -> Iterator[str]:
    for block in config.blocks:
        where = f"{block.file}: {block.address}"
        for reference in all_references(block):
            if problem := _unresolved(reference, config, schema, block):
                yield f"{where}: {reference.text}: {problem}"
        for text in block.attributes.get("depends_on", []):
            if text.removeprefix("${").removesuffix("}") not in config.of("resource"):
                yield f"{where}: depends_on {text}: no such resource"


def _unresolved(reference: Reference, config: Terraform, schema: dict[str, Any], block: TerraformBlock) -> str | None:
    root, names = reference.root, reference.names
    if root == "var":
        return None if f"var.{names[0]}" in config.of("variable") else "no such variable"
    if root == "local":
        return None if names[0] in config.local_values else "no such local value"
    if root == "each":
        return None if "for_each" in block.attributes else "each stands in a block without for_each"
    if root == "path" or root in ITERATORS:
        return None
    if root == "data":
        address, types, rest, index = f"data.{names[0]}.{names[1]}", schema["data"], names[2:], 2
        target, type_ = config.of("data").get(address), names[0]
    else:
        address, types, rest, index = f"{root}.{names[0]}", schema["resources"], names[1:], 1
        target, type_ = config.of("resource").get(address), root
    if target is None:
        return "no such resource"
    if type_ not in types:
        return None
    return _instance(reference, index, target, config) or _path(rest, types[type_])


def _instance(reference: Reference, index: int, target: TerraformBlock, config: Terraform) -> str | None:
    """Whether the reference picks one instance where there are several, and one that is there."""
    many = "for_each" in target.attributes or "count" in target.attributes
    step = reference.steps[index] if len(reference.steps) > index else None
    if step is None:
        return None
    if step[0] == "attribute":
        return "it has instances: name one in brackets" if many else None
    if not many:
        return "it has no instances: leave the brackets out"
    keys = _keys(target.attributes.get("for_each"), config)
    if keys is not None and step[1].startswith('"') and step[1].strip('"') not in keys:
        return f"no such instance; there are {', '.join(sorted(keys))}"
    return None


def _keys(for_each: Any, config: Terraform) -> set[str] | None:
    """Keys of a `for_each`, where they stand there as text."""
    if not isinstance(for_each, str):
        return None
    expression = for_each.removeprefix("${").removesuffix("}")
    if expression.startswith("local."):
        value = config.local_values.get(expression.removeprefix("local."))
        if isinstance(value, dict):
            return {key.strip('"') for key in value if not key.startswith("__")}
        return None
    if expression.startswith("toset(["):
        return {part.strip().strip('"') for part in expression[7:-2].split(",")}
    return None


def _path(names: tuple[str, ...], schema: dict[str, Any]) -> str | None:
    for name in names:
        if name in schema["blocks"]:
            schema = schema["blocks"][name]
        elif name in schema["arguments"] or name in schema["attributes"]:
            return None
        else:
            return f"no attribute {name}"
    return None


def _unused(config: Terraform) -> Iterator[str]:
    """Variables and local values that nothing reads."""
    readers = [block for block in config.blocks if block.type != "variable"]
    read = {f"{r.root}.{r.names[0]}" for b in readers for r in all_references(b) if r.root in ("var", "local")}
    yield from (f"{address}: nothing reads it" for address in config.of("variable") if address not in read)
    yield from (f"local.{name}: nothing reads it" for name in config.local_values if f"local.{name}" not in read)


def _variables(config: Terraform) -> Iterator[str]:
    """Every variable and output is typed and described; only a variable that must be given has no default."""
    for address, block in config.of("variable").items():
        if "type" not in block.attributes:
            yield f"{block.file}: {address}: has no type"
    for address, block in (config.of("variable") | config.of("output")).items():
        if not text_of(block.attributes.get("description")):
            yield f"{block.file}: {address}: has no description"


def main() -> None:
    findings = check(ROOT / "terraform", json.loads(SCHEMA.read_text(encoding="utf-8")))
    for finding in findings:
        print(finding)
    print(f"terraform/: {len(findings)} findings")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
