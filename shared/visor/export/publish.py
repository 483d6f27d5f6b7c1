"""Publish: after a merge the index is copied to the site's bucket, where the page searches it by itself.

A bucket's free writes are few, so a publication that wrote many files is followed by the next one later. Documents are
read only of items that are new or changed; all others are taken from what was published before.
"""

from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from visor.errors import QuotaReached, VisorError
from visor.export.export import Exporter, ExportReport
from visor.export.files import DATA, MANIFEST
from visor.export.items import ShownItem
from visor.free_tier.cost_model import PUBLISHED_FILE_S
from visor.free_tier.quota import Meter
from visor.index.format.container import Container
from visor.index.format.current_model import is_searched
from visor.index.format.ids import id_text
from visor.index.format.segment import Segment
from visor.index.merge.policy import MergePolicy
from visor.index.search.snapshot import Snapshot
from visor.schema.collections import ITEMS, SITES
from visor.schema.items import IndexedItem, Record, live_item
from visor.storage.documents import SERVER_TIME, DocumentStore, Put, ServerTime
from visor.storage.objects import ObjectStore

LOG = logging.getLogger("visor.export")
KEY = "site"
DAY_S = 86_400.0
WAIT_MAX_S = 6 * DAY_S
"""… at most."""


class Publication(Record, frozen=True, kw_only=True):
    """The last publication (collection `sites`, one document), with `published_at`."""

    model: str
    generation: int
    files: int
    """Files that it wrote."""
    unknown: int
    """Rows whose items are still to be read."""
    behind_since: float = 0.0
    """When the index was first seen to have changed since."""
    published_at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """Args: exporter: Makes the exporter of a snapshot, from a function that returns items. now: Seconds since 1970."""

    site: ObjectStore
    documents: DocumentStore
    meter: Meter
    exporter: Callable[[Snapshot, Callable[[Sequence[str]], Mapping[str, IndexedItem]]], Exporter]
    model: str
    now: float

    def publish(self, snapshot: Snapshot) -> ExportReport | None:
        """Publish it if that is due and within the free tier; None where it is not, where part of it cannot be read, or
        where a reindex is not complete: what was published before has all."""
        stored = self.documents.get(SITES, [KEY]).get(KEY)
        last = msgspec.convert(stored.data, Publication) if stored else None
        if not (snapshot.images or snapshot.notice) or (last is not None and not self._is_due(last, snapshot)):
            return None
        if not is_searched(self.documents, self.model):
            return None
        if snapshot.notice is not None:
            LOG.warning("The index is not published now: %s", snapshot.notice)
            return None
        try:
            self.meter.allow("publish", last.files if last is not None and last.model == self.model else 1)
        except QuotaReached as exc:
            LOG.warning("The index is not published now: %s", exc)
            return None
        # For some days the index remembers which items were updated.
        is_known = last is not None and not 0 < last.behind_since < self.now - MergePolicy().late_s
        items = PublishedItems(
            self.documents,
            dict(self._published()) if is_known else {},
            versions_of(snapshot),
            self.meter.headroom("published_item"),
        )
        report = self.exporter(snapshot, items.get).write(self.site, now=self.now)
        done = Publication(
            model=self.model, generation=snapshot.generation, files=report.written, unknown=report.unknown
        )
        self._note(done, SERVER_TIME)
        self.meter.add("publish", report.written, used={"class_a": report.written + 1})
        self.meter.add("published_item", items.read)
        return report

    def _is_due(self, last: Publication, snapshot: Snapshot) -> bool:
        if last.model != self.model:
            return True
        if not last.unknown and last.generation == snapshot.generation:
            return False
        if not last.behind_since:
            self._note(msgspec.structs.replace(last, behind_since=self.now), last.published_at)
        wait = DAY_S if last.unknown else min(last.files * PUBLISHED_FILE_S, WAIT_MAX_S)
        return self.now - last.published_at >= wait

    def _note(self, done: Publication, at: float | ServerTime) -> None:
        data = {**msgspec.to_builtins(done), "published_at": at}
        self.documents.commit([Put(collection=SITES, key=KEY, data=data)])

    def _published(self) -> Iterator[tuple[str, ShownItem]]:
        """The items of the published pages, without pages that cannot be read."""
        try:
            manifest = msgspec.json.decode(bytes(self.site.get(MANIFEST)), type=dict[str, Any])
            pages = [page for part in manifest["parts"] for page in part["pages"]]
        except (VisorError, msgspec.DecodeError, KeyError):
            return
        for page in pages:
            try:
                data = bytes(self.site.get(DATA + page))
                data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
                container = Container.open(page, memoryview(data), kind="export_page")
                yield from (
                    (one.item.id, one) for one in container.json("items", list[ShownItem | None]) if one is not None
                )
            except (VisorError, OSError, EOFError, zlib.error) as exc:
                LOG.warning("%s is read again: %s", page, exc)


@dataclass
class PublishedItems:
    """Items as they were published, and the documents of those that are new or changed.

    versions: The version of each item that the index knows. reads: Documents that may be read.
    """

    documents: DocumentStore
    published: Mapping[str, ShownItem]
    versions: Mapping[str, int]
    reads: int
    read: int = field(default=0, init=False)

    def get(self, ids: Sequence[str]) -> dict[str, IndexedItem]:
        """The items of these ids, without those that are lost or would exceed the allowed reads."""
        known = {i: one for i in ids if (one := self.published.get(i)) and one.version >= self.versions.get(i, 0)}
        missing = [i for i in ids if i not in known][: self.reads - self.read]
        found = self.documents.get(ITEMS, missing) if missing else {}
        self.read += len(missing)
        items = {i: indexed for i in missing if (indexed := live_item(found[i].data if i in found else None))}
        return items | {i: one.indexed for i, one in known.items()}


def versions_of(snapshot: Snapshot) -> dict[str, int]:
    """The newest version of each item that the index knows of: its row's, or that of an update of the last days."""
    versions: dict[str, int] = {}
    for live in snapshot.blocks:
        versions |= zip(map(id_text, live.block.ids), live.block.versions.tolist(), strict=True)
        if isinstance(live.block, Segment):
            updates = live.block.pending.updates
            for item, version in zip(map(id_text, updates.ids), updates.versions.tolist(), strict=True):
                versions[item] = max(version, versions.get(item, 0))
    return versions
