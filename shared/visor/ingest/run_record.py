"""The record of one crawl run: counts and reasons, kept in the collection `runs` at its start and its end."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from typing import Literal

import msgspec

from visor.schema.collections import RUNS
from visor.schema.items import CrawlRun, as_document
from visor.sources.contract import Page
from visor.storage.documents import DocumentStore, Put

FAILED_SAMPLES = 5
FAILURE_CLASSES_MAX = 20


class RunRecord:
    """Counts what a run does.

    Args:
        documents: Where the record is kept; None: nowhere.
        started: Seconds since 1970.
    """

    def __init__(self, documents: DocumentStore | None, source: str, started: float) -> None:
        self.documents = documents
        self.run = CrawlRun(id=f"{source}-{int(started * 1000)}", source=source, started_at=_iso(started))
        self.counts = dict.fromkeys(("seen", "published", "updated", "deleted", "unchanged", "failed"), 0)
        self.why: list[str] = []
        self._failures: Counter[str] = Counter()
        self._passed_over: Counter[str] = Counter()

    def begin(self) -> None:
        self._keep()

    def add_page(self, page: Page) -> None:
        """Count what a page lists and why rows of it failed; its changes are counted one by one."""
        self.counts["seen"] += len(page.items) + len(page.unchanged)
        self.counts["unchanged"] += len(page.unchanged)
        self.counts["failed"] += sum(failure.dropped for failure in page.failed) + page.failed_more
        self._failures.update(failure_class(failure.reason) for failure in page.failed)
        self._passed_over.update(page.passed_over)
        if page.failed_more:
            self._failures["others of a page with very many"] += page.failed_more
        self.why += [f"{f.key:.200}: {f.reason}" for f in page.failed][: max(0, FAILED_SAMPLES - len(self.why))]

    @property
    def changes(self) -> int:
        return self.counts["published"] + self.counts["updated"] + self.counts["deleted"]

    def end(
        self, state: Literal["complete", "postponed", "failed"], *, code: str, ended: float, listed: int
    ) -> CrawlRun:
        """Keep and return the whole record."""
        self.run = msgspec.structs.replace(
            self.run,
            state=state,
            ended_at=_iso(ended),
            why=" | ".join(self.why),
            code=code,
            listed=listed,
            failures=dict(self._failures.most_common(FAILURE_CLASSES_MAX)),
            passed_over=dict(self._passed_over.most_common(FAILURE_CLASSES_MAX)),
            **self.counts,
        )
        self._keep()
        return self.run

    def _keep(self) -> None:
        if self.documents is not None:
            self.documents.commit([Put(collection=RUNS, key=self.run.id, data=as_document(self.run))])


def failure_class(reason: str) -> str:
    """Why a row failed, without what is its own: quoted texts, URLs and numbers."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|https?://\S+", "…", reason)
    return re.sub(r"\d+(?:[.,]\d+)*", "#", text)[:120]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
