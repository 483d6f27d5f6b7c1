"""`feed`: a product feed in Google's format (RSS, Atom, TSV, CSV), as Schema.org's JSON-LD, or as JSON Lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TextIO
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta

from visor.errors import DropItem, SourceError
from visor.http.fetch import FetchedStream
from visor.http.retry import RetryPolicy
from visor.schema.items import Item
from visor.sources.client import RetryingClient
from visor.sources.contract import Page, Place, RowErrors, SourceConfig, SourceContext, page_of, slices
from visor.sources.feed.rows import ATTRIBUTES, BadRow, FeedRow, attribute_name, json_rows, table_rows, xml_rows
from visor.sources.parse import schema_org
from visor.sources.parse.encoding import open_text, unpacked
from visor.sources.parse.item import date_of, is_no_url, make_item, page_url_of, resolve_url
from visor.sources.parse.json import NotJson, parse_json
from visor.sources.parse.price import DecimalSign, Money, PriceReader, currency_in, is_zero
from visor.sources.parse.text import TITLE_LENGTH_MAX, country_code, iso_date, plain_text, scalar_text

PAGE_SIZE = 1000
"""Rows of one page."""
READS_MIN = 2
"""Complete reads of a feed, after which the source only checks whether it has changed."""
DOCUMENT_LENGTH_MAX = 64_000_000
"""Characters of a JSON-LD document, which is read whole."""
EXTRA = ("availability", "brand", "condition", "gtin", "color", "size", "material", "item_group_id")
"""Attributes that the page may show."""
OUT_OF_STOCK = frozenset({"outofstock", "discontinued", "soldout", "notinstock", "unavailable"})
"""Availabilities that mean an item cannot be bought, reduced to their letters."""
SCHEMA_TYPES = (*schema_org.PRODUCTS, "ImageObject")

_PICTURE = re.compile(r"(?:https?:/)?/\S+\.(?:jpe?g|png|webp|avif|gif)(?:\?\S*)?\Z", re.I)
_XML_BEHIND = re.compile(r"(?s:.{1,2000}?)\n\s*<(?:\?xml|rss|feed|rdf:RDF)[\s>]")
"""The beginning of XML below a program's warnings."""
_BETWEEN = re.compile(r"\s*,\s*|\s+(?:[-–—]|to|bis|until)\s+")
"""Other signs than `/` between the two ends of a period."""
_SEVERAL = re.compile(r",(?=\s*(?:https?:|/))|[;|](?=\s*https?:)|\s+(?=https?:)")

Format = Literal["auto", "xml", "table", "json_lines", "json", "json_ld"]


class FeedConfig(SourceConfig, frozen=True, kw_only=True):
    """The keys of a `feed` source."""

    url: Annotated[str, Meta(min_length=1)]
    """URL of the feed."""
    format: Format = "auto"
    """Set it only if it is not detected."""
    delimiter: Annotated[str, Meta(min_length=1, max_length=1)] | None = None
    """Between the columns of a table, if it is not detected."""
    encoding: str | None = None
    """Name of its encoding, if it is not detected."""
    attributes: dict[str, str] = msgspec.field(default_factory=dict)
    """This feed's own names for Google's attributes: { image_link = "Bild-URL" }."""
    pictures: Literal["first", "all"] = "first"
    """`all`: each additional picture is an item, too."""
    in_stock_only: bool = False
    """Leave out what is out of stock."""
    currency: str | None = None
    """Of prices that name none."""
    decimal: DecimalSign | None = None
    """The sign before decimals in prices that are texts."""
    country: str | None = None
    """Of items that name none."""
    licence: str | None = None
    """Of items that name none."""
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    """Sent with the request."""
    patience: RetryPolicy = RetryPolicy()
    bytes_max: int = 8_000_000_000
    """Size of the unpacked feed."""
    deadline_s: float = 3300.0
    """How long reading it may take."""


class _Written(NamedTuple):
    """A price as a row has it."""

    value: Any
    text: str
    currency: str | None
    """The currency next to its value."""


class FeedSource:
    """Streams the feed. The checkpoint is the number of rows read and the validators of what they were read from.

    A resumed run reads the rows before its checkpoint again and skips them. If the feed has changed since, rows may
    have moved across that point, so the rest of the pass counts as partial: no item is reported missing.
    """

    Config: ClassVar[type[SourceConfig]] = FeedConfig

    def __init__(self, name: str, config: FeedConfig, context: SourceContext) -> None:
        self.name = name
        self._config = config
        self._context = context
        self._client = RetryingClient(name, context, patience=config.patience, headers=config.headers)
        self._renamed = {attribute_name(theirs): ours for ours, theirs in config.attributes.items()}

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        """See `visor.sources.contract` for the contract."""
        before = checkpoint or {}
        start, reads = int(before.get("rows", 0)), int(before.get("reads", 0))
        known = {name: before.get(name) for name in ("etag", "modified")}
        # When the next sale that the rows name begins or ends, in seconds since 1970.
        prices_until: float | None = before.get("prices_until")
        is_due = prices_until is not None and self._context.clock() >= prices_until
        # An item counts as deleted only after two passes have missed it, so a changed feed is read twice.
        self._prices = PriceReader(self._config.decimal, before.get("signs", ()))
        held: dict[str, Any] = known if reads >= READS_MIN and not start and not is_due else {}
        config = self._config
        with (
            self._client.required(),
            self._client.stream(config.url, bytes_max=config.bytes_max, deadline_s=config.deadline_s, **held) as stream,
        ):
            if stream.not_modified:
                yield Page(partial=True, next_pass=dict(before))
                return
            validators = {"etag": stream.etag, "modified": stream.modified}
            is_same = validators == known
            moved = start > 0 and not (is_same and any(known.values()))
            state = {
                **validators,
                "reads": reads if start else reads * is_same + 1,
                "partial": moved or bool(before.get("partial")),
                **({"prices_until": prices_until} if start and prices_until is not None else {}),
            }
            yield from self._pages(self._rows(stream), start, state, stream.url)

    def _pages(self, rows: Iterator[FeedRow], start: int, state: dict[str, Any], url: str) -> Iterator[Page]:
        for _ in islice(rows, start):
            pass
        rows = (FeedRow(line, values if isinstance(values, BadRow) else self._google(values)) for line, values in rows)
        partial, done = bool(state["partial"]), start
        # Without a validator, or if rows may have moved, the next pass cannot ask whether the feed has changed.
        can_ask = bool(state["etag"] or state["modified"]) and not partial
        for some, is_last in slices(rows, PAGE_SIZE):
            done += len(some)
            read = [row.values for row in some if not isinstance(row.values, BadRow)]
            written = [_first(row.get(name)) for row in read for name in ("price", "sale_price")]
            self._prices.learn(written, machine=self._is_machine)
            signs = sorted(self._prices.seen)
            known = [state["prices_until"]] if "prices_until" in state else []
            if changes := [*known, *self._price_changes(read)]:
                state["prices_until"] = min(changes)
            kept = {name: state[name] for name in ("etag", "modified", "reads", "prices_until") if name in state}
            yield page_of(
                self._pictures(some),
                lambda picture, errors: self._item(*picture, url, errors),
                checkpoint=None if is_last else {**state, "rows": done, "signs": signs},
                partial=partial,
                next_pass=kept if is_last and can_ask else None,
            )

    def _pictures(self, rows: Iterable[FeedRow]) -> Iterator[tuple[str, tuple[Mapping[str, Any] | BadRow, int]]]:
        """Each picture that becomes an item: its key, its row, and its number in the row."""
        for line, values in rows:
            key, count = "", 1
            if not isinstance(values, BadRow):
                key = _key(values)
                if self._config.pictures == "all":
                    # A row without a picture is one row that failed.
                    count = len(_addresses(values)) or 1
            for number in range(count):
                yield _numbered(key, number) if key else Place(f"line {line}"), (values, number)

    def _rows(self, stream: FetchedStream) -> Iterator[FeedRow]:
        data = unpacked(stream.chunks, self._config.bytes_max)
        text, start = open_text(data, promised=self._config.encoding or stream.charset)
        form = self._config.format if self._config.format != "auto" else _sniffed(start, stream.url)
        self._is_machine = form not in ("xml", "table")
        if form == "xml":
            return xml_rows(text)
        if form == "table":
            return table_rows(text, self._config.delimiter)
        if form == "json_lines":
            return json_rows(text)
        return self._document_rows(text)

    def _document_rows(self, text: TextIO) -> Iterator[FeedRow]:
        document = text.read(DOCUMENT_LENGTH_MAX + 1)
        if len(document) > DOCUMENT_LENGTH_MAX:
            raise SourceError(
                f"Source '{self.name}': the document has more than {DOCUMENT_LENGTH_MAX} characters",
                remedy="Offer it as JSON Lines: one product per line",
            )
        try:
            content = parse_json(document)
        except NotJson as exc:
            raise SourceError(f"Source '{self.name}': the feed is not JSON: {exc}") from exc
        products: list[Any] = list(schema_org.products(schema_org.graph(content), SCHEMA_TYPES))
        if not products and isinstance(content, list):
            products = content
        elif not products:
            found = ", ".join(content) if isinstance(content, Mapping) else repr(content)
            raise SourceError(
                f"Source '{self.name}': the JSON document holds no product, but {found:.100}",
                valid=f"A list of products, JSON Lines, or Schema.org's {', '.join(SCHEMA_TYPES)}",
                remedy='If its products stand below one of these, read it with kind = "shop_api" and items = "…"',
            )
        rows = (row if isinstance(row, Mapping) else BadRow("it is not a JSON object") for row in products)
        return (FeedRow(at, row) for at, row in enumerate(rows, 1))

    def _google(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row with Google's attribute names."""
        if schema_org.type_names(row) & frozenset(SCHEMA_TYPES):
            return schema_org.product_row(schema_org.graph(row), self._context.now().isoformat())
        named = {attribute_name(name): value for name, value in row.items()}
        ours = {self._renamed[name]: value for name, value in named.items() if name in self._renamed}
        return named | ours

    def _item(self, row: Mapping[str, Any] | BadRow, number: int, url: str, errors: RowErrors) -> Item | None:
        """The item of a row's picture, 0 being its `image_link`."""
        if isinstance(row, BadRow):
            raise DropItem(row.reason)
        pictures = _addresses(row)
        texts = {name: _one(value) for name, value in row.items()}
        said = texts.get
        key = _key(row)
        if not key:
            raise DropItem("it has no id")
        if not pictures:
            raise DropItem("it has no image_link" + _instead(row))
        availability = re.sub(r"[\W_]", "", said("availability", "").lower().rpartition("/")[2])
        if self._config.in_stock_only and availability in OUT_OF_STOCK:
            errors.pass_over("out of stock")
            return None
        key = _numbered(key, number)
        money, instead_of = self._money(key, row, texts, errors)
        extra = {name: plain_text(said(name), 200) for name in EXTRA} | money.extra
        if row.get("price_text") and money.amount is not None:
            extra["price_text"] = str(row["price_text"])
        if instead_of:
            extra["regular_price"] = instead_of
        return make_item(
            self.name,
            key,
            resolve_url(pictures[number], url, "picture"),
            page_url=page_url_of(key, said("link"), url, errors),
            title=plain_text(said("title"), TITLE_LENGTH_MAX),
            description=plain_text(said("description")) or None,
            price=money.amount,
            currency=money.currency,
            collection=_collection(texts),
            country=country_code(said("country")) or self._config.country,
            date=date_of(key, said("date") or said("updated") or said("pubdate"), errors),
            licence=said("licence") or self._config.licence,
            author=said("author") or None,
            group=said("item_group_id")
            or (_key(row) if self._config.pictures == "all" and len(pictures) > 1 else None),
            extra=extra,
        )

    def _money(
        self, key: str, row: Mapping[str, Any], texts: Mapping[str, str], errors: RowErrors
    ) -> tuple[Money, str]:
        """The price of a row now, and the text of its regular price if that is another one."""
        regular, sale = self._written(row, "price"), self._written(row, "sale_price")
        named = texts.get("currency") or self._config.currency
        money = before = Money()
        period = texts.get("sale_price_effective_date", "")
        if sale.text and not is_zero(sale.text) and self._is_now(key, period, errors):
            currency = sale.currency or named or regular.currency or currency_in(regular.text)
            money = self._prices.read(key, sale.value, currency, errors, machine=self._is_machine)
        if money.amount is None or regular.text:
            before = self._prices.read(key, regular.value, regular.currency or named, errors, machine=self._is_machine)
        if money.amount is None or not before.amount:
            return (before if money.amount is None else money), ""
        if money.amount >= before.amount and before.currency in (money.currency, None):
            # Programs write the price twice if there is no sale; a greater one may be in the wrong column.
            if money.amount > before.amount:
                reason = f"sale_price {sale.text!r:.40} is above price {regular.text!r:.40}, which counts"
                errors.add(key, reason, dropped=False)
            return before, ""
        return money, regular.text

    def _written(self, row: Mapping[str, Any], name: str) -> _Written:
        value = _first(row.get(name))
        if not isinstance(value, Mapping):
            return _Written(value, scalar_text(value), None)
        currency = scalar_text(value.get("currency") or value.get("currencyCode")) or None
        micros = scalar_text(value.get("amountMicros"))
        value = float(micros) / 1e6 if micros.isdecimal() else value.get("value", value.get("amount"))
        return _Written(value, f"{scalar_text(value)} {currency or ''}".strip(), currency)

    def _is_now(self, key: str, period: str, errors: RowErrors) -> bool:
        """Whether `2026-05-01T00:00+0100/2026-05-08T00:00+0100` is under way. A side without a date is open; one with a
        date that cannot be read is reported, and the sale may be over."""
        now, sides = self._context.now(), _sides(period)
        if any(re.search("[1-9]", side) and not side.startswith("0001") and _moment(side) is None for side in sides):
            reason = f"sale_price_effective_date {period!r:.80} is not a period such as 2026-05-01/2026-05-08"
            errors.add(key, f"{reason}: its regular price counts", dropped=False)
            return False
        begins, ends = _period(period)
        return (begins is None or begins <= now) and (ends is None or now <= ends)

    def _price_changes(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[float]:
        """When sales of those rows will begin or end."""
        now = self._context.now()
        for row in rows:
            if row.get("sale_price"):
                moments = _period(_one(row.get("sale_price_effective_date")))
                yield from (moment.timestamp() for moment in moments if moment and moment > now)


def _sides(period: str) -> tuple[str, str]:
    between = _BETWEEN.search(period)
    start, _, end = period.partition(between[0] if between else "/")
    return start.strip(), end.strip()


def _period(text: str) -> tuple[datetime | None, datetime | None]:
    """The beginning and the end of a period; the last day belongs to it."""
    start, end = _sides(text)
    ends = _moment(end)
    if ends and len(iso_date(end) or "") == len("2026-05-01"):
        with suppress(OverflowError):
            ends += timedelta(days=1)
    return _moment(start), ends


def _moment(text: str) -> datetime | None:
    """The time of a date (`iso_date`), in local time if it names no zone; None for anything else. Only a time without a
    zone is converted: 9999-12-31T23:59-08:00, which means for ever, cannot be converted to UTC."""
    try:
        moment = datetime.fromisoformat(iso_date(text) or "")
        return moment if moment.tzinfo else moment.astimezone()
    except (ValueError, OverflowError):
        return None


def _sniffed(start: str, url: str) -> Format:
    """The format of a text by its beginning; file names and media types of feeds are often wrong."""
    start = start.lstrip()
    if start.startswith("<") or _XML_BEHIND.match(start):
        return "xml"
    if start.startswith("["):
        return "json"
    if not start.startswith("{"):
        return "table"
    line = start.partition("\n")[0]
    try:
        row = parse_json(line)
    except NotJson:
        is_lines = Path(unquote(urlsplit(url).path)).suffix in (".jsonl", ".ndjson")
    else:
        # A product's row has a name or a picture itself; a document on one line has a list of products.
        lists = [value for value in row.values() if isinstance(value, list) and isinstance(_first(value), dict)]
        names = {attribute_name(name) for name in row if not name.startswith("@")}
        is_lines = not lists or not names.isdisjoint({"id", "image_link", "image"})
    return "json_lines" if is_lines else "json"


def _collection(texts: Mapping[str, str]) -> str | None:
    """The shop's own category, else Google's if it is written out (`Apparel > Shoes`), not a number."""
    for name in ("product_type", "google_product_category", "category"):
        text = plain_text(texts.get(name), 200)
        if text and not text.isdigit():
            return " > ".join(part.strip() for part in re.split(r">|/(?=\s)", text) if part.strip())
    return None


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _one(value: Any) -> str:
    return scalar_text(_first(value))


def _key(row: Mapping[str, Any]) -> str:
    return _one(row.get("id")) or _one(row.get("link")) or _one(row.get("guid"))


def _numbered(key: str, number: int) -> str:
    return key if number == 0 else f"{key}#{number}"


def _instead(row: Mapping[str, Any]) -> str:
    """The attribute of another name that holds a row's picture, as a feed may have since its maker renamed it."""
    found = next((name for name, value in row.items() if name not in ATTRIBUTES and _PICTURE.match(_one(value))), "")
    return found and f", but a picture under {found!r}: set attributes = {{ image_link = {found!r} }}"


def _addresses(row: Mapping[str, Any]) -> list[str]:
    """Those of a row's pictures, its own first."""
    return [*_many(row.get("image_link")), *_many(row.get("additional_image_link"))]


def _many(value: Any) -> list[str]:
    """The texts of repeated attributes; in tables, additional pictures are separated by commas, or by other signs
    before the next `http`. Texts that stand for no value are left out."""
    parts = [_one(part) for part in value] if isinstance(value, list) else _SEVERAL.split(_one(value))
    return [part.strip() for part in parts if part.strip() and not is_no_url(part)]
