"""Documents in Firestore.

Guarded writes are optimistic: one read of the guarded documents, then one commit that requires them unchanged
(`create`, or an update at the `update_time` read). A commit that lost a race reads again. This takes two round trips
and no lock; a transaction takes three, and holds a lock in between that a frozen instance would keep.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence

from google.api_core import exceptions as api
from google.api_core.retry import Retry
from google.cloud import firestore
from google.cloud.firestore_v1.base_query import FieldFilter

from visor.errors import StoreUnavailable
from visor.storage.documents import (
    Add,
    Delete,
    Document,
    Put,
    Where,
    Write,
    check_key,
    check_query,
    check_writes,
    is_left_out,
    is_time,
    revision_conflict,
)
from visor.storage.gcp.errors import map_errors, retrying
from visor.storage.gcp.values import Snapshot, from_firestore, revision_of, time_of, to_firestore

_ONCE = Retry(predicate=lambda _: False)
_LOST_RACE = (api.FailedPrecondition, api.AlreadyExists, api.NotFound, api.Aborted)


class CloudDocuments:
    """The document store on Google Cloud: Firestore in native mode.

    Args:
        project: Id of the project; the environment's own if empty.
        database: Name of the database.
        prefix: Put before names of collections, so that several indexes can share a database.
        deadline_s: How long one call may take, including retries.
    """

    def __init__(self, project: str, database: str, prefix: str, *, deadline_s: float = 30.0) -> None:
        with map_errors(f"Firestore database {database}"):
            self._client = firestore.Client(project=project or None, database=database)
        self._prefix = prefix
        self._deadline_s = deadline_s

    def get(self, collection: str, keys: Sequence[str]) -> dict[str, Document]:
        for key in keys:
            check_key(collection, key)
        wanted = list(dict.fromkeys(keys))
        found = self._read([self._reference(collection, key) for key in wanted], time.monotonic() + self._deadline_s)
        documents = {snapshot.id: _document(snapshot) for snapshot in found.values()}
        return {key: documents[key] for key in wanted if key in documents}

    def query(
        self,
        collection: str,
        *,
        where: Sequence[Where] = (),
        order_by: str | None = None,
        descending: bool = False,
        limit: int | None = None,
    ) -> list[Document]:
        order_by = check_query(where, order_by, descending, limit)
        check_key(collection, collection)
        query: firestore.Query | firestore.CollectionReference = self._client.collection(self._prefix + collection)
        for condition in where:
            is_when = is_time(condition.field, condition.value)
            value = time_of(float(condition.value)) if is_when else condition.value
            query = query.where(filter=FieldFilter(condition.field, condition.op, value))
        direction = firestore.Query.DESCENDING if descending else firestore.Query.ASCENDING
        if order_by is not None:
            # Firestore itself orders equal values by key, in the same direction.
            query = query.order_by(order_by, direction=direction)
        if limit is not None:
            query = query.limit(limit)
        with map_errors(f"Collection {collection}"):
            # Whole calls are tried again: the library retries only until an answer begins to stream.
            return retrying(self._deadline_s)(
                lambda: [_document(snapshot) for snapshot in query.stream(retry=_ONCE, timeout=self._deadline_s)]
            )()

    def commit(self, writes: Sequence[Write]) -> list[bool]:
        check_writes(writes)
        deadline = time.monotonic() + self._deadline_s
        attempt = 0
        while writes:
            stored = self._read([self._reference_of(write) for write in writes if _must_read(write)], deadline)
            try:
                return self._commit_at(writes, stored, deadline)
            except _LOST_RACE as exc:
                self._raise_if_final(writes, exc, deadline)
            attempt += 1
            time.sleep(random.uniform(0, min(1.0, 0.02 * 2**attempt)))  # noqa: S311
        return []

    def close(self) -> None:
        self._client.close()  # type: ignore[no-untyped-call]

    def _reference(self, collection: str, key: str) -> firestore.DocumentReference:
        return self._client.collection(self._prefix + collection).document(key)

    def _reference_of(self, write: Write) -> firestore.DocumentReference:
        return self._reference(write.collection, write.key)

    def _read(self, references: list[firestore.DocumentReference], deadline: float) -> dict[str, Snapshot]:
        """The documents that exist, by path, in one round trip."""
        if not references:
            return {}
        left_s = max(0.1, deadline - time.monotonic())
        with map_errors("Firestore"):
            snapshots = retrying(left_s)(lambda: list(self._client.get_all(references, retry=_ONCE, timeout=left_s)))()
        return {snapshot.reference.path: snapshot for snapshot in snapshots if snapshot.exists}

    def _commit_at(self, writes: Sequence[Write], stored: Mapping[str, Snapshot], deadline: float) -> list[bool]:
        """Commit if the documents are still as they were read. Raises one of `_LOST_RACE` if they have changed."""
        batch = self._client.batch()
        applied = [self._add_to(batch, write, stored.get(self._reference_of(write).path)) for write in writes]
        if not any(applied):
            return applied
        # A write that was applied although its answer was lost must not be applied twice.
        repeatable = not any(isinstance(w, Add) or (isinstance(w, Put) and w.if_revision is not None) for w in writes)
        left_s = max(0.1, deadline - time.monotonic())
        try:
            batch.commit(retry=retrying(left_s) if repeatable else None, timeout=left_s)
        except _LOST_RACE:
            raise
        except Exception:
            with map_errors("Firestore"):
                raise
        return applied

    def _add_to(self, batch: firestore.WriteBatch, write: Write, snapshot: Snapshot | None) -> bool:
        """Add a write to the batch, or leave it out."""
        reference = self._reference_of(write)
        if isinstance(write, Put) and write.if_revision not in (None, 0):
            revision = revision_of(snapshot) if snapshot else 0
            if revision != write.if_revision:
                raise revision_conflict(write, revision)
        if is_left_out(write, from_firestore(snapshot.to_dict() or {}) if snapshot else None):
            return False
        if isinstance(write, Add):
            amounts = {field: firestore.Increment(amount) for field, amount in write.amounts.items()}
            batch.set(reference, amounts, merge=True)
        elif not _must_read(write):
            if isinstance(write, Delete):
                batch.delete(reference)
            elif write.if_revision == 0:
                batch.create(reference, to_firestore(write.data))
            else:
                batch.set(reference, to_firestore(write.data))
        elif isinstance(write, Delete):
            if snapshot is not None:
                batch.delete(reference, option=self._client.write_option(last_update_time=snapshot.update_time))
        elif snapshot is None:
            batch.create(reference, to_firestore(write.data))
        else:
            # Firestore can bind an update to a revision, but not a `set`: so the update names every field to delete.
            gone = {field: firestore.DELETE_FIELD for field in snapshot.to_dict() or {} if field not in write.data}
            fields = {firestore.Client.field_path(f): v for f, v in (to_firestore(write.data) | gone).items()}
            batch.update(reference, fields, option=self._client.write_option(last_update_time=snapshot.update_time))
        return True

    def _raise_if_final(self, writes: Sequence[Write], exc: api.GoogleAPICallError, deadline: float) -> None:
        """After a lost race: raise unless reading again can make the commit succeed."""
        created = [write for write in writes if isinstance(write, Put) and write.if_revision == 0]
        found = self._read([self._reference_of(write) for write in created], deadline) if created else {}
        for write in created:
            if snapshot := found.get(self._reference_of(write).path):
                raise revision_conflict(write, revision_of(snapshot)) from exc
        if time.monotonic() > deadline:
            raise StoreUnavailable(
                f"A commit of {len(writes)} writes lost every race for {self._deadline_s:.0f} s: {exc}",
                valid="Fewer writers of the same documents at once",
                remedy="Repeat the call",
            ) from exc


def _must_read(write: Write) -> bool:
    """Whether a write depends on the stored document. (`create` itself checks `if_revision=0`.)"""
    if isinstance(write, Put):
        return write.newer_than is not None or write.if_revision not in (None, 0)
    return isinstance(write, Delete) and write.field is not None


def _document(snapshot: Snapshot) -> Document:
    return Document(key=snapshot.id, data=from_firestore(snapshot.to_dict() or {}), revision=revision_of(snapshot))
