"""Values of documents as Firestore stores them: times as timestamps; nested lists, which it lacks, as maps."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from google.cloud import firestore
from google.cloud.firestore_v1.base_document import DocumentSnapshot
from google.cloud.firestore_v1.document import DocumentReference

from visor.storage.documents import ServerTime, is_time

Snapshot = DocumentSnapshot[DocumentReference]
_LIST = "__list"
"""Marks a list within a list. No document can have it as a field: names of fields do not start with `__`."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_of(seconds: float) -> datetime:
    """Seconds since 1970 as a timestamp, to the microsecond."""
    return _EPOCH + timedelta(microseconds=round(seconds * 1e6))


def to_firestore(data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a document as Firestore stores them."""
    fields: dict[str, Any] = {}
    for field, value in data.items():
        if isinstance(value, ServerTime):
            fields[field] = firestore.SERVER_TIMESTAMP
        elif is_time(field, value):
            fields[field] = time_of(value)
        else:
            fields[field] = _encoded(value)
    return fields


def from_firestore(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a document as they were written; times as seconds since 1970."""
    return {field: _decoded(value) for field, value in fields.items()}


def revision_of(snapshot: Snapshot) -> int:
    """Nanoseconds since 1970 at which the document was last changed."""
    updated = snapshot.update_time
    if updated is None:
        raise ValueError(f"{snapshot.reference.path} does not exist")
    stamp = updated.timestamp_pb()
    return int(stamp.seconds) * 1_000_000_000 + int(stamp.nanos)


def _encoded(value: Any, *, in_list: bool = False) -> Any:
    if isinstance(value, Mapping):
        return {field: _encoded(inner) for field, inner in value.items()}
    if isinstance(value, list | tuple):
        items = [_encoded(inner, in_list=True) for inner in value]
        return {_LIST: items} if in_list else items
    return value


def _decoded(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - _EPOCH) // timedelta(microseconds=1) / 1e6
    if isinstance(value, dict):
        if value.keys() == {_LIST}:
            return [_decoded(inner) for inner in value[_LIST]]
        return {field: _decoded(inner) for field, inner in value.items()}
    if isinstance(value, list):
        return [_decoded(inner) for inner in value]
    return value
