"""Python still answers, and exports, what the committed files say; the page's tests read the same files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scripts.golden.private_answers import answers, service_of
from scripts.golden.private_index import GOLDEN, INDEXES, MODEL, exporter_of, make_export, open_index, rows_of

from visor.export.export import site_in
from visor.index.format.container import Array, Container
from visor.index.search.reader import IndexReader
from visor.schema.search import SearchRequest
from visor.search.links import encode_vector
from visor.storage import Stores

KINDS = ("columns", "hashes", "codes_high", "codes_low", "vectors", "looks")


@pytest.fixture(params=INDEXES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stores(name: str, tmp_path: Path) -> Iterator[Stores]:
    with open_index(name, tmp_path) as stores:
        yield stores


def test_answers_are_the_committed_ones(name: str, stores: Stores) -> None:
    expected = json.loads((GOLDEN / f"search-{name}.json").read_bytes())
    found = json.loads(json.dumps(answers(name, service_of(stores))))
    assert [one["name"] for one in found] == [one["name"] for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert_alike(one, other, one["name"])


def test_lost_items_are_told_whatever_else_is(tmp_path: Path) -> None:
    vector = encode_vector(rows_of(24)[23].vector, None)
    with open_index("small", tmp_path) as stores:
        service = service_of(stores)
        for sort in ("likeness", "price_up"):
            answer = service.search(SearchRequest(vector=vector, k=1, nearest=1, sort=sort))
            told = [notice.code for notice in answer.notices]
            assert not answer.matches
            assert told == ["items_lost", *(["currencies"] if sort == "price_up" else [])]


def test_an_export_is_the_committed_one(name: str, stores: Stores, tmp_path: Path) -> None:
    make_export(stores, tmp_path, tmp_path / "site")
    found, expected = (
        json.loads((site / "data" / "visor.json").read_bytes()) for site in (tmp_path / "site", GOLDEN / name)
    )
    for one, other in zip(chunks(tmp_path / "site", found), chunks(GOLDEN / name, expected), strict=True):
        assert (one[0], one[1].keys()) == (other[0], other[1].keys())
        for tensor, values in one[1].items():
            np.testing.assert_allclose(values, other[1][tensor], atol=1e-5, err_msg=f"{one[0]} {tensor}")
    for manifest in (found, expected):
        # What follows from the bytes, which another zlib packs otherwise, and when the manifest was swapped.
        for volatile in ("id", "parts", "judge", "hidden", "bytes"):
            manifest.pop(volatile, None)
        manifest["space"].pop("file", None)
        del manifest["index"]["generation"]
    assert_alike(found, expected, "visor.json")


def test_an_export_judges_by_nothing_that_was_measured_in_another_projection(tmp_path: Path) -> None:
    with open_index("projected", tmp_path) as stores:
        news = IndexReader(stores.objects, stores.documents, MODEL).poll()
        assert news is not None
        assert news.snapshot.manifest is not None
        weights = []
        for more in ({}, {"space": "projections/before.projection"}):
            calibration = {**news.snapshot.manifest.calibration, **more}
            manifest = msgspec.structs.replace(news.snapshot.manifest, calibration=calibration)
            with site_in(tmp_path / "site") as files:
                exporter_of(replace(news.snapshot, manifest=manifest), stores, tmp_path).write(files, now=0.0)
            written = json.loads((tmp_path / "site" / "data" / "visor.json").read_bytes())
            judge = chunk(tmp_path / "site", "judge", written["judge"]["name"])
            weights.append(json.loads(judge["judge"].tobytes())["calibration"]["weights"])
        assert weights[0]
        assert not weights[1]


def chunks(site: Path, manifest: dict[str, Any]) -> Iterator[tuple[str, dict[str, Array]]]:
    """The kind of each chunk that a manifest names, and its tensors."""
    named = [(kind, part[kind]["name"]) for part in manifest["parts"] for kind in KINDS if kind in part]
    named += [("page", page) for part in manifest["parts"] for page in part["pages"]]
    named += [(kind, manifest[kind]["name"]) for kind in ("hidden",) if kind in manifest]
    named += [("space", manifest["space"]["file"]["name"])] if "file" in manifest["space"] else []
    for kind, name in named:
        yield kind, chunk(site, kind, name)


def chunk(site: Path, kind: str, name: str) -> dict[str, Array]:
    """The tensors of one."""
    data = (site / "data" / name).read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    container = Container.open(name, memoryview(data), kind=f"export_{kind}")
    return {tensor: container.array(tensor) for tensor in container.checksums}


def assert_alike(found: Any, expected: Any, where: str) -> None:
    """The same values, numbers but for rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_alike(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, value in enumerate(expected):
            assert_alike(found[number], value, f"{where}[{number}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=2e-4, rel=1e-4), where
    else:
        assert found == expected, where
