"""`shop_api`: a shop's paged JSON product API. Which API is a matter of configuration; docs/sources.md has examples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from visor.errors import DropItem, FetchFailed, SettingsError, SourceError, SourceUnavailable
from visor.http.fetch import Fetched
from visor.http.retry import RetryPolicy
from visor.schema.items import Item
from visor.sources.client import RetryingClient
from visor.sources.contract import Page, Place, RowErrors, SourceConfig, SourceContext, page_of
from visor.sources.parse.json import refusal, said_by
from visor.sources.parse.mapping import Defaults, Expressions, Fields, RowMapping
from visor.sources.parse.price import DecimalSign
from visor.sources.shop_api.paging import Pager, Paging, Position, add_query, fill


class Listing(SourceConfig, frozen=True, kw_only=True):
    """Where the API lists its collections, all in one answer."""

    url: str
    items: str = "@"
    id: str = "id"
    name: str = "name"


class ShopApiConfig(SourceConfig, frozen=True, kw_only=True):
    """The keys of a `shop_api` source. Expressions are JMESPath."""

    url: str
    """URL of a page of products; `{collection}` stands for the collection's id, here or in `query`."""
    items: str = "@"
    """Where the rows are in a page."""
    fields: Fields
    defaults: Defaults = Defaults()
    only: str | None = None
    """Rows for which this finds nothing true are left out: `in_stock`, `status == 'active'`."""
    variants: str | None = None
    """Where a row's variants are: each becomes a row, completed from its product, which is `parent`. They are one group
    unless `fields.group` names another."""
    price_in_minor_units: bool | str = False
    """True: by the currency. Or an expression that finds the number of decimals in a row."""
    decimal: DecimalSign | None = None
    """The sign before decimals in prices that are texts."""
    collections: tuple[str, ...] | Listing | None = None
    """Ids of the collections to read, or where the API lists them. None: the API has one list of all products."""
    paging: Paging = Paging()
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    query: dict[str, str] = msgspec.field(default_factory=dict)
    """Sent with every request, `headers` too: keys and languages."""
    patience: RetryPolicy = RetryPolicy()
    pages_max: Annotated[int, Meta(ge=1)] = 100_000
    """Pages of one collection beyond which the API is assumed to page for ever."""


GONE = (204, 404, 410)
PAST_THE_END = (*GONE, 400, 416, 422)
"""Statuses that APIs answer to a page after their last."""
FAILING_MAX = 3
"""Failed pages in a row that count as failures of single pages; with one more, the API itself counts as failed."""


_AGAIN = "a page after a full one that is {} one again: nothing counts as missing"
CIRCLED = {name: _AGAIN.format(name) for name in ("the first", "an earlier")}


class ShopCollection(NamedTuple):
    id: str
    name: str


class ShopApiSource:
    """Reads collections in the order of their ids, and each page by page.

    The checkpoint is the collection and the position in it, so neither a changed listing nor a restart matters.
    """

    Config: ClassVar[type[SourceConfig]] = ShopApiConfig

    def __init__(self, name: str, config: ShopApiConfig, context: SourceContext) -> None:
        where = f"sources.{name}"
        if config.collections is None and "{collection}" in config.url:
            raise SettingsError(
                f"{where}.url has a {{collection}}, and {where}.collections does not name them",
                remedy=f'Add collections = ["…"], or [{where}.collections] with the url that lists them',
            )
        listing = config.collections if isinstance(config.collections, Listing) else None
        for key, url in (("url", config.url), ("collections.url", listing.url if listing else "")):
            try:
                urlsplit(url)
            except ValueError as exc:
                raise SettingsError(f"{where}.{key} = {url!r} is not a URL", valid="http://… or https://…") from exc
        self.name = name
        self._config = config
        self._first = self._last = b""
        """Signatures of a collection's first page, if this run read it, and of the page before."""
        self._held: list[Page] = []
        """Pages that could not be read since the last one that could: of the same collection, or of several."""
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
            decimal=config.decimal,
        )
        paging = {"next": config.paging.next, "total": config.paging.total}
        self._page = Expressions({"items": config.items, "variants": config.variants, **paging}, where)
        self._pager = Pager(config.paging, self._page, context.secrets)
        self._listing = Expressions(
            {"items": listing.items, "id": listing.id, "name": listing.name} if listing else {},
            f"{where}.collections",
        )

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        """See `visor.sources.contract` for the contract."""
        self._held, self._first, self._last = [], b"", b""
        collections = self._collections()
        resumed = self._pager.restore(checkpoint) if checkpoint else None
        at = str(checkpoint["collection"]) if checkpoint else ""
        todo = [collection for collection in collections if collection.id >= at]
        if not todo:
            yield Page()
        for collection, following in zip(todo, [*todo[1:], None], strict=True):
            after = {"collection": following.id} if following else None
            yield from self._read_collection(collection, resumed if collection.id == at else None, after)
        yield from self._let_go()

    def _let_go(self) -> Iterator[Page]:
        """The pages that failed, once it is known that the API itself did not fail."""
        held, self._held = self._held, []
        yield from held

    def _read_collection(
        self, collection: ShopCollection, resumed: Position | None, after: dict[str, Any] | None
    ) -> Iterator[Page]:
        """The pages of a collection; `after` is the checkpoint that follows it."""
        position = resumed or self._pager.first()
        template = add_query(self._config.url, self._config.query)
        if collection.id:
            template = fill(template, "collection", collection.id)
        signatures: set[bytes] = set()
        keys: list[str] = []
        while True:
            url, errors = self._pager.url(position, template), RowErrors()
            place = Place(url)
            try:
                rows, answer, fetched = self._ask(url)
                if not rows and self._pager.is_doubtful(position):
                    rows, answer, fetched = self._ask(url)
            except (FetchFailed, SourceUnavailable) as exc:
                if position is resumed and resumed.cursor is not None and isinstance(exc, FetchFailed):
                    # Cursors expire: read this collection from its start.
                    position, resumed = self._pager.first(), None
                    continue
                following, is_end = self._after_failure(exc, position, collection, place, errors)
                checkpoint = self._checkpoint(collection, following, after)
                page = errors.page((), checkpoint=checkpoint, partial=is_end and errors.passed_over.total() > 0)
                self._held.append(page)
                if is_end:
                    yield from self._let_go()
                if following is None:
                    return
                position = following
                continue
            yield from self._let_go()
            if self._is_repeated(rows, signatures, position, collection, errors):
                rows, following = [], None
            else:
                following = self._pager.following(position, rows, answer, fetched)
            if following is not None and len(signatures) >= self._config.pages_max:
                raise SourceError(
                    f"Source '{self.name}': collection '{collection.id}' has more than {len(signatures)} pages",
                    valid=f"At most pages_max = {self._config.pages_max}",
                    remedy="Raise pages_max, or correct [paging] if the API is read in circles",
                )
            what = f"it has {len(rows) or 'no'} rows, and the API says"
            if not rows and (said := said_by(answer)):
                errors.add(place, f"{what} {said!r}")
            elif refused := refusal(answer):
                errors.add(place, f"{what} {refused}")
            elif isinstance(answer, dict) and answer.get("errors"):
                errors.add(place, f"{what} {said_by(answer)!r}")
            if rows and position.pages and not position.before and not position.cursor:
                errors.add(place, "the page before it was empty, and this one is not")
            total, read = self._pager.total(fetched, answer), position.rows + len(rows)
            if following is None and total is not None and read < total:
                what = Place(f"{total - read} rows of {place}")
                errors.add(what, f"the API counts {total} rows of collection '{collection.id}' and gave {read}")
            before, keys = keys, [self._mapping.key(row) for row in rows]
            has_shifted = self._pager.has_shifted(position, before, keys)
            if has_shifted:
                errors.pass_over("rows moved from page to page while they were read: nothing counts as missing")
            checkpoint = self._checkpoint(collection, following, after)
            is_partial = has_shifted or any(reason in errors.passed_over for reason in CIRCLED.values())
            yield self._page_of(rows, collection, fetched.url, errors, checkpoint=checkpoint, partial=is_partial)
            if following is None:
                return
            position = following

    def _ask(self, url: str) -> tuple[list[Any], Any, Fetched]:
        answer, fetched = self._client.get_json(url)
        return self._rows(answer, fetched.url), answer, fetched

    def _checkpoint(
        self, collection: ShopCollection, following: Position | None, after: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        return {"collection": collection.id, **self._pager.store(following)} if following else after

    def _after_failure(
        self,
        exc: FetchFailed | SourceUnavailable,
        position: Position,
        collection: ShopCollection,
        place: Place,
        errors: RowErrors,
    ) -> tuple[Position | None, bool]:
        """Where to continue after an unreadable page, None for the next collection; and whether it is the end.

        Raises:
            SourceError: Nowhere: it is the only page, or too many fail in a row.
        """
        status = exc.status if isinstance(exc, FetchFailed) else None
        if position.pages and status in PAST_THE_END:
            # After a full page, 400 may also be a limit of the API, beyond which there are more rows; so may 404 of a
            # page that the API itself named.
            is_end = status == 204 or (status in GONE and position.cursor is None)
            if not is_end and self._pager.is_doubtful(position):
                errors.pass_over(f"pages after one that answers {status}: the API's end, or its limit")
            return None, True
        following = self._pager.skipped(position)
        if len(self._held) >= FAILING_MAX or (following is None and not collection.id):
            if isinstance(exc, SourceUnavailable):
                raise exc
            raise SourceError(f"Source '{self.name}': {exc.found}", valid=exc.valid, remedy=exc.remedy) from exc
        errors.add(place, exc.found if following else f"collection '{collection.id}' cannot be read: {exc.found}")
        return following, False

    def _rows(self, answer: Any, url: str) -> list[Any]:
        rows, why = None, ""
        try:
            rows = self._page.find("items", answer)
        except DropItem as exc:
            why = f" ({exc.reason})"
        if isinstance(rows, list):
            return rows
        if not answer or rows == {} or (isinstance(answer, dict) and answer.get(self._config.items, answer) is None):
            # PHP writes an object without members as a list and the other way round, Go an empty list as null.
            return []
        keys = ", ".join(list(answer)[:20]) if isinstance(answer, dict) else type(answer).__name__
        said = said_by(answer)
        raise SourceError(
            f"Source '{self.name}': items = {self._config.items!r} finds no list in what {url} answers: {keys}{why}"
            + (f". The API says {said!r}" if said else ""),
            valid="A JMESPath to the list of rows",
            remedy=f"Correct sources.{self.name}.items",
        )

    def _variants(self, row: Any) -> list[Any]:
        """The rows of a row's variants; the row itself if it has none."""
        found = self._page.find("variants", row) if isinstance(row, Mapping) else None
        if not isinstance(found, list) or not found:
            return [row]
        own = [
            {name: value for name, value in one.items() if value is not None} for one in found if isinstance(one, dict)
        ]
        return [{**row, **one, "parent": row} for one in own]

    def _is_repeated(
        self,
        rows: list[Any],
        signatures: set[bytes],
        position: Position,
        collection: ShopCollection,
        errors: RowErrors,
    ) -> bool:
        """Whether this page was already read in this run: the same rows, whatever else an API says of them, such as a
        time or how often they were viewed.

        Many APIs answer a page beyond their last with the last one: an end. One that answers with its first
        page has nothing else, or does not understand the paging parameters: stopping there would lose the rest.
        """
        keys = [self._mapping.key(row) for row in rows]
        are_named = all(keys) and len(set(keys)) == len(keys)
        signature = hashlib.blake2b(msgspec.json.encode(keys if are_named else rows), digest_size=8).digest()
        repeated = bool(rows) and signature in signatures
        if repeated and len(signatures) == 1 and position.pages == 1:
            if self._pager.is_doubtful(position) or self._config.paging.style in ("cursor", "next"):
                raise SourceError(
                    f"Source '{self.name}': the second page of '{collection.id}' is its first one again",
                    valid="The paging parameters that the API's documentation names",
                    remedy=f'Correct [sources.{self.name}.paging], or set its style = "none" if there is only one page',
                )
            errors.pass_over("a second page that is the first one again: taken for the only one")
        elif repeated and self._pager.is_doubtful(position) and (signature == self._first or signature != self._last):
            errors.pass_over(CIRCLED["the first" if signature == self._first else "an earlier"])
        if not position.pages:
            self._first = signature
        self._last = signature
        signatures.add(signature)
        return repeated

    def _page_of(self, rows: list[Any], collection: ShopCollection, url: str, errors: RowErrors, **fields: Any) -> Page:
        def make(row: Any, errors: RowErrors) -> Item | None:
            parent = row.get("parent") if self._config.variants and isinstance(row, Mapping) else None
            group = self._mapping.key(parent) or None if isinstance(parent, Mapping) else None
            named = collection.name or None
            return self._mapping.item(row, base_url=url, collection=named, errors=errors, group=group)

        keyed: list[tuple[str, Any]] = []
        for at, row in enumerate(rows):
            place = Place(f"row {at} of {url}")
            try:
                keyed += [(self._mapping.key(variant) or place, variant) for variant in self._variants(row)]
            except DropItem as drop:
                errors.add(place, drop.reason)
        self._mapping.learn(variant for _, variant in keyed)
        return page_of(keyed, make, errors=errors, **fields)

    def _collections(self) -> list[ShopCollection]:
        if self._config.collections is None:
            return [ShopCollection("", "")]
        if not isinstance(self._config.collections, Listing):
            return [ShopCollection(id_, id_) for id_ in sorted(set(self._config.collections))]
        listing = self._config.collections
        with self._client.required():
            answer, fetched = self._client.get_json(add_query(listing.url, self._config.query))
        found, why = {}, ""
        try:
            rows = self._listing.find("items", answer)
            for row in rows if isinstance(rows, list) else []:
                id_ = self._listing.find("id", row)
                if isinstance(id_, str | int) and str(id_):
                    found[str(id_)] = ShopCollection(str(id_), str(self._listing.find("name", row) or id_))
        except DropItem as exc:
            found, why = {}, f" ({exc.reason})"
        if not found:
            raise SourceError(
                f"Source '{self.name}': {fetched.url} lists no collections{why}",
                valid=f"A list that items = {listing.items!r} finds, and in each row what id = {listing.id!r} finds",
                remedy=f"Correct [sources.{self.name}.collections]",
            )
        return [found[id_] for id_ in sorted(found)]
