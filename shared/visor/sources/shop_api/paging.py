"""Follows the pages of an API, in each way in which APIs page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit, urlunsplit

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from visor.errors import DropItem, SourceError
from visor.http.fetch import Fetched
from visor.http.url_policy import host_of
from visor.schema.items import Record
from visor.sources.contract import SourceConfig
from visor.sources.parse.mapping import Expressions
from visor.sources.parse.text import scalar_text
from visor.sources.secrets import Secrets

_LINK = re.compile(r'<([^>]*)>((?:[^,"]|"(?:[^"\\]|\\.)*")*)')
_REL = re.compile(r';\s*rel\s*=\s*"?([^";]+)', re.IGNORECASE)


class Paging(SourceConfig, frozen=True, kw_only=True):
    """How the API pages. If neither `total` nor `next` shows which page is the last, it is the one before an empty
    page: a short page may only lack products that were sold. `next` and `total` are found in the answer's JSON, or
    else in `body`, `headers` (names in lower case) and `links` (those of the header `Link`: `links.next`)."""

    style: Literal["start", "page", "cursor", "next", "none"] = "start"
    """`start`: by the number of previous rows. `page`: by page number. `cursor`: by a token of the previous page.
    `next`: by a URL in the previous page. `none`: there is one page."""
    param: str | None = None
    """Name of the parameter; by default the style's own name. It is not sent if the source's `url` or `query` has a
    placeholder for the value (`{start}`, `{page}` or `{cursor}`): `limit = "{start},{count}"`."""
    count_param: str | None = "count"
    """Empty: the API does not accept one. Nor is it sent if `url` or `query` has `{count}`."""
    count: Annotated[int, Meta(ge=1, le=10_000)] = 100
    """Rows to request in one page."""
    first: int | None = None
    """Number of the first row (0) or page (1)."""
    next: str | None = None
    """Where the next page's cursor or URL is in a page."""
    total: str | None = None
    """Where the number of all rows is in a page, if anywhere."""

    def __post_init__(self) -> None:
        if self.style in ("cursor", "next") and self.next is None:
            raise ValueError(f"style '{self.style}' needs `next`: where the next cursor or URL is in a page")


def add_query(url: str, values: Mapping[str, str]) -> str:
    """`url` with its query's values replaced or added to."""
    if not values:
        return url
    parts = urlsplit(url)
    kept = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in values]
    return urlunsplit(parts._replace(query=urlencode([*kept, *values.items()])))


def fill(template: str, placeholder: str, value: str) -> str:
    """The URL with the value wherever it has `{placeholder}`, also where that is escaped."""
    return re.sub(f"(?:{{|%7B){placeholder}(?:}}|%7D)", lambda _: quote(value, safe=""), template)


class Position(Record, frozen=True, kw_only=True):
    """The position of the next page in a collection; stored as a part of a checkpoint."""

    number: int = 0
    """Previous rows or pages, for the styles that count."""
    cursor: str | None = None
    """Token or URL, for the styles that do not count."""
    rows: int = 0
    """Rows before it in this collection."""
    pages: int = 0
    """Pages before it in this collection."""
    before: int = 0
    """Rows of the page before it."""
    fullest: int = 0
    """Rows of the largest page so far."""


class Pager:
    """Follows the pages of a collection.

    Args:
        page: The expressions `next` and `total`, which find these values in a page.
    """

    def __init__(self, paging: Paging, page: Expressions, secrets: Secrets) -> None:
        self._paging, self._page, self._secrets = paging, page, secrets

    def first(self) -> Position:
        first = self._paging.first
        return Position(number=first if first is not None else int(self._paging.style == "page"))

    def restore(self, stored: Mapping[str, Any]) -> Position | None:
        """The position of a checkpoint; None if it names the start of a collection."""
        if "number" not in stored:
            return None
        position = msgspec.convert(stored, Position)
        return replace(position, cursor=self._secrets.reveal(position.cursor) if position.cursor else None)

    def store(self, position: Position) -> dict[str, Any]:
        """The position as a part of a checkpoint, without secrets."""
        stored = msgspec.structs.asdict(position)
        return stored if position.cursor is None else {**stored, "cursor": self._secrets.hide(position.cursor)}

    def url(self, position: Position, template: str) -> str:
        """The URL of the page at that position; `template` may have placeholders."""
        paging, cursor = self._paging, position.cursor
        if paging.style == "next" and cursor is not None:
            return cursor
        values: dict[str, tuple[str | None, str]] = {}
        if paging.style != "none":
            values["count"] = (paging.count_param, str(paging.count))
        if paging.style in ("start", "page", "cursor"):
            number = (cursor or "") if paging.style == "cursor" else str(position.number)
            values[paging.style] = (paging.param or paging.style, number)
        query: dict[str, str] = {}
        for placeholder, (name, value) in values.items():
            filled = fill(template, placeholder, value)
            if filled == template and name and value:
                query[name] = value
            template = filled
        return add_query(template, query)

    def is_doubtful(self, position: Position) -> bool:
        """Whether an empty page there is worth another request: the page before it was full, or it is the first."""
        is_full = position.before > 0 and position.before >= position.fullest
        return position.pages == 0 or (is_full and (position.pages > 1 or position.before >= self._paging.count))

    def skipped(self, position: Position) -> Position | None:
        """The position after an unreadable page, which is taken for a full one; None if only it could lead on."""
        if not position.pages or self._paging.style not in ("start", "page"):
            return None
        step = position.fullest if self._paging.style == "start" else 1
        after = replace(position, number=position.number + step, pages=position.pages + 1)
        return replace(after, before=position.fullest, rows=position.rows + position.fullest)

    def total(self, fetched: Fetched, answer: Any) -> int | None:
        """How many rows the collection has, if the API says so, also as `Content-Range` does: `0-24/812`."""
        found = re.fullmatch(r"(?:.*/)?(\d+)", scalar_text(self._found("total", fetched, answer)))
        return int(found[1]) if found else None

    def following(self, position: Position, rows: Sequence[Any], answer: Any, fetched: Fetched) -> Position | None:
        """The position after a page that has those rows, None if it was the last.

        Raises:
            SourceError: The API leads to another host.
        """
        paging = self._paging
        after = replace(
            position,
            rows=position.rows + len(rows),
            pages=position.pages + 1,
            before=len(rows),
            fullest=max(position.fullest, len(rows)),
        )
        if paging.style in ("cursor", "next"):
            return self._following_cursor(position, after, answer, fetched)
        # A total below the number of rows read counts something else: pages, or the rows of one page.
        if paging.style == "none" or self.total(fetched, answer) == after.rows:
            return None
        if not rows and (position.pages == 0 or not self.is_doubtful(position)):
            return None
        step = (len(rows) or position.fullest) if paging.style == "start" else 1
        return replace(after, number=position.number + step)

    def has_shifted(self, position: Position, before: Sequence[str], keys: Sequence[str]) -> bool:
        """Whether a page begins with the last rows of the one before it: something was added meanwhile, or removed.

        An API that counts rows before it leaves some out repeats as many of them; its rows have not shifted.
        """
        if not keys or not keys[0] or keys[0] not in before:
            return False
        repeated = before[before.index(keys[0]) :]
        allowed = position.fullest - position.before if self._paging.style == "start" else 0
        return len(repeated) > allowed and list(keys[: len(repeated)]) == list(repeated)

    def _found(self, name: str, fetched: Fetched, answer: Any) -> Any:
        links = _links(fetched.headers.get("link", ""))
        try:
            with suppress(DropItem):
                if (found := self._page.find(name, answer)) is not None:
                    return found
            return self._page.find(name, {"body": answer, "headers": fetched.headers, "links": links})
        except DropItem as exc:
            raise SourceError(
                f"paging.{name} cannot be found in what {fetched.url.partition('?')[0]} answers: {exc.reason}",
                valid="An expression that finds null where there is none: `meta.next && join('', ['/p/', meta.next])`",
                remedy=f"Correct paging.{name}",
            ) from exc

    def _following_cursor(self, position: Position, after: Position, answer: Any, fetched: Fetched) -> Position | None:
        found, url = self._found("next", fetched, answer), fetched.url
        is_url = self._paging.style == "next"
        if is_url and isinstance(found, str) and found.startswith("<"):
            found = _links(found).get("next")
        if found in (None, "", False):
            return None
        try:
            cursor = urljoin(url, str(found)) if is_url else str(found)
        except ValueError as exc:
            raise SourceError(
                f"paging.next finds {str(found)!r:.200}, which is not a URL",
                valid="The URL of the next page, or null",
                remedy="Correct paging.next",
            ) from exc
        if is_url and url.startswith("https:"):
            # Behind a proxy that ends TLS, a shop assumes that it has none.
            cursor = re.sub("^http://([^/?#]*?)(?::(?:80|443))?(?=[/?#]|$)", r"https://\1", cursor)
        if cursor == position.cursor:
            # The last page of some APIs names itself.
            return None
        if is_url and host_of(cursor) != host_of(url):
            raise SourceError(
                f"The API's next page is on another host: {host_of(cursor)}",
                valid=f"Pages of {host_of(url)}, to which the configuration's keys may be sent",
                remedy="Correct paging.next or the source's url",
            )
        return replace(after, cursor=cursor)


def _links(header: str) -> dict[str, str]:
    """The URLs of a header `Link` (RFC 8288), by their relation to the page (`rel`)."""
    found = [(url, _REL.search(parameters)) for url, parameters in _LINK.findall(header)]
    return {rel: url for url, rels in found if rels for rel in rels[1].lower().split()}
