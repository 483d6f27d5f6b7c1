"""`visor feedback`: what searchers called no match."""

from __future__ import annotations

import click

from visor.console import as_json, print_json
from visor.settings import Settings


@click.group("feedback")
def feedback_command() -> None:
    """Show what searchers called no match."""


@feedback_command.command("export")
@as_json
def export_feedback(as_json: bool) -> None:
    """Print each pair of a query and an item, the newest first."""
    from visor.search.feedback import all_feedback
    from visor.storage import open_stores

    with open_stores(Settings.read()) as stores:
        kept = all_feedback(stores.documents)
    if as_json:
        print_json({"feedback": [{"query": one.query, "item": one.item, "verdict": one.verdict} for one in kept]})
        return
    for one in kept:
        click.echo(f"{one.query}  {one.item}  {one.verdict}")
