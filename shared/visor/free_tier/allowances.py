"""The data files of the cost model: what is free, what one unit of each operation uses, and how large images are."""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Literal

import msgspec

from visor.schema.items import Record


class Allowance(Record, frozen=True, kw_only=True):
    """What is free of one metric of one service."""

    service: str
    metric: str
    unit: str
    per: Literal["day", "month", "always"]
    free: float
    price: float
    """US dollars for one unit more (a month, where `per` is `always`), in the regions that have free storage."""
    price_read: str
    """How the price was looked up, as `read`."""
    title: str
    """Of the page of Google's that says so."""
    url: str
    read: str
    """How the figure was looked up; `Allowances.reading` says what that means."""
    note: str = ""


class Allowances(Record, frozen=True, kw_only=True):
    """allowances.json."""

    looked_up: str
    prices_looked_up: str
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
    """What `unit` (always a thousand of something) uses, by resource. Resources that are not named are not used."""

    unit: str
    counts: dict[str, Figure]


class Counted(Record, frozen=True, kw_only=True):
    """counted.json."""

    about: str
    operations: dict[str, Operation]
    sizes: dict[str, Figure]

    def each(self, operation: str, resource: str) -> float:
        """What one operation uses of a resource; 0 if the file does not name the resource."""
        figure = self.operations[operation].counts.get(resource)
        return figure.value / 1000 if figure else 0.0

    def size(self, name: str) -> float:
        return self.sizes[name].value


class ImageSize(Record, frozen=True, kw_only=True):
    """What one function, or one kind of source, adds to Artifact Registry."""

    bytes: int
    """Compressed."""
    packages: dict[str, str]
    """What was installed: name to version. A test compares it with what would be installed today."""


class ImageSizes(Record, frozen=True, kw_only=True):
    """images.json, made by `scripts/bundle.py OUT --measure --record`."""

    model: str | None
    """Which the embed and search images hold."""
    model_bytes: int = 0
    """Of its files."""
    functions: dict[str, ImageSize]
    sources: dict[str, ImageSize]
    """What a kind of source adds to crawl, where visor.toml names one."""
    metrics: ImageSize | None = None
    """What SciPy adds to search, where named metrics are wanted; None if search was not measured."""
    runtimes: dict[str, ImageSize] = msgspec.field(default_factory=dict)
    """What a model's libraries add: `onnx` to embed and search each, `words` to search."""


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
