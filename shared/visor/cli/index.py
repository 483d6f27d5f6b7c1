"""`visor index`, `visor compact` and `visor reindex`: fill an index, merge it, embed it again with another model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from visor.console import as_json, print_json, progress, say
from visor.settings import Settings

if TYPE_CHECKING:
    from visor.app import App
    from visor.schema.items import CrawlRun
    from visor.sources.contract import Source


@click.command("index")
@click.argument("path_or_source")
@click.option("--confirm-loss", is_flag=True, help="Delete missing items even if they are most of the catalogue.")
@as_json
def index_command(path_or_source: str, confirm_loss: bool, as_json: bool) -> None:
    """Crawl PATH_OR_SOURCE (a folder of images, or a source of visor.toml), embed and make it searchable.

    Fails if there is nothing to index.
    """
    from visor.app import App

    settings = Settings.read()
    folder = Path(path_or_source).expanduser()
    if folder.is_dir():
        settings = msgspec.structs.replace(settings, allow_folders=(*settings.allow_folders, str(folder.resolve())))
        app = App(settings)
        source = app.open_folder(folder)
        say(f"Reading the folder {folder.resolve()} as source {source.name}")
    else:
        app = App(settings)
        source = app.named_source(path_or_source)
    run = crawl_and_embed(app, source, confirm_loss=confirm_loss)
    if as_json:
        print_json(run)
    sys.exit(run.state == "empty")


def crawl_and_embed(app: App, source: Source, *, confirm_loss: bool = False) -> CrawlRun:
    """Crawl one source to its end, embed what is queued and merge it. Reports progress on standard error."""
    from visor.ingest.batch_plan import EmbedReport
    from visor.ingest.worker import Worker

    say(f"Crawling {source.name}")
    run = app.crawler.crawl(source, confirm_loss=confirm_loss)
    say(
        f"{run.seen} items seen: {run.published} to embed, {run.updated} changed, {run.deleted} gone, "
        f"{run.unchanged} unchanged, {run.failed} failed"
    )
    for line in run.account():
        say(line)
    if run.state == "empty":
        say(run.why.partition(" | ")[0])
    if app.stores.queue.waiting():
        with progress("Embedding", run.published) as advance:

            def on_report(report: EmbedReport) -> None:
                advance(report.embedded + report.failed)

            Worker(app.stores.queue, app.batch_embedder, on_report=on_report).drain()
        app.merge()
    return run


@click.command("compact")
@click.option("--budget-s", type=float, help="Start no new step after this many seconds; the next run continues.")
@click.option("--relearn", is_flag=True, help="Fit the projection again even if the index has not grown enough.")
@as_json
def compact_command(budget_s: float | None, relearn: bool, as_json: bool) -> None:
    """Merge shards and small segments into larger segments."""
    from visor.app import App

    report = App(Settings.read()).merge(
        budget_s=budget_s,
        relearn=relearn,
        progress=say,
    )
    if as_json:
        print_json(report)
        return
    click.echo(f"{report.images} images in {report.segments} segments; {report.commits} commits merged")
    for what in report.unreadable:
        say(f"Skipped, unreadable: {what}")
    if not report.finished:
        say("The time is used up: run it again to continue")


@click.command("reindex")
@as_json
def reindex_command(as_json: bool) -> None:
    """Embed all items again with the model of VISOR_MODEL; searches use the old index until that is done.

    Run it after the functions are deployed with the new model. It can be stopped and run again at any time. On Google
    Cloud it only publishes: the embed function does the work, and the compact run after the last item switches to the
    new index. On a laptop it does everything.
    """
    from visor.app import App
    from visor.ingest.worker import Worker

    with App(Settings.read()) as app:
        report = app.reindex(lambda published: say(f"{published} items published"))
        if app.settings.backend == "local" and not report.switched:
            Worker(app.stores.queue, app.batch_embedder).drain()
            app.merge()
            report = app.reindex()
    if as_json:
        print_json(report)
    elif report.switched:
        say(f"Searches use the index of model {report.current}")
    else:
        say(f"{report.published} items published; compact switches to {report.building} once all are embedded")
