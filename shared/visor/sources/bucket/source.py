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
from visor.schema.items import Item
from visor.sources.contract import Page, RowErrors, SourceConfig, SourceContext, page_of, slices
from visor.sources.folder.exif import Exif
from visor.sources.folder.source import ENDINGS, FileDefaults, Sidecar, file_item
from visor.sources.parse.text import country_code, iso_date, plain_text
from visor.storage.bucket_clients import Bucket, Stored, open_bucket, split

PAGE_SIZE = 256
"""Images in one page."""
_METADATA = ("title", "description", "collection", "licence", "author", "currency")
"""Plain texts that an object's own metadata may give its item, among others."""


class BucketConfig(FileDefaults, frozen=True, kw_only=True):
    """The keys of a `bucket` source."""

    url: str
    """`gs://bucket/prefix`, `s3://…`, `az://…`."""
    public_url: str | None = None
    """Where a browser finds what is below `url`. Without it the bucket is private: the page shows no images of it."""
    options: dict[str, str | bool | int] = msgspec.field(default_factory=dict)
    """Passed to the library: `anonymous = true` for gs; fsspec's own for others."""


class BucketSource:
    """Lists a bucket in the order of its names; the checkpoint is the last name. An image's key is its name."""

    Config: ClassVar[type[SourceConfig]] = BucketConfig
    notified: ClassVar[bool] = True
    """Its items may have arrived by notification already; those are not embedded again."""

    def __init__(self, name: str, config: BucketConfig, context: SourceContext) -> None:
        self.name, self.config = name, config
        self.scheme, self.bucket_name, self.prefix = _address(name, config.url)
        self._secrets = context.secrets

    def open(self) -> Bucket:
        return open_bucket(self.scheme, self.bucket_name, self.config.options)

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        """See `visor.sources.contract` for the contract."""
        after = str(checkpoint["name"]) if checkpoint else None
        try:
            objects = (o for o in self.open().list(self.prefix, after) if self.wants(o.name))
            for some, is_last in slices(objects, PAGE_SIZE):
                at = None if is_last else {"name": some[-1].name}
                yield page_of(((o.name, o) for o in some), self._item, checkpoint=at)
        except StoreError as exc:
            kind = SourceUnavailable if exc.retriable else SourceError
            found = self._secrets.hide(f"Source '{self.name}': {exc.found}")
            raise kind(found, valid=exc.valid, remedy=exc.remedy) from exc

    def wants(self, name: str) -> bool:
        """Whether an object of this bucket is one of this source's images."""
        return name.startswith(self.prefix) and PurePosixPath(name).suffix.lower() in ENDINGS

    def item(self, stored: Stored) -> Item:
        """The item of an object, the same from a listing and from a notification. Raises `DropItem`."""
        return self._item(stored, RowErrors())

    def _item(self, stored: Stored, errors: RowErrors) -> Item:
        if not stored.size_bytes:
            raise DropItem("it is empty")
        key = self.key(stored.name)
        texts: dict[str, Any] = {name: plain_text(stored.metadata.get(name)) or None for name in _METADATA}
        page_url = stored.metadata.get("page_url", "")
        said = Sidecar(
            **texts,
            page_url=page_url if page_url.startswith(("https://", "http://")) else None,
            price=_price(key, plain_text(stored.metadata.get("price")), errors),
            country=country_code(stored.metadata.get("country")),
            date=iso_date(plain_text(stored.metadata.get("date"))),
        )
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


def _price(key: str, text: str, errors: RowErrors) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        errors.add(key, f"price {text!r:.40} is not a number", dropped=False)
        return None
