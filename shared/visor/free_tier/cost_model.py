"""The cost model: a plan's use of each free allowance, with the arithmetic, and its cost beyond them.

Daily allowances are compared with the worst day: the one on which all of a crawl period's changes come at once, or all
those of several periods if they are shorter than a day.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import msgspec

from visor.free_tier.allowances import Allowance, Allowances, Counted, allowances, counted, image_sizes
from visor.schema.items import Record

GIB = 2**30
DAYS = 365.25 / 12
"""Days in a month."""
IDLE_S = 900.0
"""Cloud Run keeps an idle instance for up to 15 minutes."""
RESTARTS_A_DAY = 4.0
"""Starts of an instance for other reasons than idleness: Cloud Run moves instances."""
READINGS_A_VISIT = 3.0
"""Requests of the page when it is opened: statistics, facets, examples."""
PART_ROWS, PAGE_ROWS, PAGES_MAX = 16_384, 256, 512
"""Sizes of a published index: rows in a part and in a page of items, and the most pages."""
PUBLISHED_FILE_S = 1_300.0
"""Least average time between two files that publications write: 2,000 a month, of 5,000 that are free."""
ENOUGH = 0.75
"""Share of an allowance up to which a plan has a quarter to spare."""


class UsagePlan(Record, frozen=True, kw_only=True):
    """An owner's plan. The defaults are those of terraform/; a test compares them."""

    images: int = 100_000
    recrawl_days: float = 7.0
    churn: float = 0.05
    """Share of the images that are new or changed at a re-crawl."""
    searches_a_day: float = 1000.0
    active_hours: float = 12.0
    """Hours of a day in which the searches come."""
    freshness_s: float = 30.0
    """Seconds between two polls of a search instance for new items."""
    explained: float = 0.1
    """Share of the searches with a request to explain a match."""
    visits_a_day: float = 200.0
    """Visits of people who do not have the page in their browser's cache."""
    returns_a_day: float = 100.0
    """Visits of people who have it there."""
    device: float = 0.1
    """Share of the searches whose picture the visitor's own device embeds, and of the first visits that fetch the model
    for it."""
    models_from: str = "bucket"
    """Where a device fetches the model's files at its first visit: `function`, `bucket` (the site's) or `elsewhere`,
    which costs nothing here."""
    publish: bool = False
    """Whether merges publish the index to the site's bucket; the page then searches it by itself."""
    page_from_function: bool = False
    """Whether the search function serves the page (public = "function")."""
    sources: int = 1
    links_a_day: int = 300
    """Items whose image and page are checked for whether they are still there."""
    batch_size: int = 64
    crawl_runs_a_day: float = 1.0
    compact_runs_a_day: float = 4.0
    deployments_a_month: float = 4.0
    vector_numbers: int = 3328
    model_bytes: int = 0
    """Size of the model's files; 0: that of the default model."""
    onnx: bool = False
    """Whether the model runs on ONNX Runtime, which is then in the images of embed and search."""
    words: bool = False
    """Whether the model reads words, for which search needs a tokenizer."""
    crawl_cpu: float = 0.5
    crawl_memory_gib: float = 0.5
    embed_cpu: float = 1.0
    embed_memory_gib: float = 1.0
    compact_cpu: float = 1.0
    compact_memory_gib: float = 2.0
    search_cpu: float = 1.0
    search_memory_gib: float = 1.0
    embed_instances: int = 2
    search_instances: int = 2
    owner_key: bool = False
    switch: bool = False
    """Whether a budget closes the endpoint, which needs one more function."""
    site_sources: bool = True
    """Whether visor.toml has a source of kind `site`, whose libraries are then in the crawl function's image."""
    bucket_sources: bool = False
    """The same for kind `bucket`."""
    video_sources: bool = False
    """The same for kind `video`."""
    metrics: bool = False
    """Whether SciPy's metrics are enabled; SciPy is then in the search function's image."""


class Line(Record, frozen=True, kw_only=True):
    """One metric of one service. `share` is `used / free`."""

    service: str
    metric: str
    used: float
    free: float
    share: float
    unit: str
    per: str
    cost: float
    """US dollars a month for use beyond the allowance."""
    arithmetic: str


class Sum:
    """Adds up terms and keeps the arithmetic, e.g. `21,741 images × 0.25 s + …`."""

    def __init__(self) -> None:
        self.total = 0.0
        self.terms: list[str] = []

    def add(self, what: str, *factors: float) -> Sum:
        product = math.prod(factors)
        if product:
            self.total += product
            self.terms.append(f"{what}: {' × '.join(_number(f) for f in factors)}")
        return self

    def text(self, divisor: str = "") -> str:
        inner = " + ".join(self.terms) or "nothing"
        return f"({inner}) / {divisor}" if divisor else inner


class Load(NamedTuple):
    """How often a plan does one operation of counted.json, as factors of a product."""

    title: str
    operation: str
    month: tuple[float, ...]
    worst_day: tuple[float, ...] = ()
    """The same for the day on which all changes of a crawl period, or of all that it has, come."""
    function: str = ""
    """The function that does it, if any."""


class PlanUsage:
    """A plan's monthly and worst-day amounts, from which the lines are made."""

    def __init__(self, plan: UsagePlan, counts: Counted) -> None:
        searched_there = plan.searches_a_day if plan.publish else 0.0
        if plan.publish:
            models_from = "bucket" if plan.models_from == "function" else plan.models_from
            plan = msgspec.structs.replace(plan, searches_a_day=0.0, device=1.0, models_from=models_from)
        if plan.page_from_function and plan.models_from == "bucket":
            # There is no public bucket, so devices run the model only if they are told to.
            plan = msgspec.structs.replace(plan, device=0.0)
        self.plan, self.counts = plan, counts
        crawls = DAYS / plan.recrawl_days
        embeds = plan.images * plan.churn * crawls
        # Images read and embedded on the worst day.
        a_day = max(1.0, 1 / plan.recrawl_days)
        read, changed = plan.images * a_day, plan.images * plan.churn * a_day
        # The last batch of each source is not full.
        batches = embeds / plan.batch_size + crawls * plan.sources
        runs, compactions = plan.crawl_runs_a_day, plan.compact_runs_a_day
        searches, links, visits = plan.searches_a_day, plan.links_a_day, plan.visits_a_day
        readings, explained = visits * (READINGS_A_VISIT + plan.device), searches * plan.explained
        looks, starts = looks_a_day(plan), cold_starts_a_day(plan)
        shards = changed / plan.batch_size + plan.sources * a_day
        self.starts = (runs + compactions) * DAYS + 2 * crawls
        seen = searches * plan.device
        self.model_mb = mb = (plan.model_bytes or image_sizes().model_bytes) / 1e6
        downloads = 0.0 if plan.models_from == "elsewhere" else visits * plan.device
        from_bucket = plan.models_from == "bucket"
        served = "served_" if plan.page_from_function else ""
        by = "search" if served else ""
        published = float(plan.publish)
        # Nearly every page of items has a changed item.
        files = min(math.ceil(plan.images / PAGE_ROWS), PAGES_MAX) + 3 * plan.images / PART_ROWS
        self.loads = (
            Load("publications", "publish", (published * min(crawls * files, DAYS * 86_400 / PUBLISHED_FILE_S),)),
            Load("items published", "published_item", (published * embeds,), (published * changed,)),
            Load("visits of the index", "index_visit", (published * (visits + plan.returns_a_day) * DAYS,)),
            Load("the index for visits", "index_row", (published * visits * DAYS, plan.images)),
            Load("searches in browsers", "published_search", (searched_there * DAYS,)),
            Load("embed", "embed", (embeds,), (changed,), "embed"),
            Load("crawl", "crawl", (plan.images * crawls,), (read,), "crawl"),
            Load("crawl runs", "crawl_run", (runs * DAYS * plan.sources,), (runs, plan.sources), "crawl"),
            Load("links", "link", (links * DAYS,), (links,), "crawl"),
            Load("merge", "merge", (embeds,), (changed,), "compact"),
            Load("compact runs", "compact_run", (min(compactions * DAYS, batches),), (compactions,), "compact"),
            Load("searches", "search", ((searches - seen) * DAYS,), (searches - seen,), "search"),
            Load("searches of devices", "seen", (seen * DAYS,), (seen,), "search"),
            Load("looks for news", "look", (looks * DAYS,), (looks,)),
            Load("visitors' look", "learn", (searches * DAYS / 10,), (searches / 10,)),
            Load("explanations", "explain", (explained * DAYS,), (explained,), "search"),
            Load("page's questions", "reading", (readings * DAYS,), (readings,), "search"),
            Load("search starts", "cold_start", (starts * DAYS,), (starts,), "search"),
            Load("fresh shards", "fresh_shard", (batches, plan.search_instances), (shards, plan.search_instances)),
            Load("page", f"{served}visit", (visits * DAYS,), function=by),
            Load("page again", f"{served}return", (plan.returns_a_day * DAYS,), function=by),
            Load(
                "model for devices",
                "bucket_model" if from_bucket else "model",
                (downloads * DAYS, mb),
                function="" if from_bucket else "search",
            ),
            Load("runtime for devices", f"{served}runtime", (visits * plan.device * DAYS,), function=by),
            Load("deployments", "deploy", (plan.deployments_a_month,)),
        )

    def monthly(self, resource: str) -> Sum:
        """All operations of a month, times each one's use of a resource."""
        total = Sum()
        for load in self.loads:
            factors = [*load.month, self.counts.each(load.operation, resource)]
            if load.operation == "embed" and resource in ("class_a", "requests", "log_bytes"):
                # Used once a batch, and counted.json was counted with batches of 64.
                factors.append(64 / self.plan.batch_size)
            total.add(load.title, *factors)
        return total

    def worst_day(self, resource: str) -> Sum:
        """Use of a resource on the day on which all changes of a crawl period come."""
        total = Sum()
        for load in self.loads:
            if load.worst_day:
                total.add(load.title, *load.worst_day, self.counts.each(load.operation, resource))
        return total

    def compute(self, attribute: str) -> Sum:
        """vCPU-seconds or GiB-seconds: the seconds of each operation times the size of its function."""
        total = Sum()
        for load in self.loads:
            if load.function:
                size = float(getattr(self.plan, f"{load.function}_{attribute}"))
                total.add(load.title, *load.month, self.counts.each(load.operation, "seconds"), size)
        plan, seconds = self.plan, self.counts.size
        if plan.site_sources:
            size = float(getattr(plan, f"crawl_{attribute}"))
            total.add("pauses of a polite crawl", plan.crawl_runs_a_day * DAYS, seconds("polite_run_s"), size)
        boosted = 2.0 if attribute == "cpu" else plan.compact_memory_gib
        return total.add("other starts", self.starts, seconds("start_s"), boosted)

    def objects(self) -> Sum:
        size, images = self.counts.size, self.plan.images
        total = Sum()
        total.add("full vectors", images, self.plan.vector_numbers, 2, size("copies"))
        total.add("codes", images, size("code_bytes"), size("copies"))
        total.add("seen-set", images, size("seen_bytes"))
        total.add("published index", float(self.plan.publish), images, size("published_bytes"), 2)
        total.add("bundles", size("bundle_bytes")).add("page", size("site_bytes"))
        if self.plan.device and self.plan.models_from == "bucket":
            total.add("model for devices", self.model_mb, self.counts.each("bucket_model", "page_bytes"))
        return total.add("state and kept models", size("state_bytes"))

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
        if self.plan.onnx:
            total.add("ONNX Runtime of embed and search", 2, sizes.runtimes["onnx"].bytes)
        if self.plan.words:
            total.add("tokenizers of search", sizes.runtimes["words"].bytes)
        if self.plan.model_bytes:
            total.add("another model in embed and search", 2, self.plan.model_bytes - sizes.model_bytes)
        kept = self.counts.size("old_image_days") / DAYS
        total.add("replaced images", self.plan.deployments_a_month, self.counts.size("bundle_bytes"), 0.5, kept)
        return total.add("runtime, stored once", self.counts.size("runtime_bytes"))


def cold_starts_a_day(plan: UsagePlan) -> float:
    """Starts of search instances in a day, if searches come at random over the active hours.

    A gap longer than the idle time has probability exp(-rate · idle time); then the next search starts an instance.
    """
    if not plan.searches_a_day:
        return 0.0
    rate = plan.searches_a_day / (plan.active_hours * 3600)
    by_gaps = plan.searches_a_day * math.exp(-rate * IDLE_S)
    return min(plan.searches_a_day, by_gaps + RESTARTS_A_DAY * plan.search_instances)


def looks_a_day(plan: UsagePlan) -> float:
    """Polls of all search instances for new items: at most one per search, and one per instance every `freshness_s`."""
    return min(plan.searches_a_day, plan.search_instances * plan.active_hours * 3600 / plan.freshness_s)


def lines(plan: UsagePlan, counts: Counted | None = None, free: Allowances | None = None) -> list[Line]:
    """The plan's use of every allowance, in the order of allowances.json."""
    counts, free = counts or counted(), free or allowances()
    usage = PlanUsage(plan, counts)
    used: dict[tuple[str, str], Sum] = {
        ("Cloud Run", "vCPU time"): usage.compute("cpu"),
        ("Cloud Run", "memory time"): usage.compute("memory_gib"),
        ("Cloud Run", "requests"): usage.monthly("requests"),
        ("Cloud Run", "data out"): usage.monthly("response_bytes"),
        ("Cloud Storage", "stored"): usage.objects(),
        ("Cloud Storage", "Class A operations"): usage.monthly("class_a"),
        ("Cloud Storage", "Class B operations"): usage.monthly("class_b"),
        ("Cloud Storage", "data out"): usage.monthly("page_bytes"),
        ("Firestore", "reads"): usage.worst_day("firestore_reads"),
        ("Firestore", "writes"): usage.worst_day("firestore_writes"),
        ("Firestore", "deletes"): usage.worst_day("firestore_deletes"),
        ("Firestore", "stored"): usage.documents(),
        ("Firestore", "data out"): Sum().add("inside the region, none", 0),
        ("Pub/Sub", "throughput"): usage.monthly("pubsub_bytes"),
        ("Cloud Scheduler", "jobs"): Sum().add("crawl and compact", 2),
        ("Cloud Build", "build time"): usage.monthly("build_minutes"),
        ("Artifact Registry", "stored"): usage.images(),
        ("Secret Manager", "active versions"): Sum().add("owner's key", float(plan.owner_key)),
        ("Secret Manager", "accesses"): usage.monthly("secret_accesses") if plan.owner_key else Sum(),
        ("Cloud Logging", "taken in"): usage.monthly("log_bytes"),
    }
    return [_line(a, used[a.service, a.metric], _days(usage, a)) for a in free.allowances]


def _days(usage: PlanUsage, allowance: Allowance) -> list[tuple[float, float]]:
    """For a daily allowance: use of a day after a crawl and of any other day, each with its number of days a month."""
    if allowance.per != "day":
        return []
    resource = f"firestore_{allowance.metric}"
    worst, month = usage.worst_day(resource).total, usage.monthly(resource).total
    crawls = min(DAYS / usage.plan.recrawl_days, DAYS)
    others = max(DAYS - crawls, 1e-9)
    return [(worst, crawls), (max(month - worst * crawls, 0.0) / others, others)]


def _line(allowance: Allowance, total: Sum, days: list[tuple[float, float]]) -> Line:
    in_gib = allowance.unit == "GiB" and bool(total.terms)
    used = total.total / (GIB if in_gib else 1)
    billed = sum(max(0.0, amount - allowance.free) * times for amount, times in days or [(used, 1.0)])
    return Line(
        service=allowance.service,
        metric=allowance.metric,
        used=used,
        free=allowance.free,
        share=used / allowance.free,
        unit=allowance.unit,
        per=allowance.per,
        cost=billed * allowance.price,
        arithmetic=total.text("2^30" if in_gib else ""),
    )


@functools.lru_cache(maxsize=8)
def stored_cost(images: float) -> float:
    """US dollars a month to store this many images."""
    kept = lines(UsagePlan(images=round(images)))
    return sum(line.cost for line in kept if line.per == "always" and line.service not in FIXED)


def first_limit(found: list[Line]) -> Line:
    """The line that limits growth first: the greatest share among those that depend on a plan's size."""
    return max((line for line in found if line.service not in FIXED), key=lambda line: line.share)


FIXED = frozenset({"Cloud Scheduler", "Cloud Build", "Artifact Registry", "Secret Manager"})
"""Services whose use does not grow with images and searches."""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.4g}"
