"""Vector engine: holds an index's vectors outside of Visor's processes, and finds the nearest.

An engine has rows of plain values. Filters, facets, copies, versions and confidence are handled in `visor.index`, with
the same code for every engine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol

import numpy as np

from visor.errors import SettingsError, StoreUnavailable
from visor.settings import Settings

Array = np.ndarray[Any, Any]
Vectors = Literal["none", "near", "all"]
Range = tuple[str, float, float]
"""Name of a number (`number_name`), and the least and greatest value."""


def token(name: str, value: str | None = None) -> int:
    """A number of 63 bits that means 'this field has this value', or any value. So no text from outside becomes part of
    an expression."""
    text = name.encode("utf-8", "surrogatepass") + (b"" if value is None else b"\0" + value.encode(errors="replace"))
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def number_name(name: str) -> str:
    """The name under which a number is stored: a letter and 16 hexadecimal digits."""
    return f"n{token(name):016x}"


@dataclass(frozen=True, slots=True)
class Clause:
    """One of these tokens or ranges; with `negated` none of them. `has`: the token of 'has a value', if there are
    ranges."""

    tokens: tuple[int, ...] = ()
    ranges: tuple[Range, ...] = ()
    has: int = 0
    negated: bool = False


Where = Sequence[Clause]
"""All of them must hold."""


@dataclass(frozen=True, slots=True)
class Row:
    """One item.

    id: 32 hexadecimal digits. near: (m,) float32 of length 1, the vector that is searched. facts: Visor's own, opaque
    here. full: the full vector, (d,) float16. Vectors that were not requested are empty.
    """

    id: str
    version: int
    source: str
    tokens: tuple[int, ...]
    numbers: Mapping[str, float]
    facts: bytes
    near: Array
    full: Array


class VectorEngine(Protocol):
    """A store of rows in collections, each with vectors of one length. Thread-safe. The next call of any process reads
    what a call wrote.

    Raises:
        StoreUnavailable: It does not answer (all methods).
    """

    name: str
    nearest_max: int
    """Most rows that one search returns."""

    def collections(self) -> list[str]:
        """The collections of this index."""

    def create(self, collection: str, dimensions: int) -> None:
        """Make an empty collection. An existing one stays as it is."""

    def drop(self, collection: str) -> None:
        """Delete a collection with all its rows, if it exists."""

    def upsert(self, collection: str, rows: Sequence[Row]) -> None:
        """Write rows, each with its full vector, in place of rows with the same ids."""

    def delete(self, collection: str, ids: Collection[str]) -> None: ...

    def nearest(self, collection: str, near: Array, limit: int, where: Where = (), *, deep: bool = False) -> list[Row]:
        """The rows of the greatest inner products, without full vectors. `deep`: as exactly as it can."""

    def get(self, collection: str, ids: Collection[str], vectors: Vectors = "near") -> list[Row]:
        """The existing rows with these ids, in any order."""

    def scan(
        self, collection: str, where: Where = (), vectors: Vectors = "near", *, start: str = "", stop: str = "g"
    ) -> list[Row]:
        """All rows with start ≤ id < stop, in any order: scan a large collection in parts (`id_parts`)."""

    def ids(self, collection: str, *, start: str = "", stop: str = "g") -> list[str]:
        """Ids of the rows with start ≤ id < stop, in any order."""

    def count(self, collection: str, where: Where = (), *, start: str = "", stop: str = "g") -> int: ...

    def flush(self, collection: str) -> None:
        """Return once all earlier writes survive a crash."""

    def close(self) -> None: ...


def open_engine(settings: Settings, kind: str = "") -> VectorEngine:
    """The vector engine that the settings name; it connects on first use.

    Args:
        kind: Another engine than `settings.engine`, at the same address.

    Raises:
        SettingsError: The address is missing or belongs to another engine, or a library is not installed.
    """
    kind = kind or settings.engine
    url = settings.engine_url
    found = f"no address of it: {without_secrets(url, url)!r:.80}" if url else "empty"
    if not url or url.startswith(("postgres://", "postgresql://")) != (kind == "pgvector"):
        raise SettingsError(
            f"VISOR_ENGINE is {kind}, and VISOR_ENGINE_URL is {found}",
            valid=_ADDRESSES[kind],
            remedy="Set VISOR_ENGINE_URL",
        )
    where = settings.bucket if settings.backend == "gcp" else str(settings.home.expanduser().resolve())
    prefix = "visor_" + hashlib.blake2b(f"{where}\0{settings.index}".encode(), digest_size=5).hexdigest() + "_"
    try:
        if kind == "pgvector":
            from visor.storage.engines.pgvector import PgvectorEngine

            return PgvectorEngine(url, settings.engine_token, prefix)
        from visor.storage.engines.milvus import MilvusEngine

        return MilvusEngine(url, settings.engine_token, prefix)
    except ImportError as exc:
        raise SettingsError(
            f"VISOR_ENGINE is {kind}, and {exc.name} is not installed",
            valid=f"The extra '{kind}', which has it",
            remedy=f"pip install 'visor-search[{kind}]'",
        ) from exc


_ADDRESSES = {
    "milvus": "A file that ends in .db (Milvus Lite), or the http(s) address of a Milvus or Zilliz Cloud",
    "pgvector": "An address such as postgresql://user@host/database; its password is VISOR_ENGINE_TOKEN",
}


def without_secrets(text: object, url: str, token: str = "") -> str:
    """A driver's message about `url`, in one line; a fixed text if it quotes a part of a secret."""
    user, _, password = url.partition("://")[2].rpartition("@")[0].partition(":")
    named = re.findall(r"password=(\S[^&\s]*)", url)
    told = " ".join(str(text).replace(f"{user}:{password}@", "").split())[:300] or type(text).__name__
    parts = set(re.split(r"\W+", " ".join([password, token, *named]))) - {"", user}
    return "words that quote a secret" if any(part in told for part in parts) else told


def without_collection(engine: str, said: str) -> StoreUnavailable:
    """The error of an engine that answers but has no such collection."""
    return StoreUnavailable(
        f"{engine} does not have the collection that this index was moved to: {said}",
        valid="The database that merges of this index write to",
        remedy="Correct VISOR_ENGINE_URL; if it is lost, run `visor check --repair`",
    )


def id_parts(count: int, rows: int, start: str = "", stop: str = "g") -> list[tuple[str, str]]:
    """Ranges of ids from `start` to `stop` that split `count` rows into parts of about `rows`: ids are digests, so they
    are evenly distributed."""
    low, high = int(start or "0", 16), (1 << 128) if stop == "g" else int(stop, 16)
    parts = max(1, -(-count // rows))
    ends = [start, *(f"{low + (high - low) * part // parts:032x}" for part in range(1, parts)), stop]
    return list(pairwise(ends))


def in_batches(items: Collection[Any], size: int, call: Callable[[list[Any]], Any]) -> list[Any]:
    """The results of `call` for up to `size` items at a time."""
    listed = list(items)
    return [call(listed[start : start + size]) for start in range(0, len(listed), size)]
