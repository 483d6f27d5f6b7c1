"""The record of one crawl run: counts and reasons, kept in the collection `runs` at its start and its end."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime

import msgspec

from visor.schema.collections import RUNS
from visor.schema.items import CrawlRun, RunState, as_document
from visor.sources.contract import Page, RowFailure
from visor.storage.documents import DocumentStore, Put

FAILED_SAMPLES = 5
KINDS_MAX = 20
REASON_MAX = 200
LIKE_IT = " (and others like it)"


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
        self._failures, self._lacking = Counter[str](), Counter[str]()
        self._first: dict[str, str] = {}
        self.passed_over: Counter[str] = Counter()
        """By reason, as `Page.passed_over`."""

    def begin(self) -> None:
        self._keep()

    def add_page(self, page: Page) -> None:
        """Count what a page lists and why rows of it failed; its changes are counted one by one."""
        self.counts["seen"] += len(page.items) + len(page.unchanged)
        self.counts["unchanged"] += len(page.unchanged)
        self.passed_over.update(page.passed_over)
        for failure in page.failed:
            self.add_failure(failure)
        if page.failed_more:
            self.counts["failed"] += page.failed_more
            self._failures["others of a page with very many"] += page.failed_more

    def add_failure(self, failure: RowFailure) -> None:
        self.counts["failed"] += failure.dropped
        kind = failure_class(failure.reason)
        (self._failures if failure.dropped else self._lacking)[kind] += 1
        is_new = kind not in self._first
        self._first.setdefault(kind, failure.reason)
        if len(self.why) < (KINDS_MAX if is_new else FAILED_SAMPLES):
            self.why.append(f"{failure.key:.200}: {failure.reason}")

    def likeliest_cause(self) -> str:
        """Why a pass saw nothing, or much less than before: most of its failures and reasons to pass items over."""
        reasons = Counter(self._named(self._failures)) + self.passed_over
        if not reasons and not self.counts["seen"]:
            return "the source answered, and listed nothing at all"
        return "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(2))

    @property
    def changes(self) -> int:
        return self.counts["published"] + self.counts["updated"] + self.counts["deleted"]

    def end(self, state: RunState, *, code: str, ended: float, listed: int) -> CrawlRun:
        """Keep and return the whole record."""
        self.run = msgspec.structs.replace(
            self.run,
            state=state,
            ended_at=_iso(ended),
            why=" | ".join(self.why),
            code=code,
            listed=listed,
            failures=self._named(self._failures),
            lacking=self._named(self._lacking),
            passed_over=dict(self.passed_over.most_common(KINDS_MAX)),
            **self.counts,
        )
        self._keep()
        return self.run

    def _named(self, kinds: Counter[str]) -> dict[str, int]:
        """The most frequent kinds, each named by its first reason, and their counts."""
        first = (
            (self._first.get(kind, kind)[:REASON_MAX], kind, count) for kind, count in kinds.most_common(KINDS_MAX)
        )
        return {reason + LIKE_IT * (count > 1 and reason != kind): count for reason, kind, count in first}

    def _keep(self) -> None:
        if self.documents is not None:
            self.documents.commit([Put(collection=RUNS, key=self.run.id, data=as_document(self.run))])


def failure_class(reason: str) -> str:
    """Why a row failed, without what is specific to it: quoted texts, URLs and numbers."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|https?://\S+", "…", reason)
    return re.sub(r"\d+(?:[.,]\d+)*", "#", text)[:120]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
