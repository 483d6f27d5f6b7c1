"""`bucket`: images in Cloud Storage, S3, Azure or anything else that fsspec opens. The folder is the collection.

An object's own metadata (`gcloud storage objects update --custom-metadata=title=…`) describes it on Cloud Storage. With
Cloud Storage's notifications (`visor.ingest.bucket_events`) an image is searchable without waiting for the next crawl.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from visor.errors import DropItem, SettingsError, SourceError, SourceUnavailable, StoreError
from visor.imaging.sniff import ENDINGS
from visor.schema.items import Item
from visor.sources.contract import Page, RowErrors, SourceConfig, SourceContext, page_of, slices
from visor.sources.folder.exif import Exif
from visor.sources.folder.source import FileDefaults, file_item, left_out, no_picture
from visor.sources.parse.described import described
from visor.sources.parse.price import PriceReader
from visor.storage.bucket_clients import Bucket, Stored, open_bucket, split

PAGE_SIZE = 256
"""Images in one page."""


class BucketConfig(FileDefaults, frozen=True, kw_only=True):
    """The keys of a `bucket` source."""

    url: str
    """`gs://bucket/prefix`, `s3://…`, `az://…`."""
    public_url: str | None = None
    """Where a browser finds the objects in `url`. Without it the bucket is private: the page shows no images of it."""
    options: dict[str, str | bool | int] = msgspec.field(default_factory=dict)
    """Passed to the library: `anonymous = true` for gs; fsspec's own options for others."""


class BucketSource:
    """Lists a bucket in the order of its names; the checkpoint is the last name. An image's key is its name."""

    Config: ClassVar[type[SourceConfig]] = BucketConfig
    notified: ClassVar[bool] = True
    """Items may have arrived by notification already; those are not embedded again."""

    def __init__(self, name: str, config: BucketConfig, context: SourceContext) -> None:
        self.name, self.config = name, config
        self.scheme, self.bucket_name, self.prefix = _address(name, config.url)
        self._prices = PriceReader(config.decimal)

    def open(self) -> Bucket:
        return open_bucket(self.scheme, self.bucket_name, self.config.options)

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        """See `visor.sources.contract` for the contract."""
        after = str(checkpoint["name"]) if checkpoint else None
        told = RowErrors()
        try:
            objects = self._wanted(self.open().list(self.prefix, after), told, required=after is None)
            for some, is_last in slices(objects, PAGE_SIZE):
                at = None if is_last else {"name": some[-1].name}
                yield page_of(((self.key(o.name), o) for o in some), self._item, checkpoint=at, errors=told)
                told.clear()
        except StoreError as exc:
            kind = SourceUnavailable if exc.retriable else SourceError
            raise kind(f"Source '{self.name}': {exc.found}", valid=exc.valid, remedy=exc.remedy) from exc

    def wants(self, name: str) -> bool:
        """Whether an object of this bucket is one of this source's images."""
        is_picture = PurePosixPath(name).suffix.lower() in ENDINGS
        return name.startswith(self.prefix) and is_picture and not self._why_not(name)

    def _wanted(self, objects: Iterator[Stored], told: RowErrors, *, required: bool) -> Iterator[Stored]:
        for stored in objects:
            required = False
            if self.wants(stored.name):
                yield stored
            elif reason := self._why_not(stored.name):
                told.pass_over(reason)
        if required and self.prefix:
            # This does not count as an empty catalogue: two such passes would delete all items that were read before.
            raise SourceError(
                f"Source '{self.name}': no object of {self.scheme}://{self.bucket_name} begins with '{self.prefix}'",
                valid="The beginning of names, as the bucket writes them",
                remedy=f"Correct sources.{self.name}.url",
            )
        if required:
            told.pass_over("no object in the bucket")

    def _why_not(self, name: str) -> str:
        """Why an object is passed over, by any part of its name; empty if there is nothing to report."""
        parts = self.key(name).split("/")
        above = ("/".join(parts[: at + 1]) for at in range(len(parts)))
        return next(filter(None, (left_out(path, self.config.exclude) for path in above)), "") or no_picture(name)

    def item(self, stored: Stored) -> Item:
        """The item of an object; a listing and a notification make the same one. Raises `DropItem`."""
        return self._item(stored, RowErrors())

    def _item(self, stored: Stored, errors: RowErrors) -> Item:
        if not stored.size_bytes:
            raise DropItem("it is empty")
        key = self.key(stored.name)
        said = described(key, stored.metadata, self._prices, errors)
        # Where the content has a checksum, copying the same bytes over themselves changes nothing.
        modified = None if stored.etag else stored.modified
        image_url = self._image_url(stored.name, key)
        return file_item(self.name, key, image_url, said, self.config, Exif(), etag=stored.etag, modified=modified)

    def key(self, name: str) -> str:
        """An object's key: its name without the folders of the prefix."""
        return name[self.prefix.rfind("/") + 1 :]

    def _image_url(self, name: str, key: str) -> str:
        if self.config.public_url is not None:
            return f"{self.config.public_url.rstrip('/')}/{quote(key)}"
        return f"{self.scheme}://{self.bucket_name}/{quote(name)}"


def _address(source: str, url: str) -> tuple[str, str, str]:
    try:
        scheme, bucket, prefix = split(url)
    except ValueError as exc:
        raise SettingsError(
            f"sources.{source}.url: {exc}", valid="gs://bucket/prefix, s3://bucket/prefix", remedy="Correct it"
        ) from exc
    if scheme in ("http", "https", "file"):
        raise SettingsError(
            f"sources.{source}.url = '{url:.200}' is not a bucket",
            valid="gs://, s3://, az://",
            remedy="For files of this machine there is kind = 'folder', for the web 'site' and 'feed'",
        )
    return scheme, bucket, prefix
