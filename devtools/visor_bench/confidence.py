"""`visor bench confidence`: does an answer know whether the catalogue holds what was asked for?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from visor.confidence.model import SCORE_EDGES, Calibration
from visor.console import as_json, print_json, say
from visor.errors import BadRequest
from visor.evaluation.confidence import fitted, surroundings
from visor.evaluation.folder import EmbeddedFolder, embedded_folder
from visor.evaluation.scores import NEAREST, area_under_roc
from visor.index.format.container import Array
from visor.settings import Settings
from visor_bench.gap import FILE, FOLDER, Article, Photo, both_halves, figures, index_of
from visor_bench.life import drawings_and_photos
from visor_bench.packshots import articles_of, photos_of
from visor_bench.reliability import Said, draw

SPLITS = 6
HERE, FIRST, EACH = "Is it in here?", "Is the first match it?", "Is each match it?"
HELD_FIRST = "The first match, if it is here"
"""What is said, with a probability each."""
HELD_CONFIDENT = 0.8
"""Share of in-catalogue queries that are called confident, at which false ones are counted."""


@dataclass(frozen=True)
class Trial:
    """One catalogue and its queries: scores and probabilities (n,), best similarities (n,), and which are held (n,).

    Of each query's first page: likely (n, 12), the probability of each result, and right (n, 12), which have its kind;
    first (n,), the probability of the first if the catalogue holds what was asked for.
    """

    scores: Array
    probabilities: Array
    best: Array
    held: Array
    likely: Array
    right: Array
    first: Array
    calibration: Calibration

    @property
    def said(self) -> dict[str, Said]:
        return {
            HERE: Said(self.probabilities, self.held, by=self.held),
            FIRST: Said(self.likely[:, 0], self.right[:, 0], by=self.held),
            HELD_FIRST: Said(self.first[self.held], self.right[self.held, 0]),
            EACH: Said(self.likely.ravel(), self.right.ravel()),
        }


@click.command("confidence")
@click.option("--in", "inside", type=FOLDER)
@click.option("--out", "outside", type=FOLDER)
@click.option("--queries", type=FOLDER, help="Instead: visitors' photos, a sub-folder a kind …")
@click.option("--catalogue", type=FOLDER, help="… of the images in this folder's catalogue.json (the demo's), …")
@click.option("--map", "map_file", type=FILE, help="… and JSON: each sub-folder's image (pattern of titles).")
@click.option("--splits", default=SPLITS, show_default=True, help="Splits of the kinds, without --out.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw reliability diagrams (SVG).")
@as_json
def confidence_command(
    inside: Path | None,
    outside: Path | None,
    queries: Path | None,
    catalogue: Path | None,
    map_file: Path | None,
    splits: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Tell queries that the catalogue holds from strangers.

    With --out the pictures of one folder are the catalogue and those of the other the strangers. Without it half of the
    folder's kinds (sub-folders) are the catalogue and the other half the strangers, in seeded splits. In-catalogue
    queries are the catalogue's own pictures, each left out in turn. The names of kinds are used for splitting only.
    """
    settings = Settings.read()
    if queries and map_file:
        if catalogue:
            articles, photos = articles_of(catalogue), photos_of(queries, map_file)
        else:
            articles, photos = drawings_and_photos(queries, map_file, settings)
        document, said = across_the_gap(articles, photos, settings)
    elif inside:
        pictures = embedded_folder(inside, settings)
        pairs = [(pictures, embedded_folder(outside, settings))] if outside else splits_of(pictures, splits)
        trials = []
        for number, (held, others) in enumerate(pairs):
            trials.append(run_trial(held, others))
            say(f"trial {number + 1}: area under the ROC curve {_area(trials[-1].scores, trials[-1].held):.3f}")
        document, said = summary(trials), all_said(trials)
    else:
        raise click.UsageError("Name --in, or --queries with --map")
    if plot is not None:
        draw({plot.stem: said}, plot)
    if as_json:
        print_json(document)
        return
    for name, value in document.items():
        click.echo(f"{name:24} {value}")


def across_the_gap(
    articles: Sequence[Article], photos: Sequence[Photo], settings: Settings
) -> tuple[dict[str, Any], dict[str, Said]]:
    """Each photo once with what is right for it in the catalogue and once without, having learned from others."""
    with index_of(articles, settings) as bench:
        asked, _, learned = both_halves(bench, photos)
    measured, right = figures(asked), np.array([one.rank == 0 for one in asked])
    first, held = np.array([one.first for one in asked]), np.array([one.confidence for one in asked])
    both = np.concatenate([held, [one.stranger for one in asked]])
    is_held = np.arange(len(both)) < len(held)
    said = {HERE: Said(both, is_held, by=is_held), HELD_FIRST: Said(first, right)}
    return {
        "auroc": round(_area(both, is_held), 4),
        **_errors("", [said[HERE]]),
        "first_auroc": round(_area(first, right), 4),
        **_errors("held_first_", [said[HELD_FIRST]]),
        "queries": len(asked),
        "learned_from": learned,
        **measured,
    }, said


def splits_of(pictures: EmbeddedFolder, splits: int) -> Iterator[tuple[EmbeddedFolder, EmbeddedFolder]]:
    """Half of the kinds as the catalogue and the other half as strangers, in seeded splits.

    Raises:
        BadRequest: There is one kind only.
    """
    kinds = sorted(set(pictures.kinds))
    if len(kinds) < 2:
        raise BadRequest(
            f"The folder has {len(kinds)} kinds", valid="A sub-folder a kind, at least two", remedy="Name --out as well"
        )
    for seed in range(splits):
        chosen = set(np.random.default_rng(seed).permutation(kinds)[: len(kinds) // 2].tolist())
        held = np.array([kind in chosen for kind in pictures.kinds])
        yield pictures.take(np.flatnonzero(held)), pictures.take(np.flatnonzero(~held))


def run_trial(catalogue: EmbeddedFolder, strangers: EmbeddedFolder) -> Trial:
    """Fit a calibration to the catalogue, then ask for everything: each half with what the other's scores teach."""
    calibration = fitted(catalogue)
    scores, best, arounds, right, held = [], [], [], [], []
    for asked, is_held in ((catalogue, True), (strangers, False)):
        for around, of_kind in surroundings(catalogue, asked, calibration, leave_out=is_held):
            scores.append(calibration.score(around))
            best.append(float((around.rows @ around.query).max()))
            arounds.append(around)
            right.append(of_kind & is_held)
            held.append(is_held)
    order = np.random.default_rng(0).permutation(len(scores))
    likely, probabilities, first = np.empty((len(scores), NEAREST)), np.empty(len(scores)), np.empty(len(scores))
    for known, judged in ((order[::2], order[1::2]), (order[1::2], order[::2])):
        counts = np.histogram(np.clip(np.array(scores)[known], *SCORE_EDGES[[0, -1]]), SCORE_EDGES)[0]
        share = calibration.learned_share(counts)
        calibration = msgspec.structs.replace(calibration, out_of_domain_share=share)
        for i in judged:
            probabilities[i] = calibration.confidence(scores[i])
            likely[i] = calibration.confidences(arounds[i], range(NEAREST), probabilities[i])
            if_held = calibration.first_if_held(arounds[i])
            first[i] = likely[i, 0] if if_held is None else if_held
    return Trial(
        np.array(scores), probabilities, np.array(best), np.array(held), likely, np.stack(right), first, calibration
    )


def summary(trials: Sequence[Trial]) -> dict[str, Any]:
    """Means over trials. `auroc` is over what an answer says; `match_…` over single results of first pages, right where
    they have the query's kind; `first_…` over first results, those of held queries and of strangers counting the same
    in the calibration error; `held_first_…` over what is said of first results if the catalogue holds them."""
    return {
        "auroc": _mean([_area(t.probabilities, t.held) for t in trials]),
        "baseline_auroc": _mean([_area(t.best, t.held) for t in trials]),
        **_errors("", [t.said[HERE] for t in trials]),
        "false_confident_at_80": _mean([_false_confident(t.probabilities, t.held) for t in trials]),
        "baseline_false_confident_at_80": _mean([_false_confident(t.best, t.held) for t in trials]),
        "match_auroc": _mean([_area(t.likely.ravel(), t.right.ravel()) for t in trials]),
        **_errors("match_", [t.said[EACH] for t in trials]),
        "first_auroc": _mean([_area(t.likely[t.held, 0], t.right[t.held, 0]) for t in trials]),
        "first_baseline_auroc": _mean([_area(t.best[t.held], t.right[t.held, 0]) for t in trials]),
        **_errors("first_", [t.said[FIRST] for t in trials]),
        **_errors("held_first_", [t.said[HELD_FIRST] for t in trials]),
        "mean_confidence_held": _mean([t.probabilities[t.held].mean() for t in trials]),
        "mean_confidence_strangers": _mean([t.probabilities[~t.held].mean() for t in trials]),
        "trust_in_groups": _mean([t.calibration.cluster_weight for t in trials]),
        "trials": len(trials),
        "held": int(sum(t.held.sum() for t in trials)),
        "strangers": int(sum((~t.held).sum() for t in trials)),
    }


def all_said(trials: Sequence[Trial]) -> dict[str, Said]:
    """What was said in all trials together."""
    joined = {}
    for question in trials[0].said:
        parts = [trial.said[question] for trial in trials]
        probabilities, true = (np.concatenate([getattr(p, name) for p in parts]) for name in ("probabilities", "true"))
        by = None if parts[0].by is None else np.concatenate([p.by for p in parts if p.by is not None])
        joined[question] = Said(probabilities, true, by)
    return joined


def _errors(prefix: str, said: Sequence[Said]) -> dict[str, float]:
    """Mean calibration errors over trials, and what of them chance makes."""
    return {
        f"{prefix}calibration_error": _mean([one.error() for one in said]),
        f"{prefix}calibration_error_by_chance": _mean([one.error_by_chance() for one in said]),
    }


def _false_confident(values: Array, held: Array) -> float:
    """Share of strangers at least as high as the value that 80 % of held queries reach."""
    reached = np.quantile(values[held], 1 - HELD_CONFIDENT)
    return float(np.mean(values[~held] >= reached))


def _area(values: Array, held: Array) -> float:
    area = area_under_roc(values[held].astype(np.float64), values[~held].astype(np.float64))
    assert area is not None
    return area


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)
