"""`visor bench life`: searches for photos from life in the demo's catalogue of drawings."""

from __future__ import annotations

import re
from pathlib import Path

import click
import msgspec

from visor.console import as_json, say
from visor.demo.catalogue import DemoCatalogue
from visor.demo.pictures import ensure_demo_pictures
from visor.evaluation.folder import labelled_files
from visor.settings import Settings
from visor_bench.answers.gap import FILE, FOLDER, Article, Photo, both_halves, figures, index_of
from visor_bench.base import print_figures


@click.command("life")
@click.option("--queries", type=FOLDER, required=True, help="Photos, one sub-folder per kind.")
@click.option("--map", "map_file", type=FILE, required=True, help="JSON: the sub-folder to a pattern of right titles.")
@as_json
def life_command(queries: Path, map_file: Path, as_json: bool) -> None:
    """Find the drawing of what a photo shows, with photos of kinds that the demo's catalogue holds.

    What photos look like is learned from half of all of them, whatever they show, and the other half is searched for.
    """
    settings = Settings.read()
    articles, photos = drawings_and_photos(queries, map_file, settings)
    with index_of(articles, settings) as bench:
        draws, before, learned = both_halves(bench, photos)
    measured = figures(*draws)
    document = {
        "queries": len(before),
        "learned_from": learned,
        "first": measured["p_at_1"],
        "within_12": measured["p_at_12"],
        **measured,
        **{f"start_{name}": value for name, value in figures(before).items() if not name.startswith("plain")},
    }
    print_figures(document, as_json)


def drawings_and_photos(queries: Path, map_file: Path, settings: Settings) -> tuple[list[Article], list[Photo]]:
    """The demo's catalogue, and all photos with the right articles: none for kinds that the map leaves out."""
    articles = drawings(ensure_demo_pictures(settings.home, say))
    patterns = msgspec.json.decode(map_file.read_bytes(), type=dict[str, str])
    right = {kind: frozenset(a.id for a in articles if re.search(p, a.title)) for kind, p in patterns.items()}
    return articles, [Photo(path, kind, right.get(kind, frozenset())) for path, kind in labelled_files(queries)]


def drawings(catalogue: DemoCatalogue) -> list[Article]:
    names = {collection.id: collection.name for collection in catalogue.collections}
    return [
        Article(p.picture, Path(catalogue.folder) / p.picture, p.title, names[p.collection]) for p in catalogue.products
    ]
