"""Records that only HTTP needs: problem documents and the answers about items, health and this process."""

from __future__ import annotations

from typing import Literal

from visor.schema.items import Item, Label, Record
from visor.schema.search import Audit, SearchAnswer


class Problem(Record, frozen=True, kw_only=True):
    """RFC 9457 problem document (`application/problem+json`)."""

    type: str
    title: str
    status: int
    detail: str
    """What was found, what is valid, what to do."""
    found: str = ""
    valid: str = ""
    remedy: str = ""


class SearchOutcome(Record, frozen=True, kw_only=True):
    """What became of one search among several: its answer, or the problem."""

    answer: SearchAnswer | None = None
    problem: Problem | None = None


class SearchesAnswer(Record, frozen=True, kw_only=True):
    """The answer of `POST /v1/searches`, in the order of the searches."""

    outcomes: tuple[SearchOutcome, ...]


class SuggestAnswer(Record, frozen=True, kw_only=True):
    """Words of the catalogue that complete the last word typed (`GET /v1/suggest`), the most frequent first."""

    words: tuple[str, ...]


class ItemsAnswer(Record, frozen=True, kw_only=True):
    """Some items to start from (`GET /v1/items`)."""

    items: tuple[Item, ...]


class ItemAnswer(Record, frozen=True, kw_only=True):
    """One item (`GET /v1/items/{id}`)."""

    item: Item
    indexed_at: str
    width: int
    height: int
    labels: tuple[Label, ...] = ()


class HealthAnswer(Record, frozen=True, kw_only=True):
    status: Literal["ok"] = "ok"
    images: int
    version: str


class ModelAnswer(Record, frozen=True, kw_only=True):
    """Which model makes the vectors, for the about panel."""

    name: str
    fingerprint: str
    dimension: int
    summary: str
    licences: str


class MeterAnswer(Record, frozen=True, kw_only=True):
    """Use of one free allowance, in its own unit (bytes, seconds, operations)."""

    resource: str
    service: str
    metric: str
    per: Literal["day", "month"]
    used: float
    limit: float
    """Where Visor stops."""
    free: float
    """The allowance that Google gives."""


class DeviceOffer(Record, frozen=True, kw_only=True):
    """Whether a visitor's own device may run the model, and what that needs."""

    allowed: bool
    by_default: bool = False
    """Whether a capable device runs the model without being told to: the files come from this machine, or from a bucket
    within the free tier, not from the search function."""
    size_bytes: int = 0
    """Size of the model's files."""
    closer: bool = False
    """As `closer` of `GET /v1/model`, which has the rest."""


class StatsAnswer(Record, frozen=True, kw_only=True):
    """What the index holds and how this process is doing (`GET /v1/stats`)."""

    images: int
    generation: int
    model: ModelAnswer
    segments: int
    fresh: int
    """Items that are searchable but not yet in a segment."""
    searches: int
    """Searches that this process has answered since it started."""
    stages_ms: dict[str, dict[str, float]]
    """By stage: p50 and p99 over this process's last searches."""
    capabilities: tuple[str, ...] = ()
    """What this server offers beyond searching: explain, feedback."""
    device: DeviceOffer | None = None
    audit: Audit | None = None
    """None before the first check."""
    meters: tuple[MeterAnswer, ...] = ()
    budget: float = 0.0
    """Limit of this month's spending past the free tier, in the owner's currency."""
    spent: float = 0.0
    """The part of it that is spent, by the meters."""
    learned_from: int = 0
    """Number of visitors' photos whose mean is used in answers; nothing is kept of any single photo."""
    notice: str | None = None


class FeedbackAnswer(Record, frozen=True, kw_only=True, omit_defaults=False):
    """The report is kept. The owner's applies to everybody from now on; a visitor's waits until the owner accepts."""

    kept: bool = True
