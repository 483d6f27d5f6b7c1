"""Items that owners push, and the answer to them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from visor.schema.items import Record


class PushItem(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One item that an owner sends (`POST /v1/items`): the JSON body, or a line of `application/x-ndjson`."""

    key: Annotated[str, Meta(min_length=1, max_length=500)]
    """The sender's own stable key; a later item with the same key replaces this one."""
    image_url: Annotated[str, Meta(max_length=2000)] | None = None
    """Required unless `deleted`."""
    page_url: Annotated[str, Meta(max_length=2000)] | None = None
    title: str = ""
    description: str | None = None
    price: float | None = None
    currency: Annotated[str, Meta(pattern="^[A-Za-z]{3}$")] | None = None
    """ISO 4217."""
    collection: str | None = None
    country: str | None = None
    date: str | None = None
    """ISO 8601."""
    licence: str | None = None
    author: str | None = None
    group: str | None = None
    """The sender's own key of the product of which this is a picture or variant."""
    image_etag: str | None = None
    """Any text that changes when the picture at `image_url` does; the picture is then embedded anew."""
    image_modified: str | None = None
    extra: Annotated[dict[str, str], Meta(max_length=50)] = msgspec.field(default_factory=dict)
    deleted: bool = False
    """The item is gone."""


class PushedItem(Record, frozen=True, kw_only=True):
    """What became of one pushed item."""

    line: int
    """Number of its line, from 1."""
    key: str | None = None
    id: str | None = None
    state: Literal["accepted", "refused"]
    """`accepted`: it is in the queue, and searchable once it is embedded."""
    reason: str | None = None


class PushAnswer(Record, frozen=True, kw_only=True):
    """What became of each pushed item, in the order sent."""

    accepted: int = 0
    refused: int = 0
    items: tuple[PushedItem, ...] = ()
