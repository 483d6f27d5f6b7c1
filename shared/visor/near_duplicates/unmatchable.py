"""The stored hash of a picture in which there is nothing to compare: it is near no other hash."""

from __future__ import annotations

import hashlib

from visor.near_duplicates.fingerprint import HASH_BYTES


def unmatchable_hash(item_id: str) -> bytes:
    """`HASH_BYTES` random bytes, the same ones for one item.

    Two such PDQ hashes, or one and a picture's, differ in 128 of 256 bits give or take 8; copies differ in 24 at most.
    A sketch of random cells correlates with no picture. So neither a search nor a merge nor a check of links takes the
    item for a copy of another one, and none of them needs to know about it.
    """
    return hashlib.shake_128(item_id.encode()).digest(HASH_BYTES)
