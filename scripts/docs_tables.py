"""Write the tables of docs/ that are made from code: variables of Terraform, endpoints. `--check`: only compare."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

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


TABLES: dict[str, Callable[[], str]] = {"deploy.md": variables_table, "http.md": endpoints_table}


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
