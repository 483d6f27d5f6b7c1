"""JSON as it is sent: in any encoding, and with the mistakes that programs make."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

import msgspec

from visor.sources.parse.encoding import decoded

_TOKENS = re.compile(r'"[^"\\]*(?:\\.?[^"\\]*)*(?:"|\Z)|[^"]+', re.S)
_ESCAPES = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(u[0-9a-fA-F]{4}|.)", re.S)
_SURROGATE = re.compile(r"u[dD][89a-fA-F]")
_NO_VALUE = re.compile(r"(?<![\w.])[+-]?(?:nan|inf(?:inity)?|undefined|none)\b", re.I)
_COMMA_AT_END = re.compile(r",(?=\s*[\]}])")
_START = re.compile(r"[\n>(;]\s*(?=[\[{])")
"""Where JSON begins after text that does not belong to it: a PHP warning, a guard against scripts, a callback."""
_END = re.compile(r"(?:\s|\)?;|\)|<!--(?:(?!-->).)*-->)*\Z", re.S)
_STARTS_MAX = 20
_CUT_TOKEN = re.compile(r"[\w.+-]{0,5}\Z")
"""The beginning of a word or number whose end is missing."""


_SAYINGS = (
    "message", "errormessage", "errordescription", "msg", "detail", "error", "errors", "fault", "faultstring",
)  # fmt: skip
"""Names under which APIs report errors, the most informative first."""


class NotJson(ValueError):
    """A text is not JSON. `malformed`: it would be JSON but for a mistake, so another try would return the same; else
    its end is missing, or it is something else, such as an error page."""

    def __init__(self, reason: str, *, malformed: bool = False) -> None:
        self.malformed = malformed
        super().__init__(reason)


def parse_json(data: bytes | str, charset: str | None = None) -> Any:
    """The value of a JSON text. NaN, infinity and undefined are None, half an emoji is U+FFFD, whole numbers are exact.

    Args:
        charset: The encoding that the server declares; valid UTF-8, and byte order marks, take precedence.

    Raises:
        NotJson: Names the mistake and its place.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        text = data if isinstance(data, str) else decoded(data, charset)
    text = text.strip("\ufeff\0 \t\r\n")
    if not text:
        raise NotJson("it is empty")
    repaired = _TOKENS.sub(lambda match: _repaired(match[0]), text)
    try:
        return _value(repaired, 0)
    except NotJson as exc:
        if repaired[:1] not in ("{", "["):
            for begin in islice(_START.finditer(repaired), _STARTS_MAX):
                with suppress(NotJson):
                    return _value(repaired, begin.end())
            exc.malformed = False
        raise


_DECODER = json.JSONDecoder(
    strict=False,
    parse_float=lambda text: value if math.isfinite(value := float(text)) else None,
)


def _value(text: str, start: int) -> Any:
    """The value that begins at `start` and reaches the end, but for what `_END` allows after it."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as exc:
        is_cut_off = exc.msg.startswith("Unterminated string") or _CUT_TOKEN.match(text, exc.pos)
        around = text[max(0, exc.pos - 20) : exc.pos + 20]
        reason = f"{exc.msg} in line {exc.lineno}, column {exc.colno}: {around!r}"
        raise NotJson(reason, malformed=not is_cut_off) from exc
    except RecursionError as exc:
        raise NotJson("its values are nested too deeply", malformed=True) from exc
    except ValueError as exc:  # Python's limit on digits, whose error names its own remedy
        raise NotJson(f"it has a number of more than {sys.get_int_max_str_digits()} digits", malformed=True) from exc
    if not _END.match(text, end):
        raise NotJson(f"more follows after its end: {text[end : end + 40]!r}", malformed=True)
    return value


def _repaired(token: str) -> str:
    """A piece of JSON, which is a string or the text between two, with unambiguous mistakes corrected."""
    if token.startswith('"'):
        return _ESCAPES.sub(_escape, token)
    return _COMMA_AT_END.sub("", _NO_VALUE.sub("null", token))


def _escape(match: re.Match[str]) -> str:
    escaped = match[1]
    if escaped is None:
        return match[0]
    if _SURROGATE.match(escaped):
        return "\\ufffd"
    return match[0] if escaped[0] in '"\\/bfnrt' or len(escaped) == 5 else escaped


_REFUSALS = {
    **dict.fromkeys(("success", "successful", "issuccess", "ok"), re.compile(r"false|0\Z")),
    **dict.fromkeys(("status", "result", "state"), re.compile(r"error|fail")),
    **dict.fromkeys(("status", "statuscode", "code", "httpcode"), re.compile(r"error|fail|[45]\d\d\Z")),
    **dict.fromkeys(("timedout", "incompleteresults", "partial", "partialresults", "ispartial"), re.compile(r"true\Z")),
}


def refusal(answer: Any) -> str:
    """The flags and codes in an answer to a request that was not served, or not completely; empty if there are none."""
    for name, value in answer.items() if isinstance(answer, Mapping) else ():
        refused = _REFUSALS.get(re.sub(r"[\W_]", "", str(name)).lower())
        if refused and isinstance(value, str | int) and refused.match(str(value).lower()):
            return f"{name} = {json.dumps(value)}"
    return ""


def said_by(answer: Any, *, is_inner: bool = False) -> str:
    """An API's own message in an answer about what is wrong. Empty if there is none."""
    if isinstance(answer, str):
        return answer[:300]
    if isinstance(answer, Mapping):
        named = {re.sub(r"[\W_]", "", str(name)).lower(): value for name, value in answer.items()}
        found = [named[name] for name in _SAYINGS if named.get(name)] + list(named.values()) * is_inner
    else:
        found = list(answer[:3]) if isinstance(answer, list) and is_inner else []
    return next((said for part in found if (said := said_by(part, is_inner=True))), "")
