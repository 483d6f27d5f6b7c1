"""When each source is due, and each item that failed; how the last runs went."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from visor.link_check.state import LinkState
from visor.schema.collections import FAILURES, ITEMS, RUNS
from visor.schema.items import BATCH_SIZE_MAX, Change, CrawlRun, Failure, Record, as_document, as_records, is_live
from visor.settings import Settings
from visor.sources.config import SourceEntry, SourcesFile
from visor.storage.documents import DocumentStore, Put, Where
from visor.storage.publish import publish
from visor.storage.queue import Queue

FAILURES_MAX = 5_000
"""Failures read at once."""
DAY_S = 86_400.0
AGAIN_MAX = 500
"""Failures that one scheduled crawl tries again."""


class SourceState(Record, frozen=True, kw_only=True):
    """How a source is doing."""

    name: str
    kind: str
    enabled: bool
    last: CrawlRun | None = None
    next_at: str | None = None
    """ISO 8601, UTC; in the past: it is due. None: it is switched off."""
    runs: int = 0
    """How many of the latest runs were read …"""
    failed_runs: dict[str, int] = msgspec.field(default_factory=dict)
    """… and those of them that failed, by error code."""
    failures: dict[str, int] = msgspec.field(default_factory=dict)
    """Items that could not become searchable, by error code."""
    links: dict[str, int] = msgspec.field(default_factory=dict)
    """What the link check did over all runs; `suspect` and failures by code are current."""
    requests_today: int = 0
    requests_a_day: int | None = None


def live_failures(documents: DocumentStore) -> list[Failure]:
    """The failures that no later success has overtaken. Items with nothing to compare are searchable, and count."""
    found = documents.query(FAILURES, limit=FAILURES_MAX)
    items = documents.get(ITEMS, [one.key for one in found]).values()
    known = {one.key: one.data for one in items if isinstance(one.data.get("version"), int)}
    live = []
    for one, failure in as_records(found, Failure):
        data = known.get(one.key, {"version": -1})
        newer, same = data["version"] > failure.version, data["version"] == failure.version
        embedded = same and is_live(data) and failure.model in ("", data.get("model"))
        if not (newer or embedded) or data.get("blank"):
            live.append(failure)
    return live


def may_succeed(failure: Failure, settings: Settings) -> bool:
    """Whether another try may have another result now. Items that the queue still delivers are not tried here."""
    changed = any(str(getattr(settings, name, "")) != value for name, value in failure.settings.items())
    return not failure.retriable and (changed or not failure.certain)


def due_failures(documents: DocumentStore, now: datetime) -> list[Failure]:
    """The failures that a scheduled crawl tries again, the longest waiting first."""
    due = Where(field="next_at", op="<=", value=now.timestamp())
    found = documents.query(FAILURES, where=[due], order_by="next_at", limit=AGAIN_MAX)
    return [failure for _, failure in as_records(found, Failure)]


def publish_again(
    documents: DocumentStore, queue: Queue, failures: Sequence[Failure], *, batch_size: int, now: datetime
) -> int:
    """Publish failed items again. Returns how many: those whose failure record holds what to embed.

    A failure is marked first: a crash in between tries it again a day later.
    """
    wanted = [failure for failure in failures if failure.wanted is not None]
    for start in range(0, len(wanted), BATCH_SIZE_MAX):
        marks = [
            msgspec.structs.replace(f, again=True, next_at=max(now.timestamp(), f.next_at or 0) + DAY_S)
            for f in wanted[start : start + BATCH_SIZE_MAX]
        ]
        documents.commit(
            [Put(collection=FAILURES, key=f.item, data=as_document(f), newer_than="version") for f in marks]
        )
    changes = [Change(action="embed", item=f.wanted, version=f.version) for f in wanted if f.wanted is not None]
    publish(queue, changes, run="again", batch_size=batch_size)
    return len(changes)


def runs_of(documents: DocumentStore, configuration: SourcesFile, limit: int) -> dict[str, list[CrawlRun]]:
    """The latest runs of each source that has had one, the newest first: one read each on Firestore.

    Runs recorded by a clock that was ahead are left out.
    """
    found = {}
    latest = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for name in configuration.entries:
        runs = documents.query(
            RUNS,
            where=[
                Where(field="source", op="==", value=name),
                Where(field="started_at", op="<=", value=latest),
            ],
            order_by="started_at",
            descending=True,
            limit=limit,
        )
        if runs:
            found[name] = [run for _, run in as_records(runs, CrawlRun)]
    return found


def next_run(entry: SourceEntry, last: CrawlRun | None, now: datetime) -> datetime | None:
    """When a source is to be crawled next; at once if it never was, or stopped before its catalogue's end."""
    if not entry.common.enabled:
        return None
    if last is None or last.state == "postponed":
        return now
    return datetime.fromisoformat(last.started_at).astimezone(UTC) + timedelta(seconds=entry.common.every_s)


def due(configuration: SourcesFile, runs: Mapping[str, CrawlRun], now: datetime) -> list[SourceEntry]:
    """The sources to crawl now, the longest waiting first, so that none starves behind a slow one."""
    waiting = []
    for entry in configuration.entries.values():
        at = next_run(entry, runs.get(entry.name), now)
        if at is not None and at <= now:
            last = runs.get(entry.name)
            waiting.append((last.started_at if last else "", entry.name, entry))
    return [entry for _, _, entry in sorted(waiting, key=lambda one: one[:2])]


def states(
    configuration: SourcesFile,
    runs: Mapping[str, Sequence[CrawlRun]],
    failures: Iterable[tuple[str, str]],
    now: datetime,
    *,
    requests: Mapping[str, int] | None = None,
    links: LinkState | None = None,
) -> list[SourceState]:
    """The state of every source of the configuration.

    Args:
        runs: As `runs_of` returns them.
        failures: Source and error code of each recorded failure.
        requests: Requests of today, by source.
        links: What is known about links.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for source, code in failures:
        counts[source][code] += 1
    found = []
    for entry in configuration.entries.values():
        of_source = runs.get(entry.name, ())
        last = of_source[0] if of_source else None
        at = next_run(entry, last, now)
        found.append(
            SourceState(
                name=entry.name,
                kind=entry.common.kind,
                enabled=entry.common.enabled,
                last=last,
                next_at=at.isoformat(timespec="seconds") if at else None,
                runs=len(of_source),
                failed_runs=dict(Counter(run.code or "failed" for run in of_source if run.state == "failed")),
                failures=dict(sorted(counts[entry.name].items())),
                links=links.of_source(entry.name) if links else {},
                requests_today=(requests or {}).get(entry.name, 0),
                requests_a_day=entry.common.requests_a_day,
            )
        )
    return found
