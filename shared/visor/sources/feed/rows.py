"""Rows of product feeds: XML (RSS 2.0, Atom), tables (TSV, CSV) and JSON Lines, from a stream of text.

Each row is a mapping of attribute names as Google's product data specification writes them (`image_link`) to texts, or
lists of texts where an attribute is repeated. A broken row is a `BadRow` and does not disturb the others.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TextIO
from xml.etree import ElementTree

import msgspec

from visor.errors import SourceError
from visor.sources.parse.xml import repaired

ROW_LENGTH_MAX = 1_000_000
"""Characters of one row; a longer row counts as broken."""
PIECE_LENGTH = 8192
"""Characters of an XML feed that are read at a time."""
LINES_OF_A_ROW_MAX = 100
"""A quoted value of a table may have line breaks; a quote that is not closed within so many lines is a mistake."""

_XML_PIECES = re.compile(r"<!\[CDATA\[.*?(?:\]\]>|\Z)|<!--.*?(?:-->|\Z)|<(/?)(item|entry)(?=[\s>/])[^>]*?(/?)>", re.S)
_NAMESPACES = re.compile(r"""xmlns:([\w.-]+)\s*=\s*("[^"]*"|'[^']*')""")
_PREFIXES = re.compile(r"</?([A-Za-z][\w.-]*):")
_QUOTED_COLUMN = re.compile(r'(?:^|[\t,;|])\s*"')
_GOOGLE = "http://base.google.com/ns/1.0"


class BadRow(NamedTuple):
    reason: str


class FeedRow(NamedTuple):
    """A row and the number of its first line, from 1."""

    line: int
    values: Mapping[str, Any] | BadRow


def xml_rows(text: TextIO) -> Iterator[FeedRow]:
    """The `item`s of an RSS and the `entry`s of an Atom feed.

    Each is parsed on its own, so that a broken one costs nothing but itself, and no document type can define entities
    (docs/decisions/sources-feeds.md).
    """
    buffer, line, opening = "", 1, ""
    while piece := text.read(PIECE_LENGTH):
        buffer += piece
        at, inside = 0, False
        for match in _XML_PIECES.finditer(buffer):
            end, name, is_empty = match.groups()
            if name is None:
                continue
            if not end:
                if inside:
                    yield FeedRow(line, BadRow(f"<{name}> begins before the one above ended"))
                opening = opening or _opening(buffer[: match.start()])
                line += buffer.count("\n", at, match.start())
                at, inside = match.start(), True
            if inside and (end or is_empty):
                yield FeedRow(line, _xml_row(buffer[at : match.end()], opening))
                line += buffer.count("\n", at, match.end())
                at, inside = match.end(), False
        if opening and not inside:
            # Between rows, only what may be the beginning of a tag or comment is still needed.
            keep = buffer.rfind("<", at)
            keep = len(buffer) if keep < 0 else keep
            line += buffer.count("\n", at, keep)
            at = keep
        buffer = buffer[at:]
        if len(buffer) > ROW_LENGTH_MAX:
            if not opening:
                break
            yield FeedRow(line, BadRow(f"it has more than {ROW_LENGTH_MAX} characters"))
            line += buffer.count("\n")
            buffer = ""
    if opening and re.match(r"<(item|entry)[\s>]", buffer):
        yield FeedRow(line, BadRow("the feed ends within it"))
    if not opening and not re.search(r"<(rss|feed|rdf:RDF|channel)\b", buffer):
        raise SourceError(
            f"The feed begins with {buffer[:60]!r}, which is neither RSS nor Atom",
            valid="RSS 2.0 with <item>, Atom with <entry>, or name the format",
        )


def _opening(head: str) -> str:
    """A tag to put before a row, which declares the prefixes of the feed."""
    declared = {"g": f'"{_GOOGLE}"', "c": '"http://base.google.com/cns/1.0"', **dict(_NAMESPACES.findall(head))}
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
    for child in element:
        namespace, _, name = child.tag.rpartition("}")
        value = (child.text or "").strip() or child.get("href", "")
        if len(child) or not value or (name == "link" and child.get("rel", "alternate") != "alternate"):
            continue
        values = google if namespace.lstrip("{").rstrip("/") == _GOOGLE else others
        values.setdefault(name.lower(), []).append(value)
    return {name: found if len(found) > 1 else found[0] for name, found in {**others, **google}.items()}


def table_rows(text: TextIO, delimiter: str | None = None) -> Iterator[FeedRow]:
    """The rows of a table whose first line names the columns.

    Args:
        delimiter: Between columns; None takes the one of tab, comma, semicolon and bar that the first line has most of.

    Raises:
        SourceError: There is no first line, or it names one column only.
    """
    records = _records(line.replace("\0", "") for line in _lines(text))
    header = next((record for record in records if record[1].strip()), None)
    if header is None:
        raise SourceError("The feed is empty", valid="A first line that names the columns")
    separator = delimiter or max("\t,;|", key=header[1].count)
    names = [attribute_name(name) for name in next(csv.reader([header[1]], delimiter=separator))]
    if len(names) < 2:
        raise SourceError(
            f"The feed's first line names no columns: {header[1]!r:.100}",
            valid="Names such as id, title, image_link between tabs, commas, semicolons or bars",
            remedy="Set the source's format or delimiter",
        )
    for line, record, closed in records:
        if not record.strip():
            continue
        if not closed:
            yield FeedRow(line, BadRow("a quote is not closed"))
            continue
        try:
            values = next(csv.reader([record], delimiter=separator))
        except csv.Error as exc:
            yield FeedRow(line, BadRow(str(exc)))
            continue
        if len(values) > len(names) and any(value.strip() for value in values[len(names) :]):
            yield FeedRow(line, BadRow(f"it has {len(values)} columns, the first line names {len(names)}"))
            continue
        yield FeedRow(line, {name: value.strip() for name, value in zip(names, values, strict=False) if value.strip()})


def _records(lines: Iterator[str]) -> Iterator[tuple[int, str, bool]]:
    """First line, text and whether its quotes are closed, of each record. A lone quote in a table with tabs, such as
    an inch sign, costs that record only: the lines after it are read again as their own."""
    waiting: deque[str] = deque()

    def following() -> str | None:
        return waiting.popleft() if waiting else next(lines, None)

    number = 1
    while (line := following()) is not None:
        joined = [line]
        # Where no column begins with a quote, it is only a sign: `27" screen`.
        is_open = bool(line.count('"') % 2 and _QUOTED_COLUMN.search(line))
        while is_open and len(joined) <= LINES_OF_A_ROW_MAX and (more := following()) is not None:
            joined.append(more)
            is_open ^= bool(more.count('"') % 2)
        if is_open:
            waiting.extendleft(reversed(joined[1:]))
            joined = [line]
        yield number, "\n".join(joined), not is_open
        number += len(joined)


def json_rows(text: TextIO) -> Iterator[FeedRow]:
    """A JSON object a line."""
    for number, line in enumerate(_lines(text), 1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line)
        except msgspec.DecodeError as exc:
            yield FeedRow(number, BadRow(f"it is not JSON: {exc}"))
            continue
        yield FeedRow(number, row if isinstance(row, dict) else BadRow("it is not a JSON object"))


def _lines(text: TextIO) -> Iterator[str]:
    """Lines without their ends; one that is too long comes in parts, which keeps memory bounded."""
    while line := text.readline(ROW_LENGTH_MAX):
        yield line.rstrip("\n")


def attribute_name(name: str) -> str:
    """`g:Image Link`, `image_link` and `Image-Link` are one attribute."""
    return re.sub(r"[\s-]+", "_", name.strip().strip("\ufeff").lower().removeprefix("g:").strip())
