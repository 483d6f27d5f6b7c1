"""`visor dlq`: the batches that could not be processed."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import click

from visor.console import as_json, print_json, say
from visor.errors import CorruptObject, NotFound
from visor.settings import Settings


@click.group("dlq")
def dlq_command() -> None:
    """List and retry dead letters: batches that failed as often as is allowed."""


@dlq_command.command("list")
@as_json
def list_letters(as_json: bool) -> None:
    """Print each dead letter with why it failed."""
    from visor.storage import open_queue
    from visor.storage.publish import decode_batch

    rows: list[dict[str, Any]] = []
    # Closing gives the letters back, so that `retry` finds them at once.
    with closing(open_queue(Settings.read())) as queue:
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
        click.echo(f"{row['id']}  {len(row['items'])} items, {row['attempts']} attempts: {row['why']}")
    say(f"{len(rows)} dead letters" + ("; `visor dlq retry` sends them again" if rows else ""))


@dlq_command.command("retry")
@click.argument("ids", nargs=-1)
def retry_letters(ids: tuple[str, ...]) -> None:
    """Publish dead letters again: those named, or all."""
    from visor.storage import open_queue

    with closing(open_queue(Settings.read())) as queue:
        letters = [letter for letter in queue.dead_letters() if not ids or letter.id in ids]
        for letter in letters:
            queue.retry(letter)
    say(f"{len(letters)} dead letters sent again")
    if unknown := sorted(set(ids) - {letter.id for letter in letters}):
        raise NotFound(
            f"No dead letter {', '.join(unknown)}",
            valid="Ids as `visor dlq list` shows them",
            remedy="It may have been sent again already; or another process has just listed it: wait a minute",
        )
