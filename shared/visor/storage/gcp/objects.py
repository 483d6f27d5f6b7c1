"""Objects in a bucket of Cloud Storage."""

from __future__ import annotations

import mimetypes
import os
import uuid
from collections.abc import Iterator
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import IO, Any

from google.api_core.exceptions import PreconditionFailed, RequestRangeNotSatisfiable
from google.cloud import storage

from visor.errors import Conflict, NotFound, StoreUnavailable
from visor.storage.gcp.errors import map_errors, retrying
from visor.storage.objects import ObjectInfo, check_name

_TICKET = "visor-put"
"""Metadata key under which each put stores a unique number."""
ANEW, FOR_EVER = "no-cache", "public, max-age=31536000, immutable"
REPLACED_READS = 5
"""How often an object is read again if it is replaced while it is read."""


class CloudObjects:
    """The object store on Google Cloud.

    Args:
        bucket: Name of the bucket.
        prefix: Put before names of objects: the name of the index and a slash.
        project: For quota and billing; the environment's own if empty.
        deadline_s: How long failed requests are tried again. An answer that stalls for a third of it has failed.
        client: The client to use; by default a new one.
        is_public: Browsers read the objects: they get a type, and all but the `.json` ones are cached for ever.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        project: str = "",
        deadline_s: float = 30.0,
        client: storage.Client | None = None,
        is_public: bool = False,
    ) -> None:
        with map_errors(f"Cloud Storage bucket {bucket}"):
            self._client = client or storage.Client(project=project or None)
        if hasattr(self._client, "_bucket_metadata_cache"):
            # For traces, which nobody uses here, the library reads the bucket's metadata in the background: at the
            # start and after every missing object. Each read is a Class B operation.
            self._client._bucket_metadata_cache = None
        self._bucket = self._client.bucket(bucket)
        self._prefix, self._is_public = prefix, is_public
        self._deadline_s = deadline_s
        self._stall_s = deadline_s / 3

    def put(self, name: str, data: bytes | memoryview, *, if_generation: int | None = None) -> ObjectInfo:
        return self._upload(name, BytesIO(data), len(data), if_generation)

    def put_file(self, name: str, path: str, *, if_generation: int | None = None) -> ObjectInfo:
        with Path(path).open("rb") as file:
            return self._upload(name, file, os.fstat(file.fileno()).st_size, if_generation)

    def get(self, name: str, *, start: int = 0, end: int | None = None) -> memoryview:
        """See the protocol. A part has no checksum; whole objects are compared with their CRC32C."""
        if start < 0 or (end is not None and end < start):
            raise ValueError(f"No range of bytes: [{start}, {end})")
        if start == end:
            self.stat(name)
            return memoryview(b"")
        whole = start == 0 and end is None
        return self._reading(
            name,
            start=None if whole else start,
            end=None if end is None else end - 1,
            checksum="crc32c" if whole else None,
        )[0]

    def get_with_info(self, name: str) -> tuple[memoryview, ObjectInfo]:
        data, generation = self._reading(name, checksum="crc32c")
        return data, ObjectInfo(name=name, size_bytes=len(data), generation=generation)

    def _reading(self, name: str, **how: Any) -> tuple[memoryview, int]:
        """The bytes and their generation, which is a header of the same answer."""
        for number in count():
            blob = self._blob(name)
            try:
                with map_errors(f"Object {name}"):
                    data = _downloaded(blob, timeout=self._stall_s, retry=retrying(self._deadline_s), **how)
                return memoryview(data), int(blob.generation or 0)
            except NotFound as exc:
                # A broken transfer resumes at the generation that it began with, which may have been replaced.
                answer = getattr(exc.__cause__, "response", None)
                if number == REPLACED_READS or "generation=" not in getattr(answer, "url", ""):
                    raise
        raise AssertionError("unreachable")

    def stat(self, name: str) -> ObjectInfo:
        blob = self._blob(name)
        with map_errors(f"Object {name}"):
            blob.reload(timeout=self._stall_s, retry=retrying(self._deadline_s))
            return self._info(blob)

    def delete(self, name: str) -> None:
        blob = self._blob(name)
        try:
            with map_errors(f"Object {name}"):
                blob.delete(timeout=self._stall_s, retry=retrying(self._deadline_s))
        except NotFound:
            return

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with map_errors(f"Objects {prefix}*"):
            blobs = self._client.list_blobs(
                self._bucket,
                prefix=self._prefix + prefix,
                fields="items(name,size,generation),nextPageToken",
                timeout=self._stall_s,
                retry=retrying(self._deadline_s),
            )
            for blob in blobs:
                yield self._info(blob)

    def close(self) -> None:
        self._client.close()

    def _blob(self, name: str) -> storage.Blob:
        return self._bucket.blob(self._prefix + check_name(name))

    def _info(self, blob: storage.Blob) -> ObjectInfo:
        name = blob.name.removeprefix(self._prefix)
        return ObjectInfo(name=name, size_bytes=int(blob.size), generation=int(blob.generation))

    def _upload(self, name: str, file: IO[bytes], size_bytes: int, if_generation: int | None) -> ObjectInfo:
        blob = self._blob(name)
        content_type = "application/octet-stream"
        if self._is_public:
            content_type = mimetypes.guess_type(name)[0] or content_type
            blob.cache_control = ANEW if name.endswith(".json") else FOR_EVER
        ticket = uuid.uuid4().hex
        blob.metadata = {_TICKET: ticket}
        failures: list[Exception] = []
        with map_errors(f"Object {name}"):
            try:
                blob.upload_from_file(
                    file,
                    size=size_bytes,
                    content_type=content_type,
                    if_generation_match=if_generation,
                    checksum="crc32c",
                    timeout=self._stall_s,
                    retry=retrying(self._deadline_s, on_error=failures.append),
                )
            except PreconditionFailed as exc:
                if failures:
                    return self._info(self._put_by(ticket, blob.name, if_generation))
                raise Conflict(
                    f"Object {name} is not at generation {if_generation}",
                    valid="The generation of the object as it is, 0 if there is none",
                    remedy="Read it again and decide anew",
                ) from exc
            return self._info(blob)

    def _put_by(self, ticket: str, name: str, if_generation: int | None) -> storage.Blob:
        """The object, if it is the one that this put wrote before its answer was lost."""
        stored = self._bucket.get_blob(name, timeout=self._stall_s, retry=retrying(self._deadline_s))
        if stored is not None and (stored.metadata or {}).get(_TICKET) == ticket:
            return stored
        # Either it was never written, or it has been replaced since.
        raise StoreUnavailable(
            f"The answer to a put of {name} at generation {if_generation} was lost, and the object has changed since",
            valid="An answer, which says who won",
            remedy="Read it again; it may be based on what this put wrote",
        )


def _downloaded(blob: storage.Blob, **how: Any) -> bytes:
    try:
        data: bytes = blob.download_as_bytes(raw_download=True, **how)
    except RequestRangeNotSatisfiable:
        return b""
    return data
