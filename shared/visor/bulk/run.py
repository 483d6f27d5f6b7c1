"""Run a bulk: list what there is to embed, estimate the time, and let Beam embed it until nothing waits."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from visor.app import App
from visor.bulk.lanes import DIRECT, Politeness
from visor.bulk.waiting import Waiting, WaitingBatches
from visor.errors import VisorError
from visor.free_tier.allowances import counted
from visor.ingest.push import LINE_BYTES_MAX, LINES_MAX, NO_ROOM, Pusher
from visor.schema.items import Change, Record
from visor.schema.push import PushAnswer, PushedItem
from visor.settings import Settings
from visor.storage import LazyStores, Stores

ERRORS_MAX, IDLE_MAX, IDLE_USUAL = 3, 9, 5
"""Runs of the pipeline on this machine without one more batch done: after how many that failed by an error, or by a
worker that ended, the bulk gives up; and after how many it looks for a picture that ends workers, as embed does from
its third try."""
POLL_S, POLL_BUCKET_S = 1.0, 300.0
"""Seconds between two checks of how much is left: a bucket charges for each list of a thousand names."""
REFUSED_KEPT = 5
"""Refused lines of a file that are reported: there may be millions."""


_SAID = re.compile(r"^((?:\w+\.)*[A-Z]\w+: )(.+?)(?: \[while running .*)?$", re.M)
"""An error's line at the end of a traceback."""


class WorkerEnded(VisorError):
    """A process of a pipeline on this machine was killed, or ran out of memory."""

    code = "worker_ended"


class BulkEstimate(Record, frozen=True, kw_only=True):
    """An estimate of a bulk's time and cost."""

    pictures: int
    hosts: int
    """Number of hosts on the web from which pictures are downloaded."""
    workers: int
    hours: float
    limit: str
    """What limits it: `workers`, or `host` for the request rate of one host."""
    cost: float | None
    """For the workers, at the given price of an hour; None if none was given."""


class BulkReport(Record, frozen=True, kw_only=True):
    """The results of a bulk, in items."""

    estimate: BulkEstimate | None = None
    passes: int = 0
    """Runs of the pipeline: more than one if a worker ended."""
    seconds: float = 0.0
    left: int = 0
    """Batches that still wait."""
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    """Counts from the passes that ended well: embedded, updated, deleted, done before and failed."""
    uncounted: int = 0
    """Pictures that were done in passes that ended early, whose results are not known."""
    starts_later: bool = False
    """The rest waits for a job that begins once this process has ended."""

    @property
    def went_well(self) -> bool:
        """Whether nothing is left, and not everything failed."""
        only_failed = not self.uncounted and {what for what, count in self.counts.items() if count} == {"failed"}
        return not only_failed and (self.starts_later or not self.left)

    def __str__(self) -> str:
        if self.starts_later:
            return f"Batches that wait for the job, which starts now: {self.left:,}"
        said = [f"{count} {name.replace('_', ' ')}" for name, count in self.counts.items() if count]
        said += [f"{self.uncounted} done before a worker ended"] * (self.uncounted > 0)
        return ", ".join(said) or "There was nothing to do"


def bulk_app(settings: Settings) -> App:
    """An app whose crawls, pushes and reindexes publish changes that a bulk then embeds."""
    stores = LazyStores(settings)
    queue = WaitingBatches(stores)
    return App(settings, stores=Stores(objects=stores.objects, documents=stores.documents, queue=queue))


def waiting_of(app: App) -> WaitingBatches:
    """The queue of an app that `bulk_app` made."""
    assert isinstance(app.stores.queue, WaitingBatches)
    return app.stores.queue


def push_file(
    app: App, path: Path, *, limit: int | None = None, wants: Callable[[Change], bool] = lambda change: True
) -> PushAnswer:
    """Publish the items of JSON Lines, as pushed ones. Their version is the file's time, so the same file again changes
    nothing. The answer's `items` are only the first `REFUSED_KEPT` that are refused.

    Args:
        wants: Decides for each accepted change whether to publish it.
    """
    at = path.stat().st_mtime
    pusher = _FilePusher(
        queue=app.stores.queue,
        documents=app.stores.documents,
        settings=app.settings,
        meter=app.meter,
        clock=lambda: at,
        files=app.settings.backend == "local",
        attributes=app.configuration.attributes,
    )
    pusher.wants = wants
    # Nothing is embedded meanwhile, so the changes that fit today have to be counted here.
    room = app.meter.headroom("embed", owner=True)
    accepted, refused, named = 0, 0, list[PushedItem]()
    with path.open("rb") as file:
        wanted = islice(((number, line) for number, line in enumerate(_lines(file), 1) if line.strip()), limit)
        while some := list(islice(wanted, max(0, min(LINES_MAX, room - accepted)))):
            answer = pusher.push_numbered(some)
            accepted, refused = accepted + answer.accepted, refused + answer.refused
            named += (one for one in answer.items if one.state == "refused")
            del named[REFUSED_KEPT:]
        for number, _ in wanted:
            refused += 1
            if len(named) < REFUSED_KEPT:
                named.append(PushedItem(line=number, state="refused", reason=NO_ROOM))
    return PushAnswer(accepted=accepted, refused=refused, items=tuple(named))


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of a line that is too long, such as a whole catalogue, only enough to show that."""
    while line := file.readline(LINE_BYTES_MAX + 1):
        rest = line
        while not rest.endswith(b"\n") and (rest := file.readline(LINE_BYTES_MAX)):
            pass
        yield line


class _FilePusher(Pusher):
    wants: Callable[[Change], bool]

    def _publish(self, changes: Sequence[Change]) -> None:
        super()._publish([change for change in changes if self.wants(change)])


def estimate(
    pictures: Mapping[str, int], workers: int, politeness: Politeness, worker_price: float | None = None
) -> BulkEstimate:
    """How long a bulk takes, with the cost model's time for embedding a picture, and what its workers cost.

    Args:
        pictures: By host; those under the empty name need no host.
        worker_price: The price of one worker for an hour.
    """
    total = sum(pictures.values())
    busy_h = total * counted().each("embed", "seconds") / workers / 3600
    asked_h = max((n / politeness.per_second / 3600 for host, n in pictures.items() if host), default=0.0)
    hours = max(busy_h, asked_h)
    return BulkEstimate(
        pictures=total,
        hosts=sum(1 for host, n in pictures.items() if host and n),
        workers=workers,
        hours=hours,
        limit="host" if asked_h > busy_h else "workers",
        cost=None if worker_price is None else worker_price * workers * hours,
    )


def poll_s_of(settings: Settings) -> float:
    """How often `run` may check how much is left."""
    return POLL_S if settings.backend == "local" else POLL_BUCKET_S


def run(
    waiting: Callable[[], list[Waiting]],
    runner: str,
    arguments: Callable[[int], tuple[Any, ...]],
    *,
    advance: Callable[[int], None],
    say: Callable[[str], None],
    poll_s: float = POLL_S,
) -> BulkReport:
    """Let a pipeline do all waiting work.

    On this machine a worker that ends takes its run of the pipeline with it, and another run continues with the rest.
    Other runners start workers again by themselves.

    Args:
        arguments: Those of `run_pass`, by the attempt that `EmbedBatches` receives.
        poll_s: Seconds between two checks of how much is left.

    Raises:
        VisorError: The error of work that no run could do.
    """
    started = time.monotonic()
    passes, idle, uncounted = 0, 0, 0
    counts: Counter[str] = Counter()
    left = waiting()
    while left:
        passes += 1
        try:
            done = _pass(waiting, runner, arguments(1 + max(0, idle - IDLE_USUAL)), advance, poll_s)
            if done is None:
                return BulkReport(passes=passes, left=len(left), starts_later=True)
            counts.update(done)
            break
        except Exception as exc:
            still = waiting()
            uncounted += max(0, _pictures(left) - _pictures(still))
            idle = 0 if len(still) < len(left) else idle + 1
            if runner != DIRECT or idle == (IDLE_MAX if isinstance(exc, WorkerEnded) else ERRORS_MAX):
                raise
            say(f"{'A worker ended' if isinstance(exc, WorkerEnded) else exc}: batches left: {len(still):,}")
            left = still
    took_s = time.monotonic() - started
    return BulkReport(passes=passes, seconds=took_s, left=len(waiting()), counts=dict(counts), uncounted=uncounted)


def _pictures(waiting: Sequence[Waiting]) -> int:
    return sum(one.pictures for one in waiting)


def _pass(
    waiting: Callable[[], list[Waiting]],
    runner: str,
    arguments: tuple[Any, ...],
    advance: Callable[[int], None],
    poll_s: float,
) -> dict[str, int] | None:
    """One run of the pipeline. On this machine it is a process, whose group is ended with it: no worker outlives it."""
    if runner != DIRECT:
        from visor.bulk.pipeline import run_pass

        try:
            return run_pass(*arguments)
        except VisorError:
            raise
        except Exception as exc:
            raise _in_words(exc) from exc
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_pass, args=(sender, *arguments))
    pictures = _pictures(waiting())
    process.start()
    sender.close()
    try:
        ended = False
        while not ended:
            ended = receiver.poll(poll_s)
            left = _pictures(waiting())
            if left != pictures:
                advance(pictures - left)
            pictures = left
        result: dict[str, int] | Exception | None = receiver.recv()
    except EOFError:
        raise WorkerEnded(
            "A worker of this machine ended again and again before it had done a batch",
            valid="About 1 GB of memory for a worker; for a merge what docs/bulk.md says",
            remedy="Name fewer with --workers; what is done is kept, and `visor bulk` goes on from there",
        ) from None
    finally:
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        process.join()
    if isinstance(result, Exception):
        raise result
    return result


def _send_pass(sender: Connection, *arguments: Any) -> None:
    from visor.bulk.pipeline import run_pass

    if hasattr(os, "setsid"):
        os.setsid()
    threading.Thread(target=_end_with_command, daemon=True).start()
    for threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(threads, "1")  # a worker has one core
    try:
        sender.send(run_pass(*arguments))
    except Exception as exc:  # noqa: BLE001 — carried to the other process
        sender.send(_in_words(exc))


def _end_with_command() -> None:
    """Let no worker outlive the command, however it ended."""
    command = multiprocessing.parent_process()
    assert command is not None
    command.join()
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _in_words(exc: Exception) -> VisorError:
    """The message of one of Beam's errors: the last line of a worker's traceback, if it has one."""
    *_, said = _SAID.findall(str(exc)) or [("", f"{type(exc).__name__}: {exc!s:.1000}")]
    kind, text = said
    return VisorError(text.removesuffix(".") if kind.startswith("visor.") else f"{kind}{text}")
