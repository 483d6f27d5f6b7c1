"""`visor index`: from a folder or source to a searchable index, in one go, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from visor.console import as_json, print_json, progress, say
from visor.settings import Settings

if TYPE_CHECKING:
    from visor.app import Assembly
    from visor.schema.items import CrawlRun
    from visor.sources.contract import Source


@click.command("index")
@click.argument("path_or_source")
@as_json
def index_command(path_or_source: str, as_json: bool) -> None:
    """Crawl PATH_OR_SOURCE (a folder of pictures, or a source of visor.toml), embed and make it searchable."""
    from visor.app import Assembly

    settings = Settings.read()
    folder = Path(path_or_source).expanduser()
    if folder.is_dir():
        settings = msgspec.structs.replace(settings, allow_folders=(*settings.allow_folders, str(folder.resolve())))
        assembly = Assembly(settings)
        source = assembly.open_source(folder.resolve().name, {"kind": "folder", "path": str(folder.resolve())})
    else:
        assembly = Assembly(settings)
        source = assembly.named_source(path_or_source)
    run = crawl_and_embed(assembly, source)
    if as_json:
        print_json(run)


def crawl_and_embed(assembly: Assembly, source: Source) -> CrawlRun:
    """Crawl one source to its end, embed all that is queued and merge it, telling on standard error how it goes."""
    from visor.ingest.batch_plan import EmbedReport
    from visor.ingest.worker import Worker

    say(f"Crawling {source.name}")
    run = assembly.crawl(source)
    say(
        f"{run.seen} items seen: {run.published} to embed, {run.updated} changed, {run.deleted} gone, "
        f"{run.unchanged} unchanged, {run.failed} failed"
    )
    if assembly.stores.queue.waiting():
        with progress("Embedding", run.published) as advance:

            def on_report(report: EmbedReport) -> None:
                advance(report.embedded + report.failed)

            Worker(assembly.stores.queue, assembly.batch_embedder, on_report=on_report).drain()
        assembly.merge()
    return run
