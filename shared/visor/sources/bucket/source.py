"""`bucket`: pictures in Cloud Storage, S3, Azure or anything else that fsspec opens. The folder is the collection.

An object's own metadata (`gcloud storage objects update --custom-metadata=title=…`) describes it on Cloud Storage. With
Cloud Storage's notifications (`visor.ingest.bucket_events`) a picture is searchable without waiting for the next crawl.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from visor.errors import DropItem, SettingsError, SourceError, SourceUnavailable, StoreError
from visor.schema.items import Item, item_id
from visor.sources.contract import Page, RowErrors, SourceConfig, SourceContext, page_of
from visor.sources.folder.source import ENDINGS
from visor.sources.parse.text import TITLE_LENGTH_MAX, country_code, iso_date, plain_text
from visor.storage.bucket_clients import Bucket, Stored, open_bucket, split

PAGE_SIZE = 256
"""Pictures in one page."""
_OWN = ("title", "description", "page_url", "collection", "country", "date", "licence", "author", "price", "currency")


class BucketConfig(SourceConfig, frozen=True, kw_only=True):
    """The keys of a `bucket` source."""

    url: str
    """`gs://bucket/prefix`, `s3://…`, `az://…`."""
    public_url: str | None = None
    """Where a browser finds what is below `url`. Without it the bucket is private: the page shows no pictures of it."""
    collection: str | None = None
    """Of pictures that lie in no folder."""
    licence: str | None = None
    author: str | None = None
    options: dict[str, str | bool | int] = msgspec.field(default_factory=dict)
    """Passed to the library: `anonymous = true` for gs; fsspec's own for others."""


class BucketSource:
    """Lists a bucket in the order of its names; the checkpoint is the last name. A picture's key is its name."""

    Config: ClassVar[type[SourceConfig]] = BucketConfig
    notified: ClassVar[bool] = True
    """Its items may have come by notification already, so a new one is not embedded again."""

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
            chunk = list(islice(objects, PAGE_SIZE))
            while True:
                following = list(islice(objects, PAGE_SIZE))
                at = {"name": chunk[-1].name} if following else None
                yield page_of(((o.name, o) for o in chunk), self._item, checkpoint=at)
                if not following:
                    return
                chunk = following
        except StoreError as exc:
            kind = SourceUnavailable if exc.retriable else SourceError
            found = self._secrets.hide(f"Source '{self.name}': {exc.found}")
            raise kind(found, valid=exc.valid, remedy=exc.remedy) from exc

    def wants(self, name: str) -> bool:
        """Whether an object of this bucket is one of this source's pictures."""
        return name.startswith(self.prefix) and PurePosixPath(name).suffix.lower() in ENDINGS

    def item(self, stored: Stored) -> Item:
        """The item of an object, the same from a listing and from a notification. Raises `DropItem`."""
        return self._item(stored, RowErrors())

    def _item(self, stored: Stored, errors: RowErrors) -> Item:
        if not stored.size_bytes:
            raise DropItem("it is empty")
        key = self.key(stored.name)
        path = PurePosixPath(key)
        said = {name: plain_text(stored.metadata.get(name)) or None for name in _OWN}
        folder = path.parent.as_posix()
        page_url = stored.metadata.get("page_url", "")
        return Item(
            id=item_id(self.name, key),
            source=self.name,
            key=key,
            image_url=self._image_url(stored.name, key),
            page_url=page_url if page_url.startswith(("https://", "http://")) else None,
            title=plain_text(said["title"] or _title(path), TITLE_LENGTH_MAX),
            description=said["description"],
            price=_price(key, said["price"], errors),
            currency=said["currency"],
            collection=said["collection"] or (folder if folder != "." else self.config.collection),
            country=country_code(said["country"]),
            date=iso_date(said["date"]),
            licence=said["licence"] or self.config.licence,
            author=said["author"] or self.config.author,
            image_etag=stored.etag,
            # A copy of the same bytes over themselves changes nothing where the content has a checksum.
            image_modified=None if stored.etag else stored.modified,
        )

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
            f"sources.{source}.url = '{url:.200}' is no bucket",
            valid="gs://, s3://, az://",
            remedy="For files of this machine there is kind = 'folder', for the web 'site' and 'feed'",
        )
    return scheme, bucket, prefix


def _price(key: str, text: str | None, errors: RowErrors) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        errors.add(key, f"price {text!r:.40} is no number", dropped=False)
        return None


def _title(path: PurePosixPath) -> str:
    return " ".join(path.stem.replace("_", " ").replace("-", " ").split())
