"""Growth: how far a plan can grow within the allowances or a sum of money, and how long its first crawl takes."""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Callable

import msgspec

from visor.free_tier.allowances import allowances, counted, image_sizes
from visor.free_tier.cost_model import DAYS, GIB, PlanUsage, UsagePlan, first_limit, lines
from visor.schema.items import Record

FUNCTION_SIZES = ((1.0, 1.0), (2.0, 1.0), (4.0, 1.0), (8.0, 2.0), (16.0, 4.0), (24.0, 6.0), (32.0, 8.0))
"""Memory in GiB that a function can have, and the vCPUs that Cloud Run requires for it."""


class GrowthLimit(Record, frozen=True, kw_only=True):
    """How far one number can grow with all else as planned, and what limits it."""

    what: str
    largest: int
    limit: str
    """The service and metric that more would exceed, or that cost most."""


def cost(plan: UsagePlan) -> float:
    """US dollars a month for use beyond the allowances."""
    return sum(line.cost for line in lines(plan))


def search_size(plan: UsagePlan) -> tuple[float, float] | None:
    """The smallest of `FUNCTION_SIZES` that holds the plan's index; None if none does."""
    size = counted().size
    needed = (plan.images * size("resident_bytes") + size("resident_base_bytes")) / GIB
    return next((one for one in FUNCTION_SIZES if one[0] >= needed), None)


def roomy(plan: UsagePlan) -> UsagePlan:
    """The plan with a search function large enough for its index, or the largest available."""
    memory, cpu = search_size(plan) or FUNCTION_SIZES[-1]
    return msgspec.structs.replace(
        plan, search_memory_gib=max(plan.search_memory_gib, memory), search_cpu=max(plan.search_cpu, cpu)
    )


def growth_limits(plan: UsagePlan, *, share: float = 1.0, budget: float = 0.0) -> list[GrowthLimit]:
    """How many images, how many searches a day, and how much of both fit `share` of every allowance, or cost at most
    `budget` (US dollars a month). Without searches in the plan, visits stay as planned."""

    change = functools.partial(msgspec.structs.replace, plan)
    visits = ("visits_a_day", "returns_a_day") if plan.searches_a_day else ()
    per_search = {name: getattr(plan, name) / plan.searches_a_day for name in visits}

    def searching(searches: int, **more: float) -> UsagePlan:
        return change(searches_a_day=searches, **{name: each * searches for name, each in per_search.items()}, **more)

    def both(percent: int) -> UsagePlan:
        images = round(plan.images * percent / 100)
        return searching(round(plan.searches_a_day * percent / 100), images=images)

    ways: dict[str, Callable[[int], UsagePlan]] = {
        "images": lambda n: change(images=n),
        "searches a day, visits in proportion": searching,
        "searches a day, visits as planned": lambda n: change(searches_a_day=n),
        "percent of this plan": both,
    }
    return [_largest(what, make, share, budget) for what, make in ways.items()]


class DeviceUse(Record, frozen=True, kw_only=True):
    """The effect of visitors' devices embedding their pictures."""

    searches_a_day: int
    """Searches that fit, visits as planned; first visits only if `downloads_a_month` allows them the model."""
    today: int
    """Searches that fit if the function embeds all pictures."""
    limit: str
    """What more searches would exceed."""
    model_bytes: int
    downloads_a_month: int
    """First visits that fit the allowance for sending the model; 0: it is not sent from here."""
    planned: int
    """First visits a month in the plan."""
    allowance: str = ""
    """Name of that allowance, with its size."""


def device_use(plan: UsagePlan, *, share: float = 1.0) -> DeviceUse:
    """How many searches fit `share` of the allowances if devices embed, and how many downloads of the model."""
    size = plan.model_bytes or image_sizes().model_bytes
    what, elsewhere = "searches a day, visits as planned", msgspec.structs.replace(plan, models_from="elsewhere")
    with_devices, today = (
        next(one for one in growth_limits(each, share=share) if one.what == what)
        for each in (elsewhere, msgspec.structs.replace(elsewhere, device=0.0))
    )
    service = {"function": "Cloud Run", "bucket": "Cloud Storage"}.get(plan.models_from)
    found = DeviceUse(
        searches_a_day=with_devices.largest,
        today=today.largest,
        limit=with_devices.limit,
        model_bytes=size,
        downloads_a_month=0,
        planned=round(plan.visits_a_day * plan.device * DAYS),
    )
    if service is None:
        return found
    sent = float(size)
    if plan.models_from == "bucket":
        sent = size / 1e6 * counted().each("bucket_model", "page_bytes")
    line = next(one for one in lines(elsewhere) if (one.service, one.metric) == (service, "data out"))
    left = max(0.0, line.free * share - line.used) * GIB
    return msgspec.structs.replace(
        found,
        downloads_a_month=int(left / sent),
        allowance=f"{service}'s data out ({line.free:g} GiB a month, of which all else uses {line.used:.2f})",
    )


def _largest(what: str, make: Callable[[int], UsagePlan], share: float, budget: float) -> GrowthLimit:
    """The largest n whose plan fits, found by bisection: every line grows with n."""
    if budget:
        grows_out = search_size(make(0)) is not None

        def price(n: int) -> float:
            return math.inf if grows_out and search_size(make(n)) is None else cost(roomy(make(n)))

        largest = bisect.bisect_right(range(1, 2**40), budget, key=price)
        if math.isinf(price(largest + 1)):
            return GrowthLimit(what=what, largest=largest, limit="Cloud Run, memory of an instance")
        limit = max(lines(roomy(make(largest + 1))), key=lambda line: line.cost)
    else:
        largest = bisect.bisect_right(range(1, 2**40), share, key=lambda n: first_limit(lines(make(n))).share)
        limit = first_limit(lines(make(largest + 1)))
    return GrowthLimit(what=what, largest=largest, limit=f"{limit.service}, {limit.metric}")


def first_load_cost(plan: UsagePlan, days: float) -> float:
    """US dollars for the first crawl of all images within `days`, in addition to the plan's searches.

    A load of more than a month has several months' allowances.
    """
    months = max(1.0, days / DAYS)
    loading = msgspec.structs.replace(plan, churn=1.0, recrawl_days=DAYS, images=round(plan.images / months))
    usage = PlanUsage(loading, counted())
    total = 0.0
    for line, allowance in zip(lines(loading), allowances().allowances, strict=True):
        if line.per == "day":
            at_rest = msgspec.structs.replace(loading, images=0)
            resource = f"firestore_{allowance.metric}"
            rest = PlanUsage(at_rest, counted()).worst_day(resource).total
            a_day = (usage.worst_day(resource).total - rest) * months / days + rest
            total += max(0.0, a_day - line.free) * days * allowance.price
        elif line.per == "month":
            total += line.cost * months
    return total


def first_load_days_for(plan: UsagePlan, budget: float) -> float:
    """The fewest days in which the embed functions can do the first crawl of all images for at most `budget` (US
    dollars) in each of its months, including storage; infinite if the plan itself costs more."""
    if not cost(roomy(plan)) <= budget:
        return math.inf
    budget -= sum(line.cost for line in lines(plan) if line.per == "always")
    longest = plan.images * counted().each("embed", "seconds") / plan.embed_instances / 86_400
    shortest = longest = max(longest, 1 / 24)

    def is_paid(days: float) -> bool:
        return first_load_cost(plan, days) <= budget * max(1.0, days / DAYS)

    while not is_paid(longest):
        longest *= 2
    for _ in range(50):
        middle = (shortest + longest) / 2
        shortest, longest = (shortest, middle) if is_paid(middle) else (middle, longest)
    return longest


def first_load_days(plan: UsagePlan, *, share: float) -> float:
    """Days that the first crawl of all images takes, if each day writes `share` of the free documents."""
    per_image = counted().each("embed", "firestore_writes")
    per_read = counted().each("embed", "firestore_reads")
    free = allowances()
    searches = plan.searches_a_day * counted().each("search", "firestore_reads")
    writes = free.of("Firestore", "writes").free * share / per_image
    reads = max(free.of("Firestore", "reads").free * share - searches, 1) / per_read
    return plan.images / min(writes, reads)


def first_load_bytes(plan: UsagePlan) -> float:
    """Bytes that the first crawl sends: data out in the months in which it runs."""
    counts = counted()
    return plan.images * (counts.each("embed", "response_bytes") + counts.each("crawl", "response_bytes"))
