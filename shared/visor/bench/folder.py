"""A labelled folder's pictures as vectors with what the model sees in them, for benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from visor.commands.eval import labelled_files
from visor.commands.options import progress, say
from visor.errors import BadRequest, ImageError
from visor.images.decode import decode
from visor.index.container import Array
from visor.models.run import Embedder, load_embedder
from visor.settings import Settings


@dataclass(frozen=True)
class Pictures:
    """n pictures: vectors (n, d) float32 of unit length, kind (sub-folder) of each, content labels, likeliest first."""

    vectors: Array
    kinds: list[str]
    labels: list[tuple[str, ...]]

    def take(self, rows: Array) -> Pictures:
        return Pictures(self.vectors[rows], [self.kinds[i] for i in rows], [self.labels[i] for i in rows])


def embedded_folder(folder: Path, settings: Settings, embedder: Embedder | None = None) -> Pictures:
    """All pictures in the sub-folders of `folder`; those that cannot be decoded are named and left out.

    Raises:
        BadRequest: There is none.
    """
    embedder = embedder or load_embedder(settings)
    files = labelled_files(folder)
    vectors, kinds, labels = [], [], []
    with progress(f"Embedding {folder.name}", len(files)) as done:
        for path, kind in files:
            try:
                side = embedder.description.input_side
                image = decode(path.read_bytes(), pixels_max=settings.pixels_max, side_hint=side)
            except ImageError as exc:
                say(f"{path}: {exc}")
            else:
                seen = embedder.embed([image.pixels])
                vectors.append(seen.vectors[0])
                kinds.append(kind)
                labels.append(tuple(label.name for label in seen.labels[0]))
            done(1)
    if not vectors:
        raise BadRequest(
            f"No picture in a sub-folder of {folder}",
            valid="A folder with a sub-folder of pictures for each kind",
            remedy="Name such a folder",
        )
    return Pictures(np.stack(vectors), kinds, labels)
