"""What a search of an export has to return: small indexes of generated rows, their exports, and Python's own answers.

`python -m scripts.golden.private_answers` makes tests/golden/private/ again: for each index NAME the index itself
(`NAME.tar.xz`), its export (`NAME/`), and requests with what `SearchService` answers (`search-NAME.json`). The tests of
Python and of the page read them; run it only if the format, or what a search returns, changes on purpose.

| index | what it has |
| --- | --- |
| projected | 320 rows, a projection, a calibration measured in it |
| full | 300 rows, a projection, a calibration measured in full vectors |
| small | 60 rows, too few for a projection or a calibration |
| across | 300 rows whose visitors' photos look unlike the catalogue |
"""

from __future__ import annotations

import base64
import io
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
from PIL import Image, ImageOps
from scripts.golden.private_index import (
    DIMENSION,
    GOLDEN,
    INDEXES,
    LABELS,
    MODEL,
    Row,
    description,
    item_id,
    label_words,
    make_export,
    make_index,
    photos,
    picture,
    rows_of,
    unit,
)

from visor.free_tier.quota import Meter
from visor.http.client import Fetcher
from visor.imaging.content import Emptiness
from visor.index.search.searcher import Searcher
from visor.models.embedder import Embedder
from visor.near_duplicates.perceptual_hash import perceptual_hash
from visor.schema.search import Condition, Filters, PriceRange, SearchRequest
from visor.search.links import encode_vector
from visor.search.query import Stopwatch
from visor.search.service import SearchService
from visor.settings import Settings
from visor.storage import Stores, open_stores


def service_of(stores: Stores) -> SearchService:
    settings = Settings(freshness_s=0.0, audit_rate=0.0)
    # The parts of a model that only a picture needs are never called.
    model = SimpleNamespace(
        fingerprint=MODEL,
        dimension=DIMENSION,
        description=description(),
        label_names=LABELS,
        label_words=label_words(),
    )
    service = SearchService(
        searcher=Searcher(stores.objects, stores.documents, model=MODEL, freshness_s=0.0),
        embedder=cast("Embedder", model),
        fetcher=cast("Fetcher", None),
        documents=stores.documents,
        settings=settings,
        meter=Meter(stores.documents, settings),
    )
    service.refresh()
    return service


def requests_of(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Requests by name, as JSON."""
    rows = rows_of(60)
    near = unit((rows[20].vector.astype(np.float32) + 0.01 * np.random.default_rng(3).standard_normal(DIMENSION))[None])
    strange = unit(np.random.default_rng(4).standard_normal((1, DIMENSION)).astype(np.float32))
    own = encode_vector(rows[8].vector, None)
    yield "vector of an item with a copy", {"vector": own}
    yield "vector near an item", {"vector": encode_vector(near[0], None), "facets": True}
    yield "vector of a stranger", {"vector": encode_vector(strange[0], None)}
    yield "item", {"item": item_id(30)}
    yield "item with feedback", {"item": item_id(10)}
    yield "blank item", {"item": item_id(7)}
    for seen, pixels, row in (
        ("the same picture", picture(20), rows[20]),
        ("a smaller one", picture(20).resize((60, 60)), rows[20]),
        ("a part of it", picture(20).crop((10, 8, 90, 90)), rows[20]),
        ("mirrored", ImageOps.mirror(picture(20)), rows[20]),
        ("with a border", ImageOps.expand(picture(20), 8, (255, 255, 255)), rows[20]),
        ("another one", picture(5000), rows[31]),
    ):
        yield f"seen: {seen}", {"seen": seen_of(pixels, row)}
    yield "seen: unsafe", {"seen": {**seen_of(picture(20), rows[20]), "safety": SAFETY}}
    yield "seen: blank", {"seen": {**seen_of(picture(20), rows[20]), "blank": Emptiness.BLANK.value}}
    if name == "across":
        for number, vector in zip((4, 14, 24, 34), photos(rows[4:44:10]), strict=True):
            yield f"photo of {number}", {"vector": encode_vector(vector, rows[number].look)}
        asked = {"vector": encode_vector(vector, rows[number].look), "sort": "price_down", "nearest": 12}
        yield "the nearest of a photo sorted", {**asked, "k": 5, "pages": 3}
        return
    yield "not grouped", {"vector": own, "group": False, "k": 20}
    yield "varied", {"vector": own, "variety": 0.4, "pages": 3, "k": 5}
    yield "pages", {"vector": own, "k": 7, "pages": 4}
    yield "no nearer than", {"vector": own, "min_similarity": 0.8, "k": 50}
    yield "sure ones", {"vector": own, "min_confidence": 0.4, "k": 50}
    yield "left out", {"vector": own, "leave_out": [item_id(8), item_id(9)]}
    for sort in ("price_up", "price_down", "newest", "oldest", "largest", "smallest", "most_changed"):
        yield f"sorted: {sort}", {"vector": own, "sort": sort, "k": 8, "pages": 2}
    priced = {"price": {"min": 10}}
    yield "the nearest sorted", {"vector": own, "sort": "price_up", "nearest": 15, "k": 8, "pages": 3}
    yield "the nearest sorted: filtered", {"vector": own, "sort": "oldest", "nearest": 9, "filters": priced, "k": 20}
    yield "the nearest sorted: sure", {"vector": own, "sort": "newest", "nearest": 9, "min_confidence": 0.3, "k": 20}
    for filtered, filters in {
        "collections": Filters(collection=("hats", "shoes")),
        "updated": Filters(collection=("updated",)),
        "country and currency": Filters(country=("DE",), currency=("EUR",)),
        "label": Filters(label=(LABELS[0],)),
        "price": Filters(price=PriceRange(min=10, max=20.5)),
        "dates": Filters(date_from="2019", date_to="2021-06"),
        "attributes": Filters(attributes={"size": Condition(min=2, max=6), "colour": Condition(none=("red",))}),
        "flag": Filters(attributes={"new": Condition(any=("true",))}),
        "since": Filters(attributes={"since": Condition(min="2015-03", max="2020")}),
        "missing": Filters(attributes={"price": Condition(missing=True), "country": Condition(missing=False)}),
        "nothing": Filters(source=("nobody",)),
    }.items():
        asked = msgspec.to_builtins(filters)
        yield f"filtered: {filtered}", {"vector": own, "filters": asked, "facets": True, "k": 6}
        yield f"only filtered: {filtered}", {"filters": asked, "k": 6}
    examples = [
        {"vector": encode_vector(rows[40].vector, None)},
        {"vector": encode_vector(rows[41].vector, None), "weight": -0.5},
    ]
    yield "examples", {"examples": examples}
    yield "two wanted examples", {"examples": [examples[0], {"item": item_id(30), "weight": 0.7}]}


SAFETY = {"drawing": 0.01, "hentai": 0.01, "neutral": 0.01, "porn": 0.96, "sexy": 0.01}


def seen_of(pixels: Image.Image, row: Row) -> dict[str, Any]:
    vector = row.vector.astype(np.float32) + np.float32(0.003)
    look = encode_vector(unit(vector[None])[0], row.look)
    hashed = base64.b64encode(perceptual_hash(pixels)).decode()
    labels = [msgspec.to_builtins(label) for label in row.labels]
    return {"model": MODEL, "vector": look, "hash": hashed, "labels": labels, "width": 96, "height": 96}


def answers(name: str, service: SearchService) -> list[dict[str, Any]]:
    """Each request with Python's answer; for a request with pages, the ids of each page."""
    found = []
    for what, asked in requests_of(name):
        pages = asked.get("pages", 1)
        asked = {key: value for key, value in asked.items() if key != "pages"}
        request = msgspec.convert(asked, SearchRequest)
        answer = msgspec.to_builtins(service.search(request))
        del answer["timing_ms"]
        answer["query"].pop("handle", None)
        del answer["index"]["generation"]
        ids = [[match["item"]["id"] for match in answer["matches"]]]
        # Two matches of one answer are stored whole.
        answer["matches"] = [
            match if what == "vector near an item" and place < 2 else briefly(match)
            for place, match in enumerate(answer["matches"])
        ]
        after = answer.pop("next", None)
        while after is not None and len(ids) < pages:
            page = service.search(msgspec.structs.replace(request, after=after))
            ids.append([match.item.id for match in page.matches])
            after = page.next
        found.append(
            {"name": what, "request": asked, "answer": answer, "pages": ids, "more": after is not None}
            | judged(service, request)
        )
    return found


def briefly(match: dict[str, Any]) -> dict[str, Any]:
    """A match without its item's texts."""
    offers = {name: [place["item"] for place in match.get(name, ())] for name in ("places", "product")}
    return {"id": match["item"]["id"], **{n: match[n] for n in ("similarity", "confidence", "verdict")}, **offers}


def judged(service: SearchService, request: SearchRequest) -> dict[str, Any]:
    """What the answer's confidence is computed from: similarities of the nearest rows, the features and the score."""
    gap = service.confidence.across(service.searcher.manifest)
    query = service._query(request, None, Stopwatch(), gap)
    if not len(query.vector) or (query.safety is not None and query.safety.unsafe):
        return {}
    across = gap if query.is_across else None
    hits = service._scan(request, query, service._hidden(query).union(request.leave_out), across)
    judgement = service.confidence.judge(hits, [label.name for label in query.labels], across)
    assert hits.nearest is not None
    return {
        "is_across": query.is_across,
        "nearest": [block.ids[row].tobytes().hex() for block, row in hits.nearest.rows[:12]],
        "similarities": [round(float(one), 6) for one in hits.nearest.similarities[:12]],
        "features": () if query.is_across else service.confidence.features(hits),
        "score": judgement.score,
        "held": judgement.held,
        "hits": [
            {"id": h.id, "similarity": h.similarity, "rank": h.rank, "duplicates": h.duplicates, "product": h.product}
            for h in hits.hits
        ],
    }


def pack_index(home: Path, target: Path) -> None:
    with tarfile.open(target, "w:xz") as tar:
        for path in sorted((home / "indexes").rglob("*")):
            name = path.relative_to(home).as_posix()
            if path.is_file() and "/." not in name and "queue" not in name:
                info = tarfile.TarInfo(name)
                data = path.read_bytes()
                info.size, info.mtime = len(data), int(path.stat().st_mtime)
                tar.addfile(info, io.BytesIO(data))


def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name in INDEXES:
        shutil.rmtree(GOLDEN / name, ignore_errors=True)
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            with open_stores(Settings(home=home)) as stores:
                make_index(name, stores)
                make_export(stores, home, GOLDEN / name)
                found = answers(name, service_of(stores))
            pack_index(home, GOLDEN / f"{name}.tar.xz")
        (GOLDEN / f"search-{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
        print(f"{name}: {len(found)} requests", file=sys.stderr)


if __name__ == "__main__":
    main()
