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
"""Memory in GiB that a function can have, and the vCPUs that Cloud Run wants for so much."""


class GrowthLimit(Record, frozen=True, kw_only=True):
    """How far one thing can grow with all else as planned, and what it meets then."""

    what: str
    largest: int
    limit: str
    """The service and metric that more would exceed, or that costs most."""


def cost(plan: UsagePlan) -> float:
    """US dollars a month for what is past the allowances."""
    return sum(line.cost for line in lines(plan))


def search_size(plan: UsagePlan) -> tuple[float, float] | None:
    """The smallest of `FUNCTION_SIZES` that holds the plan's index; None where none does."""
    size = counted().size
    needed = (plan.images * size("resident_bytes") + size("resident_base_bytes")) / GIB
    return next((one for one in FUNCTION_SIZES if one[0] >= needed), None)


def roomy(plan: UsagePlan) -> UsagePlan:
    """The plan with a search function large enough for its index, or the largest that there is."""
    memory, cpu = search_size(plan) or FUNCTION_SIZES[-1]
    return msgspec.structs.replace(
        plan, search_memory_gib=max(plan.search_memory_gib, memory), search_cpu=max(plan.search_cpu, cpu)
    )


def growth_limits(plan: UsagePlan, *, share: float = 1.0, budget: float = 0.0) -> list[GrowthLimit]:
    """How many images, how many searches a day, and how much of both fit `share` of every allowance, or cost at most
    `budget` (US dollars a month). Visits are as planned where no searches are."""

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
    """What it changes that visitors' devices look at their pictures."""

    searches_a_day: int
    """That fit, visits as planned; those of first visits that `downloads_a_month` lets have the model."""
    today: int
    """That fit where the function looks at all pictures."""
    limit: str
    """What more searches would exceed."""
    model_bytes: int
    downloads_a_month: int
    """First visits that fit into the allowance that the model is sent from; 0: it is not sent from here."""
    planned: int
    """First visits a month of the plan."""
    allowance: str = ""
    """Which that is, with its size."""


def device_use(plan: UsagePlan, *, share: float = 1.0) -> DeviceUse:
    """How many searches fit `share` of the allowances with devices that look, and how many downloads of the model."""
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
        allowance=f"{service}'s data out ({line.free:g} GiB a month, of which all else takes {line.used:.2f})",
    )


def _largest(what: str, make: Callable[[int], UsagePlan], share: float, budget: float) -> GrowthLimit:
    """The largest n whose plan fits, by bisection: every line grows with n."""
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
    """US dollars for the first crawl of all images within so many days, beside the plan's searches.

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
    """The fewest days in which the first crawl of all images costs at most `budget` (US dollars) in each of its months,
    with what is stored, and the embed functions get through it; infinite if the plan itself costs more."""
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
    """What the first crawl sends, all of it data out of the months in which it runs."""
    counts = counted()
    return plan.images * (counts.each("embed", "response_bytes") + counts.each("crawl", "response_bytes"))
