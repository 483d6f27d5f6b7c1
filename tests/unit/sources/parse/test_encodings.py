"""One reader for every text: marks, declarations, headers, and what browsers take these for."""

from __future__ import annotations

import codecs
import io

import pytest

from visor.errors import SourceError
from visor.sources.parse.encoding import decoded, open_text, unpacked

XML = '<?xml version="1.0" encoding="{}"?><a>5 € für Café</a>'


@pytest.mark.parametrize(
    ("data", "promised", "text"),
    [
        ("Café".encode(), None, "Café"),
        ("Café".encode(), "iso-8859-1", "Café"),
        ("Café".encode("latin-1"), None, "Café"),
        ("Café".encode("latin-1"), "utf-8", "Café"),
        (codecs.BOM_UTF8 + "Café".encode(), "latin-1", "Café"),
        ("\ufeffCafé".encode("utf-16-le"), None, "Café"),
        ("\ufeffCafé".encode("utf-32-be"), None, "Café"),
        ("Café".encode("utf-16-be"), None, "Café"),
        (b"a shoe\0", None, "a shoe\0"),
        (b"5 \x80", "ISO-8859-1", "5 €"),
        (b"5 \x80", "us-ascii", "5 €"),
        (b"\xcb\xb8\xe4", "windows-1251", "Лёд"),
        ("髙島屋①".encode("cp932"), "Shift_JIS", "髙島屋①"),
        ("镕基".encode("gbk"), "gb2312", "镕基"),
        (b"caf\xe9", "no-such", "café"),
        (b"caf\xe9", "base64", "café"),
        (b"caf\xe9", "utf-16", "café"),
        (XML.format("ISO-8859-1").encode("cp1252"), "utf-8", XML.format("ISO-8859-1")),
        (XML.format("utf-16").encode("utf-16-le"), None, XML.format("utf-16")),
        (b"", None, ""),
    ],
)
def test_texts_whole_and_as_a_stream(data: bytes, promised: str | None, text: str) -> None:
    assert decoded(data, promised) == text
    pieces = [data[at : at + 3] for at in range(0, len(data), 3)]
    stream, start = open_text(unpacked(pieces, 1_000_000), promised=promised)
    assert (stream.read(), start) == (text, text)


def test_umlauts_that_begin_late_still_show_the_encoding() -> None:
    data = b"x" * 5000 + "é".encode()
    assert open_text(unpacked([data], 10_000), promised="latin-1")[0].read()[-1] == "é"


@pytest.mark.parametrize(
    ("head", "name"),
    [(b"PK\x03\x04", "ZIP archive"), (b"7z\xbc\xaf", "packed"), (b"\xd0\xcf\x11\xe0", "office"), (b"%PDF-1.7", "PDF")],
)
def test_another_archive_is_called_by_its_name(head: bytes, name: str) -> None:
    with pytest.raises(SourceError, match=name):
        unpacked([head + bytes(100)], 1000)


def test_what_came_before_a_failure_is_read() -> None:
    def pieces() -> object:
        yield b"first\n"
        raise OSError("broken off")

    stream = unpacked(pieces(), 1000)  # type: ignore[arg-type]
    assert io.BufferedReader.readline(stream) == b"first\n"
    with pytest.raises(OSError, match="broken off"):
        stream.read()
