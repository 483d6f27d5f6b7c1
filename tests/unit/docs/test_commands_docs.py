"""docs/commands.md has every command with all its options, as `--help` shows them."""

from __future__ import annotations

from pathlib import Path

from scripts.docs_tables import commands, commands_table

TEXT = (Path(__file__).parents[3] / "docs" / "commands.md").read_text(encoding="utf-8")


def test_the_page_is_what_the_commands_say() -> None:
    assert commands_table() in TEXT, "run scripts/docs_tables.py"


def test_every_command_and_option_is_on_it() -> None:
    for context in commands():
        assert f"\n## {context.command_path}\n" in TEXT
        for option in context.command.params:
            assert option.param_type_name == "argument" or f"`{option.opts[0]}" in TEXT
