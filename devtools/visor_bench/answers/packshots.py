"""`visor bench packshots`: searches for people's photos of goods among a shop's packshots of exactly these goods."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from visor.console import as_json
from visor.evaluation.folder import labelled_files
from visor.settings import Settings
from visor_bench.answers.gap import FILE, FOLDER, Article, Photo, both_halves, figures, index_of
from visor_bench.base import print_figures


@click.command("packshots")
@click.option("--queries", type=FOLDER, required=True, help="Photos, one sub-folder per kind.")
@click.option("--catalogue", type=FOLDER, required=True, help="A folder with catalogue.json.")
@click.option("--map", "map_file", type=FILE, required=True, help="JSON: the sub-folder to the catalogue's image.")
@as_json
def packshots_command(queries: Path, catalogue: Path, map_file: Path, as_json: bool) -> None:
    """Find a photo's product among packshots, having learned from the other half of the photos how photos look."""
    articles, photos = articles_of(catalogue), photos_of(queries, map_file)
    with index_of(articles, Settings.read()) as bench:
        draws, before, learned = both_halves(bench, photos)
    start = {f"start_{name}": value for name, value in figures(before).items() if not name.startswith("plain")}
    document = {"queries": len(photos), "learned_from": learned, **figures(*draws), **start}
    print_figures(document, as_json)


def articles_of(folder: Path) -> list[Article]:
    """The articles of a folder's catalogue.json: a list of objects with title, image, collection and category."""
    rows = msgspec.json.decode((folder / "catalogue.json").read_bytes(), type=list[dict[str, object]])
    return [
        Article(
            key=str(row["image"]),
            path=(folder / str(row["image"])).resolve(),
            title=str(row["title"]),
            collection=str(row.get("collection", "")),
            category=str(row.get("category", "")),
            description=str(row.get("description", "")),
        )
        for row in rows
    ]


def photos_of(queries: Path, map_file: Path) -> list[Photo]:
    """The photos of those kinds that the map names."""
    named = msgspec.json.decode(map_file.read_bytes(), type=dict[str, str])
    articles = {kind: frozenset([Article(image, Path(), "").id]) for kind, image in named.items()}
    return [Photo(path, kind, articles[kind]) for path, kind in labelled_files(queries) if kind in articles]
