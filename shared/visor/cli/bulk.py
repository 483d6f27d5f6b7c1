"""`visor bulk`: embed a whole catalogue on Apache Beam."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from visor.console import Number, as_json, print_json, progress, say
from visor.errors import Conflict, SettingsError, SourceError
from visor.schema.words import counted
from visor.settings import Settings

if TYPE_CHECKING:
    from visor.app import App
    from visor.bulk.merging import BeamBuild
    from visor.bulk.run import BulkEstimate
    from visor.schema.items import Change
    from visor.sources.contract import Source

RUNNERS = ("DirectRunner", "DataflowRunner", "FlinkRunner", "SparkRunner")
LINES = (".jsonl", ".ndjson")


@click.command("bulk", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("what", metavar="SOURCE|FILE.jsonl|FOLDER|gs://BUCKET/PREFIX", required=False)
@click.option("--runner", type=click.Choice(RUNNERS), default="DirectRunner", show_default=True, help="Beam's runner.")
@click.option("--workers", type=click.IntRange(1), help="Processes that embed at once. [default: this machine's cores]")
@click.option(
    "--host-rate",
    type=Number(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Pictures a second that all workers together download from one host.",
)
@click.option("--worker-price", type=Number(min=0), help="What a worker costs an hour, for the estimate.")
@click.option("--limit", type=click.IntRange(1), help="Stop listing after this many items.")
@click.option("--dry-run", is_flag=True, help="List, and estimate time and cost; embed and save nothing.")
@click.option("--reindex", is_flag=True, help="Embed what the index holds with the model of VISOR_MODEL.")
@click.option("--merge", is_flag=True, help="Merge what was committed, with a worker for each new segment.")
@click.option("--relearn", is_flag=True, help="With --merge: rewrite the whole index, with a newly learned projection.")
@click.option("--confirm-loss", is_flag=True, help="As that of `visor crawl` and `visor reindex`.")
@as_json
@click.pass_context
def bulk_command(
    context: click.Context,
    what: str | None,
    runner: str,
    workers: int | None,
    host_rate: float,
    worker_price: float | None,
    limit: int | None,
    dry_run: bool,
    reindex: bool,
    merge: bool,
    relearn: bool,
    confirm_loss: bool,
    as_json: bool,
) -> None:
    """Embed a source, a file of items, a folder or a bucket with many workers, on Apache Beam.

    The result is the same as that of `visor crawl` and embed (with --merge, of `visor compact`), and the next crawl
    sees nothing new. It may be stopped and run again at any time. Exit status 1 if there is nothing to embed, if
    everything failed, or if batches are left. Options that are not listed here are Beam's:
    --region, --sdk_container_image, --flink_master
    """
    if importlib.util.find_spec("apache_beam") is None:
        raise SettingsError(
            "Apache Beam is not installed",
            valid="An environment with visor-search[beam]; best a separate one, as Beam needs older libraries",
            remedy="pip install 'visor-search[beam]'",
        )
    arguments = list(context.args)
    if what is not None and what.startswith("-"):
        arguments.insert(0, what)
        what = None
    if (what is not None) + reindex + merge != 1 or (what is None and dry_run) or (relearn and not merge):
        raise click.UsageError(
            "Name what to embed, before options of Beam; or give --reindex or --merge, which have no --dry-run. "
            "--relearn belongs to --merge"
        )
    from visor.bulk.lanes import DIRECT, Politeness
    from visor.bulk.merging import BeamBuild
    from visor.bulk.pipeline import checked_options
    from visor.bulk.run import BulkReport, bulk_app, estimate, poll_s_of, run, waiting_of
    from visor.bulk.waiting import pictures_by_host
    from visor.storage import existing

    settings = _settings(what)
    workers = workers or os.cpu_count() or 1
    flags = checked_options(runner, arguments, settings, workers)
    politeness = Politeness(min(settings.fetch_parallel_per_host, workers), host_rate)
    build = BeamBuild(settings, flags, runner, say)
    if merge:
        _merge(settings, build, relearn=relearn, as_json=as_json)
        return
    with bulk_app(existing(settings) if reindex else settings) as app:
        if not reindex:
            app.check_model(everywhere=True)
        if runner == DIRECT and not dry_run:
            _ = app.fingerprint  # without a model nothing is listed
        queue, ended = waiting_of(app), None
        try:
            found, listed = _list(app, what, limit=limit, dry_run=dry_run, confirm_loss=confirm_loss)
        except SourceError as exc:
            # Items that were listed before wait, and no other run would list them again.
            if dry_run or not queue.waiting():
                raise
            say("The source ended with an error, which is shown below. The items before it are embedded first")
            found, listed, ended = Counter(), False, exc
        expected = estimate(found or pictures_by_host(queue.all()), workers, politeness, worker_price)
        if expected.pictures:
            say(_sentence(expected))
        report = BulkReport(estimate=expected)
        if not dry_run:
            with progress("Done", expected.pictures) as advance:
                done = run(
                    lambda: list(queue.all()),
                    runner,
                    lambda attempt: (flags, "embed", settings, politeness, attempt),
                    advance=advance,
                    say=say,
                    poll_s=poll_s_of(settings),
                )
                report = msgspec.structs.replace(done, estimate=expected)
            if settings.backend == "local":
                app.merge(build=build if app.engine is None else None)
            switched = app.reindex(confirm_loss=confirm_loss).switched if reindex else True
            say(str(report))
            if report.counts.get("failed"):
                say("`visor failures` lists what failed, and why")
    if as_json:
        print_json(report)
    if ended is not None:
        raise ended
    sys.exit(not (listed and report.went_well) or not (dry_run or switched or settings.backend != "local"))


def _merge(settings: Settings, build: BeamBuild, *, relearn: bool, as_json: bool) -> None:
    from visor.app import App
    from visor.cli.index import tell_merge
    from visor.storage import existing

    if settings.engine != "segments":
        raise SettingsError(
            f"VISOR_ENGINE is {settings.engine}, which has no segments to build",
            valid="--merge with VISOR_ENGINE=segments",
            remedy="`visor compact` brings what was committed into the engine",
        )
    with App(existing(settings)) as app:
        report = app.merge(relearn=relearn, progress=say, build=build)
    tell_merge(report, as_json=as_json)
    if not report.finished:
        raise Conflict(
            "Another merge replaced the manifest meanwhile: nothing of this one is used",
            valid="One merge of an index at a time",
            remedy="Stop what else merges (on Google Cloud the schedule of compact), and run it again",
        )


def _settings(what: str | None) -> Settings:
    """The settings, which allow the named folder or bucket to be read. A worker has one core, so one thread, unless set
    otherwise."""
    from visor.search.request import given_path

    settings = Settings.read()
    if "VISOR_THREADS" not in os.environ:
        settings = msgspec.structs.replace(settings, threads=1)
    if what is not None and "://" in what:
        return msgspec.structs.replace(settings, allow_buckets=(*settings.allow_buckets, what))
    if what is not None and given_path(what).is_dir():
        folder = str(given_path(what).resolve())
        return msgspec.structs.replace(settings, allow_folders=(*settings.allow_folders, folder))
    return settings


def _list(
    app: App, what: str | None, *, limit: int | None, dry_run: bool, confirm_loss: bool
) -> tuple[Counter[str], bool]:
    """Queue all changes to embed. Returns the number of pictures by host for a dry run, which queues nothing; and
    whether there was anything to list."""
    from visor.bulk.run import waiting_of
    from visor.bulk.waiting import host_digest
    from visor.cli.index import tell_run

    found: Counter[str] = Counter()
    if app.settings.backend == "local" and not dry_run:
        taken, left = waiting_of(app).take_over()
        if taken:
            say(f"Taking over what waits in the queue: {counted(taken, 'picture')}")
        if left:
            say(f"Left in the queue, not due or at work elsewhere: {counted(left, 'batch')}; `visor index` embeds them")
    if what is None:
        app.reindex(lambda published: say(f"{counted(published, 'item')} listed"), confirm_loss=confirm_loss)
        _tell_again(app.try_again())
        return found, True
    path = Path(what).expanduser()

    def count(change: Change) -> None:
        found[host_digest(change.item.image_url)] += change.action != "delete"

    if path.suffix in LINES and path.is_file():
        return found, _list_file(app, path, limit, count if dry_run else None)
    source = _source(app, what, path, limit=limit, dry_run=dry_run)
    say(f"Reading {source.name}")
    again = 0
    options: dict[str, Any] = {"limit": limit, "budget_s": math.inf, "confirm_loss": confirm_loss}
    if dry_run:
        run = app.crawler.crawl(source, dry_run=True, on_change=count, **options)
    else:
        run, again = app.crawl(source, **options)
    tell_run(run)
    _tell_again(again)
    return found, run.state != "empty"


def _list_file(app: App, path: Path, limit: int | None, count: Callable[[Change], object] | None) -> bool:
    """Queue the items of JSON Lines, or only count them; returns whether there were any."""
    from visor.bulk.run import push_file
    from visor.sources.config import PUSHED

    failed = {} if count else {failure.item: failure for failure in app.hopeful(PUSHED)}

    def wants(change: Change) -> bool:
        """Not an item that failed at this version already: it is tried again below."""
        if count:
            count(change)
        elif (before := failed.get(change.item.id)) is None or before.version < change.version:
            failed.pop(change.item.id, None)
            return True
        return False

    answer = push_file(app, path, limit=limit, wants=wants)
    for one in answer.items:
        say(f"  line {one.line}: {one.reason}")
    say(f"{counted(answer.accepted, 'line')} of {path.name} accepted, {answer.refused:,} refused")
    _tell_again(0 if count else app.crawler.try_again(failed.values()) + app.retry_letters(PUSHED))
    return bool(answer.accepted)


def _tell_again(items: int) -> None:
    if items:
        say(f"Trying again what failed before: {counted(items, 'item')}")


def _source(app: App, what: str, path: Path, *, limit: int | None, dry_run: bool) -> Source:
    """The named source, or the source that reads the named folder or bucket."""
    if path.is_dir():
        source, config = app.open_folder(path), {"kind": "folder", "path": str(path.resolve())}
    elif "://" in what:
        for entry in app.configuration.entries.values():
            if entry.common.kind == "bucket" and entry.own.get("url") == what:
                return app.named_source(entry.name)
        bucket = what.partition("://")[2].partition("/")[0]
        config = {"kind": "bucket", "url": what}
        mark = hashlib.blake2b(what.encode(), digest_size=3).hexdigest()
        source = app.open_source(f"{bucket[:50]}-{mark}", config)
    elif path.suffix and what not in app.configuration.entries:
        known = f"a source of {app.configuration.path}, a folder, gs://BUCKET/PREFIX or a file of {' or '.join(LINES)}"
        raise SettingsError(
            f"{path} cannot be embedded" if path.exists() else f"There is no {path}",
            valid=known,
            remedy="Correct the path; a CSV or another feed is a source of kind feed (docs/sources.md)",
        )
    else:
        return app.named_source(what, limit)
    if not dry_run:
        app.remember(source.name, config)
    return source


def _sentence(expected: BulkEstimate) -> str:
    """The estimate in words."""
    waits = "the rate of one host" if expected.limit == "host" else counted(expected.workers, "worker")
    time = f"{expected.hours:.1f} h" if expected.hours >= 1 else f"{expected.hours * 60:.1f} min"
    cost = "their cost is not known here: --worker-price names it"
    if expected.cost is not None:
        cost = f"cost: {expected.cost:.2f}"
    asked = f" of {counted(expected.hosts, 'host')}" if expected.hosts else ""
    return f"{counted(expected.pictures, 'picture')}{asked}: about {time}, for {waits}; {cost}"
