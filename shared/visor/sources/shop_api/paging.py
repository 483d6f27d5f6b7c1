"""The ways in which APIs page, and where in one a reader is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from msgspec import Meta

from visor.errors import SourceError
from visor.sources.contract import SourceConfig
from visor.sources.parse.mapping import Expressions
from visor.sources.secrets import Secrets


class Paging(SourceConfig, frozen=True, kw_only=True):
    """How the API pages. Unless `total` or `next` says it, a page shorter than `count`, or empty, is the last."""

    style: Literal["start", "page", "cursor", "next", "none"] = "start"
    """`start`: by the number of rows before. `page`: by page number. `cursor`: by a token of the page before.
    `next`: by an address in the page before. `none`: there is one page."""
    param: str | None = None
    """Name of the parameter; by default the style's own name."""
    count_param: str | None = "count"
    """None: the API does not take one."""
    count: Annotated[int, Meta(ge=1, le=10_000)] = 100
    """Rows to ask for in one page."""
    first: int | None = None
    """Number of the first row (0) or page (1)."""
    next: str | None = None
    """Where the next page's cursor or address stands in a page."""
    total: str | None = None
    """Where the number of all rows stands in a page, if anywhere."""

    def __post_init__(self) -> None:
        if self.style in ("cursor", "next") and self.next is None:
            raise ValueError(f"style '{self.style}' needs `next`: where the next cursor or address stands in a page")


def add_query(url: str, values: Mapping[str, str]) -> str:
    """`url` with its query's values replaced or added to."""
    if not values:
        return url
    parts = urlsplit(url)
    kept = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in values]
    return urlunsplit(parts._replace(query=urlencode([*kept, *values.items()])))


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where in a collection the next page stands."""

    paging: Paging | None = None
    number: int = 0
    """Rows or pages before, for the styles that count."""
    cursor: str | None = None
    """Token or address, for those that do not."""
    rows_before: int = 0
    page_at: int = 0
    """Pages before it in this collection."""

    @classmethod
    def first(cls, paging: Paging) -> Position:
        number = paging.first if paging.first is not None else (1 if paging.style == "page" else 0)
        return cls(paging=paging, number=number)

    @classmethod
    def restore(cls, stored: Mapping[str, Any], paging: Paging, secrets: Secrets) -> Position | None:
        """The position of a checkpoint; None where it names the start of a collection."""
        if "number" not in stored:
            return None
        cursor = stored.get("cursor")
        return cls(
            paging=paging,
            number=int(stored["number"]),
            cursor=secrets.reveal(str(cursor)) if cursor is not None else None,
            rows_before=int(stored.get("rows", 0)),
            page_at=int(stored.get("pages", 0)),
        )

    @property
    def is_cursor(self) -> bool:
        return self.cursor is not None

    def url(self, template: str) -> str:
        paging = self.paging
        assert paging is not None
        if paging.style == "next" and self.cursor is not None:
            return self.cursor
        query: dict[str, str] = {}
        if paging.count_param is not None and paging.style != "none":
            query[paging.count_param] = str(paging.count)
        if paging.style in ("start", "page"):
            query[paging.param or paging.style] = str(self.number)
        elif paging.style == "cursor" and self.cursor is not None:
            query[paging.param or "cursor"] = self.cursor
        return add_query(template, query)

    def following(self, rows: list[Any], answer: Any, url: str, page: Expressions, paging: Paging) -> Position | None:
        """The position after a page, None if it was the last.

        Raises:
            SourceError: The API leads in a circle, or out of its own host.
        """
        seen = self.rows_before + len(rows)
        after = replace(self, rows_before=seen, page_at=self.page_at + 1)
        if paging.style == "none":
            return None
        if paging.style in ("cursor", "next"):
            return self._following_cursor(after, page.find("next", answer), url, paging)
        total = page.find("total", answer)
        if not rows:
            return None
        if isinstance(total, int | str) and str(total).isdigit():
            if seen >= int(total):
                return None
        elif paging.count_param is not None and len(rows) < paging.count:
            return None
        return replace(after, number=self.number + (len(rows) if paging.style == "start" else 1))

    def _following_cursor(self, after: Position, found: Any, url: str, paging: Paging) -> Position | None:
        if found in (None, "", False):
            return None
        cursor = urljoin(url, str(found)) if paging.style == "next" else str(found)
        if cursor == self.cursor:
            raise SourceError(
                "The API names the same next page twice",
                valid="Each page names the one after it, the last none",
                remedy="Correct paging.next",
            )
        if paging.style == "next" and urlsplit(cursor).netloc != urlsplit(url).netloc:
            raise SourceError(
                f"The API's next page is on another host: {urlsplit(cursor).netloc}",
                valid=f"Pages of {urlsplit(url).netloc}, to which the configuration's keys may be sent",
                remedy="Correct paging.next or the source's url",
            )
        return replace(after, cursor=cursor)

    def store(self, secrets: Secrets) -> dict[str, Any]:
        """The position as a part of a checkpoint, without secrets."""
        stored: dict[str, Any] = {"number": self.number, "rows": self.rows_before, "pages": self.page_at}
        if self.cursor is not None:
            stored["cursor"] = secrets.hide(self.cursor)
        return stored
