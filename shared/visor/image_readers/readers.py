"""Reads an item's image by the scheme of its URL: the web through the fetcher, folders and buckets here."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from visor.errors import FetchFailed, FetchRefused, NotConfigured, StoreError
from visor.http.fetch import IMAGE, Fetch, Fetched, FetchOptions
from visor.image_readers.thumbnails import ThumbnailReader
from visor.settings import Settings
from visor.storage.bucket_clients import Bucket, as_image_error, open_bucket, split
from visor.storage.objects import ObjectStore


class FolderReader:
    """Reads `file:` URLs below the given folders, and nothing else on this machine.

    Args:
        folders: Roots; without any, every URL is refused.
        bytes_max: Largest size of a file.
    """

    def __init__(self, folders: Sequence[str | Path], *, bytes_max: int) -> None:
        self._roots = tuple(Path(folder).expanduser().resolve() for folder in folders)
        self._bytes_max = bytes_max

    def fetch(self, url: str, options: FetchOptions = IMAGE) -> Fetched:
        """The file. `modified` is `<mtime_ns>-<size>`, as the source `folder` writes it.

        Raises:
            FetchRefused: It is outside the folders, once links are resolved.
            FetchFailed: It is missing, unreadable, not a regular file or too large.
        """
        parts = urlsplit(url)
        try:
            path = Path(url2pathname(parts.path)).resolve(strict=True)
        except (OSError, ValueError, RuntimeError) as exc:
            raise FetchFailed(f"{url:.200} cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
        if parts.netloc not in ("", "localhost") or not any(path.is_relative_to(root) for root in self._roots):
            raise FetchRefused(
                f"{url:.200} is outside the folders that may be read",
                valid=", ".join(map(str, self._roots)) or "no folder so far",
                remedy="Name its folder in VISOR_ALLOW_FOLDERS",
            )
        limit = self._bytes_max if options.bytes_max is None else options.bytes_max
        try:
            # Opening a pipe or a device would block forever.
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(handle, "rb") as file:
                status = os.fstat(handle)
                validator = f"{status.st_mtime_ns}-{status.st_size}"
                if not stat.S_ISREG(status.st_mode):
                    raise FetchFailed(f"{url:.200} is not a regular file")
                if status.st_size > limit:
                    raise FetchFailed(
                        f"{url:.200} has {status.st_size} bytes",
                        valid=f"At most {limit} bytes",
                        remedy="Make it smaller, or raise VISOR_FETCH_BYTES_MAX",
                    )
                body = b"" if validator == options.modified else file.read(limit)
        except OSError as exc:
            raise FetchFailed(f"{url:.200} cannot be read: {exc.strerror}") from exc
        return Fetched(body=body, url=url, modified=validator, not_modified=validator == options.modified)


class BucketReader:
    """Reads objects of the given buckets, such as `gs://bucket/prefix`, and of no others.

    Args:
        buckets: URL of each, and the options to open it with.
        bytes_max: Largest size of an object.
    """

    def __init__(self, buckets: Mapping[str, Mapping[str, Any]], *, bytes_max: int) -> None:
        # The slash tells a bucket from another whose name only begins with its name.
        self._allowed = {
            address if "/" in address.partition("://")[2] else f"{address}/": options
            for address, options in buckets.items()
        }
        self._bytes_max = bytes_max
        self._open: dict[str, Bucket] = {}

    def fetch(self, url: str, options: FetchOptions = IMAGE) -> Fetched:
        """The object. Validators are ignored.

        Raises:
            FetchRefused: It is outside the buckets.
            FetchFailed: It is missing, unreadable or too large.
            FetchUnavailable: The bucket did not answer.
        """
        plain = unquote(url)
        address = max((a for a in self._allowed if plain.startswith(unquote(a))), key=len, default=None)
        if address is None:
            raise FetchRefused(
                f"{url:.200} is outside the buckets that may be read",
                valid=", ".join(self._allowed) or "no bucket so far",
                remedy="Name its bucket in VISOR_ALLOW_BUCKETS",
            )
        _, _, path = split(url)
        try:
            if address not in self._open:
                scheme, name, _ = split(address)
                self._open[address] = open_bucket(scheme, name, self._allowed[address])
            body = self._open[address].read(
                unquote(path), self._bytes_max if options.bytes_max is None else options.bytes_max
            )
        except NotConfigured as exc:
            raise FetchFailed(f"{url:.200} cannot be read here: {exc.reason}") from exc
        except StoreError as exc:
            raise as_image_error(exc, url) from exc
        return Fetched(body=body, url=url)


class ImageReaders:
    """Reads an image with the reader for the scheme of its URL; it is a reader itself."""

    def __init__(self, readers: Mapping[str, Fetch]) -> None:
        self._readers = dict(readers)

    def fetch(self, url: str, options: FetchOptions = IMAGE) -> Fetched:
        scheme = url.partition(":")[0].lower()
        reader = self._readers.get(scheme)
        if reader is None:
            raise FetchRefused(
                f"{url:.200} has the scheme {scheme!r:.40}",
                valid="The schemes " + ", ".join(sorted(self._readers)),
            )
        return reader.fetch(url, options)


def open_image_readers(
    settings: Settings,
    web: Fetch,
    *,
    folders: Sequence[str] = (),
    buckets: Mapping[str, Mapping[str, Any]] | None = None,
    frames: ObjectStore | None = None,
) -> ImageReaders:
    """The readers of this process: `web` for http(s); `settings.allow_folders` and `folders` for `file:`.

    Args:
        buckets: Buckets in addition to `settings.allow_buckets`, with the options to open each.
        frames: Where thumbnails of video frames are kept; None: they cannot be read.
    """
    files = FolderReader((*settings.allow_folders, *folders), bytes_max=settings.fetch_bytes_max)
    allowed: dict[str, Mapping[str, Any]] = {address: {} for address in settings.allow_buckets} | dict(buckets or {})
    objects = BucketReader(allowed, bytes_max=settings.fetch_bytes_max)
    schemes: dict[str, Fetch] = {address.partition(":")[0]: objects for address in allowed}
    if frames is not None:
        schemes["frame"] = ThumbnailReader(frames)
    return ImageReaders({**schemes, "http": web, "https": web, "file": files})
