"""`visor stats`: what the index holds."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from visor.console import as_json, print_json
from visor.settings import Settings


@click.command("stats")
@as_json
def stats_command(as_json: bool) -> None:
    """Print the index's size, its model, the last crawls and what failed."""
    from visor.app import Assembly

    assembly = Assembly(Settings.read())
    stats = assembly.search_app().stats()
    documents = assembly.stores.documents
    runs = [d.data for d in documents.query("runs", order_by="started_at", descending=True, limit=5)]
    failures = _live_failures(assembly)
    document: dict[str, Any] = {
        "index": stats,
        "waiting_batches": assembly.stores.queue.waiting(),
        "dead_letters": len(assembly.stores.queue.dead_letters()),
        "runs": runs,
        "failures": failures,
        "links": _links(assembly),
    }
    if as_json:
        print_json(document)
        return
    click.echo(f"{stats.images} images in {stats.segments} segments, {stats.fresh} of them fresh")
    click.echo(f"model {stats.model.name} ({stats.model.fingerprint[:12]}), {stats.model.dimension} numbers")
    click.echo(f"{document['waiting_batches']} batches wait, {document['dead_letters']} dead letters")
    for run in runs:
        counts = ", ".join(
            f"{run.get(name, 0)} {name}" for name in ("seen", "published", "updated", "deleted", "failed")
        )
        click.echo(f"{run['started_at']}  {run['source']}  {run.get('state', 'running')}: {counts}")
    for code, count in failures.items():
        click.echo(f"{count} items failed: {code}")
    if document["links"]:
        click.echo("links: " + ", ".join(f"{count:,} {what}" for what, count in document["links"].items()))


def _links(assembly: Any) -> dict[str, int]:
    """What became of links, over all sources: pushed items have theirs here, too."""
    from visor.link_check.state import LinkState

    state, _ = LinkState.load(assembly.stores.objects)
    names = {*state.counts, *(trouble.source for trouble in state.troubles.values())}
    total: Counter[str] = Counter()
    for name in names:
        total.update(state.of_source(name))
    return dict(total)


def _live_failures(assembly: Any) -> dict[str, int]:
    """Count by code the failures that no later success has overtaken."""
    from visor.schema.items import is_live

    documents = assembly.stores.documents
    failures = documents.query("failures", limit=1000)
    items = documents.get("items", [failure.key for failure in failures])
    counts: dict[str, int] = {}
    for failure in failures:
        item = items.get(failure.key)
        if item is None or item.data["version"] < failure.data["version"] or not is_live(item.data):
            counts[failure.data["code"]] = counts.get(failure.data["code"], 0) + 1
    return counts
