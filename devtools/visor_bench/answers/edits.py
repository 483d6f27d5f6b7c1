"""Twelve edits that people make to a picture before it turns up elsewhere. Calibration and benchmarks apply them.

Each edit takes an RGB picture and a seed and returns a new RGB picture; the same seed gives the same pixels.
"""

# ruff: noqa: S311 - seeds make edits repeatable; they protect no secret

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from random import Random

from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

Edit = Callable[[Image.Image, int], Image.Image]

_WORDS = (
    "Sale",
    "NEW",
    "only today",
    "look at this",
    "free shipping",
    "best price",
    "found it",
    "vintage",
    "must have",
)


def resize(image: Image.Image, seed: int) -> Image.Image:
    """0.3 times its width and height."""
    width, height = (max(1, round(side * 0.3)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def jpeg(image: Image.Image, seed: int) -> Image.Image:
    """Encoded as JPEG of quality 20 and decoded again."""
    encoded = BytesIO()
    image.save(encoded, "JPEG", quality=20)
    return Image.open(encoded).convert("RGB")


def crop_10(image: Image.Image, seed: int) -> Image.Image:
    """A window of 0.9 times its width and height, anywhere."""
    return _cropped(image, 0.9, seed)


def crop_30(image: Image.Image, seed: int) -> Image.Image:
    """A window of 0.7 times its width and height, anywhere: half of the picture is gone."""
    return _cropped(image, 0.7, seed)


def flip(image: Image.Image, seed: int) -> Image.Image:
    """Mirrored, left for right."""
    return ImageOps.mirror(image)


def rotate(image: Image.Image, seed: int) -> Image.Image:
    """5 degrees one way or the other about its centre, black where nothing is, size kept."""
    angle = Random(seed).choice((-5, 5))
    return image.rotate(angle, Image.Resampling.BICUBIC)


def grey(image: Image.Image, seed: int) -> Image.Image:
    """Without colour."""
    return image.convert("L").convert("RGB")


def brighten(image: Image.Image, seed: int) -> Image.Image:
    """1.4 times as bright, clipped at white."""
    return ImageEnhance.Brightness(image).enhance(1.4)


def border(image: Image.Image, seed: int) -> Image.Image:
    """A frame of one colour, 8 % of the shorter side wide."""
    colour = Random(seed).choice(("white", "black", "#c02030", "#2040a0", "#808080"))
    return ImageOps.expand(image, max(1, round(min(image.size) * 0.08)), colour)


def caption(image: Image.Image, seed: int) -> Image.Image:
    """A white strip with words over its lowest 14 %."""
    captioned = image.copy()
    width, height = image.size
    top = round(height * 0.86)
    pen = ImageDraw.Draw(captioned)
    pen.rectangle((0, top, width, height), fill="white")
    pen.text((width * 0.05, top + height * 0.02), _words(seed), fill="black", font=_font(height * 0.08))
    return captioned


def watermark(image: Image.Image, seed: int) -> Image.Image:
    """Half-transparent white words, repeated all over."""
    layer = Image.new("RGBA", image.size, (255, 255, 255, 0))
    width, height = image.size
    pen, words, font = ImageDraw.Draw(layer), _words(seed), _font(height * 0.09)
    for row in range(4):
        for column in range(2):
            place = (width * (0.05 + 0.5 * column + 0.12 * (row % 2)), height * (0.05 + 0.25 * row))
            pen.text(place, words, fill=(255, 255, 255, 128), font=font)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def screenshot(image: Image.Image, seed: int) -> Image.Image:
    """On the screen of a telephone: a bar above, the picture across, lines of text and buttons below."""
    width = image.width
    dark = Random(seed).random() < 0.5
    paper, ink = ("#101014", "#e8e8ea") if dark else ("#ffffff", "#202024")
    above, below = round(width * 0.16), round(width * 0.34)
    screen = Image.new("RGB", (width, image.height + above + below), paper)
    screen.paste(image, (0, above))
    pen = ImageDraw.Draw(screen)
    pen.text((width * 0.04, width * 0.05), "9:41", fill=ink, font=_font(width * 0.05))
    pen.rectangle((width * 0.84, width * 0.055, width * 0.95, width * 0.095), outline=ink, width=max(1, width // 150))
    pen.text((width * 0.05, above + image.height + width * 0.04), _words(seed), fill=ink, font=_font(width * 0.06))
    for column in range(4):
        left, top = width * (0.08 + 0.24 * column), above + image.height + width * 0.2
        pen.ellipse((left, top, left + width * 0.08, top + width * 0.08), outline=ink, width=max(1, width // 150))
    return screen


EDITS: dict[str, Edit] = {
    "resize": resize,
    "jpeg": jpeg,
    "crop_10": crop_10,
    "crop_30": crop_30,
    "flip": flip,
    "rotate": rotate,
    "grey": grey,
    "brighten": brighten,
    "border": border,
    "caption": caption,
    "watermark": watermark,
    "screenshot": screenshot,
}
"""All twelve by name, in the order of the benchmark's table."""
EXACT = frozenset({"resize", "jpeg"})
"""Edits after which a picture still counts as the very same; the others make an edited copy."""


def _cropped(image: Image.Image, share: float, seed: int) -> Image.Image:
    random = Random(seed)
    width, height = (max(1, round(side * share)) for side in image.size)
    left, top = random.randint(0, image.width - width), random.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def _words(seed: int) -> str:
    return Random(seed).choice(_WORDS)


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(6.0, size))
