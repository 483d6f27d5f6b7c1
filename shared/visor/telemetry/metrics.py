"""Metrics: counters and histograms of one process, and their text for Prometheus.

Names follow Prometheus' conventions: `visor_`, the base unit (seconds, bytes), `_total` for numbers that only grow.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Media type of Prometheus' text format."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LONG_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0)
"""Upper bounds of the buckets of a histogram, in seconds."""

Labels = Mapping[str, str]
COUNTERS: Mapping[str, tuple[str, Sequence[str]]] = {
    "visor_http_requests_total": ("Requests that were answered, by endpoint and status.", ()),
    "visor_searches_total": (
        "Searches by outcome: confident, doubtful, unsafe, or the code of the problem.",
        ("confident", "doubtful", "unsafe"),
    ),
    "visor_embed_items_total": ("Items that this process embedded or failed to embed.", ("embedded", "failed")),
    "visor_merges_total": ("Merges that this process ran, by outcome.", ("done", "failed")),
}
"""By name: help text, and the outcomes that are present from the start, as 0."""
HISTOGRAMS: Mapping[str, tuple[str, Sequence[float]]] = {
    "visor_http_request_duration_seconds": ("From a request's first byte to its answer, by endpoint.", SECONDS),
    "visor_search_duration_seconds": ("How long searches that were answered took.", SECONDS),
    "visor_search_stage_duration_seconds": ("The same, of each stage of a search.", SECONDS),
    "visor_merge_duration_seconds": ("How long merges of this process took.", LONG_SECONDS),
}


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with its samples: suffix of its name, labels and value."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: Sequence[tuple[str, Labels, float]]


def gauge(name: str, help: str, *samples: float | tuple[Labels, float]) -> Family:  # noqa: A002 - Prometheus' word
    """A gauge of samples with labels, or of one value without labels."""
    found = [one if isinstance(one, tuple) else ({}, one) for one in samples]
    return Family(name, "gauge", help, [("", labels, value) for labels, value in found])


class Metrics:
    """The counts of one process since it started. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, dict[tuple[tuple[str, str], ...], float]] = {
            name: {(("outcome", one),): 0.0 for one in outcomes} for name, (_, outcomes) in COUNTERS.items()
        }
        self._buckets: dict[str, dict[tuple[tuple[str, str], ...], list[float]]] = {name: {} for name in HISTOGRAMS}

    def count(self, name: str, value: float = 1, **labels: str) -> None:
        """Add to one of `COUNTERS`."""
        with self._lock:
            counts, key = self._counts[name], tuple(labels.items())
            counts[key] = counts.get(key, 0) + value

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Add a duration to one of `HISTOGRAMS`."""
        bounds = HISTOGRAMS[name][1]
        with self._lock:
            # One number for each bucket, one for longer durations, and the sum.
            numbers = self._buckets[name].setdefault(tuple(labels.items()), [0.0] * (len(bounds) + 2))
            numbers[bisect_left(bounds, seconds)] += 1
            numbers[-1] += seconds

    @contextmanager
    def merge(self) -> Iterator[None]:
        """Count and time the merge in the block."""
        started, outcome = time.monotonic(), "failed"
        try:
            yield
            outcome = "done"
        finally:
            self.count("visor_merges_total", outcome=outcome)
            self.observe("visor_merge_duration_seconds", time.monotonic() - started)

    def families(self) -> Iterator[Family]:
        with self._lock:
            counts = {name: dict(found) for name, found in self._counts.items()}
            buckets = {name: {key: list(one) for key, one in found.items()} for name, found in self._buckets.items()}
        for name, found in counts.items():
            yield Family(name, "counter", COUNTERS[name][0], [("", dict(key), value) for key, value in found.items()])
        for name, (about, bounds) in HISTOGRAMS.items():
            samples: list[tuple[str, Labels, float]] = []
            for key, (*numbers, total) in buckets[name].items():
                labels, below = dict(key), 0.0
                for bound, number in zip((*bounds, float("inf")), numbers, strict=True):
                    below += number
                    samples.append(("_bucket", labels | {"le": _number(bound)}, below))
                samples += [("_sum", labels, total), ("_count", labels, below)]
            yield Family(name, "histogram", about, samples)


def process_families() -> Iterator[Family]:
    """Metrics of this process, with the names of Prometheus' client libraries. Only CPU time without /proc."""
    yield Family("process_cpu_seconds_total", "counter", "CPU time, user and system.", [("", {}, time.process_time())])
    try:
        status = Path("/proc/self/status").read_text()
        ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
        opened = sum(1 for _ in Path("/proc/self/fd").iterdir())
    except (OSError, StopIteration):
        return
    memory = dict(line.split(":", 1) for line in status.splitlines() if line.startswith("Vm"))
    for name, line, about in (
        ("process_resident_memory_bytes", "VmRSS", "Memory that is resident."),
        ("process_virtual_memory_bytes", "VmSize", "Memory that is mapped."),
    ):
        yield gauge(name, about, 1024 * float(memory[line].split()[0]))
    started = float(booted.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
    yield gauge("process_start_time_seconds", "When it started, seconds since 1970.", started)
    yield gauge("process_open_fds", "Open file descriptors.", opened)


def exposition(families: Iterable[Family]) -> str:
    """The families in Prometheus' text format, version 0.0.4. Families without samples are left out."""
    lines = []
    for one in families:
        if not one.samples:
            continue
        about = one.help.replace("\\", r"\\").replace("\n", r"\n")
        lines += [f"# HELP {one.name} {about}", f"# TYPE {one.name} {one.kind}"]
        lines += [f"{one.name}{end}{_labels(labels)} {_number(value)}" for end, labels, value in one.samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items()) + "}" if labels else ""


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if float(value).is_integer() else repr(float(value))
