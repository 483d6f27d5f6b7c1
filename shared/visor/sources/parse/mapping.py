"""From a row of any JSON to an item, by JMESPath expressions that stand in the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError
from jmespath.parser import ParsedResult

from visor.errors import DropItem, SettingsError
from visor.schema.items import Item, item_id
from visor.sources.contract import RowErrors, SourceConfig
from visor.sources.parse.price import UnreadablePrice, currency_code, parse_price
from visor.sources.parse.text import TITLE_LENGTH_MAX, country_code, iso_date, plain_text


class Fields(SourceConfig, frozen=True, kw_only=True):
    """Where each field of an item stands in a row: JMESPath expressions (https://jmespath.org)."""

    key: str
    """The source's own stable key."""
    image_url: str
    page_url: str | None = None
    title: str | None = None
    description: str | None = None
    price: str | None = None
    currency: str | None = None
    collection: str | None = None
    country: str | None = None
    date: str | None = None
    licence: str | None = None
    author: str | None = None
    image_etag: str | None = None
    image_modified: str | None = None
    extra: dict[str, str] = msgspec.field(default_factory=dict)


class Defaults(SourceConfig, frozen=True, kw_only=True):
    """What an item has where its row says nothing."""

    title: str = ""
    description: str | None = None
    currency: str | None = None
    collection: str | None = None
    country: str | None = None
    licence: str | None = None
    author: str | None = None
    extra: dict[str, str] = msgspec.field(default_factory=dict)


class Expressions:
    """JMESPath expressions, compiled once.

    Raises:
        SettingsError: One cannot be compiled; names its key.
    """

    def __init__(self, expressions: Mapping[str, str | None], where: str) -> None:
        self._where = where
        self._compiled = {name: self._compile(name, text) for name, text in expressions.items() if text is not None}

    def __contains__(self, name: str) -> bool:
        return name in self._compiled

    def find(self, name: str, row: Any) -> Any:
        """What the expression finds in `row`; None where there is no such expression or nothing is found.

        Raises:
            DropItem: The row holds values that the expression cannot work on.
        """
        if name not in self._compiled:
            return None
        try:
            return self._compiled[name].search(row)
        except JMESPathError as exc:
            raise DropItem(f"{name}: {exc!s:.200}") from exc

    def _compile(self, name: str, text: str) -> ParsedResult:
        try:
            return jmespath.compile(text)
        except JMESPathError as exc:
            raise SettingsError(
                f"{self._where}.{name} = {text!r} is no JMESPath expression: {' '.join(str(exc).split()):.200}",
                valid="Such as 'photo.url', 'images[0].src' or 'to_string(id)'; see https://jmespath.org",
                remedy="Correct the expression",
            ) from exc


class RowMapping:
    """Makes items of rows.

    Args:
        source: The source's name.
        where: The place in the configuration, which errors name.
        only: An expression that has to find something true; other rows are passed over.
        minor_units: Prices count cents.
    """

    def __init__(
        self,
        source: str,
        fields: Fields,
        *,
        where: str,
        defaults: Defaults | None = None,
        only: str | None = None,
        minor_units: bool = False,
    ) -> None:
        expressions = {name: text for name, text in msgspec.structs.asdict(fields).items() if name != "extra"}
        self._source = source
        self._fields = Expressions(expressions, f"{where}.fields")
        self._extra = Expressions(fields.extra, f"{where}.fields.extra")
        self._extra_names = tuple(fields.extra)
        self._only = Expressions({"only": only}, where)
        self._defaults = defaults or Defaults()
        self._minor_units = minor_units

    def key(self, row: Any) -> str:
        """The row's own key; an empty text if it has none."""
        try:
            return _text(self._fields.find("key", row))
        except DropItem:
            return ""

    def item(self, row: Any, *, base_url: str, collection: str | None, errors: RowErrors) -> Item | None:
        """The item of a row; None for one that `only` leaves out.

        Args:
            base_url: What relative addresses in the row are relative to.
            collection: The collection that was being read, for rows that name none themselves.

        Raises:
            DropItem: The row has no key or no address of a picture, or is no JSON object.
        """
        if not isinstance(row, Mapping):
            raise DropItem(f"a row is no JSON object but {str(row)!r:.60}")
        if "only" in self._only and not self._only.find("only", row):
            return None
        key = _text(self._fields.find("key", row))
        if not key:
            raise DropItem("it has no key")
        defaults = self._defaults
        price, currency = self._price(key, row, errors)
        extra = {name: plain_text(self._extra.find(name, row)) for name in self._extra_names}
        return Item(
            id=item_id(self._source, key),
            source=self._source,
            key=key,
            image_url=resolve_url(self._fields.find("image_url", row), base_url, "picture"),
            page_url=resolve_url_or_none(self._fields.find("page_url", row), base_url, key, errors),
            title=plain_text(self._fields.find("title", row), TITLE_LENGTH_MAX) or defaults.title,
            description=self._text("description", row) or defaults.description,
            price=price,
            currency=currency or currency_code(defaults.currency) if price is not None else None,
            collection=self._text("collection", row) or collection or defaults.collection,
            country=country_code(self._fields.find("country", row)) or defaults.country,
            date=iso_date(self._fields.find("date", row)),
            licence=self._text("licence", row) or defaults.licence,
            author=self._text("author", row) or defaults.author,
            image_etag=self._text("image_etag", row),
            image_modified=self._text("image_modified", row),
            extra=defaults.extra | {name: value for name, value in extra.items() if value},
        )

    def _text(self, name: str, row: Any) -> str | None:
        return plain_text(self._fields.find(name, row)) or None

    def _price(self, key: str, row: Any, errors: RowErrors) -> tuple[float | None, str | None]:
        value = self._fields.find("price", row)
        if value in (None, ""):
            return None, None
        said = _text(self._fields.find("currency", row)) or self._defaults.currency
        try:
            return parse_price(value, said, minor_units=self._minor_units)
        except UnreadablePrice as exc:
            errors.add(key, exc.reason, dropped=False)
            return None, None


def resolve_url(value: Any, base_url: str, what: str) -> str:
    """An absolute http(s) address."""
    if not isinstance(value, str) or not value.strip():
        raise DropItem(f"it has no address of a {what}" + (f" but {str(value)!r:.80}" if value else ""))
    try:
        url = urljoin(base_url, value.strip())
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not an http(s) address")
    except ValueError as exc:
        raise DropItem(f"its address of a {what} cannot be used: {value!r:.120} ({exc})") from exc
    return url.replace(" ", "%20")


def resolve_url_or_none(value: Any, base_url: str, key: str, errors: RowErrors) -> str | None:
    """An absolute http(s) address of a page; one that cannot be used is told, and the item stays."""
    if value in (None, ""):
        return None
    try:
        return resolve_url(value, base_url, "page")
    except DropItem as exc:
        errors.add(key, exc.reason, dropped=False)
        return None


def _text(value: Any) -> str:
    """Keys and codes: texts and numbers as they are written, everything else nothing."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return ""
