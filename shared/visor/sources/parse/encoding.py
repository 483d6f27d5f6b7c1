"""Decodes text, whatever encoding its maker believed it to have: whole, or as a stream."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from visor.errors import SourceError
from visor.imaging.sniff import LOOK_BYTES, no_text

_DECLARED = re.compile(rb"""<\?xml[^>]*encoding\s*=\s*["']([\w.:-]+)["']""")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SUPERSETS = {"shift_jis": "cp932", "euc_kr": "cp949", "gbk": "gb18030", "big5": "big5hkscs"}
"""Python's names of the encodings that WHATWG's labels mean, if webencodings names a smaller one."""
_BUFFER_BYTES = 1 << 16


def _as_windows_1252(error: UnicodeError) -> tuple[str, int]:
    """Most bytes that are not in the promised encoding are Windows-1252, a superset of printable Latin-1."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    data = error.object[error.start : error.end]
    return "".join(bytes([byte]).decode("cp1252", "ignore") or "\ufffd" for byte in data), error.end


codecs.register_error("visor_windows_1252", _as_windows_1252)


class _Pieces(io.RawIOBase):
    """Pieces of bytes as a file. A read returns the rest of one piece, so nothing is lost if the next fails."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces: Iterator[bytes] = filter(None, pieces)
        # Enough for `peek` to show the encoding: umlauts may begin late.
        self._rest = b""
        try:
            while len(self._rest) < _BUFFER_BYTES and (piece := next(self._pieces, b"")):
                self._rest += piece
        except Exception as exc:  # noqa: BLE001 -- raised again where it belongs: after the bytes that came before it
            self._pieces = _failing(exc)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or next(self._pieces, b"")
        taken = self._rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)


def _failing(exc: Exception) -> Iterator[bytes]:
    yield from ()
    raise exc


def unpacked(pieces: Iterable[bytes], bytes_max: int) -> io.BufferedReader:
    """`pieces` as a file, unpacked if they are gzip data, once or twice: some servers pack a packed file again.

    Raises:
        SourceError: It is another archive. Reading raises it, too, if gzip data is broken or unpacks to more than
            `bytes_max`.
    """
    file: io.BufferedReader = io.BufferedReader(_Pieces(pieces), _BUFFER_BYTES)
    for _ in range(2):
        if file.peek(2).startswith(b"\x1f\x8b"):
            file = io.BufferedReader(_Pieces(_gunzipped(file, bytes_max)), _BUFFER_BYTES)
    if other := no_text(file.peek(LOOK_BYTES)):
        raise SourceError(f"The file is {other}", valid="Text or gzip data", remedy="Offer the text itself, or gzip")
    return file


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
    """The text of `data`, with every line end a `\\n`, and its beginning (up to 64 kB, not consumed). As `decoded`."""
    encoding, errors, skip = _encoding(data.peek(_BUFFER_BYTES), promised)
    data.read(skip)
    # Files that were joined have a mark each.
    while data.peek(3).startswith(codecs.BOM_UTF8):
        data.read(len(codecs.BOM_UTF8))
    return io.TextIOWrapper(data, encoding, errors), data.peek(_BUFFER_BYTES).decode(encoding, errors)


def decoded(data: bytes, promised: str | None = None) -> str:
    """A whole text, whatever its declared encoding.

    The encoding is that of its byte order mark, else UTF-16 if its zeros fit, else UTF-8 if that is valid, else that of
    its XML declaration, else the promised one, else UTF-8 in which invalid bytes are Windows-1252. Names of encodings
    mean what browsers take them for (https://encoding.spec.whatwg.org): ISO-8859-1 is Windows-1252.

    Args:
        promised: By the configuration or the HTTP header.
    """
    encoding, errors, skip = _encoding(data, promised)
    return data[skip:].decode(encoding, errors)


def _encoding(head: bytes, promised: str | None) -> tuple[str, str, int]:
    """The encoding of a text by its first bytes, what to do with errors, and the length of its byte order mark."""
    named, skip = next(((name, len(mark)) for mark, name in _BOMS if head.startswith(mark)), ("", 0))
    high, low = head[:64:2], head[1:64:2]
    if not named and 2 * max(high.count(0), low.count(0)) > len(low):
        named = "utf-16-be" if high.count(0) > low.count(0) else "utf-16-le"
    if not named and not head.isascii() and is_utf_8(head):
        named = "utf-8"
    if not named:
        declared = _DECLARED.search(head[:256])
        named = next(filter(None, map(_codec, (declared[1].decode() if declared else "", promised))), "utf-8")
    return named, "visor_windows_1252" if named in ("utf-8", "cp1252") else "replace", skip


def is_utf_8(head: bytes) -> bool:
    """Whether a text, or as much of its beginning as is peeked at, is valid UTF-8."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) != _BUFFER_BYTES)
    except UnicodeDecodeError:
        return False
    return True


def _codec(label: str | None) -> str:
    """Python's name of a label's encoding; empty for none, and for UTF-16 and 32: the text would show those itself."""
    import webencodings

    known = webencodings.lookup(label or "")
    try:
        name = known.codec_info.name if known else codecs.lookup(label or "").name
        b"a".decode(name)
    except (LookupError, ValueError):
        return ""
    return "" if name.startswith(("utf-16", "utf-32")) else _SUPERSETS.get(name, name)
