"""Explain: where in two pictures their likeness sits.

The similarity of two vectors is a sum over channels, and each channel of a vector is a mean over the places of a
feature map. So the sum can be dealt out to places without remainder: a place gets of each channel's share as much as it
has of that channel's activation. Channels that all pictures of the catalogue have are left out by centring first.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from visor.errors import BadRequest
from visor.index.format.container import Array
from visor.models.description import ModelDescription
from visor.models.embedder import Embedder, joined_vector
from visor.schema.items import Item
from visor.schema.search import ExplainAnswer, ExplainRequest, HeatMap
from visor.search.service import SearchService

GRID = 16
"""Cells along each side of a heat-map: about what the finest feature map has."""
LOW = 50.0
"""Percentile of a picture's places below which nothing is shown."""


@dataclass(frozen=True)
class Likeness:
    """Heat (GRID, GRID) float32 in [0, 1] over each picture, squeezed to a square; the hottest place has 1."""

    query: Array
    item: Array


class Explainer:
    """Answers `POST /v1/explain`.

    Args:
        read_image: Gives the bytes of an item's picture, or raises an `ImageError`: Visor keeps no pictures.
    """

    def __init__(self, service: SearchService, read_image: Callable[[Item], bytes]) -> None:
        self.service, self.read_image = service, read_image

    def explain(self, request: ExplainRequest, upload: bytes | None = None) -> ExplainAnswer:
        """Where the likeness of a query and one item sits.

        Raises:
            BadRequest: The query is no picture.
            UnknownItem: One of the items is not in the index.
            ImageError: A picture cannot be had or decoded.
        """
        match = self.service.found(request.match)
        model = self.service.embedder.description
        if not model.has_maps:
            raise BadRequest(
                f"The model {model.name} has no heat-map: its vector is not made of feature maps",
                valid="A model that `visor model list` shows with heat-map",
                remedy="Search without the heat-map, or tap a layer that gives a feature map",
            )
        query = self.service.query_picture(request, upload, self._item_picture)
        likeness = explain(
            self.service.embedder, query, self._item_picture(match.item), mean=self.service.common_vector()
        )
        return ExplainAnswer(
            query=_png(likeness.query),
            item=_png(likeness.item),
            query_grid=_heat_map(likeness.query),
            item_grid=_heat_map(likeness.item),
        )

    def _item_picture(self, item: Item) -> Image.Image:
        return self.service.queries.pixels(self.read_image(item))


def explain(embedder: Embedder, query: Image.Image, item: Image.Image, *, mean: Array | None = None) -> Likeness:
    """The heat of two RGB pictures.

    Args:
        mean: (d,) float32, mean of the catalogue's vectors, whose channels tell nothing; None: nothing is left out.
    """
    maps = embedder.features(query), embedder.features(item)
    vectors = [_vector(embedder.description, one) for one in maps]
    common = np.zeros_like(vectors[0]) if mean is None else mean
    shares = (vectors[0] - common) * (vectors[1] - common)
    # Channels that one has more of than usual and the other less are no likeness.
    shares = np.where((vectors[0] > common) & (vectors[1] > common), shares, 0)
    return Likeness(_heat(maps[0], shares), _heat(maps[1], shares))


def contributions(maps: Sequence[Array], shares: Array) -> list[Array]:
    """For each map (e, e, c), how much (e, e) of the sum of its channels' `shares` each place accounts for.

    The contributions of all maps add up to the sum of `shares`, as far as channels have any activation.
    """
    dealt, start = [], 0
    for one in maps:
        active = np.maximum(one, 0).astype(np.float64)
        total = active.sum((0, 1))
        mine = shares[start : start + one.shape[2]]
        dealt.append((active * np.where(total > 0, mine / np.maximum(total, 1e-12), 0)).sum(2))
        start += one.shape[2]
    return dealt


def _heat(maps: Sequence[Array], shares: Array) -> Array:
    heat = np.zeros((GRID, GRID), np.float32)
    for dealt in contributions(maps, shares):
        cells = Image.fromarray(dealt.astype(np.float32) * dealt.size).resize((GRID, GRID), Image.Resampling.BICUBIC)
        heat += np.asarray(cells)
    heat = np.maximum(heat - np.percentile(heat, LOW), 0)
    return np.asarray(heat / max(float(heat.max()), 1e-9), np.float32)


def _vector(description: ModelDescription, maps: Sequence[Array]) -> Array:
    """The vector (d,) of the maps' means, as the model makes it."""
    taps, left = [], list(maps)
    for part in description.parts:
        count = len(part.network.taps) if part.weight > 0 else 0
        taps.append([one.mean((0, 1)) for one in left[:count]])
        left = left[count:]
    if left:
        raise BadRequest(f"The model {description.name} gives maps that its taps do not name")
    return joined_vector(description.parts, taps)


def _heat_map(heat: Array) -> HeatMap:
    rows, columns = heat.shape
    return HeatMap(width=columns, height=rows, values=tuple(round(float(v), 3) for v in heat.ravel()))


def _png(heat: Array) -> str:
    """The heat as a grey PNG in base64, bright where it is hot."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(heat * 255).astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
