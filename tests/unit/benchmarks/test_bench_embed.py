"""`visor bench embed` and `serve`: the pictures that they take, and a comparison with another checkout."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from visor_bench.load import serve
from visor_bench.speed import embed

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_the_picture_has_four_megapixels_and_its_variants_differ(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.linear_gradient("L").save(photo)
    for data in (embed.jpeg(), embed.jpeg(photo)):
        with Image.open(BytesIO(data)) as image:
            assert (image.format, image.size) == ("JPEG", embed.SIZE)
    assert len(set(serve.different(data, 20))) == 20


@pytest.mark.slow
@pytest.mark.usefixtures("built_settings")
def test_another_checkout_looks_in_turn() -> None:
    document = embed.compare(ROOT, 2, embed.jpeg())
    figures = {"query_ms", "query_cpu_ms", "decode_ms", "images_per_s"}
    assert set(document["this"]) == set(document["other"]) == set(document["ratio"]) == figures
    assert all(value > 0 for value in document["ratio"].values())
    assert document["this"]["decode_ms"] < document["this"]["query_ms"]
