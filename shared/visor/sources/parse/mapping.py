"""From a row of any JSON to an item, by JMESPath expressions from the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError
from jmespath.parser import ParsedResult

from visor.errors import DropItem, SettingsError
from visor.schema.items import Item
from visor.sources.contract import RowErrors, SourceConfig
from visor.sources.parse.item import date_of, make_item, page_url_of, resolve_url
from visor.sources.parse.price import DecimalSign, PriceReader, currency_code
from visor.sources.parse.text import TITLE_LENGTH_MAX, country_code, plain_text, scalar_text


class Fields(SourceConfig, frozen=True, kw_only=True):
    """Where each field of an item is in a row: JMESPath expressions (https://jmespath.org)."""

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
    group: str | None = None
    """The source's own key of the product of which the item is a picture or variant."""
    image_etag: str | None = None
    image_modified: str | None = None
    extra: dict[str, str] = msgspec.field(default_factory=dict)


class Defaults(SourceConfig, frozen=True, kw_only=True):
    """Values of an item for which its row has none."""

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
        """What the expression finds in `row`; None if there is no such expression or nothing is found.

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
                f"{self._where}.{name} = {text!r} is not a JMESPath expression: {' '.join(str(exc).split()):.200}",
                valid="Such as 'photo.url', 'images[0].src' or 'to_string(id)'; see https://jmespath.org",
                remedy="Correct the expression",
            ) from exc


class RowMapping:
    """Makes items of rows.

    Args:
        source: The source's name.
        where: The key in the configuration, which errors name.
        only: An expression that must find something true; other rows are passed over.
        minor_units: Prices count cents; or an expression that finds how many decimals they have.
        decimal: The sign before decimals in prices that are texts.
    """

    def __init__(
        self,
        source: str,
        fields: Fields,
        *,
        where: str,
        defaults: Defaults,
        only: str | None = None,
        minor_units: bool | str = False,
        decimal: DecimalSign | None = None,
    ) -> None:
        expressions = {name: text for name, text in msgspec.structs.asdict(fields).items() if name != "extra"}
        self._source = source
        self._fields = Expressions(expressions, f"{where}.fields")
        self._extra = Expressions(fields.extra, f"{where}.fields.extra")
        self._extra_names = tuple(fields.extra)
        places = minor_units if isinstance(minor_units, str) else None
        self._row = Expressions({"only": only, "price_in_minor_units": places}, where)
        self._defaults = defaults
        self._minor_units = minor_units
        self._prices = PriceReader(decimal)

    def key(self, row: Any) -> str:
        """The row's own key; an empty text if it has none."""
        return scalar_text(self._found("key", row))

    def learn(self, rows: Iterable[Any]) -> None:
        """Learn how the rows of a page write their prices; call it before the first of them is read.

        Pages do not learn from each other, so a pass that resumes at one reads the same.
        """
        self._prices.seen.clear()
        values = [self._found("price", row) for row in rows]
        for machine in (True, False):
            self._prices.learn((value for value in values if _is_number(value) is machine), machine=machine)

    def _found(self, name: str, row: Any) -> Any:
        try:
            return self._fields.find(name, row)
        except DropItem:
            return None

    def _places(self, row: Any) -> bool | int:
        """Whether, or by how many decimals, the row's price counts minor units."""
        if isinstance(self._minor_units, bool):
            return self._minor_units
        found = scalar_text(self._row.find("price_in_minor_units", row))
        return int(found) if re.fullmatch(r"\d", found) else True

    def item(
        self, row: Any, *, base_url: str, collection: str | None, errors: RowErrors, group: str | None = None
    ) -> Item | None:
        """The item of a row; None for one that `only` leaves out.

        Args:
            base_url: What relative URLs in the row are relative to.
            collection: The collection that is being read, for rows that do not name one.
            group: Likewise the product.

        Raises:
            DropItem: The row has no key or no URL of an image, or is not a JSON object.
        """
        if not isinstance(row, Mapping):
            raise DropItem(f"a row is not a JSON object but {str(row)!r:.60}")
        if "only" in self._row and not self._row.find("only", row):
            errors.pass_over("left out by only")
            return None

        def value(name: str) -> Any:
            return self._fields.find(name, row)

        def text(name: str) -> str | None:
            return plain_text(value(name)) or None

        key = scalar_text(value("key"))
        if not key:
            raise DropItem("it has no key")
        defaults = self._defaults
        named = scalar_text(value("currency")) or defaults.currency
        written = value("price")
        is_number, places = _is_number(written), self._places(row)
        money = self._prices.read(key, written, named, errors, machine=is_number, minor_units=places)
        extra = {name: plain_text(self._extra.find(name, row)) for name in self._extra_names}
        return make_item(
            self._source,
            key,
            resolve_url(value("image_url"), base_url, "picture"),
            page_url=page_url_of(key, value("page_url"), base_url, errors),
            title=plain_text(value("title"), TITLE_LENGTH_MAX) or defaults.title,
            description=text("description") or defaults.description,
            price=money.amount,
            currency=money.currency or currency_code(defaults.currency),
            collection=text("collection") or collection or defaults.collection,
            country=country_code(value("country")) or defaults.country,
            date=date_of(key, value("date"), errors),
            licence=text("licence") or defaults.licence,
            author=text("author") or defaults.author,
            group=scalar_text(value("group")) or group,
            image_etag=text("image_etag"),
            image_modified=text("image_modified"),
            extra=defaults.extra | {name: found for name, found in extra.items() if found} | money.extra,
        )


def _is_number(value: Any) -> bool:
    """Whether a price is a number that a program wrote, as text or not: without words or signs."""
    return not isinstance(value, str) or not any(letter.isalpha() or letter in "$€£¥₹" for letter in value)
