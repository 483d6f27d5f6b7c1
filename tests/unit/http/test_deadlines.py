"""What a function may wait for at worst fits into the time that Terraform gives it.

Each part's own end is tested where the part is (`tests/cloud/test_faulty_network.py`, `test_images_fetch.py`); here
they are added up.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from visor.deploy.terraform import read_terraform
from visor.http.client import SLOT_WAIT_DEADLINES
from visor.index.merge.garbage import DELIVERY_S
from visor.ingest.embed import BUDGET_S, RACES_MAX
from visor.schema.items import BATCH_SIZE_MAX
from visor.settings import PREFIX, Settings

TERRAFORM = Path(__file__).parents[3] / "terraform"
EVENT_S, HTTP_S = 540, 3600
"""Longest times of Cloud Functions, for events and for requests."""
EMBED_S = 0.25
"""Of one picture on one vCPU, thrice what was measured (docs/benchmarks.md)."""
LAST_STEP_S = 400.0
"""A merge's last step and the calibration: 131,072 rows of 6,656 bytes read, projected and written at 10 MB/s each."""


def deployed(name: str) -> tuple[float, Settings]:
    """A function's time, and its settings as far as Terraform has own ones for it."""
    values = read_terraform(TERRAFORM).local_values
    functions = str(values["functions"])
    own = functions[re.search(rf"\b{name} = {{account", functions).start() :]  # type: ignore[union-attr]
    own = own[: own.index("environment = ") + 200].split("account = ")[1]
    for environment in re.findall(r"local\.(\w+_environment)", own):
        own += "".join(f"{key} = {value}\n" for key, value in values[environment].items())
    seconds = re.search(r"timeout = (\d+)", own)
    assert seconds is not None
    changes = {field.lower(): float(value) for field, value in re.findall(rf'{PREFIX}(\w+_S) = "([\d.]+)"', own)}
    return float(seconds[1]), msgspec.structs.replace(Settings(), **changes)


def seconds_of(text: object) -> float:
    """`"1800s"` as a number."""
    return float(re.sub(r"[^\d.]", "", str(text)))


def object_call_s(settings: Settings) -> float:
    """A call is tried again until the deadline, and its last try may stall for a third of it."""
    return settings.store_deadline_s * 4 / 3


def test_a_delivery_ends_before_its_function_and_before_it_is_delivered_again() -> None:
    time_s, settings = deployed("embed")
    rounds = -(-BATCH_SIZE_MAX // settings.fetch_parallel)
    fetch_s = rounds * settings.fetch_timeout_s * (SLOT_WAIT_DEADLINES + 1)
    # Items and failures are read, the shard is put and, if its answer was lost, looked for, all is committed.
    stores_s = 3 * settings.store_deadline_s + 2 * object_call_s(settings)
    worst_s = fetch_s + BATCH_SIZE_MAX * EMBED_S + stores_s
    assert worst_s <= BUDGET_S < time_s <= EVENT_S
    # Another race begins only where two more of the same length would fit.
    assert BUDGET_S / RACES_MAX < BUDGET_S - BUDGET_S / RACES_MAX
    subscription = read_terraform(TERRAFORM).of("resource")["google_pubsub_subscription.batches"]
    assert time_s <= float(str(subscription.attributes["ack_deadline_seconds"])) <= DELIVERY_S


def test_a_search_answers_also_where_a_store_and_an_origin_do_not() -> None:
    time_s, settings = deployed("search")
    # The look for commits, that for feedback, the page's items; a turn at the origin and the picture.
    stores_s, fetch_s = 3 * settings.store_deadline_s, 2 * settings.fetch_timeout_s
    assert stores_s + fetch_s + 4 * EMBED_S < time_s <= HTTP_S


@pytest.mark.parametrize(
    ("name", "budget_s", "rest_s"),
    [
        # The page at hand, a publish and the save of the seen-set.
        ("crawl", Settings().crawl_budget_s, 75 + 2 * 30 + 2 * 40),
        ("compact", Settings().compact_budget_s, LAST_STEP_S),
    ],
)
def test_what_is_scheduled_stops_in_time_and_goes_on_at_the_next_run(name: str, budget_s: float, rest_s: float) -> None:
    time_s, _ = deployed(name)
    job = read_terraform(TERRAFORM).of("resource")["google_cloud_scheduler_job.job"]
    assert budget_s + rest_s < time_s <= seconds_of(job.attributes["attempt_deadline"]) <= HTTP_S
