"""The damage that a check of an index finds."""

from __future__ import annotations

from typing import Literal

import msgspec

from visor.schema.items import Record

Kind = Literal[
    "database",
    "manifest",
    "projection",
    "segment",
    "shard",
    "document",
    "item without a vector",
    "vector without an item",
    "seen-set",
    "forgotten item",
    "link state",
    "frame",
]


class Damage(Record, frozen=True, kw_only=True):
    """One thing that is wrong."""

    kind: Kind
    found: str
    remedy: str
    """What a repair does about it, or did."""
    items: tuple[str, ...] = ()
    """Ids of the items concerned, if they are known."""


class CheckReport(Record, frozen=True, kw_only=True):
    """What one check found."""

    found: tuple[Damage, ...] = ()
    left: tuple[Damage, ...] = ()
    """What is still wrong after a repair; without one, all that was found."""
    lost: dict[str, str] = msgspec.field(default_factory=dict)
    """After a repair: by item id, why an item cannot be searched."""
