"""The data files of the cost model: free allowances, use of each operation, and sizes of container images."""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Literal

import msgspec

from visor.schema.items import Record


class Allowance(Record, frozen=True, kw_only=True):
    """The free amount of one metric of one service."""

    service: str
    metric: str
    unit: str
    per: Literal["day", "month", "always"]
    free: float
    price: float
    """US dollars for one more unit (for a month, if `per` is `always`), in the regions with free storage."""
    price_read: str
    """How the price was looked up, like `read`."""
    title: str
    """Title of Google's page with the figure."""
    url: str
    read: str
    """How the figure was looked up; `Allowances.reading` explains the values."""
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
    """One number and its source: the step of the design that it follows from, or the command that measured it."""

    value: float
    basis: Literal["derived", "measured"]
    why: str


class Operation(Record, frozen=True, kw_only=True):
    """What `unit` (always a thousand of something) uses, by resource. Resources that are missing are not used."""

    unit: str
    counts: dict[str, Figure]


class Counted(Record, frozen=True, kw_only=True):
    """counted.json."""

    about: str
    operations: dict[str, Operation]
    sizes: dict[str, Figure]

    def each(self, operation: str, resource: str) -> float:
        """One operation's use of a resource; 0 if the file does not name the resource."""
        figure = self.operations[operation].counts.get(resource)
        return figure.value / 1000 if figure else 0.0

    def size(self, name: str) -> float:
        return self.sizes[name].value


class ImageSize(Record, frozen=True, kw_only=True):
    """The size that one function, or one kind of source, adds to Artifact Registry."""

    bytes: int
    """Compressed size."""
    packages: dict[str, str]
    """Installed packages: name to version. A test compares them with those that would be installed today."""


class ImageSizes(Record, frozen=True, kw_only=True):
    """images.json, made by `scripts/bundle.py OUT --measure --record`."""

    model: str | None
    """The model in the images of embed and search."""
    model_bytes: int = 0
    """Size of its files."""
    functions: dict[str, ImageSize]
    sources: dict[str, ImageSize]
    """What a kind of source adds to crawl if visor.toml has one."""
    metrics: ImageSize | None = None
    """What SciPy adds to search if named metrics are enabled; None if search was not measured."""
    runtimes: dict[str, ImageSize] = msgspec.field(default_factory=dict)
    """What a model's libraries add: `onnx` to embed and to search, `words` to search."""


@functools.cache
def image_sizes() -> ImageSizes:
    """The sizes in the committed file."""
    return msgspec.json.decode((files("visor.free_tier") / "images.json").read_bytes(), type=ImageSizes)


@functools.cache
def allowances() -> Allowances:
    """The free tier as in the committed file."""
    return msgspec.json.decode((files("visor.free_tier") / "allowances.json").read_bytes(), type=Allowances)


@functools.cache
def counted() -> Counted:
    """The counts in the committed file."""
    return msgspec.json.decode((files("visor.free_tier") / "counted.json").read_bytes(), type=Counted)
