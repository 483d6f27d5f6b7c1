"""When each source is due, and how its last run went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from visor.records import CrawlRun, Record
from visor.sources.configuration import Configuration, Entry
from visor.stores.documents import DocumentStore

RUNS_READ = 500
"""Latest runs that are looked at: reads, on Firestore."""


class SourceState(Record, frozen=True, kw_only=True):
    """How a source is doing."""

    name: str
    kind: str
    enabled: bool
    last: CrawlRun | None = None
    next_at: str | None = None
    """ISO 8601, UTC; in the past: it is due. None: it is switched off."""
    failures: dict[str, int] = msgspec.field(default_factory=dict)
    """Items that could not become searchable, by error code."""


def latest_runs(documents: DocumentStore, limit: int = RUNS_READ) -> dict[str, CrawlRun]:
    """The latest run of each source that is among the latest runs of all."""
    found: dict[str, CrawlRun] = {}
    for document in documents.query("runs", order_by="started_at", descending=True, limit=limit):
        run = msgspec.convert(document.data, CrawlRun)
        found.setdefault(run.source, run)
    return found


def next_run(entry: Entry, last: CrawlRun | None, now: datetime) -> datetime | None:
    """When a source is to be crawled next; at once if it never was, or stopped before its catalogue's end."""
    if not entry.plan.enabled:
        return None
    if last is None or last.state == "postponed":
        return now
    return datetime.fromisoformat(last.started_at).astimezone(UTC) + timedelta(seconds=entry.plan.every_s)


def due(configuration: Configuration, runs: Mapping[str, CrawlRun], now: datetime) -> list[Entry]:
    """The sources to crawl now, the longest waiting first, so that none starves behind a slow one."""
    waiting = []
    for entry in configuration.entries.values():
        at = next_run(entry, runs.get(entry.name), now)
        if at is not None and at <= now:
            last = runs.get(entry.name)
            waiting.append((last.started_at if last else "", entry.name, entry))
    return [entry for _, _, entry in sorted(waiting, key=lambda one: one[:2])]


def states(
    configuration: Configuration,
    runs: Mapping[str, CrawlRun],
    failures: Iterable[tuple[str, str]],
    now: datetime,
) -> list[SourceState]:
    """The state of every source of the configuration.

    Args:
        failures: Source and error code of each recorded failure.
    """
    counts: dict[str, dict[str, int]] = {}
    for source, code in failures:
        of_source = counts.setdefault(source, {})
        of_source[code] = of_source.get(code, 0) + 1
    found = []
    for entry in configuration.entries.values():
        last = runs.get(entry.name)
        at = next_run(entry, last, now)
        found.append(
            SourceState(
                name=entry.name,
                kind=entry.plan.kind,
                enabled=entry.plan.enabled,
                last=last,
                next_at=at.isoformat(timespec="seconds") if at else None,
                failures=dict(sorted(counts.get(entry.name, {}).items())),
            )
        )
    return found
