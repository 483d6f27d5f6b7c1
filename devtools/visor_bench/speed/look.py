"""Embeds a picture on request. A separate program, which also runs with an older Visor on its path.

Argument: the file of the picture. For each line of standard input it embeds once, and writes a line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

MANY = 8
"""Pictures that are embedded at once."""


def first_of(*places: str) -> Any:
    """The object at the first of the places (`module:name`) that exists: names have moved from version to version."""
    for place in places:
        module, _, name = place.partition(":")
        try:
            return getattr(import_module(module), name)
        except ImportError:
            continue
    raise ImportError(f"This Visor has none of {', '.join(places)}")


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds by the clock, and of the processor."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - start) * 1000, (time.process_time() - cpu) * 1000


def main() -> None:
    settings = first_of("visor.settings:Settings").read()
    embedder = first_of("visor.models.embedder:load_embedder", "visor.models.run:load_embedder")(settings)
    decode = first_of("visor.imaging.decode:decode_image", "visor.images.decode:decode")
    data, side = Path(sys.argv[1]).read_bytes(), embedder.description.input_side

    def decoded() -> Any:
        return decode(data, pixels_max=settings.pixels_max, side_hint=side).pixels

    pixels = decoded()
    embedder.embed([pixels])
    embedder.embed([pixels] * MANY)
    for _ in sys.stdin:
        query_ms, query_cpu_ms = timed(lambda: embedder.embed([decoded()]))
        many_ms, _ = timed(lambda: embedder.embed([pixels] * MANY))
        decode_ms, _ = timed(decoded)
        row = {
            "query_ms": query_ms,
            "query_cpu_ms": query_cpu_ms,
            "decode_ms": decode_ms,
            "images_per_s": MANY / many_ms * 1000,
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
