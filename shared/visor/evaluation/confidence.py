"""How confident answers about a labelled folder are: the part of `visor eval` that needs a calibration."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from visor.confidence.features import NEIGHBOURS, SAMPLED, Neighbourhood, Sampled, centred_similarities
from visor.confidence.fit import CatalogueRows, Sample, fit
from visor.confidence.model import Calibration
from visor.evaluation.folder import EmbeddedFolder
from visor.evaluation.scores import NEAREST
from visor.index.format.container import Array
from visor.index.format.projection import unit


def first_confidences(catalogue: EmbeddedFolder, queries: EmbeddedFolder | None) -> tuple[Array, NDArray[np.bool_]]:
    """The confidence (q,) in each query's nearest picture of a catalogue that holds its kind, and which of these
    pictures have the query's kind.

    Args:
        queries: None: the catalogue's own pictures, each left out in turn.
    """
    calibration, asked = fitted(catalogue), queries or catalogue
    likely, right = [], []
    for around, of_kind in surroundings(catalogue, asked, calibration, leave_out=queries is None):
        first = calibration.first_if_held(around)
        likely.append(calibration.confidence(calibration.score(around)) if first is None else first)
        right.append(of_kind[0])
    return np.array(likely), np.array(right)


def fitted(catalogue: EmbeddedFolder) -> Calibration:
    rows = catalogue.vectors
    sample = Sample(rows, np.arange(len(rows)), catalogue.labels)
    return fit(sample, lambda: [CatalogueRows(rows, catalogue.labels)], mean=rows.mean(0))


def surroundings(
    catalogue: EmbeddedFolder, queries: EmbeddedFolder, calibration: Calibration, *, leave_out: bool
) -> Iterator[tuple[Neighbourhood, NDArray[np.bool_]]]:
    """The neighbourhood of each query, and which results of its first page (12,) have its kind.

    Args:
        leave_out: The queries are the catalogue's own pictures, and do not find themselves.
    """
    rows, kinds = catalogue.vectors, np.array(catalogue.kinds)
    some = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), SAMPLED)).astype(int))
    mean = calibration.mean_vector if calibration.is_fitted else rows.mean(0)
    sample = unit(rows[some] - mean)
    for i, query in enumerate(queries.vectors):
        order = np.argsort(-(rows @ query), kind="stable")
        order = order[order != i][:NEIGHBOURS] if leave_out else order[:NEIGHBOURS]
        others = sample[some != i] if leave_out else sample
        of_kind = np.zeros(NEAREST, bool)
        page = order[:NEAREST]
        of_kind[: len(page)] = kinds[page] == queries.kinds[i]
        sampled = centred_similarities(query[None], mean, others)[0]
        labels = [catalogue.labels[j] for j in order]
        yield Neighbourhood(query, rows[order], labels, queries.labels[i], Sampled(sampled, others.mean(0))), of_kind
