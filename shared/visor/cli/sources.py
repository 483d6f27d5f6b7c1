"""`visor sources`: how each source of visor.toml is doing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from visor.console import as_json, print_json
from visor.schema.collections import FAILURES
from visor.settings import Settings

if TYPE_CHECKING:
    from visor.ingest.schedule import SourceState

FAILURES_READ = 5_000
RUNS_READ = 20
"""Of each source."""


@click.command("sources")
@as_json
def sources_command(as_json: bool) -> None:
    """Show each source's state, last run, next run, yield and failures."""
    from visor.app import Assembly
    from visor.ingest.schedule import runs_of, states
    from visor.link_check.state import LinkState

    assembly = Assembly(Settings.read())
    documents = assembly.stores.documents
    failures = [
        (str(document.data["source"]), str(document.data["code"]))
        for document in documents.query(FAILURES, limit=FAILURES_READ)
    ]
    requests, hosts = assembly.request_budget.today()
    found = states(
        assembly.configuration,
        runs_of(documents, assembly.configuration, RUNS_READ),
        failures,
        datetime.now(UTC),
        requests=requests,
        links=LinkState.load(assembly.stores.objects)[0],
    )
    if as_json:
        print_json({"sources": found, "requests_today_by_host": hosts})
        return
    if not found:
        click.echo(f"{assembly.configuration.path} has no sources. docs/sources.md shows how to add one.")
    for state in found:
        for line in _lines(state):
            click.echo(line)
    limit = assembly.settings.host_requests_a_day
    for host, count in hosts.items():
        click.echo(f"{host}: {count:,} requests today{f' of {limit:,}' if limit else ''}")


def _lines(state: SourceState) -> Iterator[str]:
    """One source in words."""
    yield f"{state.name} ({state.kind}){'' if state.enabled else ', switched off'}"
    last = state.last
    if last is None:
        yield "  never crawled"
    else:
        yield (
            f"  last run {last.started_at}: {last.state}, {last.seen} seen, {last.published} new or changed "
            f"pictures, {last.updated} changed, {last.deleted} gone, {last.failed} failed"
        )
        if last.why:
            yield f"  {last.why}"
        failed = sum(state.failures.values())
        yield f"  yield: {last.listed:,} items listed, {failed:,} of them without a picture that can be searched"
    yield f"  next run {state.next_at or 'none'}"
    of = f" of {state.requests_a_day:,}" if state.requests_a_day else ""
    yield f"  {state.requests_today:,}{of} requests today"
    for code, count in state.failed_runs.items():
        yield f"  {count} of the last {state.runs} runs failed: {code}"
    for reason, count in (last.failures if last else {}).items():
        yield f"  {count} rows: {reason}"
    for code, count in state.failures.items():
        yield f"  {count} pictures: {code}"
    if state.links:
        yield "  links: " + ", ".join(f"{count:,} {what}" for what, count in state.links.items())
