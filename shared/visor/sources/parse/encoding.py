"""Text of a feed, whatever its maker believed its encoding to be, as a stream."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from visor.errors import SourceError

_DECLARED = re.compile(rb"""<\?xml[^>]*encoding\s*=\s*["']([\w.:-]+)["']""")
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_BUFFER_BYTES = 1 << 16
_HEAD_BYTES = 256
"""In which an XML declaration stands, if there is one."""


def _as_windows_1252(error: UnicodeError) -> tuple[str, int]:
    """Most bytes that are not in the promised encoding are Windows-1252, a superset of printable Latin-1."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error("visor_windows_1252", _as_windows_1252)


class _Pieces(io.RawIOBase):
    """Pieces of bytes as a file. A read gives what is left of one piece, so nothing is lost where the next fails."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = filter(None, pieces)
        # Enough for `peek` to show the encoding.
        self._rest = b""
        while len(self._rest) < _HEAD_BYTES and (piece := next(self._pieces, b"")):
            self._rest += piece

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or next(self._pieces, b"")
        taken = self._rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)


def unpacked(pieces: Iterable[bytes], bytes_max: int) -> io.BufferedReader:
    """`pieces` as a file, unpacked if they are gzip data.

    Reading raises `SourceError` if more than `bytes_max` come out of gzip data, or if it is broken.
    """
    packed: io.BufferedReader = io.BufferedReader(_Pieces(pieces), _BUFFER_BYTES)
    if not packed.peek(2).startswith(b"\x1f\x8b"):
        return packed
    return io.BufferedReader(_Pieces(_gunzipped(packed, bytes_max)), _BUFFER_BYTES)


def _gunzipped(packed: BinaryIO, bytes_max: int) -> Iterator[bytes]:
    total = 0
    try:
        with gzip.GzipFile(fileobj=packed) as file:
            while piece := file.read1(_BUFFER_BYTES):
                total += len(piece)
                if total > bytes_max:
                    raise SourceError(
                        f"The feed is larger than {bytes_max:,} bytes once unpacked", remedy="Raise bytes_max"
                    )
                yield piece
    except EOFError as exc:
        raise SourceError("The feed's gzip data ends before its end") from exc
    except (gzip.BadGzipFile, zlib.error) as exc:
        raise SourceError(f"The feed's gzip data is broken: {exc}") from exc


def open_text(data: io.BufferedReader, *, promised: str | None) -> tuple[io.TextIOWrapper, str]:
    """The text of `data`, every line end a `\\n`, and how it begins (up to 64 kB, not consumed).

    Args:
        promised: Encoding by the configuration or the HTTP header; a byte order mark and an XML declaration, which
            travel with the text, take precedence. UTF-8 by default; what does not fit is read as Windows-1252.
    """
    encoding, skip = _encoding(data.peek(_HEAD_BYTES), promised)
    data.read(skip)
    errors = "visor_windows_1252" if encoding == "utf-8" else "replace"
    return io.TextIOWrapper(data, encoding, errors), data.peek(_HEAD_BYTES).decode(encoding, errors)


def _encoding(head: bytes, promised: str | None) -> tuple[str, int]:
    """The encoding of a text by its first bytes, and the length of its byte order mark."""
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding, len(mark)
    declared = _DECLARED.search(head[:_HEAD_BYTES])
    for name in (declared[1].decode() if declared else None, promised):
        try:
            b"".decode(name or "utf-8")
            encoding = codecs.lookup(name).name if name else ""
        except LookupError:
            continue
        # The text of a declaration could be read as ASCII, so it is not UTF-16 whatever it says.
        if encoding and not encoding.startswith(("utf-16", "utf-32")):
            return ("utf-8" if encoding == "ascii" else encoding), 0
    return "utf-8", 0


def decoded(data: bytes, promised: str | None = None) -> str:
    """A whole text: as its byte order mark says, else UTF-8 where it is valid, else as promised, else Windows-1252.

    UTF-16 without a mark is known by its zeros.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "visor_windows_1252" if encoding == "utf-8" else "replace")
    if b"\0" in data[:4]:
        return data.decode("utf-16-be" if data[0] == 0 else "utf-16-le", "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        encoding = _encoding(data[:_HEAD_BYTES], promised)[0]
    encoding = "cp1252" if encoding in ("latin-1", "iso8859-1") else encoding
    return data.decode(encoding, "visor_windows_1252" if encoding == "utf-8" else "replace")
