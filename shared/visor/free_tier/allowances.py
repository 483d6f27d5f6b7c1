"""The data files of the cost model: what is free, what one unit of each operation uses, and how large images are."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Literal

import msgspec

from visor.schema.items import Record

DRIFT = 0.1
"""Relative difference between the data file and a measurement above which they have drifted apart."""


class Allowance(Record, frozen=True, kw_only=True):
    """What is free of one metric of one service."""

    service: str
    metric: str
    unit: str
    per: Literal["day", "month", "always"]
    free: float
    title: str
    """Of the page of Google's that says so."""
    url: str
    read: str
    """How the figure was looked up; `Allowances.reading` says what that means."""
    note: str = ""


class Allowances(Record, frozen=True, kw_only=True):
    """allowances.json."""

    looked_up: str
    reading: dict[str, str]
    allowances: tuple[Allowance, ...]

    def of(self, service: str, metric: str) -> Allowance:
        return next(a for a in self.allowances if (a.service, a.metric) == (service, metric))


class Figure(Record, frozen=True, kw_only=True):
    """One number and where it comes from: the step of the design it follows from, or the command that measured it."""

    value: float
    basis: Literal["derived", "measured"]
    why: str


class Operation(Record, frozen=True, kw_only=True):
    """What `unit` (always a thousand of something) uses, by resource. What is not named is not used."""

    unit: str
    counts: dict[str, Figure]


class Counted(Record, frozen=True, kw_only=True):
    """counted.json."""

    about: str
    operations: dict[str, Operation]
    sizes: dict[str, Figure]

    def each(self, operation: str, resource: str) -> float:
        """What one of an operation uses of a resource; 0 where the file names none."""
        figure = self.operations[operation].counts.get(resource)
        return figure.value / 1000 if figure else 0.0

    def size(self, name: str) -> float:
        return self.sizes[name].value


class ImageSize(Record, frozen=True, kw_only=True):
    """What one function, or one kind of source, adds to Artifact Registry."""

    bytes: int
    """Compressed."""
    packages: dict[str, str]
    """What was installed: name to version. A test holds it against what would be installed today."""


class ImageSizes(Record, frozen=True, kw_only=True):
    """images.json, made by `scripts/bundle.py OUT --measure --record`."""

    model: str | None
    """Which the embed and search images hold."""
    functions: dict[str, ImageSize]
    sources: dict[str, ImageSize]
    """What a kind of source adds to crawl, where visor.toml names one."""
    metrics: ImageSize | None = None
    """What SciPy adds to search, where named metrics are wanted; None if search was not measured."""


@functools.cache
def image_sizes() -> ImageSizes:
    """The sizes as they are committed."""
    return msgspec.json.decode((files("visor.free_tier") / "images.json").read_bytes(), type=ImageSizes)


@functools.cache
def allowances() -> Allowances:
    """The free tier as it was looked up."""
    return msgspec.json.decode((files("visor.free_tier") / "allowances.json").read_bytes(), type=Allowances)


@functools.cache
def counted() -> Counted:
    """The counts as they are committed."""
    return msgspec.json.decode((files("visor.free_tier") / "counted.json").read_bytes(), type=Counted)


def drift(measured: Mapping[str, Mapping[str, float]], *, tolerance: float = DRIFT) -> list[str]:
    """Where the code now uses something else than counted.json says, one sentence each; none if they agree.

    Args:
        measured: Operation to resource to what a thousand used, in the words of counted.json.
        tolerance: Relative; below 1 a thousand, absolute.

    Raises:
        KeyError: An operation that counted.json does not know.
    """
    found = []
    for operation, counts in measured.items():
        entry = counted().operations[operation]
        for resource, value in counts.items():
            figure = entry.counts.get(resource)
            known = figure.value if figure else 0.0
            if abs(value - known) > tolerance * max(abs(known), 1.0):
                found.append(
                    f"{operation}: {entry.unit} use {value:g} {resource}, counted.json says {known:g}"
                    f" ({figure.why if figure else 'not named'})"
                )
    return found


def record(measured: Mapping[str, Mapping[str, float]], *, command: str, path: Path) -> None:
    """Write measurements into counted.json, each with the command that made it. What was not measured stays."""
    now = msgspec.json.decode(path.read_bytes(), type=Counted)
    operations = dict(now.operations)
    for operation, counts in measured.items():
        figures = {r: Figure(value=v, basis="measured", why=command) for r, v in counts.items()}
        operations[operation] = Operation(
            unit=operations[operation].unit, counts=operations[operation].counts | figures
        )
    document = msgspec.structs.replace(now, operations=operations)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
