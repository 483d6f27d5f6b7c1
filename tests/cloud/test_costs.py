"""The counts are those of the real protocols: the same on Google's servers, and the requests that arrive there."""

from __future__ import annotations

import os
from collections import Counter
from urllib.parse import urlsplit

import msgspec
import pytest
from tests.cloud.support.faulty import FaultyProxy

from visor.settings import Settings
from visor.storage import open_stores
from visor_bench.load.operations import measure

IMAGES, SEARCHES = 128, 20


def test_counts_on_the_emulators_are_those_on_the_laptop(
    cloud_settings: Settings, local_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = FaultyProxy(os.environ["STORAGE_EMULATOR_HOST"])
    # Nothing is limited: the test is about counting.
    settings = msgspec.structs.replace(cloud_settings, quota_share=1.0)
    with proxy.running() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        with open_stores(settings) as stores:
            cloud = measure(stores, settings, images=IMAGES, searches=SEARCHES)
    with open_stores(local_settings) as stores:
        local = measure(stores, local_settings, images=IMAGES, searches=SEARCHES)
    for step in local.keys() - {"all"}:
        usage = local[step]
        ours, theirs = usage.as_dict(), cloud[step].as_dict()
        for count in ("class_a", "class_b", "document_deletes", "messages"):
            assert theirs[count] == ours[count], (step, count)
        # The meter is read and written at another time where something is limited.
        for count in ("document_reads", "document_writes"):
            assert abs(theirs[count] - ours[count]) <= 1, (step, count)

    kinds = Counter(kind_of(request) for request in proxy.requests)
    assert kinds["write"] + kinds["list"] == cloud["all"].class_a
    assert kinds["read"] == cloud["all"].class_b
    assert kinds["list"] > 0, "a merge looks for orphans"


def kind_of(request: str) -> str:
    """What Cloud Storage bills a request as: a write, a listing (Class A both), a read (Class B), or nothing."""
    method, _, target = request.partition(" ")
    path = urlsplit(target.split(" ")[0]).path
    if method in ("POST", "PUT", "PATCH"):
        return "write"
    if method == "GET":
        return "list" if path.rstrip("/").endswith("/o") else "read"
    return "free"
