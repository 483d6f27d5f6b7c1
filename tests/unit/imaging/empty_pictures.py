"""Pictures in which there is nothing to compare, and some in which there is little, made by code."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

EDGE = 300
Pixels = Callable[[], Image.Image]


def sheet(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (EDGE, EDGE), colour)


def disc() -> Image.Image:
    image = sheet((255, 255, 255))
    ImageDraw.Draw(image).ellipse((60, 60, 240, 240), fill=(255, 140, 0))
    return image


def square() -> Image.Image:
    image = sheet((255, 255, 255))
    ImageDraw.Draw(image).rectangle((80, 80, 220, 220), fill=(0, 90, 200))
    return image


def lettering(ground: tuple[int, int, int] = (110, 110, 110)) -> Image.Image:
    image = sheet(ground)
    ImageDraw.Draw(image).text((60, 130), "Lightning bolt SALE", fill="white", font_size=24)
    return image


def linear_gradient() -> Image.Image:
    ramp = np.linspace(0, 255, EDGE).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(ramp[None, :, None], (EDGE, EDGE, 3)).copy())


def radial_gradient() -> Image.Image:
    y, x = np.mgrid[:EDGE, :EDGE] - EDGE / 2
    return Image.fromarray(np.repeat(np.hypot(x, y).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2))


def noise(channels: int = 3) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (EDGE, EDGE, channels), dtype=np.uint8)
    return Image.fromarray(np.repeat(values, 3 // channels, axis=2))


def soft_noise() -> Image.Image:
    values = np.clip(128 + 12 * np.random.default_rng(0).standard_normal((EDGE, EDGE, 1)), 0, 255)
    return Image.fromarray(np.repeat(values.astype(np.uint8), 3, axis=2))


def scene(seed: int = 0) -> Image.Image:
    """Something to see: overlapping shapes of many colours over a soft ground, as in a photo."""
    random = np.random.default_rng(seed)
    ground = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    image = ground.resize((400, EDGE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(40):
        x, y = random.integers(0, 380), random.integers(0, 280)
        width, height = random.integers(8, 90, 2)
        shape = pen.ellipse if random.random() < 0.5 else pen.rectangle
        shape((int(x), int(y), int(x + width), int(y + height)), fill=tuple(random.integers(0, 255, 3).tolist()))
    return image


def half_a_picture(fill: tuple[int, int, int] = (128, 128, 128)) -> Image.Image:
    """What a browser makes of a JPEG that ends early: the rows that did not arrive have one colour."""
    image = scene()
    image.paste(fill, (0, EDGE // 2, image.width, EDGE))
    return image


BLANK: dict[str, Pixels] = {
    "one pixel": lambda: Image.new("RGB", (1, 1), (200, 30, 30)),
    "white": lambda: sheet((255, 255, 255)),
    "black": lambda: sheet((0, 0, 0)),
    "one colour": lambda: sheet((120, 130, 140)),
    "white lettering on white": lambda: lettering((255, 255, 255)),
    "linear gradient": linear_gradient,
    "radial gradient": radial_gradient,
}
"""As a query and in the catalogue."""
FLAT: dict[str, Pixels] = {"disc": disc, "square": square, "lettering": lettering}
NOISE: dict[str, Pixels] = {"grey noise": lambda: noise(1), "coloured noise": noise, "soft noise": soft_noise}
CUT: dict[str, Pixels] = {
    "half a picture": half_a_picture,
    "half a picture, white": lambda: half_a_picture((255, 255, 255)),
}
EMPTY: dict[str, Pixels] = {**BLANK, **FLAT, **NOISE, **CUT}


def transparent_lettering(colour: str = "white") -> bytes:
    """A PNG of lettering on nothing."""
    image = Image.new("RGBA", (EDGE, EDGE), (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    for row in range(6):
        pen.text((10, 10 + 48 * row), "Lightning bolt SALE", fill=colour, font_size=32)
    return as_png(image)


def transparent_ghost() -> bytes:
    """A PNG of a white shape with black eyes on nothing."""
    image = Image.new("RGBA", (EDGE, EDGE), (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    pen.ellipse((60, 20, 240, 280), fill="white")
    for x in (110, 170):
        pen.ellipse((x, 80, x + 24, 120), fill="black")
    return as_png(image)


def as_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def as_jpeg(image: Image.Image, quality: int = 92) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
