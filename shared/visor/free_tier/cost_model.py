"""The cost model: what a plan uses of each free allowance, with the arithmetic, and how far a plan can grow.

Daily allowances are held against the worst day: the one on which all of a crawl period's changes come at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from visor.free_tier.allowances import Allowance, Allowances, Counted, allowances, counted, image_sizes
from visor.schema.items import Record

GIB = 2**30
DAYS = 365.25 / 12
"""Days in a month."""
IDLE_S = 900.0
"""Cloud Run keeps an idle instance for up to 15 minutes."""
RESTARTS_A_DAY = 4.0
"""Starts of an instance for other reasons than idleness: Cloud Run moves them about."""
READINGS_A_VISIT = 3.0
"""What the page asks when it is opened: statistics, facets, examples."""
ENOUGH = 0.75
"""The share up to which a plan has a quarter to spare."""


class Plan(Record, frozen=True, kw_only=True):
    """What an owner means to do. The defaults are what terraform/ deploys; a test holds them against it."""

    images: int = 100_000
    recrawl_days: float = 7.0
    churn: float = 0.05
    """Share of the images that are new or changed at a re-crawl."""
    searches_a_day: float = 1000.0
    active_hours: float = 12.0
    """Hours of a day over which the searches come."""
    freshness_s: float = 30.0
    """Seconds between two looks of a search instance for what is new."""
    explained: float = 0.1
    """Share of the searches of which somebody asks why a match is like the picture."""
    visits_a_day: float = 200.0
    """People who open the page and have nothing of it in their browser."""
    sources: int = 1
    links_a_day: int = 300
    """Items whose picture and page are looked at again, whether they are still there."""
    batch_size: int = 64
    crawl_runs_a_day: float = 1.0
    compact_runs_a_day: float = 4.0
    deployments_a_month: float = 4.0
    vector_numbers: int = 3328
    crawl_cpu: float = 0.5
    crawl_memory_gib: float = 0.5
    embed_cpu: float = 1.0
    embed_memory_gib: float = 1.0
    compact_cpu: float = 1.0
    compact_memory_gib: float = 2.0
    search_cpu: float = 1.0
    search_memory_gib: float = 1.0
    search_instances: int = 2
    owner_key: bool = False
    switch: bool = False
    """Whether a budget closes the endpoint, for which one function more is deployed."""
    site_sources: bool = True
    """Whether visor.toml names a source of kind `site`, whose libraries are then in the crawl function's image."""
    bucket_sources: bool = False
    """The same of kind `bucket`."""
    video_sources: bool = False
    """The same of kind `video`."""
    metrics: bool = False
    """Whether SciPy's metrics can be asked for, whose library is then in the search function's image."""


class Line(Record, frozen=True, kw_only=True):
    """One metric of one service. `share` is `used / free`."""

    service: str
    metric: str
    used: float
    free: float
    share: float
    unit: str
    per: str
    arithmetic: str


class Sum:
    """Adds terms up and remembers how, e.g. `21,741 images × 0.25 s + …`."""

    def __init__(self) -> None:
        self.total = 0.0
        self.terms: list[str] = []

    def add(self, what: str, *factors: float, unit: str = "") -> Sum:
        product = math.prod(factors)
        if product:
            self.total += product
            self.terms.append(f"{what}: {' × '.join(_number(f) for f in factors)}{' ' + unit if unit else ''}")
        return self

    def text(self, divisor: str = "") -> str:
        inner = " + ".join(self.terms) or "nothing"
        return f"({inner}) / {divisor}" if divisor else inner


class Model:
    """A plan's monthly and worst-day amounts, from which the lines are made."""

    def __init__(self, plan: Plan, counts: Counted) -> None:
        self.plan, self.counts = plan, counts
        crawls = DAYS / plan.recrawl_days
        self.changed = plan.images * plan.churn
        """Images embedded after one re-crawl, all on one day at worst."""
        self.embeds = self.changed * crawls
        self.batches = self.embeds / plan.batch_size + crawls * plan.sources
        """A last batch of each source is not full."""
        self.seen = plan.images * crawls
        self.crawl_runs = plan.crawl_runs_a_day * DAYS * plan.sources
        self.compact_runs = min(plan.compact_runs_a_day * DAYS, self.batches)
        self.searches = plan.searches_a_day * DAYS
        self.cold_starts = cold_starts_a_day(plan) * DAYS
        self.looks = looks_a_day(plan) * DAYS
        self.explanations = self.searches * plan.explained
        self.visits = plan.visits_a_day * DAYS
        self.readings = self.visits * READINGS_A_VISIT
        self.links = plan.links_a_day * DAYS
        self.by_batch = 64 / plan.batch_size
        """counted.json was counted with batches of 64."""

    def monthly(self, resource: str) -> Sum:
        """All operations of a month, times what each uses of a resource."""
        each = self.counts.each
        total = Sum()
        per_batch = resource in ("class_a", "requests", "log_bytes")
        total.add("embed", self.embeds, each("embed", resource), *([self.by_batch] if per_batch else []))
        total.add("crawl", self.seen, each("crawl", resource))
        total.add("crawl runs", self.crawl_runs, each("crawl_run", resource))
        total.add("links", self.links, each("link", resource))
        total.add("merge", self.embeds, each("merge", resource))
        total.add("compact runs", self.compact_runs, each("compact_run", resource))
        total.add("searches", self.searches, each("search", resource))
        total.add("looks for news", self.looks, each("look", resource))
        total.add("explanations", self.explanations, each("explain", resource))
        total.add("page's questions", self.readings, each("reading", resource))
        total.add("search starts", self.cold_starts, each("cold_start", resource))
        total.add("fresh shards", self.batches, self.plan.search_instances, each("fresh_shard", resource))
        total.add("page", self.visits, each("visit", resource))
        return total.add("deployments", self.plan.deployments_a_month, each("deploy", resource))

    def worst_day(self, resource: str) -> Sum:
        """The day on which all changes of a crawl period come."""
        each, plan = self.counts.each, self.plan
        batches = self.changed / plan.batch_size + plan.sources
        total = Sum()
        total.add("embed", self.changed, each("embed", resource))
        total.add("crawl", plan.images, each("crawl", resource))
        total.add("crawl runs", plan.crawl_runs_a_day, plan.sources, each("crawl_run", resource))
        total.add("links", plan.links_a_day, each("link", resource))
        total.add("merge", self.changed, each("merge", resource))
        total.add("compact runs", plan.compact_runs_a_day, each("compact_run", resource))
        total.add("searches", plan.searches_a_day, each("search", resource))
        total.add("looks for news", looks_a_day(plan), each("look", resource))
        total.add("explanations", plan.searches_a_day * plan.explained, each("explain", resource))
        total.add("page's questions", plan.visits_a_day * READINGS_A_VISIT, each("reading", resource))
        total.add("search starts", cold_starts_a_day(plan), each("cold_start", resource))
        return total.add("fresh shards", batches, plan.search_instances, each("fresh_shard", resource))

    def compute(self, attribute: str) -> Sum:
        """vCPU-seconds or GiB-seconds: seconds of each operation times the size of its function."""
        each, plan = self.counts.each, self.plan
        size: Callable[[str], float] = lambda function: float(getattr(plan, f"{function}_{attribute}"))  # noqa: E731
        total = Sum()
        total.add("embed", self.embeds, each("embed", "seconds"), size("embed"))
        total.add("crawl", self.seen, each("crawl", "seconds"), size("crawl"))
        total.add("crawl runs", self.crawl_runs, each("crawl_run", "seconds"), size("crawl"))
        total.add("links", self.links, each("link", "seconds"), size("crawl"))
        total.add("merge", self.embeds, each("merge", "seconds"), size("compact"))
        total.add("compact runs", self.compact_runs, each("compact_run", "seconds"), size("compact"))
        total.add("searches", self.searches, each("search", "seconds"), size("search"))
        total.add("explanations", self.explanations, each("explain", "seconds"), size("search"))
        total.add("page's questions", self.readings, each("reading", "seconds"), size("search"))
        return total.add("search starts", self.cold_starts, each("cold_start", "seconds"), size("search"))

    def objects(self) -> Sum:
        size, images = self.counts.size, self.plan.images
        total = Sum()
        total.add("full vectors", images, self.plan.vector_numbers, 2, size("copies"))
        total.add("codes", images, size("code_bytes"), size("copies"))
        total.add("seen-set", images, size("seen_bytes"))
        return total.add("bundles", size("bundle_bytes")).add("page", size("site_bytes"))

    def documents(self) -> Sum:
        size, images = self.counts.size, self.plan.images
        total = Sum()
        total.add("items", images, size("item_document_bytes"))
        return total.add("failures", images, size("failure_share"), 800)

    def images(self) -> Sum:
        """Bytes of the functions' container images."""
        sizes, total = image_sizes(), Sum()
        for name in ("crawl", "embed", "compact", "search", *(["switch"] if self.plan.switch else [])):
            total.add(name, sizes.functions[name].bytes)
        for kind, size in sizes.sources.items():
            if getattr(self.plan, f"{kind}_sources"):
                total.add(f"crawl of {kind}", size.bytes)
        if self.plan.metrics and sizes.metrics is not None:
            total.add("metrics of search", sizes.metrics.bytes)
        return total


def cold_starts_a_day(plan: Plan) -> float:
    """Starts of search instances in a day, if searches come at random over the active hours.

    A gap longer than the idle time has probability exp(-rate · idle time); then the next search starts an instance.
    """
    if not plan.searches_a_day:
        return 0.0
    rate = plan.searches_a_day / (plan.active_hours * 3600)
    by_gaps = plan.searches_a_day * math.exp(-rate * IDLE_S)
    return min(plan.searches_a_day, by_gaps + RESTARTS_A_DAY * plan.search_instances)


def looks_a_day(plan: Plan) -> float:
    """Looks of all search instances for news: at most one a search, and one an instance every `freshness_s`."""
    return min(plan.searches_a_day, plan.search_instances * plan.active_hours * 3600 / plan.freshness_s)


def lines(plan: Plan, counts: Counted | None = None, free: Allowances | None = None) -> list[Line]:
    """What the plan uses of every allowance, in the order of allowances.json."""
    counts, free = counts or counted(), free or allowances()
    model = Model(plan, counts)
    used: dict[tuple[str, str], tuple[Sum, float, str]] = {
        ("Cloud Run", "vCPU time"): (model.compute("cpu"), 1, ""),
        ("Cloud Run", "memory time"): (model.compute("memory_gib"), 1, ""),
        ("Cloud Run", "requests"): (model.monthly("requests"), 1, ""),
        ("Cloud Run", "data out"): (model.monthly("response_bytes"), GIB, "2^30"),
        ("Cloud Storage", "stored"): (model.objects(), GIB, "2^30"),
        ("Cloud Storage", "Class A operations"): (model.monthly("class_a"), 1, ""),
        ("Cloud Storage", "Class B operations"): (model.monthly("class_b"), 1, ""),
        ("Cloud Storage", "data out"): (model.monthly("page_bytes"), GIB, "2^30"),
        ("Firestore", "reads"): (model.worst_day("firestore_reads"), 1, ""),
        ("Firestore", "writes"): (model.worst_day("firestore_writes"), 1, ""),
        ("Firestore", "deletes"): (model.worst_day("firestore_deletes"), 1, ""),
        ("Firestore", "stored"): (model.documents(), GIB, "2^30"),
        ("Firestore", "data out"): (Sum().add("inside the region, none", 0), 1, ""),
        ("Pub/Sub", "throughput"): (model.monthly("pubsub_bytes"), GIB, "2^30"),
        ("Cloud Scheduler", "jobs"): (Sum().add("crawl and compact", 2), 1, ""),
        ("Cloud Build", "build time"): (model.monthly("build_minutes"), 1, ""),
        ("Artifact Registry", "stored"): (model.images(), GIB, "2^30"),
        ("Secret Manager", "active versions"): (Sum().add("owner's key", float(plan.owner_key)), 1, ""),
        ("Secret Manager", "accesses"): (
            model.monthly("secret_accesses") if plan.owner_key else Sum(),
            1,
            "",
        ),
        ("Cloud Logging", "taken in"): (model.monthly("log_bytes"), GIB, "2^30"),
    }
    return [_line(a, *used[a.service, a.metric]) for a in free.allowances]


def _line(allowance: Allowance, total: Sum, divisor: float, name: str) -> Line:
    used = total.total / divisor
    return Line(
        service=allowance.service,
        metric=allowance.metric,
        used=used,
        free=allowance.free,
        share=used / allowance.free,
        unit=allowance.unit,
        per=allowance.per,
        arithmetic=total.text(name),
    )


def first_limit(found: list[Line]) -> Line:
    """The line that growth meets first: the one with the greatest share that a plan's size changes."""
    return max((line for line in found if line.service not in FIXED), key=lambda line: line.share)


FIXED = frozenset({"Cloud Scheduler", "Cloud Build", "Artifact Registry", "Secret Manager"})
"""Services whose use does not grow with images and searches."""


class Fit(Record, frozen=True, kw_only=True):
    """How far one thing can grow with all else as planned, and what it meets then."""

    what: str
    largest: int
    limit: str
    """The service and metric that more would exceed."""


def fit(plan: Plan, *, share: float = 1.0) -> list[Fit]:
    """How many images, how many searches a day, and how much of both fit `share` of every allowance."""

    def images(n: int) -> Plan:
        return msgspec.structs.replace(plan, images=n)

    def searches(n: int) -> Plan:
        visits = plan.visits_a_day * n / max(plan.searches_a_day, 1)
        return msgspec.structs.replace(plan, searches_a_day=n, visits_a_day=visits)

    def searches_alone(n: int) -> Plan:
        return msgspec.structs.replace(plan, searches_a_day=n)

    def both(percent: int) -> Plan:
        grown = searches(round(plan.searches_a_day * percent / 100))
        return msgspec.structs.replace(grown, images=round(plan.images * percent / 100))

    ways = {
        "images": images,
        "searches a day, visits in proportion": searches,
        "searches a day, visits as planned": searches_alone,
        "percent of this plan": both,
    }
    return [_largest(what, make, share) for what, make in ways.items()]


def _largest(what: str, make: Callable[[int], Plan], share: float) -> Fit:
    """The largest n whose plan fits, by bisection: every line grows with n."""

    def over(n: int) -> Line | None:
        worst = first_limit(lines(make(n)))
        return worst if worst.share > share else None

    high = 1
    while over(high) is None and high < 2**40:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if over(middle) else (middle, high)
    worst = over(high)
    return Fit(what=what, largest=low, limit=f"{worst.service}, {worst.metric}" if worst else "none")


def first_load_days(plan: Plan, *, share: float) -> float:
    """Days that the first crawl of all images takes, if each day writes `share` of the free documents."""
    per_image = counted().each("embed", "firestore_writes")
    per_read = counted().each("embed", "firestore_reads")
    free = allowances()
    searches = plan.searches_a_day * counted().each("search", "firestore_reads")
    writes = free.of("Firestore", "writes").free * share / per_image
    reads = max(free.of("Firestore", "reads").free * share - searches, 1) / per_read
    return plan.images / min(writes, reads)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.4g}"
