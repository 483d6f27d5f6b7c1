"""`visor bench seen`: how much does an answer to what a device saw differ from the answer to its picture?"""

from __future__ import annotations

import io
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
from PIL import Image

from visor.console import as_json, progress
from visor.imaging.decode import decode_image
from visor.imaging.sniff import ENDINGS
from visor.schema.search import SearchAnswer, SearchRequest
from visor.search.query import Stopwatch, seen_of
from visor.search.service import SearchService
from visor.settings import Settings
from visor_bench.answers.copies import SIDE
from visor_bench.answers.edits import EDITS
from visor_bench.base import print_figures

PICTURES = 100
APART = 0.03
"""Difference of two confidences that is worth counting."""


@dataclass(frozen=True)
class Pair:
    """The answer to a picture, and to what a device saw in it."""

    edit: str
    picture: SearchAnswer
    seen: SearchAnswer

    @property
    def apart(self) -> float:
        return abs(self.picture.confidence - self.seen.confidence)

    @property
    def changes(self) -> list[str]:
        """The verdicts that differ, of matches that both have."""
        found = {match.item.id: match.verdict for match in self.seen.matches}
        both = [(match.verdict, found[match.item.id]) for match in self.picture.matches if match.item.id in found]
        return [f"{one} to {other}" for one, other in both if one != other]


@click.command("seen")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--pictures", default=PICTURES, show_default=True, help="Pictures that are edited.")
@as_json
def seen_command(folder: Path, pictures: int, as_json: bool) -> None:
    """Index a folder, and search for pictures of it and edits of them: once with the picture, and once with what a
    device sends of it (no pixels: the verdicts then come from the sketch in its hash)."""
    settings = msgspec.structs.replace(Settings.read(), backend="local", allow_folders=(str(folder.resolve()),))
    with tempfile.TemporaryDirectory(prefix="visor-bench-") as home:
        own = msgspec.structs.replace(settings, models=settings.models or str(settings.home / "models"))
        document = measure(folder, pictures, msgspec.structs.replace(own, home=Path(home)))
    print_figures(document, as_json)


def measure(folder: Path, pictures: int, settings: Settings) -> dict[str, Any]:
    """The figures of one folder."""
    from visor.app import App
    from visor.cli.index import crawl_and_embed

    with App(settings) as app:
        crawl_and_embed(app, app.open_folder(folder))
        service = app.search_service()
        files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in ENDINGS and path.is_file()]
        chosen = [files[i] for i in np.linspace(0, len(files) - 1, min(pictures, len(files))).astype(int)]
        pairs: list[Pair] = []
        with progress("Searching", len(chosen)) as done:
            for number, path in enumerate(chosen):
                picture = decode_image(path.read_bytes(), pixels_max=settings.pixels_max).pixels
                picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
                pairs.append(_asked(service, picture, "", path.name))
                pairs += [_asked(service, edit(picture, number), name, "") for name, edit in EDITS.items()]
                done(1)
        return summary(pairs, images=len(service.searcher))


def _asked(service: SearchService, picture: Image.Image, edit: str, leave_out: str) -> Pair:
    """Both answers. The picture itself is searched for without its item, so that its matches are only similar ones."""
    data = io.BytesIO()
    picture.save(data, "PNG", compress_level=1)
    query = service.queries.query(SearchRequest(), data.getvalue(), Stopwatch())
    ids: tuple[str, ...] = ()
    if leave_out:
        first = service.search(SearchRequest(k=3), data.getvalue())
        ids = tuple(match.item.id for match in first.matches if match.verdict != "similar")
    request = SearchRequest(leave_out=ids)
    seen = seen_of(query, service.embedder.fingerprint)
    by_seen = service.search(msgspec.structs.replace(request, seen=seen))
    return Pair(edit, service.search(request, data.getvalue()), by_seen)


def summary(pairs: list[Pair], *, images: int) -> dict[str, Any]:
    changes = Counter(change for pair in pairs for change in pair.changes)
    first = [p for p in pairs if p.picture.matches and p.seen.matches]
    return {
        "images": images,
        "queries": len(pairs),
        "matches": sum(len(pair.picture.matches) for pair in pairs),
        "verdicts_changed": dict(changes.most_common()),
        "first_verdict_changed": sum(p.picture.matches[0].verdict != p.seen.matches[0].verdict for p in first),
        "first_match_changed": sum(p.picture.matches[0].item.id != p.seen.matches[0].item.id for p in first),
        "first_twelve_same": sum(
            [m.item.id for m in p.picture.matches] == [m.item.id for m in p.seen.matches] for p in pairs
        ),
        "confidence_apart_median": round(float(np.median([pair.apart for pair in pairs])), 5),
        "confidence_apart_most": round(max(pair.apart for pair in pairs), 4),
        "confidence_apart": sum(pair.apart > APART for pair in pairs),
        "by_edit": dict(Counter(pair.edit or "similar" for pair in pairs if pair.changes).most_common()),
    }
