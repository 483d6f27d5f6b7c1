"""Corrects common mistakes of programs that write XML as text."""

from __future__ import annotations

import html
import re

_MISTAKES = re.compile(
    r"<!\[CDATA\[.*?\]\]>|&(?!(?:amp|lt|gt|quot|apos);)(?:#\d{1,7};|#x[0-9A-Fa-f]{1,6};|[A-Za-z][A-Za-z0-9]{1,31};)?",
    re.S,
)
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def repaired(text: str) -> str:
    """The text without its most frequent mistakes: HTML's entities, an unescaped `&`, control characters, also as
    `&#x1F;`."""
    return _MISTAKES.sub(_without_mistake, _NOT_XML.sub("", text))


def _without_mistake(match: re.Match[str]) -> str:
    return match[0] if match[0].startswith("<") else html.escape(html.unescape(match[0]))
