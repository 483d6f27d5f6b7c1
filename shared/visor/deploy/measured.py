"""What a deployed project has used, as Google measured it: Cloud Monitoring, and the sizes of repositories."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import httpx

from visor.deploy.process import output, parsed_output
from visor.errors import DeployError
from visor.free_tier.allowances import allowances
from visor.free_tier.cost_model import DAYS, GIB
from visor.schema.items import Record

MONITORING = "https://monitoring.googleapis.com"
TIMEOUT_S = 30.0
CLASS_B = ("ReadObject", "GetObjectMetadata", "GetBucketMetadata", "TestIamPermissions", "GetIamPolicy")
FREE_OPERATIONS = ("DeleteObject", "DeleteBucket")


class Metric(NamedTuple):
    """The metric of Cloud Monitoring that shows the use of an allowance."""

    type: str
    more: str = ""
    """A further condition."""
    gauge: bool = False
    """The newest value counts, not the sum."""


def _methods(*names: str) -> str:
    return " OR ".join(f'metric.labels.method="{name}"' for name in names)


METRICS: dict[tuple[str, str], Metric] = {
    ("Cloud Run", "vCPU time"): Metric("run.googleapis.com/container/cpu/allocation_time"),
    ("Cloud Run", "memory time"): Metric("run.googleapis.com/container/memory/allocation_time"),
    ("Cloud Run", "requests"): Metric("run.googleapis.com/request_count"),
    ("Cloud Run", "data out"): Metric("run.googleapis.com/container/network/sent_bytes_count"),
    ("Cloud Storage", "stored"): Metric("storage.googleapis.com/storage/v2/total_bytes", gauge=True),
    ("Cloud Storage", "Class A operations"): Metric(
        "storage.googleapis.com/api/request_count", f"NOT ({_methods(*CLASS_B, *FREE_OPERATIONS)})"
    ),
    ("Cloud Storage", "Class B operations"): Metric(
        "storage.googleapis.com/api/request_count", f"({_methods(*CLASS_B)})"
    ),
    ("Cloud Storage", "data out"): Metric("storage.googleapis.com/network/sent_bytes_count"),
    ("Firestore", "reads"): Metric("firestore.googleapis.com/document/read_count"),
    ("Firestore", "writes"): Metric("firestore.googleapis.com/document/write_count"),
    ("Firestore", "deletes"): Metric("firestore.googleapis.com/document/delete_count"),
    ("Firestore", "stored"): Metric("firestore.googleapis.com/storage/data_and_index_storage_bytes", gauge=True),
    ("Pub/Sub", "throughput"): Metric("pubsub.googleapis.com/topic/byte_cost"),
    ("Cloud Logging", "taken in"): Metric("logging.googleapis.com/billing/bytes_ingested"),
}


class Measured(Record, frozen=True, kw_only=True):
    """What was used of one allowance: for a monthly one, scaled from the days of which something was measured; for a
    daily one, the highest day."""

    service: str
    metric: str
    used: float


def measured(project: str, *, days: int, address: str = MONITORING, say: Callable[[str], None]) -> list[Measured]:
    """What the project used of every allowance that Google measures, in the last `days` days.

    Raises:
        DeployError: gcloud or Cloud Monitoring does not answer.
    """
    token = output(["gcloud", "auth", "print-access-token", "--quiet"])
    headers = {"Authorization": f"Bearer {token}", "X-Goog-User-Project": project}
    read: dict[tuple[str, str], list[float]] = {}
    with httpx.Client(base_url=f"{address}/v3/projects/{project}", headers=headers, timeout=TIMEOUT_S) as client:
        for (service, name), metric in METRICS.items():
            try:
                read[service, name] = _by_day(client, metric, days)
            except (httpx.HTTPError, ValueError, LookupError) as exc:
                raise DeployError(
                    f"Cloud Monitoring does not return {service} {name}: {exc}".splitlines()[0],
                    valid="roles/monitoring.viewer on the project",
                    remedy="Check the project's name, and log in again with `gcloud auth login`",
                ) from exc
    # A project may be younger than the days that were asked for.
    lived = min(days, max(len(by_day) for by_day in read.values()))
    found = []
    for (service, name), by_day in read.items():
        if not by_day:
            say(f"{service} {name}: nothing was measured")
            continue
        allowance = allowances().of(service, name)
        each = by_day[0] if METRICS[service, name].gauge else max(by_day)
        used = sum(by_day) * DAYS / lived if allowance.per == "month" else each
        found.append(Measured(service=service, metric=name, used=used / (GIB if allowance.unit == "GiB" else 1)))
    found += _repositories(project)
    return found


def _by_day(client: httpx.Client, metric: Metric, days: int) -> list[float]:
    """The metric's sum over all its series, one number per day, newest first."""
    now = datetime.now(UTC)
    parameters = {
        "filter": f'metric.type="{metric.type}"' + (f" AND {metric.more}" if metric.more else ""),
        "interval.startTime": (now - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "interval.endTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "aggregation.alignmentPeriod": "86400s",
        "aggregation.perSeriesAligner": "ALIGN_MEAN" if metric.gauge else "ALIGN_DELTA",
        "aggregation.crossSeriesReducer": "REDUCE_SUM",
    }
    answer = client.get("/timeSeries", params=parameters).raise_for_status().json()
    points = [point["value"] for series in answer.get("timeSeries", []) for point in series["points"]]
    return [float(next(iter(value.values()))) for value in points]


def _repositories(project: str) -> Iterator[Measured]:
    command = ["gcloud", "artifacts", "repositories", "list", f"--project={project}", "--format=json"]
    listed: list[dict[str, Any]] = parsed_output(command) or []
    size = sum(int(one.get("sizeBytes", 0)) for one in listed)
    yield Measured(service="Artifact Registry", metric="stored", used=size / GIB)
