"""Data for judging an answer: the calibration, the sample of the catalogue, and constants from Python's code."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import msgspec
import numpy as np

from visor.confidence import across, features, model
from visor.export.rows import PartRows
from visor.index.format import attributes, container, looks
from visor.index.format.container import Array
from visor.index.search import ask, candidates, facet_counts, fusion, hits, listing
from visor.index.search.snapshot import Snapshot
from visor.near_duplicates import fingerprint, thresholds
from visor.schema import search

# In the order in which they are exported.
_NUMBERS: dict[str, list[tuple[ModuleType, str]]] = {
    "container": [(container, "FORMAT_VERSION")],
    "search": [
        (ask, "NEAREST WIDENINGS"),
        (candidates, "RERANK RERANK_PER_SEGMENT"),
        (hits, "DUPLICATES_MAX"),
        (listing, "VARIED"),
        (hits, "ID_HEAD"),
        (search, "GUESS_FROM"),
        (thresholds, "COPY_CONFIDENCE"),
    ],
    "confidence": [
        (model, "CONFIDENT JUDGED SHORT_FROM SHORT_WEIGHT FULL_KEPT_MAX ROWS_COMPARED NEARER ALONE PAIRS_ENOUGH"),
        (features, "FEATURES SAMPLED LABEL_DECAY SHARPNESS _SHARED _FAR"),
    ],
    "across": [(across, "CONFIDENT_ACROSS VISITORS_MIN SIDE HELD_SLOPE FIRST UNLEARNED BEST_FLOOR _NEXT _OTHERS")],
    "fusion": [
        (fusion, "LABELS_WEIGHT WORDS_WEIGHT COLOURS_WEIGHT NAMED_WEIGHT USUAL_FLOOR WORDS_MIN"),
        (looks, "LABELS LABELS_KEPT COLOURS"),
    ],
    "verdict": [
        (
            thresholds,
            "SAME_BITS SAME_SIMILARITY EXACT_LUMA_MAX EXACT_CHROMA_MAX EDITED_CORRELATION_MIN EDITED_SIMILARITY_MIN "
            "SAME_VECTOR_MIN",
        ),
        (fingerprint, "CELLS CHROMA_CELLS PLANE LUMA_BITS HASH_BYTES"),
        (
            thresholds,
            "COVERED_MIN CONTRAST_FLOOR CONTRAST_LARGE EDGES_SLACK REST_SCALE SMALL_REST_SCALE GAIN_MAX REFINED_WITHIN "
            "SMALL ANGLES",
        ),
        (fingerprint, "PDQ_BYTES"),
    ],
    "facets": [(attributes, "VALUES_MAX"), (facet_counts, "PRICE_RANGES DATE_RANGES")],
}


def constants() -> dict[str, dict[str, Any]]:
    """Every constant of Python's code that a search depends on, by part and name."""
    found: dict[str, dict[str, Any]] = {}
    for part, modules in _NUMBERS.items():
        names = [(module, name) for module, text in modules for name in text.split()]
        values = {name.strip("_").lower(): getattr(module, name) for module, name in names}
        found[part] = {n: [v.start, v.stop] if isinstance(v, slice) else v for n, v in values.items()}
    return found


def written_out(record: msgspec.Struct) -> dict[str, Any]:
    """All fields of a record under their JSON names, including defaults."""
    return {field.encode_name: getattr(record, field.name) for field in msgspec.structs.fields(record)}


def judged_by(calibration: model.Calibration, label_words: list[dict[str, float]]) -> dict[str, Any]:
    """The JSON of a calibration, without the keys of what it was learned from."""
    known = calibration.across
    gap = None if known is None else {n: v for n, v in written_out(known).items() if n != "folded"}
    return {
        "calibration": {**written_out(calibration), "across": gap},
        "label_words": label_words if known is not None and known.is_on else [],
    }


def sample_numbers(snapshot: Snapshot, parts: list[PartRows]) -> Array:
    """(s,) uint32: the rows of the sample that a query is compared with, numbered through all parts."""
    sampled = model.sampled_rows(snapshot)
    starts = np.cumsum([0, *(len(part.rows) for part in parts)])
    numbers = [
        start + np.flatnonzero(np.isin(part.rows, sampled[part.segment]))
        for start, part in zip(starts.tolist(), parts, strict=False)
    ]
    return np.concatenate([*numbers, np.empty(0, np.int64)]).astype(np.uint32)
