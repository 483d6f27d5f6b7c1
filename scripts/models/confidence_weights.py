"""Learns the weights that `visor.confidence.fit` ships, from folders of labelled pictures: one sub-folder a kind.

    .venv/bin/python scripts/models/confidence_weights.py FOLDER FOLDER [FOLDER …]

Half of a folder's kinds are the catalogue and the other half strangers, in seeded splits, as in `visor bench
confidence`; pictures of the other folders are strangers from elsewhere. All folders count the same. It prints the
weights, and with `--check` how well those learned on half of the splits detect the strangers of the other half.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from visor.confidence.features import FEATURES, features
from visor.confidence.fit import RIDGE, logistic
from visor.evaluation.confidence import fitted, surroundings
from visor.evaluation.folder import EmbeddedFolder, embedded_folder
from visor.evaluation.scores import area_under_roc
from visor.index.format.container import Array
from visor.settings import Settings
from visor_bench.answers.confidence import splits_of

SPLITS = 12
FROM_ELSEWHERE = 0.25
"""Number of strangers from elsewhere for each one from the same shop."""
DRAWN = 2_000
"""Queries of each side that a folder counts as."""

Compared = tuple[Array, Array, Array]
"""Standardised features (n, f) of queries of one split: held, strangers of the same shop, strangers from elsewhere."""


def compare(catalogue: EmbeddedFolder, strangers: EmbeddedFolder, elsewhere: EmbeddedFolder) -> Compared:
    calibration = fitted(catalogue)
    mean = calibration.mean_vector
    held, near, far = (
        np.stack([features(around, mean) for around, _ in surroundings(catalogue, asked, calibration, leave_out=own)])
        for asked, own in ((catalogue, True), (strangers, False), (elsewhere, False))
    )
    centre, spread = np.median(held, 0), np.maximum(held.std(0), 1e-6)
    return (held - centre) / spread, (near - centre) / spread, (far - centre) / spread


def learned(folders: Sequence[Sequence[Compared]]) -> Array:
    """Weights and intercept (f + 1,)."""
    rng = np.random.default_rng(0)
    held, strangers = [], []
    for splits in folders:
        own, near, far = (np.concatenate(side) for side in zip(*splits, strict=True))
        held.append(rng.choice(own, DRAWN))
        strangers += [rng.choice(near, DRAWN), rng.choice(far, int(FROM_ELSEWHERE * DRAWN))]
    weights = logistic(np.concatenate(held), np.concatenate(strangers), np.zeros(len(FEATURES)), RIDGE)
    # Strangers from elsewhere helped to learn the weights; the even odds count only those of the same shop.
    weights[-1] -= np.log(1 + FROM_ELSEWHERE)
    return weights


def area(splits: Sequence[Compared], weights: Array) -> float:
    areas = [area_under_roc(held @ weights, near @ weights) for held, near, _ in splits]
    return float(np.mean([a for a in areas if a is not None]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--check", action="store_true")
    chosen = parser.parse_args()
    if len(chosen.folders) < 2:
        parser.error("name at least two folders: each is the other's elsewhere")
    pictures = [embedded_folder(folder, Settings.read()) for folder in chosen.folders]
    compared = []
    for i, own in enumerate(pictures):
        others = [one for j, one in enumerate(pictures) if j != i]
        elsewhere = EmbeddedFolder(np.concatenate([one.vectors for one in others]), *_joined(others))
        compared.append([compare(*split, elsewhere) for split in splits_of(own, SPLITS)])
    if chosen.check:
        weights = learned([splits[::2] for splits in compared])
        for folder, splits in zip(chosen.folders, compared, strict=True):
            best = np.eye(len(FEATURES))[0]
            plain, whole = area(splits[1::2], best), area(splits[1::2], weights[:-1])
            print(f"{folder.name:20} best similarity {plain:.3f}, weights {whole:.3f}")
    for name, weight in zip((*FEATURES, "intercept"), learned(compared), strict=True):
        print(f'    "{name}": {weight:.2f},')


def _joined(several: list[EmbeddedFolder]) -> tuple[list[str], list[tuple[str, ...]]]:
    return [kind for one in several for kind in one.kinds], [names for one in several for names in one.labels]


if __name__ == "__main__":
    main()
