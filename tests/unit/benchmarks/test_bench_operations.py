"""What each step costs: the design's budgets, and the figures that `visor cost` reckons with."""

from __future__ import annotations

import pytest

from visor.settings import Settings
from visor.storage import open_stores
from visor_bench.load.counting import Usage, drift
from visor_bench.load.operations import APART_S, IMAGES, LOOKS, in_thousands, measure

pytestmark = pytest.mark.slow

SEARCHES = 250


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Usage]:
    settings = Settings(home=tmp_path_factory.mktemp("operations"))
    with open_stores(settings) as stores:
        return measure(stores, settings, searches=SEARCHES)


def test_embed_writes_one_object_a_batch(used: dict[str, Usage]) -> None:
    batches = IMAGES / Settings().batch_size
    assert used["embed"].class_a <= batches
    assert used["embed"].class_b == 0


def test_a_recrawl_reads_no_document_of_an_unchanged_item(used: dict[str, Usage]) -> None:
    assert used["recrawl"].document_reads <= 1, "the meter's"
    assert used["recrawl"].messages == 0
    assert (used["recrawl"].class_a, used["recrawl"].class_b) == (1, 1)


def test_a_warm_search_reads_no_object_and_at_most_twelve_documents(used: dict[str, Usage]) -> None:
    # The worst ones: the twelve items of each page are new to the instance.
    # Besides, what visitors' photos teach is written now and then, after a look at how much of it there is.
    assert 12 * SEARCHES <= used["search"].document_reads <= 12 * SEARCHES + SEARCHES // 50
    assert (used["search"].class_a, used["search"].class_b) == (0, 0)
    # As they go on: items are remembered, and each search comes so late that it has to look for news first.
    assert Settings().freshness_s < APART_S
    assert used["warm_search"].document_reads < 12 * SEARCHES
    assert (used["warm_search"].class_a, used["warm_search"].class_b) == (0, 0)


def test_a_look_for_news_reads_no_object_and_two_documents(used: dict[str, Usage]) -> None:
    """One of commits and one of feedback: a query without a result counts as a read."""
    assert used["look"].document_reads == 2 * LOOKS
    assert (used["look"].class_a, used["look"].class_b) == (0, 0)


def test_no_search_lists_the_bucket(used: dict[str, Usage]) -> None:
    assert used["cold_start"].class_a == used["fresh_shard"].class_a == 0


def test_visor_cost_reckons_with_what_is_measured(used: dict[str, Usage]) -> None:
    found = drift(in_thousands(used, Settings(), IMAGES, SEARCHES))
    assert not found, "\n".join([*found, "Run `visor bench operations --record`"])
