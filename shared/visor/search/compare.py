"""Compare: what two pictures have in common, whether or not the index holds them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import msgspec
from PIL import Image

from visor.errors import BadRequest, UnsafeImage
from visor.free_tier.quota import note_work
from visor.imaging.content import QUERY_INNER_MIN, content_of
from visor.models.moderation import moderate
from visor.near_duplicates.overlay import difference, lay_over
from visor.near_duplicates.perceptual_hash import perceptual_hash
from visor.near_duplicates.thresholds import COPY_CONFIDENCE
from visor.near_duplicates.verdict import Aligner, Verdict, classify_matches
from visor.schema.items import Item
from visor.schema.search import CompareAnswer, CompareRequest, Picture, SearchRequest
from visor.search.service import SearchService

SHOWN_SIDE = 800
"""Longest side in pixels of the pictures in an answer."""
QUALITY = 85
ALIGNED_MIN = 0.9
"""Correlation of their lumas from which on pictures count as aligned, though neither is a near-duplicate: a part was
replaced, or the light differs. docs/decisions/compare.md."""


class Comparer:
    """Answers `POST /v1/compare`.

    Args:
        read_image: Returns the bytes of an item's picture, or raises an `ImageError`; None: items cannot be compared.
    """

    def __init__(self, service: SearchService, read_image: Callable[[Item], bytes] | None) -> None:
        self.service, self.read_image = service, read_image

    def compare(
        self, request: CompareRequest, uploads: tuple[bytes | None, bytes | None] = (None, None)
    ) -> CompareAnswer:
        """What two pictures have in common.

        Args:
            uploads: The pictures themselves, if they are not in the request.

        Raises:
            BadRequest: Not exactly two pictures.
            UnknownItem: One of the items is not in the index.
            ImageError: A picture cannot be obtained or decoded, or is unsafe.
        """
        service = self.service
        service.refresh()
        asked = zip((request.first, request.second), uploads, strict=True)
        first, second = (self._picture(one, upload) for one, upload in asked)
        embedded = service.embedder.embed([first, second])
        for scores in embedded.safety:
            safety = moderate(scores, service.settings.unsafe_query)
            if safety is not None and safety.unsafe:
                raise UnsafeImage(
                    "The model considers one of the pictures unsafe, so they are not compared",
                    valid="Pictures that may be shown",
                    remedy="Compare others; the owner sets VISOR_UNSAFE_QUERY",
                )
        vectors = service.searcher.space.project(embedded.vectors)
        similarity = float(vectors[0] @ vectors[1])
        is_blank = any(content_of(one).emptiness(QUERY_INNER_MIN) is not None for one in (first, second))
        aligners = Aligner(first), Aligner(second)
        verdict: Verdict = "similar" if is_blank else _verdict(first, second, aligners, similarity)
        nearest = service.searcher.search(embedded.vectors[0], k=1).nearest
        confidence = 0.0
        if nearest is not None and not is_blank:
            one, other = (tuple(label.name for label in labels) for labels in embedded.labels)
            confidence = service.confidence.of_picture(nearest, embedded.vectors[1], (one, other))
        confidence = 0.0 if is_blank else max(confidence, COPY_CONFIDENCE[verdict])
        over, covered, likeness = lay_over(first, second, aligners)
        is_aligned = verdict != "similar" or likeness >= ALIGNED_MIN
        return CompareAnswer(
            verdict=verdict,
            similarity=round(similarity, 6),
            confidence=round(confidence, 4),
            first=_encoded(first, "JPEG"),
            second=_encoded(over if is_aligned else second, "JPEG"),
            is_aligned=is_aligned,
            difference=_encoded(difference(first, over, covered), "PNG") if is_aligned else None,
        )

    def _picture(self, picture: Picture, upload: bytes | None) -> Image.Image:
        queries = self.service.queries
        asked = SearchRequest(**msgspec.structs.asdict(picture))
        given = [name for name in ("image", "url", "item") if getattr(picture, name) is not None]
        if len(given) + (upload is not None) != 1:
            found = f"One of the two pictures has {' and '.join(given) or 'nothing to compare'}"
            raise BadRequest(found, valid="Exactly one of image, url, item for each", remedy="Send one")
        queries.check(asked, upload)
        if picture.item is not None and self.read_image is None:
            found = "This server cannot fetch pictures of items"
            raise BadRequest(found, valid="image or url", remedy="Send the picture")
        note_work("pictures")
        if picture.item is not None and self.read_image is not None:
            upload = self.read_image(self.service.found(picture.item).item)
            asked = msgspec.structs.replace(asked, item=None)
        return queries.picture(asked, upload, side=SHOWN_SIDE)


def _verdict(first: Image.Image, second: Image.Image, aligners: tuple[Aligner, Aligner], similarity: float) -> Verdict:
    """The verdict with either laid over the other: each may be a part of the other."""
    found = [
        classify_matches([similarity], [perceptual_hash(candidate)], aligner=aligner)[0]
        for aligner, candidate in zip(aligners, (second, first), strict=True)
    ]
    return max(found, key=lambda verdict: COPY_CONFIDENCE[verdict])


def _encoded(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": QUALITY} if kind == "JPEG" else {}))
    return base64.b64encode(buffer.getvalue()).decode()
