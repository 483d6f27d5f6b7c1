"""What `GET /metrics` reports in addition to the process's counts: about index, meters, queue and sources.

Each part is collected separately: if one cannot be read, the others are reported, and `visor_collector_up` shows it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime

from visor import __version__
from visor.errors import VisorError
from visor.free_tier.quota import Meter
from visor.ingest.schedule import live_failures, runs_of
from visor.search.service import SearchService
from visor.sources.config import SourcesFile
from visor.storage import Stores
from visor.telemetry.metrics import Family, Metrics, exposition, gauge, process_families

LOG = logging.getLogger("visor.web")
RUNS_READ = 20
"""Latest runs of each source that are read."""
Collector = Callable[[], Iterable[Family]]


def metrics_text(metrics: Metrics, collectors: Mapping[str, Collector]) -> str:
    """All metrics, in Prometheus' text format."""
    families = [*metrics.families(), *process_families()]
    up = []
    for name, collect in collectors.items():
        try:
            families += collect()
        except VisorError as exc:
            LOG.error("Metrics of the %s cannot be collected: %s", name, exc)
            up.append(({"collector": name}, 0))
        else:
            up.append(({"collector": name}, 1))
    return exposition([*families, gauge("visor_collector_up", "Whether that part could be read.", *up)])


def index_families(service: SearchService) -> Iterator[Family]:
    """Metrics of the index that is searched. Raises as `SearchService.refresh`."""
    service.refresh()
    searcher = service.searcher
    build = {"version": __version__, "model": service.embedder.fingerprint}
    yield gauge("visor_build_info", "Always 1; version and model are in the labels.", (build, 1))
    yield gauge("visor_index_items", "Items that are searchable.", len(searcher))
    yield gauge("visor_index_fresh_items", "Of these, items that no merge took up yet.", searcher.fresh)
    yield gauge("visor_index_segments", "Segments that are searched.", searcher.segments)
    yield gauge("visor_index_generation", "Generation of the manifest that is searched.", searcher.generation)
    if (manifest := searcher.manifest) is not None:
        about = "When a merge made it, seconds since 1970."
        yield gauge("visor_index_generation_timestamp_seconds", about, manifest.created_at)
    about = "1 if part of the index could not be read and is left out."
    yield gauge("visor_index_degraded", about, searcher.notice is not None)
    if (audit := service.recall_monitor.result()) is not None:
        about = "Share of the 12 nearest that fast searches found, of those that were checked."
        yield gauge("visor_search_recall_ratio", about, audit.recall_at_12)


def meter_families(meter: Meter) -> Iterator[Family]:
    """Use of the free tier and of the budget, by resource, in its own unit (seconds, bytes, operations)."""
    readings = [({"resource": one.resource, "service": one.service, "per": one.per}, one) for one in meter.readings()]
    yield gauge("visor_meter_used", "Used this day or month.", *((labels, one.used) for labels, one in readings))
    yield gauge("visor_meter_allowed", "Where Visor stops.", *((labels, one.limit) for labels, one in readings))
    yield gauge("visor_meter_free", "What Google gives.", *((labels, one.free) for labels, one in readings))
    yield gauge("visor_month_cost", "Spent this month, in the budget's currency.", meter.spent())
    yield gauge("visor_month_budget", "What may be spent a month, in that currency.", meter.settings.budget)


class Pipeline:
    """Metrics of the queue and the sources of an index on this machine, read at most every `fresh_s` seconds. On Google
    Cloud each read would be paid for, and Cloud Monitoring has the queue."""

    def __init__(self, stores: Stores, configuration: Callable[[], SourcesFile], fresh_s: float) -> None:
        self._stores, self._configuration, self._fresh_s = stores, configuration, fresh_s
        self._read_at, self._found = -fresh_s, list[Family]()

    def __call__(self) -> list[Family]:
        now = time.monotonic()
        if now - self._read_at >= self._fresh_s:
            self._found, self._read_at = list(self._families()), now
        return self._found

    def _families(self) -> Iterator[Family]:
        documents, queue = self._stores.documents, self._stores.queue
        waiting, dead = ({"state": "waiting"}, queue.waiting()), ({"state": "dead"}, queue.dead())
        yield gauge("visor_queue_messages", "Batches that wait to be embedded, or are dead letters.", waiting, dead)
        failures = Counter((failure.source, failure.code) for failure in live_failures(documents))
        counts = (({"source": source, "code": code}, count) for (source, code), count in failures.items())
        yield gauge("visor_failed_items", "Items that could not become searchable.", *counts)
        runs = runs_of(documents, self._configuration(), RUNS_READ)
        states = Counter((name, run.state) for name, of_source in runs.items() for run in of_source)
        counts = (({"source": source, "state": state}, count) for (source, state), count in states.items())
        yield gauge("visor_crawl_runs", f"The latest {RUNS_READ} crawl runs of each source, by state.", *counts)
        last = [
            ({"source": name, "state": run.state}, datetime.fromisoformat(run.started_at).timestamp())
            for name, (run, *_) in runs.items()
        ]
        yield gauge("visor_crawl_last_run_timestamp_seconds", "When the latest run began, since 1970.", *last)
        listed = (({"source": name}, run.listed) for name, (run, *_) in runs.items())
        yield gauge("visor_source_items", "Items that a source lists, as far as the latest run knows.", *listed)
