"""Buckets and folders as a flat list of objects: Cloud Storage with Google's own library, all others with fsspec.

Google's library lists a bucket as a stream from any name on, as a resumed crawl needs, and the functions have it
already. fsspec speaks S3, Azure and some thirty more, and lists the names of one folder at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec

from visor.errors import FetchFailed, FetchUnavailable, NotConfigured, NotFound, StoreError, StoreUnavailable
from visor.schema.items import Record

ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<bucket>[^/?#]+)(?:/(?P<prefix>.*))?\Z", re.S)
DEADLINE_S = 30.0
PASSING = re.compile("Connection|Timeout|Service(Request|Response)Error")
"""In the names of errors for a bucket that did not answer: botocore and Azure have their own classes."""


class Stored(Record, frozen=True, kw_only=True):
    """One object of a bucket, as its listing or a notification describes it."""

    name: str
    """Full name, without the bucket."""
    size_bytes: int = 0
    etag: str | None = None
    """Changes when the object's content does."""
    modified: str | None = None
    """ISO 8601."""
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    """Its owner's metadata, if the listing has it (Cloud Storage)."""


class Bucket(Protocol):
    """One bucket. Every method raises `StoreError` or a subclass; `StoreUnavailable` if trying again may help."""

    def list(self, prefix: str, after: str | None) -> Iterator[Stored]:
        """The objects below `prefix` that come after the name `after`, in an order that does not change."""
        ...

    def read(self, name: str, bytes_max: int) -> bytes:
        """Its content. Raises `NotFound`, and `FetchFailed` if it is larger than `bytes_max`."""
        ...

    def has(self, name: str) -> bool: ...


def split(url: str) -> tuple[str, str, str]:
    """Scheme, bucket and the rest of a URL such as `gs://bucket/prefix`. Raises `ValueError`."""
    found = ADDRESS.match(url)
    if found is None:
        raise ValueError(f"{url!r:.200} is not the URL of a bucket")
    return found["scheme"], found["bucket"], found["prefix"] or ""


def open_bucket(scheme: str, bucket: str, options: Mapping[str, Any] | None = None) -> Bucket:
    """A bucket by scheme and name.

    Raises:
        NotConfigured: The library for that scheme is not installed.
        StoreError: There are no credentials for it, or the library does not accept the options.
    """
    if scheme == "gs":
        try:
            return CloudBucket(bucket, options or {})
        except ImportError as exc:
            raise NotConfigured(
                f"Cloud Storage needs Google's library: pip install 'visor-search[gcp]' ({exc})"
            ) from exc
    try:
        return FsspecBucket(scheme, bucket, options or {})
    except ImportError as exc:
        wants = {"s3": "s3fs", "az": "adlfs", "abfs": "adlfs"}.get(scheme, "the fsspec implementation of " + scheme)
        raise NotConfigured(f"{scheme}:// needs pip install 'visor-search[bucket]' and {wants} ({exc})") from exc


class CloudBucket:
    """A bucket of Cloud Storage. With the option `anonymous = true`, without credentials."""

    def __init__(self, bucket: str, options: Mapping[str, Any]) -> None:
        from google.cloud import storage

        from visor.storage.gcp.errors import map_errors, retrying

        self._map_errors, self._retry = map_errors, retrying(DEADLINE_S)
        with map_errors(f"Cloud Storage bucket {bucket}"):
            anonymous = options.get("anonymous") is True
            project = options.get("project")
            self._client = storage.Client.create_anonymous_client() if anonymous else storage.Client(project=project)
            self._bucket = self._client.bucket(bucket, user_project=options.get("user_project"))

    def list(self, prefix: str, after: str | None) -> Iterator[Stored]:
        with self._map_errors(f"Bucket {self._bucket.name}"):
            blobs = self._client.list_blobs(
                self._bucket,
                prefix=prefix or None,
                # The smallest name after that one: Cloud Storage lists in the order of the names' UTF-8.
                start_offset=None if after is None else after + "\x01",
                fields="items(name,size,md5Hash,crc32c,etag,updated,metadata),nextPageToken",
                timeout=DEADLINE_S,
                retry=self._retry,
            )
            for blob in blobs:
                if after is None or blob.name > after:
                    yield Stored(
                        name=blob.name,
                        size_bytes=int(blob.size or 0),
                        etag=blob.md5_hash or blob.crc32c or blob.etag,
                        metadata=dict(blob.metadata or {}),
                        modified=blob.updated.isoformat(timespec="seconds") if blob.updated else None,
                    )

    def read(self, name: str, bytes_max: int) -> bytes:
        with self._map_errors(f"Object {name}"):
            blob = self._bucket.blob(name)
            data: bytes = blob.download_as_bytes(
                end=bytes_max, raw_download=True, checksum=None, timeout=DEADLINE_S, retry=self._retry
            )
        return _at_most(data, bytes_max, name)

    def has(self, name: str) -> bool:
        with self._map_errors(f"Object {name}"):
            return bool(self._bucket.blob(name).exists(timeout=DEADLINE_S, retry=self._retry))


class FsspecBucket:
    """Anything that fsspec opens. A folder's names are in memory while it is read; folders are read in name order."""

    def __init__(self, scheme: str, bucket: str, options: Mapping[str, Any]) -> None:
        import fsspec

        self._bucket = bucket
        try:
            opened = fsspec.get_filesystem_class(scheme)
        except ValueError as exc:
            raise ImportError(str(exc)) from exc
        with _map_errors(f"{scheme}://{bucket} cannot be opened"):
            self._fs: Any = opened(**{"use_listings_cache": False, **options})

    def list(self, prefix: str, after: str | None) -> Iterator[Stored]:
        folder = prefix.rpartition("/")[0]
        parts = tuple(after[len(folder) :].lstrip("/").split("/")) if after is not None else ()
        return (s for s in self._walk(folder, parts, is_top=True) if s.name.startswith(prefix))

    def _walk(self, folder: str, after: tuple[str, ...], *, is_top: bool = False) -> Iterator[Stored]:
        path = f"{self._bucket}/{folder}".rstrip("/")
        try:
            with _map_errors(f"{path} cannot be listed"):
                listed = self._fs.ls(path, detail=True)
        except FileNotFoundError as exc:
            if is_top:
                raise NotFound(f"{path} is not there", remedy="Correct its address") from exc
            return
        # An object may have the name of a folder: it comes first, so a crawl that resumes in the folder has seen it.
        named = sorted(
            (str(info["name"]).rstrip("/").rpartition("/")[2], info["type"] == "directory", at)
            for at, info in enumerate(listed)
            if str(info["name"]).strip("/") != path.strip("/")  # some stores list the folder itself, too
        )
        for name, is_folder, at in named:
            below = f"{folder}/{name}" if folder else name
            if after and (name < after[0] or (name == after[0] and not is_folder)):
                continue
            if is_folder:
                yield from self._walk(below, after[1:] if after and name == after[0] else ())
            else:
                yield _described(below, listed[at])

    def read(self, name: str, bytes_max: int) -> bytes:
        try:
            with _map_errors(f"{name:.200} cannot be read"):
                data = self._fs.cat_file(f"{self._bucket}/{name}", start=0, end=bytes_max + 1)
        except FileNotFoundError as exc:
            raise NotFound(f"{self._bucket} has no object {name:.200}") from exc
        return _at_most(bytes(data), bytes_max, name)

    def has(self, name: str) -> bool:
        with _map_errors(f"{name:.200} cannot be checked"):
            return bool(self._fs.exists(f"{self._bucket}/{name}"))


@contextmanager
def _map_errors(found: str) -> Iterator[None]:
    """Raise a library's errors as `StoreError`, except for missing files."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as exc:
        if any(PASSING.search(kind.__name__) for kind in type(exc).__mro__):
            raise StoreUnavailable(f"{found}: {exc}", remedy="Try again later") from exc
        raise StoreError(f"{found}: {exc}", remedy="Check its address, credentials and options") from exc


def _described(name: str, info: Mapping[str, Any]) -> Stored:
    etag = next((str(info[key]).strip('"') for key in ("ETag", "etag", "md5", "content_md5") if info.get(key)), None)
    modified = next((info[key] for key in ("LastModified", "last_modified", "mtime", "created") if info.get(key)), None)
    size = int(info.get("size") or 0)
    return Stored(name=name, size_bytes=size, etag=etag, modified=None if modified is None else f"{modified}-{size}")


def _at_most(data: bytes, bytes_max: int, name: str) -> bytes:
    if len(data) > bytes_max:
        raise FetchFailed(f"{name:.200} is larger than {bytes_max} bytes", valid=f"At most {bytes_max} bytes")
    return data


def as_image_error(exc: StoreError, url: str) -> Exception:
    """The image error for a failure to read a picture from a bucket."""
    if exc.retriable:
        return FetchUnavailable(f"{url:.200}: {exc.found}")
    return FetchFailed(f"{url:.200}: {exc.found}", remedy=exc.remedy)
