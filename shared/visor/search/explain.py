"""Explain: which parts of two pictures make them alike.

The similarity of two vectors is a sum over channels, and each channel of a vector is a mean over the places of a
feature map. So the sum can be divided among places without remainder: of each channel's share, a place gets as much as
it has of that channel's activation. Channels that all pictures of the catalogue share are removed by centring first.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from visor.errors import BadRequest
from visor.free_tier.quota import note_work
from visor.index.format.container import Array
from visor.models.embedder import Embedder
from visor.schema.items import Item
from visor.schema.search import ExplainAnswer, ExplainRequest, HeatMap
from visor.search.heat import heat, vector_of
from visor.search.query import Stopwatch
from visor.search.service import SearchService


@dataclass(frozen=True)
class Likeness:
    """Heat (GRID, GRID) float32 in [0, 1] over each picture, squeezed to a square; the hottest place has 1."""

    query: Array
    item: Array


class Explainer:
    """Answers `POST /v1/explain`.

    Args:
        read_image: Returns the bytes of an item's picture, or raises an `ImageError`: Visor keeps no pictures.
    """

    def __init__(self, service: SearchService, read_image: Callable[[Item], bytes]) -> None:
        self.service, self.read_image = service, read_image

    def explain(self, request: ExplainRequest, upload: bytes | None = None) -> ExplainAnswer:
        """Which parts of a query and one item make them alike.

        Raises:
            BadRequest: The query is not a picture.
            UnknownItem: One of the items is not in the index.
            ImageError: A picture cannot be obtained or decoded.
        """
        match = self.service.found(request.match)
        model = self.service.embedder.description
        if not model.has_maps:
            raise BadRequest(
                f"The model {model.name} has no heat-map: its vector is not made from feature maps",
                valid="A model that `visor model list` shows with heat-map",
                remedy="Search without the heat-map, or tap a layer that returns a feature map",
            )
        embedder, mean = self.service.embedder, self.service.common_vector()
        if request.seen is not None:
            self.service.queries.check(request, upload)
            query = self.service.queries.query(request, upload, Stopwatch())
            item, shares = _look(embedder, self._item_picture(match.item), query.vector, mean)
            warm = heat(item, shares)
            given = base64.b64encode(shares.astype("<f2").tobytes()).decode()
            return ExplainAnswer(item=_png(warm), item_grid=_heat_map(warm), shares=given)
        picture = self.service.query_picture(request, upload, self._item_picture)
        likeness = explain(embedder, picture, self._item_picture(match.item), mean=mean)
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
        mean: (d,) float32, mean of the catalogue's vectors, whose channels explain nothing; None: nothing is removed.
    """
    note_work("pictures")
    maps = embedder.features(query)
    others, shares = _look(embedder, item, vector_of(embedder.description, maps), mean)
    return Likeness(heat(maps, shares), heat(others, shares))


def _look(embedder: Embedder, item: Image.Image, vector: Array, mean: Array | None) -> tuple[list[Array], Array]:
    """The feature maps of an item's picture, and how much each number (d,) adds to its likeness to a vector (d,)."""
    note_work("pictures")
    maps = embedder.features(item)
    other = vector_of(embedder.description, maps)
    common = np.zeros_like(other) if mean is None else mean
    # A channel above its mean in one picture and below it in the other is not a likeness.
    is_shared = (vector > common) & (other > common)
    return maps, np.where(is_shared, (vector - common) * (other - common), 0)


def _heat_map(heat: Array) -> HeatMap:
    rows, columns = heat.shape
    return HeatMap(width=columns, height=rows, values=tuple(round(float(v), 3) for v in heat.ravel()))


def _png(heat: Array) -> str:
    """The heat as a grey PNG in base64, bright where it is hot."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(heat * 255).astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
