"""Rows of product feeds: XML (RSS 2.0, Atom), tables (TSV, CSV) and JSON Lines, from a stream of text.

Each row is a mapping of attribute names as Google's product data specification writes them (`image_link`) to texts, or
lists of texts where an attribute is repeated. A row that is broken is a `BadRow` and does not disturb the others.
"""

from __future__ import annotations

import csv
import html
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from xml.etree import ElementTree

import msgspec

from visor.errors import SourceError
from visor.sources.parse.encoding import lines

ROW_LENGTH_MAX = 1_000_000
"""Characters of one row; a longer one is taken to be broken."""
LINES_OF_A_ROW_MAX = 100
"""A quoted value of a table may have line breaks; a quote that is not closed within so many lines is a mistake."""

_XML_PIECES = re.compile(r"<!\[CDATA\[.*?(?:\]\]>|\Z)|<!--.*?(?:-->|\Z)|<(/?)(item|entry)(?=[\s>/])[^>]*?(/?)>", re.S)
_NAMESPACES = re.compile(r"""xmlns:([\w.-]+)\s*=\s*("[^"]*"|'[^']*')""")
_PREFIXES = re.compile(r"</?([A-Za-z][\w.-]*):")
_NAMED_ENTITY = re.compile(r"&(?!(?:amp|lt|gt|quot|apos);)([A-Za-z][A-Za-z0-9]{1,31};)")
_LONE_AMPERSAND = re.compile(r"&(?!(?:#\d{1,7}|#x[0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});)")
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_GOOGLE = "http://base.google.com/ns/1.0"


class BadRow(NamedTuple):
    reason: str


class FeedRow(NamedTuple):
    """A row and where it stands: the number of its first line, from 1."""

    line: int
    values: Mapping[str, Any] | BadRow


def xml_rows(texts: Iterable[str]) -> Iterator[FeedRow]:
    """The `item`s of an RSS and the `entry`s of an Atom feed, each parsed for itself, so that one that is not
    well-formed costs nothing but itself, and no document type can define entities."""
    buffer, line, head = "", 1, ""
    wrapper: tuple[str, str] | None = None
    begun = False
    for text in texts:
        buffer += text
        at = 0
        start: int | None = None
        for match in _XML_PIECES.finditer(buffer):
            if match[2] is None:
                continue
            if not match[1]:
                # A start within a row: the one before was never closed.
                if start is not None:
                    yield FeedRow(line, BadRow(f"<{match[2]}> begins before the one above ended"))
                if wrapper is None:
                    head = buffer[: match.start()]
                    wrapper = _wrapper(head)
                line += buffer.count("\n", at, match.start())
                at, start = match.start(), match.start()
                begun = True
            if start is not None and (match[1] or match[3]):
                assert wrapper is not None
                yield FeedRow(line, _xml_row(buffer[start : match.end()], wrapper))
                line += buffer.count("\n", at, match.end())
                at, start = match.end(), None
        if start is None and begun:
            # What stands between rows is not needed, except the beginning of a tag or comment.
            keep = max(buffer.rfind("<", at), at) if "<" in buffer[at:] else len(buffer)
            line += buffer.count("\n", at, keep)
            at = keep
        buffer = buffer[at:]
        if len(buffer) > ROW_LENGTH_MAX:
            if not begun:
                break
            yield FeedRow(line, BadRow(f"it has more than {ROW_LENGTH_MAX} characters"))
            line += buffer.count("\n")
            buffer = ""
    if begun and re.match(r"<(item|entry)[\s>]", buffer):
        yield FeedRow(line, BadRow("the feed ends within it"))
    if not begun and not re.search(r"<(rss|feed|rdf:RDF|channel)\b", buffer):
        raise SourceError(
            f"The feed begins with {buffer[:60]!r}, which is neither RSS nor Atom",
            valid="RSS 2.0 with <item>, Atom with <entry>, or name the format",
        )


def _wrapper(head: str) -> tuple[str, str]:
    """Tags around a row that declare the prefixes of the feed."""
    prefixes: dict[str, str] = dict(_NAMESPACES.findall(head))
    prefixes.setdefault("g", f'"{_GOOGLE}"')
    prefixes.setdefault("c", '"http://base.google.com/cns/1.0"')
    return f"<feed {' '.join(f'xmlns:{name}={value}' for name, value in prefixes.items())}>", "</feed>"


def _xml_row(text: str, wrapper: tuple[str, str]) -> Mapping[str, Any] | BadRow:
    # Without a document type there are no entities to expand.
    try:
        element = ElementTree.fromstring(wrapper[0] + text + wrapper[1])[0]  # noqa: S314
    except ElementTree.ParseError:
        unbound = {prefix for prefix in _PREFIXES.findall(text) if f" xmlns:{prefix}=" not in wrapper[0]}
        opening = wrapper[0][:-1] + "".join(f' xmlns:{prefix}="{prefix}"' for prefix in sorted(unbound)) + ">"
        try:
            element = ElementTree.fromstring(opening + _mended(text) + wrapper[1])[0]  # noqa: S314
        except ElementTree.ParseError as exc:
            return BadRow(f"it is not well-formed XML: {exc.msg.partition(':')[0]}")
    ours: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for child in element:
        namespace, _, name = child.tag.rpartition("}")
        value: Any = (child.text or "").strip() or child.get("href", "")
        if len(child) or not value or (name == "link" and child.get("rel", "alternate") != "alternate"):
            continue
        values = ours if namespace.lstrip("{").rstrip("/") == _GOOGLE else others
        key = name.lower()
        if key in values:
            value = [*values[key], value] if isinstance(values[key], list) else [values[key], value]
        values[key] = value
    return {**others, **ours}


def _mended(text: str) -> str:
    """What feeds most often get wrong: HTML's entities, a lone `&`, control characters."""
    text = _NAMED_ENTITY.sub(lambda match: html.escape(html.unescape(match[0])), text)
    return _LONE_AMPERSAND.sub("&amp;", _NOT_XML.sub("", text))


def table_rows(texts: Iterable[str], delimiter: str | None = None) -> Iterator[FeedRow]:
    """The rows of a table whose first line names the columns.

    Args:
        delimiter: Between columns; None takes the one of tab, comma, semicolon and bar that the first line has most of.

    Raises:
        SourceError: There is no first line, or it names one column only.
    """
    records = _records(lines(texts))
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


def _records(texts: Iterable[str]) -> Iterator[tuple[int, str, bool]]:
    """First line, text and whether its quotes are closed, of each record. A lone quote in a table with tabs, such as
    an inch sign, costs that record only: the lines after it are read again as their own."""
    waiting: list[str] = []
    source = iter(texts)
    number = 0

    def following() -> str | None:
        return waiting.pop(0) if waiting else next(source, None)

    while (text := following()) is not None:
        number += 1
        first = text = text.replace("\0", "")
        joined: list[str] = []
        if _is_harmless(text):
            yield number, text, True
            continue
        while text.count('"') % 2 and len(joined) < LINES_OF_A_ROW_MAX and (more := following()) is not None:
            joined.append(more)
            text += "\n" + more.replace("\0", "")
        if text.count('"') % 2:
            waiting = joined + waiting
            yield number, first, False
        else:
            yield number, text, True
            number += len(joined)


def _is_harmless(line: str) -> bool:
    """Whether no column begins with the quote, so that it is only a sign: `27" screen`."""
    return not re.search(r'(?:^|[\t,;|])\s*"', line)


def json_rows(texts: Iterable[str]) -> Iterator[FeedRow]:
    """A JSON object a line."""
    for number, text in enumerate(lines(texts), 1):
        if not text.strip():
            continue
        try:
            row = msgspec.json.decode(text)
        except msgspec.DecodeError as exc:
            yield FeedRow(number, BadRow(f"it is no JSON: {exc}"))
            continue
        yield FeedRow(number, row if isinstance(row, dict) else BadRow("it is no JSON object"))


def attribute_name(name: str) -> str:
    """`g:Image Link`, `image_link` and `Image-Link` are one attribute."""
    return re.sub(r"[\s-]+", "_", name.strip().strip("\ufeff").lower().removeprefix("g:").strip())
