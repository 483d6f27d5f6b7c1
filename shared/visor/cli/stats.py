"""`visor stats`: what the index holds."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from visor.console import as_json, print_json, say
from visor.schema.collections import RUNS
from visor.schema.search import Filters
from visor.schema.words import counted
from visor.settings import Settings

SAMPLED = 200
"""Number of items whose attributes are counted."""
FEW = 0.5
"""Share of the items below which a declared attribute counts as rare."""


@click.command("stats")
@as_json
def stats_command(as_json: bool) -> None:
    """Print the index's size, its model, the last crawls and what failed."""
    from visor.app import App
    from visor.cli.index import tell_stopped_bulk
    from visor.ingest.schedule import live_failures
    from visor.storage import existing

    app = App(existing(Settings.read()))
    stats = app.stats()
    documents = app.stores.documents
    runs = [d.data for d in documents.query(RUNS, order_by="started_at", descending=True, limit=5)]
    failures = dict(Counter(failure.code for failure in live_failures(documents)))
    document: dict[str, Any] = {
        "index": stats,
        "waiting_batches": app.stores.queue.waiting(),
        "dead_letters": len(app.stores.queue.dead_letters()),
        "runs": runs,
        "failures": failures,
        "links": _links(app),
        "attributes": _attributes(app),
    }
    if as_json:
        print_json(document)
        return
    if app.searcher.notice:
        say(app.searcher.notice)
    click.echo(f"{counted(stats.images, 'image')} in {counted(stats.segments, 'segment')}, {stats.fresh:,} fresh")
    click.echo(f"model {stats.model.name} ({stats.model.fingerprint[:12]}), {stats.model.dimension} numbers")
    if stats.budget:
        click.echo(f"spent {stats.spent:,.2f} of this month's {stats.budget:,.2f}")
    if stats.learned_from:
        click.echo(f"visitors' photos that the index has learned from: {stats.learned_from:,}")
    click.echo(f"{counted(document['waiting_batches'], 'batch')} waiting, dead letters: {document['dead_letters']:,}")
    tell_stopped_bulk(app)
    for run in runs:
        counts = ", ".join(
            f"{run.get(name, 0)} {name}" for name in ("seen", "published", "updated", "deleted", "failed")
        )
        click.echo(f"{run['started_at']}  {run['source']}  {run.get('state', 'running')}: {counts}")
    for code, count in failures.items():
        click.echo(f"{counted(count, 'item')} failed: {code}")
    for name, one in document["attributes"].items():
        what = one["type"] or "undeclared; [attributes] in visor.toml makes it a filter"
        if one["type"] is None or one["known"] < FEW * one["of"]:
            click.echo(f"attribute {name}: known of {one['known']:,} of {one['of']:,} items ({what})")
    if document["links"]:
        click.echo("links: " + ", ".join(f"{count:,} {what}" for what, count in document["links"].items()))


def _attributes(app: Any) -> dict[str, dict[str, Any]]:
    """By name: the type of a declared attribute, None for one that only items have, and how many items have it.

    Undeclared attributes are counted in `SAMPLED` items that are spread over the index: `of` is how many were read.
    """
    images = len(app.searcher)
    counted = app.searcher.facets(Filters()).attributes
    found: dict[str, dict[str, Any]] = {
        name: {"type": type_, "known": images - counted[name].missing if name in counted else 0, "of": images}
        for name, type_ in app.configuration.attributes.items()
    }
    sampled = app.serving()().sample(SAMPLED)
    said = Counter(name for indexed in sampled for name in indexed.item.extra)
    for name, count in said.most_common():
        found.setdefault(name, {"type": None, "known": count, "of": len(sampled)})
    return found


def _links(app: Any) -> dict[str, int]:
    """The results of link checks over all sources, including pushed items."""
    from visor.link_check.state import LinkState

    state, _ = LinkState.load(app.stores.objects)
    names = {*state.counts, *(problem.source for problem in state.problems.values())}
    total: Counter[str] = Counter()
    for name in names:
        total.update(state.of_source(name))
    return dict(total)
