"""`visor bench words`: what searching by words costs, compared with searching by pictures and with SQLite's FTS5."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from visor.console import as_json, say
from visor.index.format.container import Array, Container
from visor.schema.items import FacetRow
from visor_bench.base import base_vectors, print_figures, vector_options
from visor_bench.speed.search import index as search_index
from visor_bench.speed.search.process import MODEL, open_index, process_start
from visor_bench.vectors import mixed

QUERIES = 200
KINDS, BRANDS, SORTS, COLLECTIONS = 20_000, 5_000, 2_000, 80
"""Different words of each part of a title; their frequency falls as 1 / rank, as in catalogues."""
ONE_WORD = 0.4
"""Share of the queries that are a single word of a title; the others are its first three."""


def titles(count: int) -> list[str]:
    """Made-up titles of products as shops write them, one to four words, seeded: `Bravo Apple Juice`, `Lime`."""
    rng = np.random.default_rng(5)
    consonants, vowels = list("bcdfghklmnprstvz"), list("aeiou")

    def vocabulary(size: int) -> Array:
        lengths = rng.integers(2, 5, size)
        pairs = np.char.add(rng.choice(consonants, (size, 4)), rng.choice(vowels, (size, 4)))
        return np.array(["".join(row[:length]).capitalize() for row, length in zip(pairs, lengths, strict=True)])

    def some(words: Array) -> Array:
        weights = 1 / np.arange(1, len(words) + 1)
        return rng.choice(words, count, p=weights / weights.sum())

    sorts = vocabulary(SORTS)
    brand, sort, other, kind = some(vocabulary(BRANDS)), some(sorts), some(sorts), some(vocabulary(KINDS))
    shapes = rng.integers(0, 4, count)
    ways = ((brand, sort, kind), (sort, kind), (brand, sort, other, kind), (kind,))
    return [" ".join(column[row] for column in ways[shape]) for row, shape in enumerate(shapes)]


def queries_of(said: list[str]) -> list[str]:
    rng = np.random.default_rng(6)
    picked = [said[row].split() for row in rng.integers(len(said), size=QUERIES)]
    return [str(rng.choice(words)) if rng.random() < ONE_WORD else " ".join(words[:3]) for words in picked]


@click.command("words")
@click.option("--images", default=70_000, show_default=True, type=click.IntRange(min=100))
@vector_options
@as_json
def words_command(images: int, pictures: Path | None, file: Path | None, model: str | None, as_json: bool) -> None:
    """Latency, memory and size of searching by words, alone and with a picture, and of SQLite's FTS5."""
    base, _ = base_vectors(pictures, file, model)
    with tempfile.TemporaryDirectory(prefix="visor-bench-") as folder:
        document = measure(images, base, Path(folder), say)
    print_figures(document, as_json)


def measure(images: int, base: Array, home: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Build an index of `images` made vectors with titles under `home`, and FTS5 of the same; search both in new
    processes.

    Returns:
        `text_p50_ms` and `text_p99_ms` of words alone, `both_p50_ms` with a picture; `resident_mb`, all that words add
        to the memory of a function, whose /tmp is memory; `stored_bytes_per_item`, of the index and of the texts that
        the next merge reads; `first_answer_s` from the start of the process to a first answer by words, and
        `first_answer_without_s` by a picture; `later_page_p50_ms`, of its second page. The same of `fts5_…`.
    """
    said = titles(images)

    def facets(row: int) -> FacetRow:
        return FacetRow(collection=f"Collection {row % COLLECTIONS}", texts={"title": said[row]})

    built = search_index.build(home, base, images, say, facets)
    asked = {
        "texts": queries_of(said),
        "vectors": np.concatenate(list(mixed(base, QUERIES, seed=2))).astype(np.float32).tolist(),
    }
    (home / "asked.json").write_text(json.dumps(asked))
    _fts5(home / "fts5.sqlite", said)
    document: dict[str, Any] = {"images": images, "merge_s": built["merge_s"]}
    for way in ("vectors", "words", "fts5"):
        say(f"asking {way}")
        command = [sys.executable, "-m", "visor_bench.speed.words", str(home), way]
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own module
        document |= json.loads(done.stdout.splitlines()[-1])
    stored = {"index": 0, "texts": 0}
    for container in _segments(home):
        stored["index"] += container.tensors["words"].size_bytes
        stored["texts"] += container.tensors["texts"].size_bytes
    document["stored_bytes_per_item"] = round(sum(stored.values()) / images, 1)
    document["stored_index_bytes_per_item"] = round(stored["index"] / images, 1)
    document["fts5_stored_bytes_per_item"] = round((home / "fts5.sqlite").stat().st_size / images, 1)
    return document


def _segments(home: Path) -> Iterator[Container]:
    objects, _ = open_index(home)
    for name in objects.list("segments/"):
        yield Container.open(name.name, objects.get(name.name), kind="segment")


def _fts5(path: Path, said: list[str]) -> None:
    """The words alone, as small as FTS5 can store them: no texts, no positions."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE VIRTUAL TABLE words USING fts5(title, about, content='', detail=column, "
            "tokenize='porter unicode61 remove_diacritics 2')"
        )
        rows = ((row, title, f"Collection {row % COLLECTIONS}") for row, title in enumerate(said))
        connection.executemany("INSERT INTO words (rowid, title, about) VALUES (?, ?, ?)", rows)
        connection.execute("INSERT INTO words (words) VALUES ('optimize')")


def main() -> None:
    """Arguments: the index's folder; `vectors`, `words` or `fts5`. Prints one JSON document."""
    home, way = Path(sys.argv[1]), sys.argv[2]
    asked = json.loads((home / "asked.json").read_text())
    texts, vectors = asked["texts"], np.array(asked["vectors"], np.float32)
    print(json.dumps(_ask_fts5(home, texts) if way == "fts5" else _ask(home, texts, vectors, is_words=way == "words")))


def _ask(home: Path, texts: list[str], vectors: Array, *, is_words: bool) -> dict[str, float]:
    from visor.index.search.hits import Order
    from visor.index.search.searcher import Searcher

    searcher = Searcher(*open_index(home), model=MODEL, freshness_s=3600)
    searcher.refresh()
    before = _private_mb()
    searcher.search(None if is_words else vectors[0], k=12, text=texts[0] if is_words else None)
    first_answer_s = round(time.time() - process_start(), 2)
    if not is_words:
        nexts = [searcher.search(vector, k=12).next for vector in vectors]
        later_ms = _milliseconds(lambda one: searcher.search(vectors[one], k=12, order=Order(after=nexts[one])))
        return {
            "first_answer_without_s": first_answer_s,
            "later_page_p50_ms": round(float(np.percentile(later_ms, 50)), 2),
        }
    text_ms = _milliseconds(lambda one: searcher.search(None, k=12, text=texts[one]))
    # Their files are in memory in a function, too: in the segment, and unpacked.
    files = sum(container.tensors["words"].size_bytes for container in _segments(home))
    resident_mb = _private_mb() - before + 2 * files / 1e6
    both_ms = _milliseconds(lambda one: searcher.search(vectors[one], k=12, text=texts[one]))
    return {
        "text_p50_ms": round(float(np.percentile(text_ms, 50)), 2),
        "text_p99_ms": round(float(np.percentile(text_ms, 99)), 2),
        "both_p50_ms": round(float(np.percentile(both_ms, 50)), 2),
        "both_p99_ms": round(float(np.percentile(both_ms, 99)), 2),
        "resident_mb": round(resident_mb),
        "first_answer_s": first_answer_s,
    }


def _ask_fts5(home: Path, texts: list[str]) -> dict[str, float]:
    before = _private_mb()
    connection = sqlite3.connect(":memory:")
    connection.deserialize((home / "fts5.sqlite").read_bytes())

    def ask(one: int) -> list[Any]:
        # The last word is still being typed, as for `Words.query`.
        match = " OR ".join(f'"{word}"' for word in texts[one].split()) + "*"
        return connection.execute(
            "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank LIMIT 12", (match,)
        ).fetchall()

    ask(0)
    first_answer_s = round(time.time() - process_start(), 2)
    took = _milliseconds(ask)
    return {
        "fts5_text_p50_ms": round(float(np.percentile(took, 50)), 2),
        "fts5_text_p99_ms": round(float(np.percentile(took, 99)), 2),
        "fts5_resident_mb": round(_private_mb() - before),
        "fts5_first_answer_s": first_answer_s,
    }


def _milliseconds(ask: Callable[[int], object]) -> list[float]:
    took = []
    for one in range(QUERIES):
        started = time.perf_counter()
        ask(one)
        took.append((time.perf_counter() - started) * 1000)
    return took


def _private_mb() -> float:
    """Memory of this process without mapped files, in MB (10⁶ bytes)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / 1e6
    return float("nan")


if __name__ == "__main__":
    main()
