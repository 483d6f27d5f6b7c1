"""`visor index`, `compact`, `reindex` and `engine`: fill an index, merge it, embed it again, move it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

from visor import errors
from visor.console import Number, as_json, print_json, progress, say
from visor.errors import BadRequest, ImageError, SourceError
from visor.schema.words import counted
from visor.settings import Settings

if TYPE_CHECKING:
    from visor.app import App
    from visor.index.merge.merge import MergeReport
    from visor.schema.items import CrawlRun, Failure
    from visor.sources.contract import Source

CODES = sorted({kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ImageError)})
FAILURES_SHOWN = 5
UNREADABLE = ("cannot be read", "its name is not UTF-8")
"""What the source `folder` reports for an entry that should be there and is not."""


@click.command("index")
@click.argument("path_or_source")
@click.option("--confirm-loss", is_flag=True, help="Delete missing items even if they are most of the catalogue.")
@as_json
def index_command(path_or_source: str, confirm_loss: bool, as_json: bool) -> None:
    """Crawl PATH_OR_SOURCE (a folder of images, or a source of visor.toml), embed and make it searchable.

    Items that failed before are tried again. Fails, with exit status 1, if there is nothing to index, if half of the
    images or more are not searchable as they are now, or if a file on this machine could not be read.
    """
    from visor.app import App
    from visor.search.request import given_path

    settings = Settings.read()
    folder = given_path(path_or_source)
    if folder.is_dir():
        settings = msgspec.structs.replace(settings, allow_folders=(*settings.allow_folders, str(folder.resolve())))
        app = App(settings)
        source, config = app.open_folder(folder), {"kind": "folder", "path": str(folder.resolve())}
        say(f"Reading the folder {folder.resolve()} as source {source.name}")
    else:
        app = App(settings)
        if path_or_source not in app.configuration.entries:
            file = app.configuration
            found = f"{path_or_source} is not a folder, and {file.path} has no source of that name{file.absent}"
            valid = ", ".join(["a folder of images", *app.configuration.entries])
            raise BadRequest(found, valid=valid, remedy="Correct it, or describe a source (docs/sources.md)")
        source, config = app.named_source(path_or_source), app.configuration.entry(path_or_source).own
    app.remember(source.name, config)
    run = crawl_and_embed(app, source, confirm_loss=confirm_loss)
    failed = tell_failures(app, source.name, run.listed)
    tell_stopped_bulk(app)
    if as_json:
        print_json(run)
    lost = config["kind"] == "folder" and any(said in reason for reason in run.failures for said in UNREADABLE)
    sys.exit(failed or lost or run.state == "empty")


def crawl_and_embed(app: App, source: Source, *, confirm_loss: bool = False) -> CrawlRun:
    """Crawl one source to its end, embed what is queued and merge it. Reports progress on standard error."""
    app.check_model()
    _ = app.embedder  # Without a model nothing is crawled.
    say(f"Crawling {source.name}")
    try:
        run, again = app.crawl(source, confirm_loss=confirm_loss)
    except SourceError:
        # Items that were read before are published, and no other run would publish them again.
        if app.stores.queue.waiting():
            say("The source ended with an error, which is shown below. The items before it are embedded first")
            embed_queued(app, None)
        raise
    tell_run(run)
    if again:
        say(f"Trying again what failed before: {counted(again, 'item')}")
    embed_queued(app, run.published + again)
    return run


def tell_run(run: CrawlRun) -> None:
    """Print what a crawl did, which entries it left out and why, and some of these by name."""
    for line in (run.summary(), *run.account()):
        say(line)
    for sample in run.why.split(" | ") if run.why else ():
        say(f"  {sample}")


def embed_queued(app: App, count: int | None) -> None:
    """Embed all waiting items, about `count` of them if that is known, and merge them."""
    from visor.ingest.batch_plan import EmbedReport
    from visor.ingest.worker import Worker

    if not app.stores.queue.waiting():
        return
    with progress("Done", count) as advance:

        def on_report(report: EmbedReport) -> None:
            advance(report.embedded + report.failed)

        def on_wait(batches: int, why: str) -> None:
            say(f"{counted(batches, 'batch')} to be tried again: {why}")

        Worker(app.stores.queue, app.batch_embedder, on_report=on_report, on_wait=on_wait).drain()
    app.merge()


def tell_stopped_bulk(app: App) -> None:
    """Report how much of a stopped bulk waits: items that its crawl saw are nothing new to another crawl."""
    from visor.bulk.waiting import WaitingBatches

    if left := WaitingBatches(app.stores).waiting():
        say(f"`visor bulk` was stopped, or is at work: {counted(left, 'batch')} of it wait; run it again to go on")


def tell_failures(app: App, source: str, listed: int) -> bool:
    """Report how many of a source's items are searchable, and why others are not. Returns True if that is a failure."""
    from visor.errors import NothingToCompare
    from visor.ingest.schedule import live_failures

    failures = [
        f for f in live_failures(app.stores.documents) if f.source == source and f.code != NothingToCompare.code
    ]
    if not failures:
        return False
    fit = max(0, listed - len(failures))
    say(f"Searchable as they are now: {fit:,} of {counted(listed, 'item')}; {len(failures):,} failed:")
    for failure in failures[:FAILURES_SHOWN]:
        say(f"  {failure.name}: {failure.reason}")
    say("`visor failures` lists them all, `visor failures --retry` tries them again")
    lost = any(f.image_url.startswith("file:") and not f.certain for f in failures)
    return lost or 2 * len(failures) >= listed


@click.command("failures")
@click.option("--retry", is_flag=True, help="Try them again, whatever the reason was.")
@click.option("--code", "codes", type=click.Choice(CODES), multiple=True, help="Only these kinds of failure.")
@click.option("--source", "sources", multiple=True, help="Only these sources.")
@as_json
def failures_command(retry: bool, codes: tuple[str, ...], sources: tuple[str, ...], as_json: bool) -> None:
    """List the items that could not become searchable, with the reasons, and try them again.

    Exit status 1 if half of those that were tried again failed again.
    """
    from visor.app import App
    from visor.ingest.schedule import live_failures
    from visor.sources.config import PUSHED
    from visor.storage import existing

    with App(existing(Settings.read())) as app:

        def wanted() -> list[Failure]:
            failures = live_failures(app.stores.documents)
            return [f for f in failures if (not codes or f.code in codes) and (not sources or f.source in sources)]

        found = wanted()
        for name in {*sources} - {PUSHED, *(failure.source for failure in found)}:
            app.crawler.seen(name)
        if retry:
            count = app.crawler.try_again(found) + (0 if codes else sum(map(app.retry_letters, sources or (None,))))
            say(f"Trying {counted(count, 'item')} again")
            tried = {f.item for f in found if f.wanted is not None}
            is_here = app.settings.backend == "local"
            if is_here:
                embed_queued(app, count)
                found = wanted()
            if as_json:
                print_json({"tried": count} | ({"failures": found} if is_here else {}))
            sys.exit(is_here and 2 * sum(f.item in tried for f in found) >= len(tried) > 0)
        if as_json:
            print_json({"failures": found})
            return
        for failure in found:
            click.echo(f"{failure.source}  {failure.name}  {failure.code}: {failure.reason}{_next_try(failure)}")
        again = "; `visor failures --retry` tries them again" if any(f.wanted is not None for f in found) else ""
        say(f"{counted(len(found), 'item')} failed{again}")


def _next_try(failure: Failure) -> str:
    if failure.next_at is None:
        return ""
    at = datetime.fromtimestamp(failure.next_at, UTC)
    return f" Tried {counted(failure.tries, 'time')}; the next scheduled crawl after {at:%Y-%m-%d} tries again."


@click.command("compact")
@click.option("--budget-s", type=Number(0), help="Start no new step after this many seconds; the next run continues.")
@click.option("--relearn", is_flag=True, help="Fit the projection again even if the index has not grown enough.")
@click.option(
    "--texts",
    is_flag=True,
    help="Also complete the text indexes: reads each item that lacks its texts, stems in VISOR_LANGUAGES.",
)
@as_json
def compact_command(budget_s: float | None, relearn: bool, texts: bool, as_json: bool) -> None:
    """Merge shards and small segments into larger segments."""
    from visor.app import App
    from visor.storage import existing

    app = App(existing(Settings.read()))
    app.check_model()
    report = app.merge(
        budget_s=budget_s,
        relearn=relearn,
        fill=texts,
        progress=say,
    )
    tell_merge(report, as_json=as_json)
    if not report.finished and not as_json:
        why = "Other merges write to this index" if report.conflicts else "The time is used up"
        say(f"{why}: run it again to continue")


def tell_merge(report: MergeReport, *, as_json: bool) -> None:
    """Print what a merge did, and the objects that it could not read."""
    if as_json:
        print_json(report)
        return
    click.echo(str(report))
    for what in report.unreadable:
        say(f"Skipped, unreadable: {what}. `visor check` says what to do")


@click.command("reindex")
@click.option("--confirm-loss", is_flag=True, help="Switch even if some items cannot be embedded with the new model.")
@as_json
def reindex_command(confirm_loss: bool, as_json: bool) -> None:
    """Embed all items again with the model of VISOR_MODEL; searches use the old index until that is done.

    Run it after the functions are deployed with the new model. It can be stopped and run again at any time. On Google
    Cloud it only publishes: the embed function does the work, and the compact run after the last item switches to the
    new index. On a laptop it does everything. If some items cannot be embedded, it switches only with --confirm-loss;
    otherwise the exit status is 1.
    """
    from visor.app import App
    from visor.storage import existing

    with App(existing(Settings.read())) as app:
        report = app.reindex(
            lambda published: say(f"{counted(published, 'item')} published"), confirm_loss=confirm_loss
        )
        published = -1
        # Again, if other processes embedded something with the old model meanwhile, or added items.
        while app.settings.backend == "local" and not report.switched and report.published > published:
            published = report.published
            app.try_again()
            embed_queued(app, published)
            app.merge()
            report = app.reindex()
    if report.left and not report.switched:
        say(
            f"{counted(report.left, 'item')} cannot be embedded with the new model: searches use the old index. "
            "`visor failures` says why; then run `visor reindex` again, or with --confirm-loss to do without them"
        )
    if as_json:
        print_json(report)
    elif report.switched:
        say(f"Searches use the index of model {report.current}")
    else:
        count = counted(report.published, "item")
        say(f"{count} published; compact switches to {report.building} once all are embedded")
    sys.exit(not report.switched and (app.settings.backend == "local" or bool(report.left)))


@click.group("engine")
def engine_command() -> None:
    """Show or change where the index's vectors are held: in Visor's segments, Milvus or PostgreSQL (VISOR_ENGINE)."""


@engine_command.command("show")
@as_json
def engine_show_command(as_json: bool) -> None:
    """Show where the vectors of the index are, and how many there are."""
    from visor.app import App
    from visor.index.format.manifest import read_manifest
    from visor.ingest.reindex import check_model
    from visor.storage import existing

    with App(existing(Settings.read())) as app:
        check_model(app.stores.documents, app.fingerprint, app.settings.model)
        manifest, unmerged = read_manifest(app.stores.objects, app.fingerprint)[0], app.unmerged()
    entry = manifest.engine if manifest else None
    found = {
        "engine": entry.name if entry else "segments",
        "collection": entry.collection if entry else None,
        "images": manifest.images if manifest else 0,
        "unmerged": unmerged,
    }
    if as_json:
        print_json(found)
    else:
        images = counted(manifest.images if manifest else 0, "image")
        click.echo(f"{images} in {found['engine']}" + (f", {entry.collection}" if entry else "") + _not_yet(unmerged))


@engine_command.command("migrate")
@click.argument("target", type=click.Choice(["segments", "milvus", "pgvector"]))
@as_json
def engine_migrate_command(target: str, as_json: bool) -> None:
    """Move the index to TARGET without embedding anything again.

    VISOR_ENGINE_URL names the vector engine, in either direction. Set VISOR_ENGINE to TARGET afterwards, and restart
    searches: until then they are refused with an error.
    """
    from visor.app import App
    from visor.storage import existing

    with App(existing(Settings.read())) as app:
        app.check_model(everywhere=True)
        images, unmerged = app.migrate(target, progress=say), app.unmerged()
    if as_json:
        print_json({"engine": target, "images": images, "unmerged": unmerged})
    else:
        click.echo(
            f"In {target}: {counted(images, 'image')}. Set VISOR_ENGINE={target} from now on{_not_yet(unmerged)}"
        )


def _not_yet(unmerged: int) -> str:
    return f". Not merged yet: {counted(unmerged, 'image')}, which `visor compact` brings there" if unmerged else ""
