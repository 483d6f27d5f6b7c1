"""`visor bench confidence`: does an answer know whether the catalogue holds what was searched for?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from visor.confidence.model import CONFIDENT, SCORE_EDGES, Calibration
from visor.console import as_json, say
from visor.errors import BadRequest
from visor.evaluation.confidence import fitted, surroundings
from visor.evaluation.folder import EmbeddedFolder, embedded_folder
from visor.evaluation.scores import NEAREST, area_under_roc
from visor.index.format.container import Array
from visor.settings import Settings
from visor_bench.answers.gap import FILE, FOLDER, Article, Photo, both_halves, figures, index_of
from visor_bench.answers.life import drawings_and_photos
from visor_bench.answers.packshots import articles_of, photos_of
from visor_bench.answers.reliability import Said, draw
from visor_bench.base import print_figures

SPLITS = 6
HERE, FIRST, EACH = "Is it in here?", "Is the first match it?", "Is each match it?"
HELD_FIRST = "The first match, if it is here"
HOME_FIRST = "The first match, of queries all at home"
"""The statements that are measured, each with a probability."""
HELD_CONFIDENT = 0.8
"""Share of in-catalogue queries that are called confident, at which false ones are counted."""


@dataclass(frozen=True)
class Trial:
    """One catalogue and its queries: scores and probabilities (n,), best similarities (n,), and which are held (n,).

    Of each query's first page: likely (n, 12), the probability of each result, and right (n, 12), which have its kind;
    first (n,), the probability of the first if the catalogue holds what was searched for; at_home (n,), what
    `probabilities` are if nobody searches for anything else, as far as merges learn that from searches.
    """

    scores: Array
    probabilities: Array
    best: Array
    held: Array
    likely: Array
    right: Array
    first: Array
    at_home: Array
    calibration: Calibration

    @property
    def untaught(self) -> Array:
        """What `probabilities` (n,) are before a merge has learned from searches."""
        return np.array([self.calibration.confidence(score) for score in self.scores])

    @property
    def said(self) -> dict[str, Said]:
        return {
            HERE: Said(self.probabilities, self.held, by=self.held),
            FIRST: Said(self.likely[:, 0], self.right[:, 0], by=self.held),
            HELD_FIRST: Said(self.first[self.held], self.right[self.held, 0]),
            HOME_FIRST: Said((self.at_home * self.first)[self.held], self.right[self.held, 0]),
            EACH: Said(self.likely.ravel(), self.right.ravel()),
        }


@click.command("confidence")
@click.option("--in", "inside", type=FOLDER)
@click.option("--out", "outside", type=FOLDER)
@click.option("--queries", type=FOLDER, help="Instead: visitors' photos, one sub-folder per kind …")
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
    """Measure how well answers distinguish queries that the catalogue holds from strangers.

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
        document, said = summary(trials), joined([trial.said for trial in trials])
    else:
        raise click.UsageError("Name --in, or --queries with --map")
    if plot is not None:
        draw({plot.stem: said}, plot)
    print_figures(document, as_json)


def across_the_gap(
    articles: Sequence[Article], photos: Sequence[Photo], settings: Settings
) -> tuple[dict[str, Any], dict[str, Said]]:
    """Each photo once with what is right for it in the catalogue and once without, having learned from others."""
    with index_of(articles, settings) as bench:
        draws, before, learned = both_halves(bench, photos)
    said = []
    for asked in draws:
        both = np.array([one.confidence for one in asked] + [one.stranger for one in asked])
        is_held = np.arange(len(both)) < len(asked)
        first, right = np.array([(one.first, one.rank == 0) for one in asked]).T
        said.append({HERE: Said(both, is_held, by=is_held), HELD_FIRST: Said(first, right > 0)})
    here, firsts = ([one[question] for one in said] for question in (HERE, HELD_FIRST))
    return {
        "auroc": _mean([_area(one.probabilities, one.true) for one in here]),
        **_errors("", here),
        "first_auroc": _mean([_area(one.probabilities, one.true) for one in firsts]),
        **_errors("held_first_", firsts),
        "queries": len(before),
        "learned_from": learned,
        **figures(*draws),
    }, joined(said)


def splits_of(pictures: EmbeddedFolder, splits: int) -> Iterator[tuple[EmbeddedFolder, EmbeddedFolder]]:
    """Half of the kinds as the catalogue and the other half as strangers, in seeded splits.

    Raises:
        BadRequest: There is one kind only.
    """
    kinds = sorted(set(pictures.kinds))
    if len(kinds) < 2:
        raise BadRequest(
            f"The folder has {len(kinds)} kinds",
            valid="A sub-folder per kind, at least two",
            remedy="Name --out as well",
        )
    for seed in range(splits):
        chosen = set(np.random.default_rng(seed).permutation(kinds)[: len(kinds) // 2].tolist())
        held = np.array([kind in chosen for kind in pictures.kinds])
        yield pictures.take(np.flatnonzero(held)), pictures.take(np.flatnonzero(~held))


def run_trial(catalogue: EmbeddedFolder, strangers: EmbeddedFolder) -> Trial:
    """Fit a calibration to the catalogue, then search for everything: each half with what the other half's scores
    teach, held queries and strangers counting the same."""
    calibration = fitted(catalogue)
    scores, best, arounds, right, held = [], [], [], [], []
    for asked, is_held in ((catalogue, True), (strangers, False)):
        for around, of_kind in surroundings(catalogue, asked, calibration, leave_out=is_held):
            scores.append(calibration.score(around))
            best.append(float((around.rows @ around.query).max()))
            arounds.append(around)
            right.append(of_kind & is_held)
            held.append(is_held)
    order, is_home = np.random.default_rng(0).permutation(len(scores)), np.array(held)
    likely, (probabilities, first, at_home) = np.empty((len(scores), NEAREST)), np.empty((3, len(scores)))
    for known, judged in ((order[::2], order[1::2]), (order[1::2], order[::2])):
        clipped = np.clip(np.array(scores)[known], *SCORE_EDGES[[0, -1]])
        sides = [np.histogram(clipped[is_home[known] == side], SCORE_EDGES, density=True)[0] for side in (True, False)]
        home = calibration.learned_shares(len(known) * sides[0])
        taught = calibration.learned_shares(len(known) / 2 * (sides[0] + sides[1]))
        for i in judged:
            probabilities[i], at_home[i] = taught.confidence(scores[i]), home.confidence(scores[i])
            likely[i] = taught.confidences(arounds[i], range(NEAREST), probabilities[i])
            if_held = calibration.first_if_held(arounds[i])
            first[i] = likely[i, 0] if if_held is None else if_held
    return Trial(
        scores=np.array(scores),
        probabilities=probabilities,
        best=np.array(best),
        held=is_home,
        likely=likely,
        right=np.stack(right),
        first=first,
        at_home=at_home,
        calibration=calibration,
    )


def summary(trials: Sequence[Trial]) -> dict[str, Any]:
    """Means over trials. `auroc` is over whole answers; `match_…` over single results of first pages, which are right
    if they have the query's kind; `first_…` over first results, those of held queries and of strangers counting the
    same in the calibration error; `held_first_…` over the probabilities of first results if the catalogue holds them;
    `home_…` if all searches are for what the catalogue holds: `home_first_hidden` of right first results, and
    `home_first_hidden_at_first` before a merge has learned that."""
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
        **_errors("home_first_", [t.said[HOME_FIRST] for t in trials]),
        "home_first_hidden": _mean([_hidden(t, t.at_home) for t in trials]),
        "home_first_hidden_at_first": _mean([_hidden(t, t.untaught) for t in trials]),
        "mean_confidence_held": _mean([t.probabilities[t.held].mean() for t in trials]),
        "mean_confidence_strangers": _mean([t.probabilities[~t.held].mean() for t in trials]),
        "separability": _mean([t.calibration.separability for t in trials]),
        "trust_in_groups": _mean([t.calibration.cluster_weight for t in trials]),
        "trials": len(trials),
        "held": int(sum(t.held.sum() for t in trials)),
        "strangers": int(sum((~t.held).sum() for t in trials)),
    }


def joined(trials: Sequence[dict[str, Said]]) -> dict[str, Said]:
    """The probabilities of all trials together."""
    found = {}
    for question in trials[0]:
        parts = [said[question] for said in trials]
        probabilities, true = (np.concatenate([getattr(p, name) for p in parts]) for name in ("probabilities", "true"))
        by = None if parts[0].by is None else np.concatenate([p.by for p in parts if p.by is not None])
        found[question] = Said(probabilities, true, by)
    return found


def _errors(prefix: str, said: Sequence[Said]) -> dict[str, float]:
    """Mean calibration errors over trials, and the part of them that is chance."""
    return {
        f"{prefix}calibration_error": _mean([one.error() for one in said]),
        f"{prefix}calibration_error_by_chance": _mean([one.error_by_chance() for one in said]),
    }


def _hidden(trial: Trial, probabilities: Array) -> float:
    """Share of held queries' right first results for which the answer would say that there is no confident match."""
    return float(np.mean(probabilities[trial.held & trial.right[:, 0]] < CONFIDENT))


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
