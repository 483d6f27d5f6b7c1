"""JSON as APIs, feeds and side-cars send it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from visor.sources.parse.json import NotJson, parse_json, said_by

DOCUMENT = {
    "items": [{"id": 2**53 + 1, "t": 'Möbel 😀 "q" \\ x', "p": 1.5, "n": None, "d": [True, {}]}, {"id": 2**128}]
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_the_encoding_is_seen(encoding: str, ascii_only: bool) -> None:
    assert parse_json(json.dumps(DOCUMENT, ensure_ascii=ascii_only).encode(encoding)) == DOCUMENT


@pytest.mark.parametrize(
    ("encoding", "promised", "text"),
    [
        ("latin-1", "iso-8859-1", "Möbel"),
        ("cp1252", "iso-8859-1", "Möbel, 5 €"),
        ("cp1252", None, "Möbel, 5 €"),
        ("utf-8", "iso-8859-1", "Möbel"),
        ("cp1251", "windows-1251", "стол"),
        ("shift_jis", "Shift_JIS", "椅子"),
        ("cp1252", "no-such-charset", "Möbel"),
    ],
)
def test_what_is_not_utf_8_is_read_as_promised(encoding: str, promised: str | None, text: str) -> None:
    assert parse_json(json.dumps({"t": text}, ensure_ascii=False).encode(encoding), promised) == {"t": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"p": NaN, "q": [-Infinity, 1e999], "s": "NaN, none"}', {"p": None, "q": [None, None], "s": "NaN, none"}),
        ('{"a": undefined, "b": None}', {"a": None, "b": None}),
        (r'{"t": "cut \ud83c"}', {"t": "cut \ufffd"}),
        (r'{"t": "\udf00 \ud83c\udf00 \\ud83c"}', {"t": "\ufffd 🌀 \\ud83c"}),
        (r'{"t": "It\'s"}', {"t": "It's"}),
        ('{"t": "a\tb\nc"}', {"t": "a\tb\nc"}),
        ('[{"a": 1,}, 2, ]', [{"a": 1}, 2]),
        ('<br />\n<b>Warning</b>:  Undefined array key [0] on line 3<br />\n{"a": 1}', {"a": 1}),
        (')]}\',\n{"a": 1}', {"a": 1}),
        ('shop({"a": 1});', {"a": 1}),
        ('{"a": 1}\n<!-- cached --> <!-- in 5 ms -->', {"a": 1}),
    ],
)
def test_mistakes_that_leave_no_doubt_are_mended(text: str, value: Any) -> None:
    assert parse_json(text) == value
    assert parse_json(text.encode()) == value


@pytest.mark.parametrize("layout", [{}, {"ensure_ascii": False}, {"indent": 2}])
def test_json_that_was_cut_off_anywhere_is_never_read_as_if_it_were_whole(layout: dict[str, Any]) -> None:
    whole = json.dumps(DOCUMENT, **layout).encode()
    for length in range(len(whole)):
        with pytest.raises(NotJson) as caught:
            parse_json(whole[:length])
        assert not caught.value.malformed, whole[:length]


@pytest.mark.parametrize(
    ("text", "malformed"),
    [
        ('{"a": "27" screen"}', True),
        ('{"a": 1}{"b": 2}', True),
        ("{'a': 1}", True),
        ("[" * 100_000, True),
        ('{"a": ' + "9" * 5000 + "}", True),
        ("[]" + "<!-- -->" * 50 + "{", True),
        ('<html><script>{"a": 1}</script></html>', False),
        ("Too many requests", False),
        ("", False),
    ],
)
def test_a_mistake_is_told_from_what_another_try_may_mend(text: str, malformed: bool) -> None:
    with pytest.raises(NotJson) as caught:
        parse_json(text)
    assert caught.value.malformed == malformed


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"success": False, "error": {"code": 105, "message": "Your key has expired"}}, "Your key has expired"),
        ({"error": "invalid_key", "error_description": "Key unknown"}, "Key unknown"),
        ({"errors": [{"status": "401", "detail": "No scope"}], "data": None}, "No scope"),
        ({"errors": {"base": ["Quota exceeded"]}}, "Quota exceeded"),
        ({"Message": "Denied"}, "Denied"),
        ({"fault": {"faultstring": "Rate limit"}}, "Rate limit"),
        ({"items": [{"message": "Hello"}], "title": "Shop"}, ""),
        ([{"message": "a row"}], ""),
        (None, ""),
    ],
)
def test_an_apis_own_message_is_found(answer: Any, said: str) -> None:
    assert said_by(answer) == said
