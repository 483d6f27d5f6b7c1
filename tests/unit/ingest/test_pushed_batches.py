"""A pushed batch is given up by the tries that ran, not by the deliveries that found no instance."""

from __future__ import annotations

from typing import Any

import pytest

from visor.errors import Conflict, CorruptObject, ModelNotBuilt, StoreUnavailable
from visor.ingest.batch_plan import EmbedReport
from visor.ingest.embed import BatchIncomplete
from visor.ingest.worker import PushedBatches
from visor.storage import Stores

BODY = b'{"id":"b"}'
PAUSED = BatchIncomplete("left alone")
PAUSED.counts = False
LATER, OUT, BROKEN = BatchIncomplete("busy"), StoreUnavailable("no answer"), CorruptObject("no batch")
NO_MODEL, RACE, FULL = ModelNotBuilt("no directory"), Conflict("lost"), OSError(28, "No space left on device")
KILLED = KeyboardInterrupt("the instance ended")
DONE = None


class Script:
    """An embedder that ends each try as it is told."""

    def __init__(self, *ends: BaseException | None) -> None:
        self.ends = list(ends)

    def embed(self, body: bytes, *, attempt: int) -> EmbedReport:
        if end := self.ends.pop(0):
            raise end
        return EmbedReport(embedded=1)


# Deliveries that reached an instance, by Pub/Sub's count; how each try ends; tries that the dead letter tells, if any.
CASES: dict[str, tuple[list[int], list[BaseException | None], int | None]] = {
    "well at once": ([1], [DONE], None),
    "well after 98 that found nobody": ([99], [DONE], None),
    "fails three times in a row": ([1, 2, 3], [LATER] * 3, 3),
    "fails three times among many that found nobody": ([7, 40, 99], [LATER] * 3, 3),
    "a queue that does not say which delivery it is": ([1, 1, 1], [LATER] * 3, 3),
    "well at the last try": ([1, 30, 60], [LATER, LATER, DONE], None),
    "no batch at all": ([1], [BROKEN], 1),
    "ends its process each time": ([2, 3, 4, 5], [KILLED] * 3, 3),
    "a store is out for long": ([1, 2, 3, 4, 5, 6], [OUT] * 5 + [DONE], None),
    "a model is missing for long": ([1, 2, 3, 4, 5, 6], [NO_MODEL] * 5 + [DONE], None),
    "a disk is full for long": ([1, 2, 3, 4, 5, 6], [FULL] * 5 + [DONE], None),
    "a host is left alone for long": ([*range(1, 30), 30], [PAUSED] * 29 + [DONE], None),
    "others write the same items": ([1, 2, 3, 4, 5, 6], [RACE] * 5 + [DONE], None),
    "a store is out in between": ([1, 2, 3, 4], [LATER, OUT, LATER, LATER], 3),
}


@pytest.mark.parametrize("case", CASES)
def test_tries_that_ran_are_what_counts(case: str, local_stores: Stores) -> None:
    deliveries, ends, tries = CASES[case]
    script: Any = Script(*ends)
    batches = PushedBatches(script, local_stores, attempts_max=3)
    for last, attempt in enumerate(deliveries, 1 - len(deliveries)):
        try:
            batches.embed(BODY, attempt=attempt)
        except (BatchIncomplete, StoreUnavailable, ModelNotBuilt, Conflict, OSError, KeyboardInterrupt):
            assert last < 0, "the last delivery is acknowledged"
        else:
            assert last == 0, "only the last delivery is acknowledged"
    assert script.ends == []
    letters = local_stores.queue.dead_letters()
    assert [letter.attempts for letter in letters] == ([] if tries is None else [tries])
    assert all(letter.why and letter.body == BODY for letter in letters)
    assert list(local_stores.documents.query("tries")) == [], "nothing is left behind"


def test_the_last_deliveries_are_last_tries(local_stores: Stores) -> None:
    attempts = []

    class Noting:
        def embed(self, body: bytes, *, attempt: int) -> EmbedReport:
            attempts.append(attempt)
            raise PAUSED

    batches = PushedBatches(Noting(), local_stores, attempts_max=3)  # type: ignore[arg-type]
    for delivery in (1, 2, 89, 90):
        with pytest.raises(BatchIncomplete):
            batches.embed(BODY, attempt=delivery)
    assert attempts == [1, 1, 1, 3], "Pub/Sub gives up after 100: what is left then is recorded, not lost"
