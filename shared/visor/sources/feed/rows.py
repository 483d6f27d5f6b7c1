"""Rows of product feeds: XML (RSS 2.0, Atom), tables (TSV, CSV) and JSON Lines, from a stream of text.

Each row is a mapping of attribute names as Google's product data specification writes them (`image_link`) to texts, or
lists of texts where an attribute is repeated. A broken row is a `BadRow` and does not disturb the others.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple, TextIO
from xml.etree import ElementTree

from visor.errors import SourceError
from visor.sources.parse.json import NotJson, parse_json
from visor.sources.parse.xml import repaired

ROW_LENGTH_MAX = 1_000_000
"""Characters of one row; a longer row counts as broken."""
PIECE_LENGTH = 8192
"""Characters of an XML feed that are read at a time."""
csv.field_size_limit(ROW_LENGTH_MAX)
LINES_OF_A_ROW_MAX = 100
"""A quoted value of a table may have line breaks; a quote that is not closed within this many lines is a mistake."""

CUT_OFF = "the feed ends within it"
_FAILURE = re.compile(
    r"\b(?:(?:fatal|parse|internal(?: server)?|database|sql|runtime|uncaught|unhandled) (?:error|exception)|sqlstate"
    r"|ora-\d{5}|allowed memory size|maximum execution time|out of memory|traceback \(most recent|too many connections"
    r"|(?:statement|connection|query|lock wait) timed? ?out)|\A\W*(?:error|exception)\b[^\w\s]",
    re.I,
)
"""Text that a program writes between a feed's rows when it fails."""

_ROW = r"((?:[\w.-]+:)?(?:item|entry))(?=[\s>/])"
_XML_PIECES = re.compile(rf"<!\[CDATA\[.*?(?:\]\]>|\Z)|<!--.*?(?:-->|\Z)|<(/?){_ROW}[^>]*?(/?)>", re.S)
_ROOT = re.compile(r"(?><!--.*?-->|<[?!][^>]*>|[\s\ufeff])*+<(?!br?\b)([A-Za-z][\w:.-]*)", re.S)
"""The feed's outer element, if only a prologue is before it."""
_NAMESPACES = re.compile(r"""xmlns:([\w.-]+)\s*=\s*("[^"]*"|'[^']*')""")
_PREFIXES = re.compile(r"</?([A-Za-z][\w.-]*):")
_SEPARATOR_LINE = re.compile(r'\ufeff?"?sep=(.)"?\Z', re.I)
"""Excel's first line, which names the separator."""
_EXCEL_TEXT = re.compile(r'\A="([^"]*)"\Z')
_REMARK = re.compile(r"\ufeff?#[^\t,;|]*\Z")
_QUOTED_COLUMN = re.compile(r'(?:^|[\t,;|])\s*"')
_GOOGLE = "http://base.google.com/ns/1.0"
ATTRIBUTES = (
    "id", "title", "description", "link", "image_link", "additional_image_link", "price", "sale_price",
    "sale_price_effective_date", "currency", "availability", "brand", "condition", "gtin", "color", "size", "material",
    "item_group_id", "product_type", "google_product_category", "category", "country", "date", "updated", "pubdate",
    "licence", "author",
)  # fmt: skip
"""The attributes of a row that are read, by Google's names and a few of our own."""
_TEXTS = frozenset({"title", "description", "summary", "content"})
_GOOGLES = {name.replace("_", ""): name for name in ATTRIBUTES}


class BadRow(NamedTuple):
    reason: str


class FeedRow(NamedTuple):
    """A row and the number of its first line, from 1."""

    line: int
    values: Mapping[str, Any] | BadRow


def xml_rows(text: TextIO) -> Iterator[FeedRow]:
    """The `item`s of an RSS and the `entry`s of an Atom feed.

    Each is parsed separately, so that a broken one costs only itself, and no document type can define entities
    (docs/decisions/sources-feeds.md).
    """
    buffer, line, opening, row, root = "", 1, "", "", ""

    def failure(between: str) -> Iterator[FeedRow]:
        if opening and (said := _failure(between)):
            yield FeedRow(line, BadRow(said))

    while piece := text.read(PIECE_LENGTH):
        buffer += piece
        at, inside = 0, False
        for match in _XML_PIECES.finditer(buffer):
            end, name, is_empty = match.groups()
            if name is None or name != (row := row or name):
                continue
            if not end:
                if inside:
                    yield FeedRow(line, BadRow(f"<{name}> begins before the one above ended"))
                else:
                    yield from failure(buffer[at : match.start()])
                if not opening:
                    opening, outer = _opening(buffer[: match.start()]), _ROOT.match(buffer, 0, match.start())
                    root = f"</{outer[1]}" if outer else ""
                line += buffer.count("\n", at, match.start())
                at, inside = match.start(), True
            if inside and (end or is_empty):
                yield FeedRow(line, _xml_row(buffer[at : match.end()], opening))
                line += buffer.count("\n", at, match.end())
                at, inside = match.end(), False
        if opening and not inside:
            # Between rows, only the possible beginning of a tag or comment is still needed.
            keep = buffer.rfind("<", at)
            keep = len(buffer) if keep < 0 else keep
            root = "" if root and root in buffer[at:] else root
            yield from failure(buffer[at:keep])
            line += buffer.count("\n", at, keep)
            at = keep
        buffer = buffer[at:]
        if len(buffer) > ROW_LENGTH_MAX:
            if not opening:
                break
            yield FeedRow(line, BadRow(f"it has more than {ROW_LENGTH_MAX} characters"))
            line += buffer.count("\n")
            buffer = ""
    if opening and re.match(rf"<{_ROW}", buffer):
        yield FeedRow(line, BadRow(CUT_OFF))
    elif root:
        yield FeedRow(line, BadRow(f"{CUT_OFF}: {root}> is missing"))
    if not opening and not re.search(r"<(?:[\w.-]+:)?(?:rss|feed|RDF|channel)\b", buffer):
        raise SourceError(
            f"The feed begins with {buffer[:60]!r}, which is neither RSS nor Atom",
            valid="RSS 2.0 with <item>, or Atom with <entry>",
            remedy="Set the source's format if it is another one",
        )


def _failure(text: str) -> str:
    """The failure that a text between rows reports of the program that wrote it; empty if it reports none."""
    said = _FAILURE.search(text)
    return f"the feed's program failed: {text[said.start() :].strip()!r:.120}" if said else ""


def _opening(head: str) -> str:
    """A tag to put before a row, which declares the prefixes of the feed."""
    said = {prefix: uri if uri[1:-1] else f'"{prefix}"' for prefix, uri in _NAMESPACES.findall(head)}
    declared = {"g": f'"{_GOOGLE}"', "c": '"http://base.google.com/cns/1.0"', **said}
    return f"<feed {' '.join(f'xmlns:{prefix}={uri}' for prefix, uri in declared.items())}>"


def _xml_row(text: str, opening: str) -> Mapping[str, Any] | BadRow:
    # Without a document type there are no entities to expand.
    try:
        element = ElementTree.fromstring(f"{opening}{text}</feed>")[0]  # noqa: S314
    except ElementTree.ParseError:
        unbound = {prefix for prefix in _PREFIXES.findall(text) if f" xmlns:{prefix}=" not in opening}
        opening = opening[:-1] + "".join(f' xmlns:{prefix}="{prefix}"' for prefix in sorted(unbound)) + ">"
        try:
            element = ElementTree.fromstring(f"{opening}{repaired(text)}</feed>")[0]  # noqa: S314
        except ElementTree.ParseError as exc:
            return BadRow(f"it is not well-formed XML: {exc.msg.partition(':')[0]}")
    google: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    for child in element.iter():
        # RSS's and Atom's enclosures, and Media RSS (https://www.rssboard.org/media-rss).
        enclosed = child.get("url") or (child.get("href") if child.get("rel") == "enclosure" else None)
        if enclosed and (child.get("type") or child.get("medium") or "image").startswith("image"):
            others.setdefault("image_link", []).append(enclosed)
    for child in element:
        namespace, _, name = child.tag.rpartition("}")
        currency = child.get("currency") or child.get("currencyCode") or ""
        # Texts may contain HTML; other values with elements, such as shipping costs, are not read.
        parts = child.itertext() if name in _TEXTS else [] if len(child) else [child.text or ""]
        value: Any = "".join(parts).strip() or ("" if len(child) else child.get("href", ""))
        if attribute_name(name) in ("price", "sale_price"):
            inner = {part.tag.rpartition("}")[2].lower(): (part.text or "").strip() for part in child}
            value = inner or f"{value} {currency}".strip()
        if not value or (name == "link" and child.get("rel", "alternate") != "alternate"):
            continue
        values = google if namespace.lstrip("{").rstrip("/") == _GOOGLE else others
        values.setdefault(attribute_name(name), []).append(value)
    return {name: found if len(found) > 1 else found[0] for name, found in {**others, **google}.items()}


def table_rows(text: TextIO, delimiter: str | None = None) -> Iterator[FeedRow]:
    """The rows of a table whose first line names the columns. A column that is named twice holds lists.

    Unpaired quotes, such as an inch sign, cost only their row: rows begin again at the next line that has as many
    columns as the first.

    A last row that lacks columns and a line end counts as cut off, unless a row before it lacks columns, too.

    Args:
        delimiter: Between columns; None: the most frequent of tab, comma, semicolon and bar in the first line.

    Raises:
        SourceError: There is no first line, or it names one column only.
    """
    last = 0

    def numbered() -> Iterator[tuple[int, str]]:
        nonlocal last
        for number, line in enumerate(_lines(text), 1):
            last = 0 if line.endswith("\n") or len(line) == ROW_LENGTH_MAX else number
            yield number, line.rstrip("\n").replace("\0", "")

    lines = numbered()
    waiting: deque[tuple[int, str]] = deque()

    def following() -> tuple[int, str]:
        return waiting.popleft() if waiting else next(lines, (0, ""))

    header = next((line for _, line in lines if line.strip() and not _REMARK.match(line)), None)
    if header is None:
        raise SourceError("The feed is empty", valid="A first line that names the columns")
    if named := _SEPARATOR_LINE.match(header.strip(" \r")):
        delimiter, header = delimiter or named[1], next(lines, (0, ""))[1]
    separator = delimiter or max("\t,;|", key=header.count)
    names = [attribute_name(name) for name in _read([header], separator)]
    if len(names) < 2:
        raise SourceError(
            f"The feed's first line names no columns: {header!r:.100}",
            valid="Names such as id, title, image_link between tabs, commas, semicolons or bars",
            remedy="Set the source's format or delimiter",
        )
    is_lost = is_ragged = False
    while (start := following())[0]:
        joined = [start]
        # If no column begins with a quote, quotes are only signs: `27" screen`.
        is_open = bool(start[1].count('"') % 2 and _QUOTED_COLUMN.search(start[1]))
        while is_open and len(joined) <= LINES_OF_A_ROW_MAX and (more := following())[0]:
            joined.append(more)
            is_open ^= bool(more[1].count('"') % 2)
        texts = [line for _, line in joined]
        if not "".join(texts).strip(f' \r\t\x1a"{separator}'):
            continue
        values = None if is_open else _values(texts, len(names), separator)
        is_lost = values is None or (is_lost and len(values) < len(names))
        if values is None:
            waiting.extendleft(reversed(joined[1:]))
            yield FeedRow(start[0], BadRow("a quote is not closed"))
        elif [attribute_name(value) for value in values] == names:
            # Joined tables repeat their first line.
            continue
        elif len(values) < len(names) > 2 and not any(values[1:]) and (said := _failure(values[0])):
            yield FeedRow(start[0], BadRow(said))
        elif is_lost:
            yield FeedRow(start[0], BadRow("it is part of a row whose quotes are not closed"))
        elif len(values) < len(names) and joined[-1][0] == last and not is_ragged:
            yield FeedRow(start[0], BadRow(f"{CUT_OFF}: it has {len(values)} of {len(names)} columns, and no line end"))
        else:
            is_ragged = is_ragged or len(values) < len(names)
            yield FeedRow(start[0], _named(names, values))


def _values(lines: list[str], columns: int, separator: str) -> list[str] | None:
    """The values of a row; None if its quotes are not in pairs.

    Several lines that quotes join are a row only by strict rules, and only if none of them looks like a row itself;
    in a single line with all its columns, quotes may be anywhere.
    """
    record, values = "\n".join(lines), list[str]()
    try:
        values = _read([record], separator, strict=True)
    except csv.Error:
        for options in ({}, {"escapechar": "\\", "strict": True}):
            with suppress(csv.Error):
                values = _read([record], separator, **options)
        return values if len(lines) == 1 and len(values) == columns else None
    inner = [line.count(separator) + 1 for line in lines[1:-1]]
    return None if inner and columns in inner and columns > 3 else values


def _read(lines: list[str], separator: str, **options: Any) -> list[str]:
    return next(csv.reader(lines, delimiter=separator, skipinitialspace=True, **options))


def _named(names: list[str], values: list[str]) -> Mapping[str, Any] | BadRow:
    # `="007"` keeps Excel from taking a text for a number.
    values = [_EXCEL_TEXT.sub(r"\1", value.strip()) for value in values]
    if any(values[len(names) :]):
        return BadRow(f"it has {len(values)} columns, the first line names {len(names)}")
    found: dict[str, list[str]] = {}
    for name, value in zip(names, values, strict=False):
        if value:
            found.setdefault(name, []).append(value)
    return {name: several if len(several) > 1 else several[0] for name, several in found.items()}


def json_rows(text: TextIO) -> Iterator[FeedRow]:
    """One JSON object per line."""
    for number, line in enumerate(_lines(text), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except NotJson as exc:
            yield FeedRow(number, BadRow(f"it is not JSON: {exc}"))
            continue
        yield FeedRow(number, row if isinstance(row, dict) else BadRow("it is not a JSON object"))


def _lines(text: TextIO) -> Iterator[str]:
    """Lines with their ends; one that is too long comes in parts, which keeps memory bounded."""
    return iter(lambda: text.readline(ROW_LENGTH_MAX), "")


@lru_cache(4096)
def attribute_name(name: str) -> str:
    """`g:Image Link`, `image_link`, `imageLink` and `Image-Link` are one attribute."""
    bare = re.sub(r"[\W_]+", "", name.strip().lower().removeprefix("g:"))
    return _GOOGLES.get(bare, bare)
