"""`json_feed`: reads JSON Feeds (https://www.jsonfeed.org/version/1.1/). A start: change it to read your catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import urljoin

from visor.sources import (
    DropItem,
    Item,
    Page,
    RetryingClient,
    RowErrors,
    SourceConfig,
    SourceContext,
    iso_date,
    make_item,
    page_of,
    plain_text,
    resolve_url,
)


class JsonFeedConfig(SourceConfig, frozen=True, kw_only=True):
    """The keys of [sources.NAME] with kind = "json_feed". Any other key is an error that names the line."""

    url: str
    licence: str | None = None


class JsonFeedSource:
    """The checkpoint is the URL of the next page."""

    Config: ClassVar[type[SourceConfig]] = JsonFeedConfig

    def __init__(self, name: str, config: JsonFeedConfig, context: SourceContext) -> None:
        self.name = name
        self._config = config
        # Retries where that may help, and reaches public addresses only.
        self._client = RetryingClient(name, context, accept="application/feed+json, application/json")

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        """See `visor.sources.contract` for the contract; tests/test_json_feed.py checks it."""
        url: str | None = str(checkpoint["url"]) if checkpoint else self._config.url
        while url:
            # A refusal for good ends the run with an error that names this source.
            with self._client.required():
                feed, fetched = self._client.get_json(url)
            following = urljoin(fetched.url, feed["next_url"]) if feed.get("next_url") else None
            rows = ((str(row.get("id")), row) for row in feed.get("items", ()))
            yield page_of(rows, self._item, checkpoint={"url": following} if following else None)
            url = following

    def _item(self, row: Mapping[str, Any], errors: RowErrors) -> Item:
        """One item. `DropItem` leaves a row out and is counted with its reason."""
        image = row.get("image") or row.get("banner_image")
        if not row.get("id") or not image:
            raise DropItem("it has no id or no image")
        key = str(row["id"])
        return make_item(
            self.name,
            key,
            resolve_url(image, self._config.url, "picture"),
            page_url=resolve_url(row["url"], self._config.url, "page") if row.get("url") else None,
            title=plain_text(row.get("title")),
            description=plain_text(row.get("summary") or row.get("content_text") or row.get("content_html")) or None,
            date=iso_date(row.get("date_modified") or row.get("date_published")),
            author=next((author.get("name") for author in row.get("authors", ())), None),
            licence=self._config.licence,
        )
