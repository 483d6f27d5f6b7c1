"""`feed`: a product feed in Google's format (RSS, Atom, TSV, CSV), as Schema.org's JSON-LD, or as JSON Lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta

from visor.errors import DropItem, FetchFailed, SourceError
from visor.http.response import FetchedStream
from visor.schema.items import Item, item_id
from visor.sources.client import RetryingClient, RetryPolicy
from visor.sources.contract import Page, RowErrors, SourceConfig, SourceContext, page_of
from visor.sources.feed.rows import BadRow, FeedRow, json_rows, table_rows, xml_rows
from visor.sources.parse.encoding import decoded, gunzipped
from visor.sources.parse.mapping import resolve_url, resolve_url_or_none
from visor.sources.parse.price import UnreadablePrice, currency_code, parse_price
from visor.sources.parse.schema_org import product_row, things, type_names
from visor.sources.parse.text import TITLE_LENGTH_MAX, country_code, iso_date, plain_text

PAGE_SIZE = 1000
"""Rows of one page."""
READS_MIN = 2
"""Whole readings of a feed, after which it is only asked whether it has changed."""
DOCUMENT_BYTES_MAX = 64_000_000
"""A JSON-LD document is read whole."""
EXTRA = ("availability", "brand", "condition", "gtin", "color", "size", "material", "item_group_id")
"""Attributes that the page may show."""

Format = Literal["auto", "xml", "table", "json_lines", "json_ld"]


class FeedConfig(SourceConfig, frozen=True, kw_only=True):
    """The keys of a `feed` source."""

    url: str
    format: Format = "auto"
    delimiter: Annotated[str, Meta(min_length=1, max_length=1)] | None = None
    encoding: str | None = None
    attributes: dict[str, str] = msgspec.field(default_factory=dict)
    """Names of this feed for Google's attributes: { image_link = "Bild-URL" }."""
    pictures: Literal["first", "all"] = "first"
    """`all`: an item for each additional picture, too."""
    in_stock_only: bool = False
    currency: str | None = None
    country: str | None = None
    licence: str | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    patience: RetryPolicy = RetryPolicy()
    bytes_max: int = 8_000_000_000
    """Of the feed, unpacked."""
    deadline_s: float = 3300.0


class FeedSource:
    """Streams the feed. The checkpoint is the number of rows read and the validators of what they were read from.

    A resumed run reads the rows before it again and passes over them. If the feed has changed since, rows may have
    moved across that line, so that what is left of the pass counts as partial: nothing is called missing.
    """

    Config: ClassVar[type[SourceConfig]] = FeedConfig

    def __init__(self, name: str, config: FeedConfig, context: SourceContext) -> None:
        self.name = name
        self._config = config
        self._context = context
        self._client = RetryingClient(name, context, patience=config.patience, headers=config.headers)
        self._renamed = {theirs: ours for ours, theirs in config.attributes.items()}

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        """See `visor.sources.contract` for the contract."""
        begun = checkpoint or {}
        start = int(begun.get("rows", 0))
        # What is missing is missing for good only after it was missed twice, so a changed feed is read twice.
        is_settled = int(begun.get("reads", 0)) >= READS_MIN and not start
        known = {key: begun.get(key) for key in ("etag", "modified")} if is_settled else {}
        try:
            with self._client.stream(
                self._config.url,
                bytes_max=self._config.bytes_max,
                deadline_s=self._config.deadline_s,
                **known,
            ) as stream:
                if stream.not_modified:
                    yield Page(partial=True, next_pass=dict(begun))
                    return
                validators = {"etag": stream.etag, "modified": stream.modified}
                moved = start > 0 and (
                    not any(validators.values()) or validators != {key: begun.get(key) for key in validators}
                )
                partial = moved or bool(begun.get("partial"))
                is_same = validators == {key: begun.get(key) for key in validators}
                reads = int(begun.get("reads", 0)) if start else int(begun.get("reads", 0)) * is_same + 1
                state = {**validators, "reads": reads, "partial": partial}
                yield from self._pages(self._rows(stream), start, state, stream.url)
        except FetchFailed as exc:
            raise SourceError(f"Source '{self.name}': {exc.found}", valid=exc.valid, remedy=exc.remedy) from exc

    def _pages(self, rows: Iterator[FeedRow], start: int, state: dict[str, Any], url: str) -> Iterator[Page]:
        for _ in islice(rows, start):
            pass
        partial = bool(state["partial"])
        # Without a validator, or when rows may have moved, the next pass has nothing to ask by.
        has_validator = bool(state["etag"] or state["modified"])
        next_pass = (
            {key: state[key] for key in ("etag", "modified", "reads")} if has_validator and not partial else None
        )
        done = start
        chunk = list(islice(rows, PAGE_SIZE))
        while True:
            following = list(islice(rows, PAGE_SIZE))
            done += len(chunk)
            if not following:
                yield self._page(chunk, url, None, partial, next_pass)
                return
            yield self._page(chunk, url, {**state, "rows": done}, partial, None)
            chunk = following

    def _page(
        self,
        rows: Iterable[FeedRow],
        url: str,
        state: dict[str, Any] | None,
        partial: bool,
        next_pass: dict[str, Any] | None,
    ) -> Page:
        def items(row: FeedRow) -> Iterator[tuple[str, tuple[FeedRow, int]]]:
            values = row.values
            count = 1
            key = ""
            if not isinstance(values, BadRow):
                values = self._google(values)
                key = _one(values.get("id"))
                if self._config.pictures == "all":
                    count += len(_many(values.get("additional_image_link")))
            for at in range(count):
                yield key or f"line {row.line}", (FeedRow(row.line, values), at)

        def make(picture: tuple[FeedRow, int], errors: RowErrors) -> Item | None:
            row, at = picture
            if isinstance(row.values, BadRow):
                raise DropItem(row.values.reason)
            return self._item(row.values, at, url, errors)

        keyed = chain.from_iterable(items(row) for row in rows)
        return page_of(keyed, make, checkpoint=state, partial=partial, next_pass=next_pass)

    def _rows(self, stream: FetchedStream) -> Iterator[FeedRow]:
        texts = decoded(
            gunzipped(stream.pieces, self._config.bytes_max), promised=self._config.encoding or stream.charset
        )
        first = next(texts, "")
        texts = chain([first], texts)
        form = self._config.format if self._config.format != "auto" else _sniffed(first, stream)
        if form == "xml":
            return xml_rows(texts)
        if form == "table":
            return table_rows(texts, self._config.delimiter)
        if form == "json_lines":
            return json_rows(texts)
        return self._document_rows(texts)

    def _document_rows(self, texts: Iterable[str]) -> Iterator[FeedRow]:
        text = ""
        for piece in texts:
            text += piece
            if len(text) > DOCUMENT_BYTES_MAX:
                raise SourceError(
                    f"Source '{self.name}': the document has more than {DOCUMENT_BYTES_MAX} characters",
                    remedy="Offer it as JSON Lines: a product a line",
                )
        try:
            document = msgspec.json.decode(text)
        except msgspec.DecodeError as exc:
            raise SourceError(f"Source '{self.name}': the feed is no JSON: {exc}") from exc
        products = things(document, "Product", "ProductGroup", "ImageObject")
        return (FeedRow(at, row) for at, row in enumerate(products, 1))

    def _google(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row with Google's attribute names."""
        if type_names(row) & {"Product", "ProductGroup", "ImageObject"}:
            return product_row(row)
        if self._renamed:
            return {self._renamed.get(name, name): value for name, value in row.items()}
        return row

    def _item(self, row: Mapping[str, Any], at: int, url: str, errors: RowErrors) -> Item | None:
        """The item of a row's picture number `at`."""
        pictures = [*_many(row.get("image_link")), *_many(row.get("additional_image_link"))]
        link = _one(row.get("link"))
        key = _one(row.get("id")) or link
        if not key:
            raise DropItem("it has no id")
        if not pictures:
            raise DropItem("it has no image_link")
        availability = _one(row.get("availability")).lower().replace(" ", "_")
        if self._config.in_stock_only and availability in ("out_of_stock", "outofstock", "discontinued", "soldout"):
            return None
        key = key if at == 0 else f"{key}#{at}"
        price, currency, regular = self._price(row, key, errors)
        extra = {name: plain_text(_one(row.get(name)), 200) for name in EXTRA}
        return Item(
            id=item_id(self.name, key),
            source=self.name,
            key=key,
            image_url=resolve_url(pictures[at], url, "picture"),
            page_url=resolve_url_or_none(link, url, key, errors),
            title=plain_text(_one(row.get("title")), TITLE_LENGTH_MAX),
            description=plain_text(_one(row.get("description"))) or None,
            price=price,
            currency=currency if price is not None else None,
            collection=_collection(row),
            country=country_code(_one(row.get("country"))) or self._config.country,
            date=iso_date(_one(row.get("date")) or _one(row.get("updated")) or _one(row.get("pubdate"))),
            licence=_one(row.get("licence")) or self._config.licence,
            author=_one(row.get("author")) or None,
            extra={name: value for name, value in {**extra, "regular_price": regular}.items() if value},
        )

    def _price(self, row: Mapping[str, Any], key: str, errors: RowErrors) -> tuple[float | None, str | None, str]:
        """Price, currency, and the regular price as it is written where the price is a sale's."""
        regular, sale = _one(row.get("price")), _one(row.get("sale_price"))
        on_sale = bool(sale) and self._is_now(_one(row.get("sale_price_effective_date")))
        text = sale if on_sale else regular
        if not text:
            return None, None, ""
        try:
            price, currency = parse_price(text, _one(row.get("currency")) or self._config.currency)
        except UnreadablePrice as exc:
            errors.add(key, exc.reason, dropped=False)
            return None, None, ""
        return price, currency or currency_code(regular.strip("0123456789., ")), regular if on_sale else ""

    def _is_now(self, period: str) -> bool:
        """Whether a `2026-05-01T00:00+0100/2026-05-08T00:00+0100` is under way. One that cannot be read counts."""
        start, _, end = period.partition("/")
        try:
            now = self._context.now()
            begins, ends = (datetime.fromisoformat(text.strip()).astimezone() for text in (start, end))
        except ValueError:
            return True
        return begins <= now <= ends


def _sniffed(first: str, stream: FetchedStream) -> Format:
    """What the text is, by how it begins; file names and media types of feeds are often wrong."""
    start = first.lstrip()[:2000]
    if start.startswith("<"):
        return "xml"
    if start.startswith("["):
        return "json_ld"
    if start.startswith("{"):
        line = start.partition("\n")[0]
        try:
            msgspec.json.decode(line)
        except msgspec.DecodeError:
            is_lines = Path(unquote(urlsplit(stream.url).path)).suffix in (".jsonl", ".ndjson")
            return "json_lines" if is_lines else "json_ld"
        return "json_ld" if '"@graph"' in line else "json_lines"
    return "table"


def _collection(row: Mapping[str, Any]) -> str | None:
    """The shop's own category, else Google's where it is written out (`Apparel > Shoes`), not as a number."""
    for name in ("product_type", "google_product_category", "category"):
        text = plain_text(_one(row.get(name)), 200)
        if text and not text.isdigit():
            return " > ".join(part.strip() for part in re.split(r">|/(?=\s)", text) if part.strip())
    return None


def _one(value: Any) -> str:
    value = value[0] if isinstance(value, list) and value else value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value.strip() if isinstance(value, str) else ""


def _many(value: Any) -> list[str]:
    """Repeated attributes; in tables, additional pictures stand between commas."""
    if isinstance(value, list):
        return [text for part in value if (text := _one(part))]
    text = _one(value)
    return [part.strip() for part in re.split(r",(?=\s*(?:https?:|/))", text) if part.strip()]
