"""`shop_api`: a shop's paged JSON product API. Which API is a matter of configuration; docs/sources.md has examples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple
from urllib.parse import quote

import msgspec
from msgspec import Meta

from visor.errors import FetchFailed, SettingsError, SourceError
from visor.http.retry import RetryPolicy
from visor.schema.items import Item
from visor.sources.client import RetryingClient
from visor.sources.contract import Page, RowErrors, RowFailure, SourceConfig, SourceContext, page_of
from visor.sources.parse.mapping import Defaults, Expressions, Fields, RowMapping
from visor.sources.shop_api.paging import Pager, Paging, Position, add_query


class Listing(SourceConfig, frozen=True, kw_only=True):
    """Where the API lists its collections, all in one answer."""

    url: str
    items: str = "@"
    id: str = "id"
    name: str = "name"


class ShopApiConfig(SourceConfig, frozen=True, kw_only=True):
    """The keys of a `shop_api` source. Expressions are JMESPath."""

    url: str
    """Address of a page of products; `{collection}` stands for the collection's id."""
    items: str = "@"
    """Where the rows stand in a page."""
    fields: Fields
    defaults: Defaults = Defaults()
    only: str | None = None
    """Rows for which this finds nothing true are left out: `in_stock`, `status == 'active'`."""
    price_in_minor_units: bool = False
    collections: tuple[str, ...] | Listing | None = None
    """Ids of the collections to read, or where the API lists them. None: the API has one list of all products."""
    paging: Paging = Paging()
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    query: dict[str, str] = msgspec.field(default_factory=dict)
    """Sent with every request, `headers` too: keys and languages."""
    patience: RetryPolicy = RetryPolicy()
    pages_max: Annotated[int, Meta(ge=1)] = 100_000
    """Pages of one collection, beyond which the API is taken to page for ever."""


class ShopCollection(NamedTuple):
    id: str
    name: str


class ShopApiSource:
    """Reads collections in the order of their ids, and each page by page.

    The checkpoint is the collection and the position in it, so that neither a changed listing nor a restart matters.
    """

    Config: ClassVar[type[SourceConfig]] = ShopApiConfig

    def __init__(self, name: str, config: ShopApiConfig, context: SourceContext) -> None:
        where = f"sources.{name}"
        if config.collections is None and "{collection}" in config.url:
            raise SettingsError(
                f"{where}.url has a {{collection}}, and {where}.collections does not say which there are",
                remedy=f'Add collections = ["…"], or [{where}.collections] with the url that lists them',
            )
        self.name = name
        self._config = config
        self._secrets = context.secrets
        self._client = RetryingClient(
            name, context, patience=config.patience, headers=config.headers, accept="application/json"
        )
        self._mapping = RowMapping(
            name,
            config.fields,
            where=where,
            defaults=config.defaults,
            only=config.only,
            minor_units=config.price_in_minor_units,
        )
        paging = {"next": config.paging.next, "total": config.paging.total}
        self._page = Expressions({"items": config.items, **paging}, where)
        self._pager = Pager(config.paging, self._page, context.secrets)
        listing = config.collections if isinstance(config.collections, Listing) else None
        self._listing = Expressions(
            {"items": listing.items, "id": listing.id, "name": listing.name} if listing else {},
            f"{where}.collections",
        )

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        """See `visor.sources.contract` for the contract."""
        collections = self._collections()
        resumed = self._pager.restore(checkpoint) if checkpoint else None
        at = str(checkpoint["collection"]) if checkpoint else ""
        todo = [collection for collection in collections if collection.id >= at]
        if not todo:
            yield Page()
        for collection, following in zip(todo, [*todo[1:], None], strict=True):
            after = {"collection": following.id} if following else None
            yield from self._read_collection(collection, resumed if collection.id == at else None, after)

    def _read_collection(
        self, collection: ShopCollection, resumed: Position | None, after: dict[str, Any] | None
    ) -> Iterator[Page]:
        """The pages of a collection; `after` is the checkpoint that follows it."""
        position = resumed or self._pager.first()
        signatures: set[bytes] = set()
        while True:
            template = self._config.url.replace("{collection}", quote(collection.id, safe=""))
            url = self._pager.url(position, add_query(template, self._config.query))
            try:
                answer, fetched = self._client.get_json(url)
            except FetchFailed as exc:
                if position is resumed and resumed.cursor is not None:
                    # Cursors expire: read this collection from its start.
                    position, resumed = self._pager.first(), None
                    continue
                if exc.status not in (404, 410):
                    raise SourceError(f"Source '{self.name}': {exc.found}", remedy=exc.remedy) from exc
                reason = f"collection '{collection.id}' is gone: {exc.found}"
                yield Page(failed=(RowFailure(key=collection.id, reason=reason),), checkpoint=after)
                return
            rows = self._rows(answer, fetched.url)
            following = None
            if self._is_repeated(rows, signatures, position, collection):
                rows = []
            else:
                following = self._pager.following(position, rows, answer, fetched.url)
            if following is not None and len(signatures) >= self._config.pages_max:
                raise SourceError(
                    f"Source '{self.name}': collection '{collection.id}' has more than {len(signatures)} pages",
                    valid=f"pages_max is {self._config.pages_max}",
                    remedy="Raise pages_max, or correct [paging] if the API is read in circles",
                )
            checkpoint = {"collection": collection.id, **self._pager.store(following)} if following else after
            yield self._page_of(rows, collection, fetched.url, checkpoint)
            if following is None:
                return
            position = following

    def _rows(self, answer: Any, url: str) -> list[Any]:
        rows = self._page.find("items", answer)
        if isinstance(rows, list):
            return rows
        keys = ", ".join(list(answer)[:20]) if isinstance(answer, dict) else type(answer).__name__
        raise SourceError(
            f"Source '{self.name}': items = {self._config.items!r} finds no list in the answer of "
            f"{self._secrets.hide(url)}",
            valid=f"The answer has {keys}",
            remedy=f"Correct sources.{self.name}.items",
        )

    def _is_repeated(
        self, rows: list[Any], signatures: set[bytes], position: Position, collection: ShopCollection
    ) -> bool:
        """Whether this page was already read in this run.

        Many APIs answer a page beyond their last with the last one: an end. One that answers with its first
        page does not understand the paging parameters, and stopping there would silently lose the rest.
        """
        signature = hashlib.blake2b(msgspec.json.encode(rows), digest_size=8).digest()
        repeated = bool(rows) and signature in signatures
        if repeated and len(signatures) == 1 and position.pages == 1:
            raise SourceError(
                f"Source '{self.name}': the second page of '{collection.id}' is its first one again",
                valid="The API's documentation names its paging parameters",
                remedy=f'Correct [sources.{self.name}.paging], or set its style = "none" if there is only one page',
            )
        signatures.add(signature)
        return repeated

    def _page_of(
        self, rows: list[Any], collection: ShopCollection, url: str, checkpoint: Mapping[str, Any] | None
    ) -> Page:
        def make(row: Any, errors: RowErrors) -> Item | None:
            return self._mapping.item(row, base_url=url, collection=collection.name or None, errors=errors)

        keyed = (
            (self._mapping.key(row) or f"row {at} of {self._secrets.hide(url)}", row) for at, row in enumerate(rows)
        )
        return page_of(keyed, make, checkpoint=checkpoint)

    def _collections(self) -> list[ShopCollection]:
        if self._config.collections is None:
            return [ShopCollection("", "")]
        if not isinstance(self._config.collections, Listing):
            return [ShopCollection(id_, id_) for id_ in sorted(set(self._config.collections))]
        listing = self._config.collections
        with self._client.required():
            answer, fetched = self._client.get_json(add_query(listing.url, self._config.query))
        rows = self._listing.find("items", answer)
        found = {}
        for row in rows if isinstance(rows, list) else []:
            id_ = self._listing.find("id", row)
            if isinstance(id_, str | int) and str(id_):
                found[str(id_)] = ShopCollection(str(id_), str(self._listing.find("name", row) or id_))
        if not found:
            raise SourceError(
                f"Source '{self.name}': {self._secrets.hide(fetched.url)} lists no collections",
                valid=f"items = {listing.items!r} has to find a list, id = {listing.id!r} something in each row",
                remedy=f"Correct [sources.{self.name}.collections]",
            )
        return [found[id_] for id_ in sorted(found)]
