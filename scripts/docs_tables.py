"""Write what of docs/ is made from code: Terraform's variables, endpoints, commands. `--check`: only compare."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import click
import msgspec

from visor.cli.main import COMMANDS, cli
from visor.config_errors import in_words, structs
from visor.http.retry import RetryPolicy
from visor.sources.registry import kinds
from visor.web.endpoints import ENDPOINTS

ROOT = Path(__file__).resolve().parent.parent
VARIABLE = re.compile(r'^variable "(\w+)" \{\n(.*?)^\}', re.DOTALL | re.MULTILINE)
WHO = {
    "search": "anybody, or the owner if `VISOR_KEY_REQUIRED`",
    "reading": "anybody",
    "owner": "the owner",
    "free": "anybody, without limit",
}


def variables_table() -> str:
    """One row for each variable: name, default, description."""
    rows = ["| variable | default | what |", "| --- | --- | --- |"]
    for name, body in VARIABLE.findall((ROOT / "terraform" / "variables.tf").read_text(encoding="utf-8")):
        default = re.search(r"^  default +=\s*(.+)$", body, re.MULTILINE)
        text = re.search(r'^  description = "(.+)"$', body, re.MULTILINE)
        value = "required" if default is None else "none" if default[1] == "null" else f"`{default[1]}`"
        rows.append(f"| `{name}` | {value} | {text[1] if text else ''} |")
    return "\n".join(rows)


def endpoints_table() -> str:
    """One row for each endpoint: request, answer, who may send it, statuses."""
    rows = ["| request | answer | who may | statuses |", "| --- | --- | --- | --- |"]
    for one in ENDPOINTS:
        statuses = ", ".join(map(str, [one.status, *one.problems]))
        rows.append(f"| `{one.method} {one.path}` | {one.summary} | {WHO[one.access]} | {statuses} |")
    return "\n".join(rows)


def commands() -> Iterator[click.Context]:
    """Each command of the package that does something itself, in order of the alphabet, in a context with its path."""
    root = click.Context(cli, info_name="visor")
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None
        context = click.Context(command, parent=root, info_name=name)
        if isinstance(command, click.Group):
            yield from (click.Context(one, parent=context, info_name=sub) for sub, one in command.commands.items())
        else:
            yield context


def commands_table() -> str:
    """What `visor COMMAND --help` says, for each command: arguments, what it does, and a row for each option."""
    parts = []
    for context in commands():
        command = context.command
        arguments = [param.make_metavar(context) for param in command.params if isinstance(param, click.Argument)]
        options = [param for param in command.params if isinstance(param, click.Option)]
        text = re.sub(r"\s*\n\s*", " ", re.sub(r"\n\s*\n\s*", "\0", (command.help or "").strip()))
        parts.append(f"## {context.command_path}\n\n`{' '.join([context.command_path, *arguments])}`")
        parts.extend(text.split("\0"))
        if options:
            records = filter(None, (option.get_help_record(context) for option in options))
            rows = [
                "| `{}` | {} |".format(*(" ".join(cell.split()).replace("|", r"\|") for cell in r)) for r in records
            ]
            parts.append("\n".join(["| option | what |", "| --- | --- |", *rows]))
    return "\n\n".join(parts)


def keys_tables() -> str:
    """A table for each built-in kind of source, with a row for each of its keys."""
    parts = []
    for name, entry in sorted(kinds().items()):
        if entry.value.startswith("visor."):
            rows = ["| key | default | values | meaning |", "| --- | --- | --- | --- |", *_keys(entry.load().Config)]
            parts.append("\n".join([f"### Keys of `{name}`", "", *rows]))
    return "\n\n".join(parts)


def _keys(config: type[msgspec.Struct], before: str = "") -> Iterator[str]:
    said = _said(config)
    for field in msgspec.structs.fields(config):
        inner = next((one for one in structs(field.type) if one is not RetryPolicy), None)
        factory = field.default_factory is not msgspec.NODEFAULT
        value = json.dumps(field.default) if isinstance(field.default, str | int | float | tuple) else ""
        default = "required" if field.required and not factory else f"`{value}`" if value.strip('"[]') else ""
        meaning = said.get(field.name, "")
        values = in_words(field.type).partition(" with the keys" if inner else "\n")[0]
        yield f"| `{before}{field.encode_name}` | {default} | {values} | {meaning} |"
        if inner is not None:
            yield from _keys(inner, f"{before}{field.encode_name}.")


def _said(config: type[msgspec.Struct]) -> dict[str, str]:
    """The text below each field of a record and of its bases, in one line."""
    said = {}
    for one in reversed(config.__mro__):
        if issubclass(one, msgspec.Struct) and one is not msgspec.Struct:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
            assert isinstance(tree, ast.ClassDef)
            for line, after in pairwise(tree.body):
                match line, after:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        said[name] = " ".join(text.split()).replace("|", r"\|")
    return said


TABLES: dict[str, Callable[[], str]] = {
    "commands.md": commands_table,
    "deploy.md": variables_table,
    "http.md": endpoints_table,
    "sources.md": keys_tables,
}


def main() -> None:
    stale = []
    for name, table in TABLES.items():
        path = ROOT / "docs" / name
        text = path.read_text(encoding="utf-8")
        start, rest = text.split("<!-- made by scripts/docs_tables.py -->\n", 1)
        _, end = rest.split("\n<!-- end -->", 1)
        made = f"{start}<!-- made by scripts/docs_tables.py -->\n{table()}\n<!-- end -->{end}"
        if made == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(made, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"Tables are out of date in {', '.join(stale)}: run scripts/docs_tables.py")


if __name__ == "__main__":
    main()
