"""Whether probabilities mean what they say: the calibration error, the part of it that is chance, and diagrams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from visor.index.format.container import Array

BINS = 10
"""Number of bins, of equal width."""
DRAWS = 200
"""Samples with which chance is measured."""
DRAWN_FROM = 5
"""A bin is drawn from this many answers on."""


@dataclass(frozen=True)
class Said:
    """Probabilities (n,) in [0, 1], and what came true (n,) bool; both sides of `by` (n,) bool weigh the same."""

    probabilities: Array
    true: Array
    by: Array | None = None

    @property
    def weights(self) -> Array:
        """(n,) of sum 1."""
        if self.by is None:
            return np.full(len(self.true), 1 / len(self.true))
        each: Array = np.where(self.by, 0.5 / max(self.by.sum(), 1), 0.5 / max((~self.by).sum(), 1))
        return each

    def bins(self) -> tuple[Array, Array, Array]:
        """Weight, weight times probability, and weight of what came true, of each bin (10,)."""
        number = np.minimum((self.probabilities * BINS).astype(int), BINS - 1)
        values = (self.weights, self.weights * self.probabilities, self.weights * self.true)
        weight, said, true = (np.bincount(number, value, BINS) for value in values)
        return weight, said, true

    def error(self) -> float:
        """Expected calibration error, 0 to 1.

        Naeini et al., 'Obtaining well calibrated probabilities using Bayesian binning', AAAI 2015.
        """
        _, said, true = self.bins()
        return float(np.abs(said - true).sum())

    def error_by_chance(self) -> float:
        """The average error of this many answers if each probability were exactly right."""
        rng, weights = np.random.default_rng(0), self.weights
        effective = max(1, round(1 / float(weights @ weights)))
        errors = []
        for _ in range(DRAWS):
            drawn = rng.choice(self.probabilities, effective, p=weights / weights.sum())
            errors.append(Said(drawn, rng.random(effective) < drawn).error())
        return float(np.mean(errors))


def draw(rows: Mapping[str, Mapping[str, Said]], path: Path) -> None:
    """Reliability diagrams as SVG: one panel per question, one line per row; the same figures give the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    questions = list(dict.fromkeys(question for panels in rows.values() for question in panels))
    with mpl.rc_context({"svg.hashsalt": "visor", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(3.2 * len(questions), 3.4), layout="constrained")
        panels = figure.subplots(1, len(questions), squeeze=False)[0]
        for axes, question in zip(panels, questions, strict=True):
            axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
            for name, answers in rows.items():
                if question in answers:
                    said = answers[question]
                    weight, told, true = said.bins()
                    seen = weight >= DRAWN_FROM / max(len(said.true), DRAWN_FROM)
                    label = f"{name}: {said.error():.3f} (by chance {said.error_by_chance():.3f})"
                    axes.plot(told[seen] / weight[seen], true[seen] / weight[seen], marker="o", ms=3, label=label)
            axes.set(title=question, xlabel="said", ylabel="came true", xlim=(0, 1), ylim=(0, 1), aspect="equal")
            axes.legend(fontsize=6, loc="upper left")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})
