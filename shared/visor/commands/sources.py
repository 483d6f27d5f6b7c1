"""`visor sources`: how each source of visor.toml is doing."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from visor.commands.options import as_json, print_json
from visor.settings import Settings

FAILURES_READ = 5_000


@click.command("sources")
@as_json
def sources_command(as_json: bool) -> None:
    """Show each source's state, last run, next run, yield and failures."""
    from visor.assembly import Assembly
    from visor.sources.schedule import latest_runs, states

    assembly = Assembly(Settings.read())
    documents = assembly.stores.documents
    failures = [
        (str(document.data["source"]), str(document.data["code"]))
        for document in documents.query("failures", limit=FAILURES_READ)
    ]
    found = states(assembly.configuration, latest_runs(documents), failures, datetime.now(UTC))
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo(f"{assembly.configuration.path} has no sources. docs/sources.md shows how to add one.")
    for state in found:
        click.echo(f"{state.name} ({state.kind}){'' if state.enabled else ', switched off'}")
        last = state.last
        if last is None:
            click.echo("  never crawled")
        else:
            click.echo(
                f"  last run {last.started_at}: {last.state}, {last.seen} seen, {last.published} new or changed "
                f"pictures, {last.updated} changed, {last.deleted} gone, {last.failed} failed"
            )
            if last.why:
                click.echo(f"  {last.why}")
        click.echo(f"  next run {state.next_at or 'none'}")
        for code, count in state.failures.items():
            click.echo(f"  {count} pictures: {code}")
