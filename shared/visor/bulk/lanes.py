"""Keeps requests to hosts polite although workers know nothing of each other: each worker has its own lane."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from visor.bulk.waiting import Waiting
from visor.http.url_policy import host_of
from visor.link_check.probe import is_web
from visor.schema.items import BATCH_SIZE_MAX, Item

DIRECT = "DirectRunner"


class Politeness(NamedTuple):
    """Limits on downloads from a host, for all workers together.

    A host has `lanes`. Each lane is worked on by one worker at a time, with one download at a time.
    """

    lanes: int
    per_second: float
    """Downloads a second."""


class PacedReader:
    """Reads pictures; those of one host one after the other, no faster than a lane may. Thread-safe."""

    def __init__(self, read: Callable[[Item], bytes], politeness: Politeness) -> None:
        self._read, self._pause_s = read, politeness.lanes / politeness.per_second
        self._lock = threading.Lock()
        self._hosts: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._next: dict[str, float] = {}

    def __call__(self, item: Item) -> bytes:
        if not is_web(item.image_url):
            return self._read(item)
        host = host_of(item.image_url)
        with self._lock:
            lock = self._hosts[host]
        with lock:
            time.sleep(max(0.0, self._next.get(host, 0.0) - time.monotonic()))
            self._next[host] = time.monotonic() + self._pause_s
            return self._read(item)


def lanes_of(waiting: Iterable[Waiting], lanes: int, few: int = BATCH_SIZE_MAX) -> Iterator[tuple[str, str]]:
    """The lane and name of each batch. The batches of a host are spread over its lanes in turn; a batch without a host
    has its own lane.

    Args:
        waiting: By host, as `WaitingBatches.all` returns it.
        few: Hosts with fewer pictures share a lane of about this many: a batch, a shard and a commit for each of a
            thousand hosts would be as many as for a thousand times the pictures.
    """
    shared, room = 0, 0
    for host, batches in groupby(waiting, key=lambda one: one.host):
        found = list(batches)
        pictures = sum(one.pictures for one in found)
        if host and pictures < few:
            if pictures > room:
                shared, room = shared + 1, few
            room -= pictures
        for turn, one in enumerate(found, 1):
            if not host:
                yield one.name, one.name
            else:
                yield f"few.{shared}" if pictures < few else f"{host}.{turn % lanes}", one.name
