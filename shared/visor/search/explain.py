"""Explain: where in two pictures their likeness sits.

The similarity of two vectors is a sum over channels, and each channel of a vector is a mean over the places of a
feature map. So the sum can be dealt out to places without remainder: a place gets of each channel's share as much as it
has of that channel's activation. Channels that all pictures of the catalogue have are left out by centring first.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from visor.errors import BadRequest
from visor.free_tier.metered import note_work
from visor.index.format.container import Array
from visor.models.embedder import Embedder
from visor.schema.items import Item
from visor.schema.search import ExplainAnswer, ExplainRequest, HeatMap
from visor.search.heat import heat, vector_of
from visor.search.service import SearchService


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
    note_work("pictures", 2)
    maps = embedder.features(query), embedder.features(item)
    vectors = [vector_of(embedder.description, one) for one in maps]
    common = np.zeros_like(vectors[0]) if mean is None else mean
    shares = (vectors[0] - common) * (vectors[1] - common)
    # Channels that one has more of than usual and the other less are no likeness.
    shares = np.where((vectors[0] > common) & (vectors[1] > common), shares, 0)
    return Likeness(heat(maps[0], shares), heat(maps[1], shares))


def _heat_map(heat: Array) -> HeatMap:
    rows, columns = heat.shape
    return HeatMap(width=columns, height=rows, values=tuple(round(float(v), 3) for v in heat.ravel()))


def _png(heat: Array) -> str:
    """The heat as a grey PNG in base64, bright where it is hot."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(heat * 255).astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
