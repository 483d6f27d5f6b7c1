"""A labelled folder's pictures as vectors with what the model sees in them, for `visor eval` and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from visor.console import progress, say
from visor.errors import BadRequest, ImageError
from visor.imaging.decode import decode_image
from visor.imaging.sniff import ENDINGS
from visor.index.format.container import Array
from visor.models.embedder import Embedder, load_embedder
from visor.settings import Settings

AT_ONCE = 32
"""Pictures that are decoded before they are embedded together."""


@dataclass(frozen=True)
class EmbeddedFolder:
    """n pictures: vectors (n, d) float32 of unit length, kind (sub-folder) of each, content labels, likeliest first."""

    vectors: Array
    kinds: list[str]
    labels: list[tuple[str, ...]]

    def take(self, rows: Array) -> EmbeddedFolder:
        return EmbeddedFolder(self.vectors[rows], [self.kinds[i] for i in rows], [self.labels[i] for i in rows])


def labelled_files(folder: Path) -> list[tuple[Path, str]]:
    """Every picture below a sub-folder of `folder` with that sub-folder's name, sorted by path."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    found = [(path, path.relative_to(folder).parts) for path in sorted(files)]
    return [(path, parts[0]) for path, parts in found if len(parts) > 1]


def check_labels(folder: Path, *, to_tell_apart: bool) -> None:
    """Raise `BadRequest` for a folder without a labelled picture and, `to_tell_apart`, for one of a single label: among
    its pictures whatever is found is right."""
    labels = {label for _, label in labelled_files(folder)}
    if not labels:
        raise BadRequest(
            f"There is no labelled picture in {folder}",
            valid="A sub-folder for each label, with pictures in it",
            remedy="Name the folder above the labels",
        )
    if to_tell_apart and len(labels) == 1:
        raise BadRequest(
            f"All labelled pictures in {folder} have the label {labels.pop()!r}: none could be found wrongly",
            valid="Two labels or more, each a sub-folder with pictures in it",
            remedy="Name the folder above the labels",
        )


def embedded_folder(folder: Path, settings: Settings, embedder: Embedder | None = None) -> EmbeddedFolder:
    """All pictures in the sub-folders of `folder`; those that cannot be decoded are named and left out.

    Raises:
        BadRequest: The folder has no labelled image.
    """
    embedder = embedder or load_embedder(settings)
    files = labelled_files(folder)
    side = embedder.description.input_side
    vectors, kinds, labels = [], [], []
    with progress(f"Embedding {folder.name}", len(files)) as done:
        for start in range(0, len(files), AT_ONCE):
            some, pictures = files[start : start + AT_ONCE], []
            for path, kind in some:
                try:
                    decoded = decode_image(path.read_bytes(), pixels_max=settings.pixels_max, side_hint=side)
                except ImageError as exc:
                    say(f"left out {path}: {exc}")
                    continue
                pictures.append(decoded.pixels)
                kinds.append(kind)
            if pictures:
                seen = embedder.embed(pictures)
                vectors.append(seen.vectors)
                labels += [tuple(label.name for label in found) for found in seen.labels]
            done(len(some))
    check_labels(folder, to_tell_apart=False)
    if not vectors:
        raise BadRequest(
            f"None of the {len(files)} labelled files in {folder} can be decoded",
            valid="A sub-folder for each label, with pictures in it",
            remedy="Repair the files named above",
        )
    return EmbeddedFolder(np.concatenate(vectors), kinds, labels)
