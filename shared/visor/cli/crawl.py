"""`visor crawl`, `visor links` and `visor dlq`: read a source, check its links, retry what failed."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Any

import click

from visor.console import Number, as_json, print_json, say
from visor.errors import CorruptObject, NotFound
from visor.schema.items import Change
from visor.schema.words import counted
from visor.settings import Settings


@click.command("crawl")
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Show what would be published, and publish nothing.")
@click.option("--limit", type=click.IntRange(1), help="Stop after this many items, and delete none.")
@click.option("--confirm-loss", is_flag=True, help="Delete missing items even if they are most of the catalogue.")
@as_json
def crawl_command(name: str, dry_run: bool, limit: int | None, confirm_loss: bool, as_json: bool) -> None:
    """Crawl the source NAME of visor.toml. Fails if there is nothing to index."""
    from visor.app import App
    from visor.cli.index import tell_run, tell_stopped_bulk

    def show(change: Change) -> None:
        click.echo(f"{change.action:6}  {change.item.id}  {change.item.title}  {change.item.image_url}")

    app = App(Settings.read())
    on_change = show if dry_run and not as_json else None
    plan = app.configuration.entry(name).common
    run = app.crawler.crawl(
        app.named_source(name, limit),
        dry_run=dry_run,
        limit=limit or plan.limit,
        budget_s=plan.budget_s,
        confirm_loss=confirm_loss,
        on_change=on_change,
    )
    if as_json:
        print_json(run)
    else:
        tell_run(run)
        tell_stopped_bulk(app)
    sys.exit(run.state == "empty")


@click.command("links")
@click.option("--limit", type=click.IntRange(1), help="Check this many items now, instead of what is left of today's.")
@click.option("--budget-s", type=Number(0), help="Start nothing new after this many seconds.")
@click.option("--confirm-loss", "trusted", multiple=True, metavar="HOST", help="Believe all that this host answers.")
@as_json
def links_command(limit: int | None, budget_s: float | None, trusted: tuple[str, ...], as_json: bool) -> None:
    """Check the images and pages of some items: replace dead images, follow moved ones.

    The crawl function does this too.
    """
    from visor.app import App
    from visor.storage import existing

    with App(existing(Settings.read())) as app:
        report = app.crawler.check_links(limit=limit, budget_s=budget_s, trusted=trusted)
    if as_json:
        print_json(report)
        return
    say(report.summary())
    for part, condition in report.hosts.items():
        say(
            f"Nearly all {part} answer alike ({condition}): none of them is changed. If that is for good: "
            f"visor links --confirm-loss {part.rpartition(' ')[2]}"
        )
    if report.frames:
        say(f"{report.frames} video frames that no item shows were deleted")
    if not report.finished:
        say("The time, or what the free tier has left today, is used up: run it again later to continue")


@click.group("dlq")
def dlq_command() -> None:
    """List and retry dead letters: batches that failed too often."""


@dlq_command.command("list")
@as_json
def list_letters(as_json: bool) -> None:
    """Print each dead letter with the reason why it failed."""
    from visor.storage import existing, open_queue
    from visor.storage.publish import decode_batch

    rows: list[dict[str, Any]] = []
    # Closing gives the letters back, so that `retry` finds them at once.
    with closing(open_queue(existing(Settings.read()))) as queue:
        for letter in queue.dead_letters():
            try:
                items = [change.item.id for change in decode_batch(letter.body).changes]
            except CorruptObject:
                items = []
            rows.append({"id": letter.id, "attempts": letter.attempts, "why": letter.why, "items": items})
    if as_json:
        print_json({"dead_letters": rows})
        return
    for row in rows:
        click.echo(
            f"{row['id']}  {counted(len(row['items']), 'item')}, {counted(row['attempts'], 'attempt')}: {row['why']}"
        )
    say(f"{counted(len(rows), 'dead letter')}" + ("; `visor dlq retry` sends them again" if rows else ""))


@dlq_command.command("retry")
@click.argument("ids", nargs=-1)
def retry_letters(ids: tuple[str, ...]) -> None:
    """Publish dead letters again: those named, or all."""
    from visor.storage import existing, open_queue

    with closing(open_queue(existing(Settings.read()))) as queue:
        letters = [letter for letter in queue.dead_letters() if not ids or letter.id in ids]
        for letter in letters:
            queue.retry(letter)
    say(f"{counted(len(letters), 'dead letter')} sent again")
    if unknown := sorted(set(ids) - {letter.id for letter in letters}):
        raise NotFound(
            f"There is no dead letter {', '.join(unknown)}",
            valid="Ids as `visor dlq list` shows them",
            remedy="It may have been sent already, or another process has just listed it: wait a minute",
        )
