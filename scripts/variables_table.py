"""Write the table of variables in docs/deploy.md from terraform/variables.tf. `--check`: only say if it is right."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "deploy.md"
VARIABLE = re.compile(r'^variable "(\w+)" \{\n(.*?)^\}', re.DOTALL | re.MULTILINE)
TABLE = re.compile(r"(\nwith `visor deploy --var name=value`\.|name=value`\.)\n\n(.*?)\n\n## When", re.DOTALL)


def table() -> str:
    """One row for each variable: name, default, description."""
    rows = ["| variable | default | what |", "| --- | --- | --- |"]
    for name, body in VARIABLE.findall((ROOT / "terraform" / "variables.tf").read_text(encoding="utf-8")):
        default = re.search(r"^  default +=\s*(.+)$", body, re.MULTILINE)
        text = re.search(r'^  description = "(.+)"$', body, re.MULTILINE)
        value = "required" if default is None else "none" if default[1] == "null" else f"`{default[1]}`"
        rows.append(f"| `{name}` | {value} | {text[1] if text else ''} |")
    return "\n".join(rows)


def main() -> None:
    now = DOCUMENT.read_text(encoding="utf-8")
    new = TABLE.sub(lambda m: f"{m[1]}\n\n{table()}\n\n## When", now, count=1)
    if "--check" in sys.argv:
        sys.exit(
            0 if new == now else "docs/deploy.md has not the variables of terraform/: run scripts/variables_table.py"
        )
    DOCUMENT.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
