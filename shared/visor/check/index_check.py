"""Check: reads every object and document of an index, reports what is wrong, and makes again what can be made.

Three things have to agree: the rows of the index, the documents of its items, and what crawls remember (seen-sets).
A repair takes out what cannot be read and then settles the differences:

- an item without a row, or of another model while no reindex runs, is published to be embedded again;
- a row without an item gets a tombstone;
- items that a seen-set remembers, but no document or failure knows, are forgotten: the next crawl publishes them.

The index is read before the documents, so what is embedded meanwhile is at worst embedded twice.
"""

from __future__ import annotations

import hashlib
import shlex
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from visor.check.damage import Damage, Kind
from visor.errors import CorruptObject, NotFound
from visor.export.publish import Publication
from visor.image_readers.thumbnails import FOLDER as FRAMES
from visor.image_readers.thumbnails import ID_LENGTH, THUMBNAIL_SCHEME
from visor.index.engine.rows import EngineBlock
from visor.index.format.container import corrupt
from visor.index.format.current_model import KEY, CurrentModel, read_current, write_current
from visor.index.format.fast_scan import FastScan
from visor.index.format.ids import id_text
from visor.index.format.manifest import (
    MANIFEST_KEY,
    MANIFESTS,
    Commit,
    Manifest,
    Trash,
    check_engine,
    decode_commit,
    manifest_object,
    read_manifest,
    swap_manifest,
)
from visor.index.format.pending_deletes import PendingDeletes
from visor.index.format.projection import CodedVectors, FullSpace, Space, read_projection
from visor.index.format.segment import RowBlock, Segment, open_segment
from visor.index.format.shard import Shard, read_shard
from visor.index.merge.learn import SAMPLES_MIN
from visor.index.merge.recover import recover_manifest
from visor.index.search.snapshot import apply_deletes, fresh_block, superseded
from visor.ingest.reindex import lacking_items
from visor.ingest.seen_set import ROW, Progress, SeenSet, object_name
from visor.link_check.state import OBJECT as LINKS
from visor.link_check.state import LinkState
from visor.link_check.thumbnail_gc import OBJECT as SWEEP
from visor.link_check.thumbnail_gc import SweepState
from visor.schema.collections import (
    COMMITS,
    CURRENT_MODEL,
    FAILURES,
    FEEDBACK,
    FEEDBACK_INBOX,
    ITEMS,
    METERS,
    REQUESTS,
    RUNS,
    SITES,
    SOURCES,
    TRIES,
    VISITORS,
)
from visor.schema.items import (
    Change,
    CrawlRun,
    FacetRow,
    FacetUpdate,
    Failure,
    IndexedItem,
    Item,
    ShardCommit,
    Tombstone,
    as_document,
    is_live,
)
from visor.schema.words import counted
from visor.search.feedback import Feedback
from visor.search.visitors import VisitorSum
from visor.sources.remembered import Remembered
from visor.storage import Stores
from visor.storage.documents import SERVER_TIME, WRITES_MAX, Delete, Document, Put, Write
from visor.storage.engine import VectorEngine
from visor.storage.publish import decode_batch, publish
from visor.storage.queue import BULK
from visor.storage.state_object import load_state

SHAPES: dict[str, Any] = {
    COMMITS: ShardCommit,
    CURRENT_MODEL: CurrentModel,
    FAILURES: Failure,
    FEEDBACK: Feedback,
    FEEDBACK_INBOX: Feedback,
    ITEMS: IndexedItem,
    METERS: dict[str, float],
    REQUESTS: dict[str, float],
    RUNS: CrawlRun,
    SITES: Publication,
    SOURCES: Remembered,
    TRIES: dict[str, int],
    VISITORS: VisitorSum,
}
"""The type of the documents of each collection."""
NUMBERS = {
    COMMITS: "committed_at",
    FEEDBACK: "given_at",
    FEEDBACK_INBOX: "given_at",
    ITEMS: "version",
    SITES: "published_at",
    TRIES: "tries",
    VISITORS: "added_at",
}
"""The number that each document of a collection has to have as well."""
RECORDS_A_COMMIT = 64


@dataclass
class IndexCheck:
    """One check of one model's index.

    Args:
        model: Fingerprint.
        repair: Also do what each remedy says.
    """

    stores: Stores
    model: str
    repair: bool = False
    engine: VectorEngine | None = None
    found: list[Damage] = field(default_factory=list)

    def run(self) -> list[Damage]:
        """Everything that is wrong.

        Raises:
            NewerFormat: A later Visor wrote something of this index; nothing was changed after it was found.
            Conflict: A merge or crawl ran meanwhile: check again.
        """
        is_waiting = self.stores.queue.waiting() > 0 or any(self.stores.objects.list(BULK))
        broken = {collection: self._broken(collection) for collection in SHAPES}
        manifest = self._manifest()
        check_engine(manifest, self.engine.name if self.engine else "segments")
        segments, is_whole = self._segments(manifest)
        versions = self._rows(manifest, segments, self._shards(manifest, broken[COMMITS]))
        self._items(versions, broken[ITEMS], is_whole=is_whole, is_waiting=is_waiting)
        return self.found

    def _note(self, kind: Kind, found: str, remedy: str, items: Sequence[str] = ()) -> bool:
        """Note a damage. Returns whether to repair it."""
        self.found.append(Damage(kind=kind, found=found, remedy=remedy, items=tuple(items)))
        return self.repair

    def _broken(self, collection: str) -> dict[str, Document]:
        """Documents of the wrong type, which a repair deletes."""
        broken = {}
        for document in self.stores.documents.query(collection):
            try:
                if collection != ITEMS or is_live(document.data):
                    msgspec.convert(document.data, SHAPES[collection])
                wanted = NUMBERS.get(collection)
                if wanted and not isinstance(document.data.get(wanted), int | float):
                    raise msgspec.ValidationError(f"it has no `{wanted}`")
            except msgspec.ValidationError as exc:
                broken[document.key] = document
                ids = [document.key] if collection in (ITEMS, FAILURES) else []
                self._note("document", f"Document {collection}/{document.key} is damaged: {exc}", "Delete it", ids)
        if self.repair:
            self._write([Delete(collection=collection, key=key) for key in broken])
        return broken

    def _manifest(self) -> Manifest | None:
        objects, name = self.stores.objects, manifest_object(self.model)
        try:
            manifest, generation = read_manifest(objects, self.model)
            signal = self.stores.documents.get(COMMITS, [MANIFEST_KEY]).get(MANIFEST_KEY)
            recovered, found = recover_manifest(objects, self.model), f"{name} is missing"
            if manifest is not None:
                themselves = {entry.name: entry for entry in recovered.segments}
                wrong = [entry.name for entry in manifest.segments if themselves.get(entry.name, entry) != entry]
                if not wrong and manifest.model == self.model:
                    return manifest
                found = f"{name} is damaged: it disagrees with {', '.join(wrong) or 'its name'}"
            elif signal.data.get("model") != self.model if signal is not None else not recovered.segments:
                return None
        except CorruptObject as exc:
            recovered, found = recover_manifest(objects, self.model), exc.found
            generation = objects.stat(name).generation
        if self._note("manifest", found, f"Make it again from the {len(recovered.segments)} segments that are there"):
            swap_manifest(objects, recovered, generation)
        return recovered

    def _segments(self, manifest: Manifest | None) -> tuple[list[Segment], bool]:
        """The segments that can be read completely, and whether these are all of them."""
        objects = self.stores.objects
        if manifest is None:
            return [], True
        space: Space = FullSpace(manifest.dimension)
        lost = ""
        if manifest.projection is not None:
            try:
                space = read_projection(manifest.projection.name, objects.get(manifest.projection.name))
                if any(entry.projection != space.name for entry in manifest.segments):
                    lost, space = f"The segments were not all coded with {space.name}", FullSpace(manifest.dimension)
            except (CorruptObject, NotFound) as exc:
                lost = exc.found
        readable: list[Segment] = []
        damaged = {}
        for entry in manifest.segments:
            try:
                segment = open_segment(objects, entry, space)
                for _ in segment.checked_blocks():
                    pass
                _ = segment.looks, segment.augmented, segment.worded_columns, segment.words_files
                _check_fast_scan(segment)
                readable.append(segment)
            except (CorruptObject, NotFound) as exc:
                damaged[entry.name] = exc.found
        for found in damaged.values():
            self._note("segment", found, "Leave it out, and embed its items again")
        collection, learnable = self._collection(manifest), True
        if lost:
            stored = self.engine.count(collection) if self.engine is not None and collection else 0
            learnable = stored + sum(map(len, readable)) >= SAMPLES_MIN
            remedy = "Learn one anew" if learnable else "Embed all items again: too few are left to learn one from"
            self._note("projection", lost, remedy)
            if not learnable:
                damaged |= {entry.name: lost for entry in manifest.segments}
                manifest, readable = msgspec.structs.replace(manifest, projection=None), []
        if self.engine is not None and manifest.engine is not None and manifest.engine.collection:
            if not collection:
                name = manifest.engine.collection
                found = f"{self.engine.name} has no collection {name}, which has the vectors, at VISOR_ENGINE_URL"
                self._note("segment", found, "Make it again, and embed its items again")
            if self.repair and not (collection and learnable):
                self.engine.drop(manifest.engine.collection)
                self.engine.create(manifest.engine.collection, space.dimensions)
        if (damaged or not learnable) and self.repair:
            kept = tuple(entry for entry in manifest.segments if entry.name not in damaged)
            trash = tuple(Trash(name=name, since=time.time()) for name in sorted(damaged))
            after = msgspec.structs.replace(manifest, segments=kept, trash=(*manifest.trash, *trash))
            swap_manifest(objects, after, read_manifest(objects, self.model)[1])
        return readable, not damaged and learnable

    def _collection(self, manifest: Manifest | None) -> str:
        """The engine's collection; empty if no merge has made one, or if it is lost."""
        entry = manifest.engine if manifest is not None else None
        is_there = entry is not None and self.engine is not None and entry.collection in self.engine.collections()
        return entry.collection if entry is not None and is_there else ""

    def _shards(self, manifest: Manifest | None, broken: Collection[str]) -> list[tuple[Commit, Shard | None]]:
        """The commits that are in no segment, with their shards."""
        opened: list[tuple[Commit, Shard | None]] = []
        for document in self.stores.documents.query(COMMITS):
            if document.key == MANIFEST_KEY or document.key in broken:
                continue
            commit = decode_commit(document)
            if manifest is not None and manifest.contains(commit):
                continue
            name, shard = commit.record.shard, None
            if name is not None and commit.record.model == self.model:
                try:
                    shard = read_shard(self.stores.objects.get(name), name=name)
                except (CorruptObject, NotFound) as exc:
                    if self._note("shard", exc.found, "Leave it out, and embed its items again"):
                        record = msgspec.structs.replace(commit.record, shard=None, count=0)
                        self._commit(commit.key, record)
            opened.append((commit, shard))
        return opened

    def _rows(
        self, manifest: Manifest | None, segments: Sequence[Segment], commits: Sequence[tuple[Commit, Shard | None]]
    ) -> dict[str, int]:
        """Versions of the live rows, as a search sees them, by item id."""
        blocks: list[RowBlock] = [segment for segment in segments if len(segment)]
        space = FullSpace(manifest.dimension if manifest else 0)
        if self.engine is not None and (collection := self._collection(manifest)):
            rows = self.engine.scan(collection, (), "none")
            blocks += [EngineBlock.of(self.engine, collection, rows, 0)] if rows else []
        fresh = fresh_block([shard for _, shard in commits if shard is not None], space)
        incoming = PendingDeletes.of_commits([commit.record for commit, _ in commits])
        pending = PendingDeletes.concat([incoming, *(segment.pending for segment in segments)])
        versions: dict[str, int] = {}
        for live in apply_deletes(blocks, superseded(blocks), fresh, pending):
            alive = np.arange(len(live)) if live.alive is None else np.flatnonzero(live.alive)
            versions |= {id_text(live.block.ids[row]): int(live.block.versions[row]) for row in alive}
        return versions

    def _items(
        self, versions: dict[str, int], broken: dict[str, Document], *, is_whole: bool, is_waiting: bool
    ) -> None:
        """Compare rows, documents and seen-sets."""
        documents = self.stores.documents
        live: dict[str, IndexedItem] = {}
        gone: set[str] = set()
        for document in documents.query(ITEMS):
            if document.key in broken:
                continue
            if is_live(document.data):
                live[document.key] = msgspec.convert(document.data, IndexedItem)
            else:
                gone.add(document.key)
        self._current(Counter(one.model for one in live.values()))
        again = {key: one.item for key, one in live.items() if one.model == self.model and key not in versions}
        if again:
            some = f"{counted(len(again), 'item')} with a document and no vector"
            self._note("item without a vector", some, "Embed them again", sorted(again))
        if strangers := self._strangers(live, is_waiting=is_waiting):
            some = f"{counted(len(strangers), 'item')} embedded with another model than the index's"
            self._note("item without a vector", some, "Embed them again", sorted(strangers))
            again |= strangers
        salvaged = {key: item for key, document in broken.items() if (item := _item_in(document.data)) is not None}
        rows = sorted(versions.keys() - live.keys() - salvaged.keys())
        if rows:
            some = f"{counted(len(rows), 'vector')} without an item's document"
            self._note("vector without an item", some, "Delete them: a crawl, or a push, brings the items back", rows)
        if self.repair:
            stored = {key: one.version for key, one in live.items()}
            self._publish(
                again | salvaged, versions | stored | {key: _version_in(broken[key].data) for key in salvaged}
            )
            tombstones = [Tombstone(id=key, version=versions[key]) for key in rows]
            updates = []
            if not is_whole:
                # The updates that a lost segment had for rows of others are lost with it.
                stale = [(key, one) for key, one in live.items() if versions.get(key, one.version) < one.version]
                updates = [
                    FacetUpdate(id=k, version=o.version, facets=FacetRow.of(o.item, o.labels, (o.width, o.height)))
                    for k, o in stale
                ]
            self._commit_records(tombstones, updates)
        frames = self._frames({key: one.item for key, one in live.items()})
        taken_out = self._links()
        known = {*live, *salvaged, *(() if taken_out is None else gone)} - frames
        known |= {failure.key for failure in documents.query(FAILURES)} | (taken_out or set()) | self._dead_letters()
        self._seen_sets(live, None if is_waiting else known, again)

    def _strangers(self, live: dict[str, IndexedItem], *, is_waiting: bool) -> dict[str, Item]:
        """Items that another model embedded though no reindex runs, except those that this one could not embed."""
        state = None
        with suppress(CorruptObject):  # which is named
            state, _ = read_current(self.stores.documents)
        if is_waiting or state is None or (state.current, state.building) != (self.model, None):
            return {}
        failed = lacking_items(self.stores.documents, self.model)
        return {key: one.item for key, one in live.items() if one.model != self.model and key not in failed}

    def _current(self, models: Counter[str]) -> None:
        """Args: models: How many live items each model has."""
        documents = self.stores.documents
        merged = next(iter(self.stores.objects.list(MANIFESTS)), None) is not None
        if not models or not merged or documents.get(CURRENT_MODEL, [KEY]):
            return
        ((most, _),) = models.most_common(1)
        found = f"Document {CURRENT_MODEL}/{KEY}, which names the model whose index is searched, is missing"
        if self._note("document", found, f"Write it again: model {most[:12]} has most items"):
            write_current(documents, CurrentModel(current=most), 0)

    def _publish(self, items: dict[str, Item], versions: dict[str, int]) -> None:
        """Publish items at the next version that embed accepts."""
        changes = [Change(action="embed", item=i, version=versions.get(k, 0) + 1) for k, i in sorted(items.items())]
        publish(self.stores.queue, changes, run="check")

    def _commit_records(self, tombstones: Sequence[Tombstone], updates: Sequence[FacetUpdate]) -> None:
        for start in range(0, max(len(tombstones), len(updates)), RECORDS_A_COMMIT):
            part = slice(start, start + RECORDS_A_COMMIT)
            record = ShardCommit(batch="check", tombstones=tuple(tombstones[part]), updates=tuple(updates[part]))
            name = hashlib.blake2b(msgspec.json.encode(record), digest_size=16).hexdigest()
            self._commit(f"check-{name}", record)

    def _commit(self, key: str, record: ShardCommit) -> None:
        data = {**as_document(record), "committed_at": SERVER_TIME}
        self.stores.documents.commit([Put(collection=COMMITS, key=key, data=data)])

    def _write(self, writes: Sequence[Write]) -> None:
        for start in range(0, len(writes), WRITES_MAX):
            self.stores.documents.commit(writes[start : start + WRITES_MAX])

    def _frames(self, items: dict[str, Item]) -> set[str]:
        """Ids of the items whose video frame is lost."""
        whole = set()
        shown = {i.image_url.removeprefix(THUMBNAIL_SCHEME) for i in items.values() if _is_frame(i)}
        for name in shown:
            try:
                digest = hashlib.blake2b(self.stores.objects.get(FRAMES + name), digest_size=8).hexdigest()
            except NotFound:
                continue
            if name[ID_LENGTH:].startswith(digest):
                whole.add(name)
        lost = {k for k, i in items.items() if _is_frame(i) and i.image_url.removeprefix(THUMBNAIL_SCHEME) not in whole}
        if lost:
            some = f"{len(lost)} video frames are missing or damaged"
            self._note("frame", some, "Forget them: a crawl of their sources reads the videos again", sorted(lost))
        return lost

    def _links(self) -> set[str] | None:
        """Ids of the items that the link check deleted; None if its state is lost."""
        load: list[tuple[str, Callable[[], object]]] = [
            (SWEEP, lambda: load_state(self.stores.objects, SWEEP, SweepState(), newest_format=1)),
            (LINKS, lambda: LinkState.load(self.stores.objects)[0]),
        ]
        state: Any = None
        for name, read in load:
            try:
                state = read()
            except CorruptObject as exc:
                state = None
                remedy = "Delete it: links are checked from the beginning, and crawls bring back what was deleted"
                if self._note("link state", exc.found, remedy):
                    self.stores.objects.delete(name)
        return None if state is None else {key for key, one in state.problems.items() if one.state == "gone"}

    def _dead_letters(self) -> set[str]:
        """Ids of the items in dead letters."""
        items: set[str] = set()
        for letter in self.stores.queue.dead_letters():
            with suppress(CorruptObject):
                items |= {change.item.id for change in decode_batch(letter.body).changes}
        return items

    def _seen_sets(self, live: dict[str, IndexedItem], known: set[str] | None, again: dict[str, Item]) -> None:
        """Check that the seen-sets are there and agree with the index.

        Args:
            known: Ids of items whose outcome the index knows; None while some wait in the queue.
            again: Items that are embedded again. Crawls delete those that their catalogue no longer has, so each is in
                its source's seen-set: documents restored from a backup have items that it had forgotten.
        """
        objects = self.stores.objects
        of_source: dict[str, list[Item]] = defaultdict(list)
        for one in live.values():
            of_source[one.item.source].append(one.item)
        crawled = {str(run.data.get("source")) for run in self.stores.documents.query(RUNS)}
        there = {info.name for info in objects.list("seen/")}
        for name in sorted(there | {object_name(source) for source in crawled & of_source.keys()}):
            source = name.removeprefix("seen/").removesuffix(".npz")
            try:
                if name not in there:
                    raise CorruptObject(f"Seen-set {name} is missing")
                seen = SeenSet.load(objects, source)
            except CorruptObject as exc:
                if self._note("seen-set", exc.found, "Make it again from the documents of its items"):
                    generation = objects.stat(name).generation if name in there else 0
                    seen = SeenSet(Progress(number=1), np.empty(0, ROW), generation)
                    seen.see(of_source[source])
                    seen.save(objects, source)
                continue
            ids = set(seen.ids()) if again else set()
            if self.repair and (strays := [o for o in again.values() if o.source == source and o.id not in ids]):
                seen.see(strays)
                seen.save(objects, source)
            forgotten = [] if known is None else [item for item in seen.ids() if item not in known]
            if not forgotten:
                continue
            listed = f"{counted(len(forgotten), 'item')} that source {source} has listed"
            some = f"{listed}, neither indexed nor recorded as failed"
            remedy = f"Forget them: `visor crawl {shlex.quote(source)}`, or `visor index` with its folder, brings them"
            if self._note("forgotten item", some, remedy, forgotten):
                seen.drop(forgotten)
                # Without its checkpoint the source reads everything again.
                seen.advance(checkpoint=None, open=False)
                seen.save(objects, source)


def _check_fast_scan(segment: Segment) -> None:
    if isinstance(segment.vectors, CodedVectors) and segment.vectors.fast is not None:
        rows = len(FastScan.read(segment.vectors.fast))
        if rows != len(segment):
            raise corrupt(segment.entry.name, f"its fast scan has {rows} rows, but it has {len(segment)}")


def _item_in(data: Any) -> Item | None:
    """The item within a damaged document, if that much is whole."""
    try:
        return msgspec.convert(data.get("item"), Item)
    except msgspec.ValidationError:
        return None


def _version_in(data: Any) -> int:
    version = data.get("version")
    return version if isinstance(version, int) else round(time.time() * 1000)


def _is_frame(item: Item) -> bool:
    return item.image_url.startswith(THUMBNAIL_SCHEME)
