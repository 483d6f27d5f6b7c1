"""Text of a feed whatever its maker thought its encoding to be, piece by piece."""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain

from visor.errors import SourceError

_DECLARED = re.compile(rb"""<\?xml[^>]*encoding\s*=\s*["']([\w.:-]+)["']""")
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_ANY_ZLIB_HEADER = 32 + zlib.MAX_WBITS
_PIECE_MAX = 1 << 20


def _as_windows_1252(error: UnicodeError) -> tuple[str, int]:
    """Most bytes that are not the encoding that was promised are Windows-1252, which Latin-1 is a part of."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error("visor_windows_1252", _as_windows_1252)


def gunzipped(pieces: Iterable[bytes], bytes_max: int) -> Iterator[bytes]:
    """`pieces`, unpacked if they are gzip data, of any number of members.

    Raises:
        SourceError: More than `bytes_max` come out, or the data is broken.
    """
    pieces = iter(pieces)
    first = next(pieces, b"")
    while len(first) < 2 and (more := next(pieces, b"")):
        first += more
    if not first.startswith(b"\x1f\x8b"):
        yield from chain([first], pieces)
        return
    total = 0
    unpack = zlib.decompressobj(_ANY_ZLIB_HEADER)
    try:
        for piece in chain([first], pieces):
            while piece:
                if unpack.eof:
                    unpack = zlib.decompressobj(_ANY_ZLIB_HEADER)
                out = unpack.decompress(piece, _PIECE_MAX)
                total += len(out)
                if total > bytes_max:
                    raise SourceError(
                        f"The feed is larger than {bytes_max:,} bytes once unpacked", remedy="Raise bytes_max"
                    )
                yield out
                piece = unpack.unconsumed_tail or unpack.unused_data
                if unpack.eof and not piece.strip(b"\0"):
                    break
    except zlib.error as exc:
        raise SourceError(f"The feed's gzip data is broken: {exc}") from exc
    if not unpack.eof:
        raise SourceError("The feed's gzip data ends before its end")


def decoded(pieces: Iterable[bytes], *, promised: str | None) -> Iterator[str]:
    """The text of `pieces`.

    Args:
        promised: Encoding by the configuration or the HTTP header; a byte order mark and an XML declaration, which
            travel with the text, are believed before the header. Default UTF-8; what does not fit is Windows-1252.
    """
    pieces = iter(pieces)
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= 256:
            break
    encoding, skip = _encoding(head, promised)
    decoder = codecs.getincrementaldecoder(encoding)("visor_windows_1252" if encoding == "utf-8" else "replace")
    yield decoder.decode(head[skip:])
    for piece in pieces:
        yield decoder.decode(piece)
    yield decoder.decode(b"", final=True)


def lines(texts: Iterable[str]) -> Iterator[str]:
    """Lines without their ends; `\\r\\n`, `\\n` and a lone `\\r` end one."""
    rest = ""
    for text in texts:
        # A "\r" at the end may be half of a "\r\n".
        rest, held = (rest + text, "") if not text.endswith("\r") else (rest + text[:-1], "\r")
        found = rest.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        rest = found.pop() + held
        yield from found
    if rest:
        yield rest.rstrip("\r")


def _encoding(head: bytes, promised: str | None) -> tuple[str, int]:
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding, len(mark)
    declared = _DECLARED.search(head[:256])
    for name in (declared[1].decode() if declared else None, promised):
        try:
            encoding = codecs.lookup(name).name if name else ""
        except LookupError:
            continue
        # The text of a declaration could be read as ASCII, so it is not UTF-16 whatever it says.
        if encoding and not encoding.startswith(("utf-16", "utf-32")):
            return ("utf-8" if encoding == "ascii" else encoding), 0
    return "utf-8", 0
