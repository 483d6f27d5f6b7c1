"""`visor source` and `visor sources`: kinds of sources, and how each source of visor.toml is doing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from visor.console import GivenPath, as_json, print_json
from visor.schema.words import counted
from visor.settings import Settings

if TYPE_CHECKING:
    from visor.ingest.schedule import SourceState

RUNS_READ = 20
"""Runs of each source that are counted."""


@click.command("sources")
@as_json
def sources_command(as_json: bool) -> None:
    """Show each source's state, last run, next run, yield and failures."""
    from visor.app import App
    from visor.ingest.schedule import live_failures, runs_of, states
    from visor.link_check.state import LinkState
    from visor.storage import existing, has_any

    app = App(Settings.read())
    hosts: dict[str, int] = {}
    if not has_any(app.settings):
        # Nothing was crawled yet, and reading does not create an index.
        found = states(app.configuration, {}, (), datetime.now(UTC))
    else:
        existing(app.settings)
        documents = app.stores.documents
        failures = [(failure.source, failure.code) for failure in live_failures(documents)]
        requests, hosts = app.request_budget.today()
        found = states(
            app.configuration,
            runs_of(documents, app.configuration, RUNS_READ),
            failures,
            datetime.now(UTC),
            requests=requests,
            links=LinkState.load(app.stores.objects)[0],
        )
    if as_json:
        print_json({"sources": found, "requests_today_by_host": hosts})
        return
    if not found:
        file = app.configuration
        click.echo(f"{file.path} has no sources{file.absent}. docs/sources.md shows how to add one.")
    for state in found:
        for line in _lines(state):
            click.echo(line)
    limit = app.settings.host_requests_a_day
    for host, count in hosts.items():
        click.echo(f"{host}: {_requests(count, limit)}")


def _lines(state: SourceState) -> Iterator[str]:
    """One source in words."""
    yield f"{state.name} ({state.kind}){'' if state.enabled else ', switched off'}"
    last = state.last
    if last is None:
        yield "  never crawled"
    else:
        yield (
            f"  last run {last.started_at}: {last.state}, {last.seen} seen, {last.published} new or changed "
            f"images, {last.updated} changed, {last.deleted} gone, {last.failed} failed"
        )
        if last.why:
            yield f"  {last.why}"
        failed = sum(state.failures.values())
        yield f"  yield: {counted(last.listed, 'item')} listed, {failed:,} of them without an image to compare"
    yield f"  next run {state.next_at or 'none'}"
    yield f"  {_requests(state.requests_today, state.requests_a_day)}"
    for code, count in state.failed_runs.items():
        yield f"  {count} of the last {counted(state.runs, 'run')} failed: {code}"
    for line in last.account() if last else ():
        yield f"  {line}"
    for code, count in state.failures.items():
        yield f"  {counted(count, 'image')}: {code}"
    if state.links:
        yield "  links: " + ", ".join(f"{count:,} {what}" for what, count in state.links.items())


def _requests(count: int, limit: int | None) -> str:
    return (f"{count:,} of {counted(limit, 'request')}" if limit else counted(count, "request")) + " today"


@click.group("source")
def source_command() -> None:
    """List kinds of sources, and start a new one."""


@source_command.command("forget")
@click.argument("name")
def forget_source(name: str) -> None:
    """Delete the items of the source NAME from the index, and forget what was allowed for it.

    Take it out of visor.toml first, or the next crawl brings it back.
    """
    from visor.app import App
    from visor.cli.index import embed_queued
    from visor.storage import existing

    with App(existing(Settings.read())) as app:
        count = app.crawler.forget(name)
        if app.settings.backend == "local":
            embed_queued(app, 0)
    click.echo(f"Deleted from the index: {counted(count, 'item')} of the source '{name}'")


@source_command.command("list")
@as_json
def list_kinds(as_json: bool) -> None:
    """Show each kind of source that is installed, and the package that brings it."""
    from visor.sources.registry import kinds

    found = {name: entry.dist.name if entry.dist else "" for name, entry in kinds().items()}
    if as_json:
        print_json(found)
        return
    for name, package in found.items():
        click.echo(f"{name:12} {package}")


@source_command.command("new")
@click.argument("kind")
@click.option("--folder", default=".", type=GivenPath(), help="Where the package is written.")
def new(kind: str, folder: Path) -> None:
    """Write a package with a new source KIND, which works at once and is then changed."""
    from visor.sources.scaffold import write_source_package

    package = write_source_package(kind, folder)
    click.echo(f"Wrote {package}. Next: cd {package} && pip install -e '.[test]' && pytest")
