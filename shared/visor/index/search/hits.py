"""What a search of the index gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from visor.confidence.features import Neighbourhood
from visor.index.format.container import Array

DUPLICATES_MAX = 20


@dataclass(frozen=True, slots=True)
class Hit:
    """One result: the nearest of a group of rows that show the same picture."""

    id: str
    similarity: float
    hash_distance: int | None
    """Bits in which its PDQ hash differs from the query's, 0 to 256; None without a query hash."""
    duplicates: tuple[str, ...] = ()
    """Other ids of the same picture, nearest first, at most 20."""
    hash: bytes = b""
    """Its whole stored hash."""


@dataclass(frozen=True, slots=True)
class Hits:
    """An answer. `nearest` (at most 64,) float32: best similarities in falling order, duplicates counted one by one."""

    hits: tuple[Hit, ...]
    mode: Literal["fast", "exact", "metric"]
    metric: str | None = None
    nearest: Array = field(default_factory=lambda: np.empty(0, np.float32), repr=False)
    notice: str | None = None
    around: Neighbourhood | None = field(default=None, repr=False)
    """What calibration looks at, without the query's labels; None if nothing was searched."""
