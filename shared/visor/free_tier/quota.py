"""Quota: use of the free tier this day and month, and whether one more operation fits.

Counts are kept in memory and added to one document a month (collection `meters`, key `2026-11`), which holds the
month's numbers and each day's. An instance writes and reads it once in `FLUSH_S`, or sooner after a hundredth of a free
allowance: some 150 writes and reads per day and instance, under 1 % of what it guards. Between two reads it does not
see the use of other instances; `quota_share` leaves room for that.

Days and months are Google's: they end at midnight in California.

With a budget, operations beyond an allowance are allowed as long as their price and the month's cost so far stay within
the budget.

What a search does to the stores is counted as it happens, whatever the request is. The counts are what Google bills: a
query without results and a missing document are one read each.
"""

from __future__ import annotations

import datetime
import threading
import time
import zoneinfo
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, get_args

from visor.errors import QuotaReached, StoreUnavailable
from visor.free_tier.allowances import Allowances, Counted, allowances, counted
from visor.free_tier.cost_model import stored_cost
from visor.schema.collections import METERS
from visor.settings import Settings
from visor.storage.documents import Delete, DocumentStore, Put
from visor.storage.objects import ObjectStore
from visor.storage.shared_counts import SharedCounts

FLUSH_S = 600.0
PENDING_SHARE = 0.01
STORED = "stored"
"""Key of the document with the number of stored images, independent of the month."""
BACKGROUND_SHARE = 0.8
"""Share of Visor's quota that crawl and embed may use; the rest is for searches."""
HARDLY_SEARCHED = {"firestore_writes": 0.96, "class_a": 1.0, "pubsub_bytes": 1.0}
"""The same share for resources that searches need only for the `STRANGERS_A_DAY` documents of each kind. A first load
waits for document writes, and this gives it most of each day's."""

MODEL_SHARE = 0.5
"""Share of Visor's quota that downloads of the model may use. A visitor whose device cannot get the model sends the
picture instead, which has to fit; and the page is also read from the bucket, unseen by any meter."""

BACKGROUND_OF_BUDGET, VISITORS_OF_BUDGET = 0.93, 0.97
"""Shares of the budget that crawl and embed, and visitors, may spend. The rest is for searches, and for the owner."""

Background = Literal["embed", "crawl", "crawl_run", "link", "merge", "compact_run", "publish", "published_item"]
Strangers = Literal["feedback", "learn"]
Download = Literal["model", "bucket_model", "runtime"]
Kind = Background | Strangers | Download | Literal["search", "look", "reading", "cold_start", "fresh_shard"]
"""An operation of counted.json."""
BACKGROUND, STRANGERS = frozenset(get_args(Background)), frozenset(get_args(Strangers))
STRANGERS_A_DAY = 300
"""Documents of each kind that requests without the owner's key may leave in a day, on a laptop as well."""
STORES = frozenset({"class_a", "class_b", "firestore_reads", "firestore_deletes"})
"""Resources that are counted when they are used if the stores are metered, and by counted.json otherwise."""

GUARDED: Mapping[str, tuple[str, str, float]] = {
    "vcpu_s": ("Cloud Run", "vCPU time", 1),
    "gib_s": ("Cloud Run", "memory time", 1),
    "requests": ("Cloud Run", "requests", 1),
    "response_bytes": ("Cloud Run", "data out", 2**30),
    "class_a": ("Cloud Storage", "Class A operations", 1),
    "class_b": ("Cloud Storage", "Class B operations", 1),
    "page_bytes": ("Cloud Storage", "data out", 2**30),
    "firestore_reads": ("Firestore", "reads", 1),
    "firestore_writes": ("Firestore", "writes", 1),
    "firestore_deletes": ("Firestore", "deletes", 1),
    "pubsub_bytes": ("Pub/Sub", "throughput", 2**30),
}
"""Resource to its allowance, and the size of the allowance's unit."""


def california() -> datetime.tzinfo:
    """The time zone in which a day of the free tier ends. UTC−8 if no time zones are installed."""
    try:
        return zoneinfo.ZoneInfo("America/Los_Angeles")
    except zoneinfo.ZoneInfoNotFoundError:
        return datetime.timezone(datetime.timedelta(hours=-8))


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One meter: `used` of `limit`, in the resource's own unit; `free` is Google's allowance."""

    resource: str
    service: str
    metric: str
    per: Literal["day", "month"]
    used: float
    limit: float
    free: float


class Meter:
    """Counts what is used, and decides what still fits. Thread-safe.

    Args:
        limited: False: count, and allow everything (on a laptop, where nothing is billed).
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        documents: DocumentStore,
        settings: Settings,
        *,
        limited: bool | None = None,
        clock: Callable[[], float] = time.time,
        counts: Counted | None = None,
        free: Allowances | None = None,
    ) -> None:
        self.documents, self.settings, self._clock = documents, settings, clock
        self.limited = settings.backend == "gcp" if limited is None else limited
        self._counts, self._allowances = counts or counted(), free or allowances()
        self._free = {
            resource: self._allowances.of(service, metric).free * unit
            for resource, (service, metric, unit) in GUARDED.items()
        }
        self._each: dict[str, dict[str, float]] = {}
        """One operation's use, by kind and resource, as far as they were needed."""
        self._zone = california()
        self._used = SharedCounts(documents, METERS)
        self._lock = threading.Lock()
        self._pending_share = 0.0
        self._due_at = 0.0
        self._noted = 0

    def add(
        self,
        kind: Kind,
        n: float = 1,
        *,
        seconds: float | None = None,
        response_bytes: float | None = None,
        used: Mapping[str, float] | None = None,
    ) -> None:
        """Count `n` completed operations.

        Args:
            seconds: How long the function was busy with them, if measured; None: counted.json's figure.
            response_bytes: Likewise, the size of the answers.
            used: Likewise, their use of the stores, by resource.
        """
        amounts = self._amounts(kind, n, seconds=seconds, response_bytes=response_bytes)
        if used is not None:
            amounts = {resource: amount for resource, amount in amounts.items() if resource not in STORES}
            amounts |= {resource: amounts.get(resource, 0.0) + amount for resource, amount in used.items()}
        self.use(amounts, {kind: float(n)})

    def use(self, amounts: Mapping[str, float], operations: Mapping[str, float] | None = None) -> None:
        """Count amounts of resources, and the operations that used them."""
        month, day = self._keys()
        counted = {**amounts, **(operations or {})}
        self._used.add(month, {f"{period}_{name}": v for period in ("month", day) for name, v in counted.items()})
        shares = [amount / self._free[resource] for resource, amount in amounts.items() if resource in GUARDED]
        with self._lock:
            self._pending_share += max(shares, default=0.0)
            due = self._clock() >= self._due_at or self._pending_share >= PENDING_SHARE
        if due:
            self.flush()

    def allow(self, kind: Kind, n: float = 1, *, owner: bool = False) -> None:
        """Allow `n` operations, or raise.

        Args:
            owner: Whether they may also use the reserve.

        Raises:
            QuotaReached: They exceed an allowance; the message has which one, and when it is renewed.
        """
        if kind in STRANGERS and not owner:
            month, day = self._keys()
            if (used := self._used.get(month, f"{day}_{kind}")) + n > STRANGERS_A_DAY:
                raise self._reached(f"Today's {kind} of visitors is complete", used, STRANGERS_A_DAY, "day")
        if not self.limited:
            return
        amounts = self._amounts(kind, n)
        for reading in self.readings():
            amount = amounts.get(reading.resource, 0.0)
            if amount and reading.used + amount > reading.limit * self._share(kind, owner, reading.resource):
                if self._left_of_budget(kind, owner) >= self._price(amounts):
                    return
                if self.settings.budget:
                    found = f"This month's budget is used up for a {kind}"
                    raise self._reached(found, self.spent(), self.settings.budget, "month")
                found = f"This {reading.per}'s free {reading.service} {reading.metric} are used up for a {kind}"
                raise self._reached(found, reading.used, reading.limit, reading.per)

    def usual_reads(self, kind: Kind) -> float:
        """Number of documents that one operation usually reads, at least 1."""
        return max(1.0, self._counts.each(kind, "firestore_reads"))

    def headroom(self, kind: Kind, *, owner: bool = False) -> int:
        """How many operations still fit, e.g. what crawl may publish today. A very large number without limits."""
        if not self.limited:
            return 2**53
        amounts = self._amounts(kind, 1)
        left = [
            (r.limit * self._share(kind, owner, r.resource) - r.used) / amounts[r.resource]
            for r in self.readings()
            if amounts.get(r.resource)
        ]
        paid = self._left_of_budget(kind, owner) / (self._price(amounts) or 1.0)
        return max(0, int(min(left, default=2**53)), int(paid))

    def month_cost(self) -> float:
        """US dollars that this month has cost so far, including the whole month's storage."""
        month, _ = self._keys()
        total = stored_cost(self._used.get(STORED, "images") or self._noted)
        for resource, (service, metric, unit) in GUARDED.items():
            allowance = self._allowances.of(service, metric)
            days = [f"d{day:02d}" for day in range(1, 32)] if allowance.per == "day" else ["month"]
            used = (self._used.get(month, f"{period}_{resource}") / unit for period in days)
            total += sum(max(0.0, one - allowance.free) for one in used) * allowance.price
        return total

    def spent(self) -> float:
        """This month's cost in the budget's currency, to two decimals."""
        return round(self.month_cost() * self.settings.budget_dollar, 2)

    def note_images(self, images: int) -> None:
        """Record how many images are stored; storage is billed by the month."""
        self._noted = images
        with suppress(StoreUnavailable):
            self.documents.commit([Put(collection=METERS, key=STORED, data={"images": images})])

    def flush(self) -> None:
        """Add these counts to the store and read those of others; an unavailable store is tolerated."""
        with self._lock:
            self._pending_share = 0.0
            self._due_at = self._clock() + FLUSH_S
        month, day = self._keys()
        if not self._used.is_flushed:
            self._used.add(month, {f"{period}_firestore_writes": 1 for period in ("month", day)})
        self._used.flush(month, *([STORED] if self.settings.budget else []))

    def readings(self) -> list[Reading]:
        """Every meter, for the page's about panel and `visor stats`."""
        if self._clock() >= self._due_at:
            self.flush()
        month, day = self._keys()
        found = []
        for resource, (service, metric, _) in GUARDED.items():
            allowance = self._allowances.of(service, metric)
            per: Literal["day", "month"] = "day" if allowance.per == "day" else "month"
            name = f"{day if per == 'day' else 'month'}_{resource}"
            free = self._free[resource]
            used, limit = self._used.get(month, name), free * self.settings.quota_share
            found.append(
                Reading(resource=resource, service=service, metric=metric, per=per, used=used, limit=limit, free=free)
            )
        return found

    def _amounts(
        self, kind: Kind, n: float, *, seconds: float | None = None, response_bytes: float | None = None
    ) -> dict[str, float]:
        """What `n` operations use, by guarded resource; zeros left out."""
        if (each := self._each.get(kind)) is None:
            each = self._each[kind] = {name: self._counts.each(kind, name) for name in (*GUARDED, "seconds")}
        amounts = {resource: n * each[resource] for resource in GUARDED}
        busy = n * each["seconds"] if seconds is None else seconds
        amounts["vcpu_s"] = busy * self.settings.function_cpu
        amounts["gib_s"] = busy * self.settings.function_memory_gib
        if response_bytes is not None:
            amounts["response_bytes"] = response_bytes
        return {resource: amount for resource, amount in amounts.items() if amount}

    def _share(self, kind: Kind, owner: bool, resource: str) -> float:
        if owner:
            return 1.0
        background = HARDLY_SEARCHED.get(resource, BACKGROUND_SHARE)
        of_kind = background if kind in BACKGROUND else MODEL_SHARE if kind in get_args(Download) else 1.0
        return (1 - self.settings.owner_reserve) * of_kind

    def _left_of_budget(self, kind: Kind, owner: bool) -> float:
        """US dollars that this month's budget still has for such operations; 0 without a budget."""
        if not self.settings.budget:
            return 0.0
        share = 1.0 if owner else BACKGROUND_OF_BUDGET if kind in BACKGROUND else VISITORS_OF_BUDGET
        return self.settings.budget / self.settings.budget_dollar * share - self.month_cost()

    def _price(self, amounts: Mapping[str, float]) -> float:
        """US dollars for amounts beyond the allowances."""
        return sum(
            amount / GUARDED[resource][2] * self._allowances.of(*GUARDED[resource][:2]).price
            for resource, amount in amounts.items()
        )

    def _keys(self) -> tuple[str, str]:
        """The month's document and the prefix of the day's numbers in it."""
        now = datetime.datetime.fromtimestamp(self._clock(), self._zone)
        return now.strftime("%Y-%m"), now.strftime("d%d")

    def _reached(self, found: str, used: float, limit: float, per: str) -> QuotaReached:
        now = datetime.datetime.fromtimestamp(self._clock(), self._zone)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        if per == "day":
            ends = midnight + datetime.timedelta(days=1)
        else:
            ends = (midnight.replace(day=1) + datetime.timedelta(days=32)).replace(day=1)
        digits = 0 if limit >= 100 else 2
        return QuotaReached(
            found,
            valid=f"At most {limit:,.{digits}f} ({used:,.{digits}f} so far), so that Visor costs its owner "
            + ("no more" if self.settings.budget else "nothing"),
            remedy=f"Come back after {ends.isoformat(timespec='minutes')}",
            # Not `ends - now`, which ignores the hour by which the clocks change.
            retry_after_s=ends.timestamp() - now.timestamp(),
        )


_Counts = Mapping[str, Callable[..., Mapping[str, int]]]
"""By method: a function from a call's result and arguments to its use, by resource."""
_OBJECTS: _Counts = {
    "get": lambda result, *_: {"class_b": 1},
    "get_with_info": lambda result, *_: {"class_b": 1},
    "stat": lambda result, *_: {"class_b": 1},
}
"""Only reads, because a search neither writes nor lists objects."""
_DOCUMENTS: _Counts = {
    "get": lambda result, collection, keys: {"firestore_reads": len(set(keys))},
    "query": lambda result, *_: {"firestore_reads": max(1, len(result))},
    "commit": lambda result, writes: {
        "firestore_writes": sum(not isinstance(write, Delete) for write in writes),
        "firestore_deletes": sum(isinstance(write, Delete) for write in writes),
    },
}
_REQUEST: ContextVar[Counter[str] | None] = ContextVar("request", default=None)


@contextmanager
def request_usage(used: Counter[str] | None) -> Iterator[None]:
    """Add this thread's use within the block to `used`, by resource; None: add it to the meter at once."""
    before = _REQUEST.set(used)
    try:
        yield
    finally:
        _REQUEST.reset(before)


def note_work(kind: Literal["searches", "pictures"], count: int = 1) -> None:
    """Count searches, or pictures that were embedded for one, in this request's use."""
    if (used := _REQUEST.get()) is not None:
        used[kind] += count


class _Metered:
    def __init__(self, store: Any, meter: Meter, counts: _Counts) -> None:
        self._store, self._meter, self._counts = store, meter, counts

    def __getattr__(self, name: str) -> Any:
        method, count = getattr(self._store, name), self._counts.get(name)
        return method if count is None else lambda *args, **options: self._call(method, count, *args, **options)

    def _call(
        self, method: Callable[..., Any], count: Callable[..., Mapping[str, int]], *args: Any, **rest: Any
    ) -> Any:
        result = method(*args, **rest)
        amounts, used = count(result, *args), _REQUEST.get()
        self._meter.use(amounts) if used is None else used.update(amounts)
        return result


def metered(objects: ObjectStore, documents: DocumentStore, meter: Meter) -> tuple[ObjectStore, DocumentStore]:
    """The same stores, metered."""
    return _Metered(objects, meter, _OBJECTS), _Metered(documents, meter, _DOCUMENTS)
