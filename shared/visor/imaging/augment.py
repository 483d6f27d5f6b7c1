"""Catalogue images as people's phones might take them: put on other grounds, tilted, in poor light, blurred."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Array = NDArray[Any]

SIDE = 320
GROUND_DISTANCE, GROUND_SHARE = 24, 0.75
THING_SHARE_MIN = 0.02
PILE_SHARE = 0.4


def cut_out(image: Image.Image) -> Image.Image | None:
    """The thing on a plain ground, RGBA and cropped to it; None if the image has no plain ground."""
    rgb = image.convert("RGB")
    rgb.thumbnail((SIDE // 2, SIDE // 2))
    pixels = np.asarray(rgb, np.int16)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ground = np.median(border, axis=0)
    if (np.abs(border - ground).max(-1) < GROUND_DISTANCE).mean() < GROUND_SHARE:
        return None
    thing = ~_connected_to_border(np.abs(pixels - ground).max(-1) < GROUND_DISTANCE)
    if thing.mean() < THING_SHARE_MIN:
        return None
    out = Image.fromarray(np.dstack([pixels.astype(np.uint8), thing.astype(np.uint8) * 255]), "RGBA")
    return out.crop(out.getchannel("A").getbbox())


def augment(thing: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A cut-out thing on a made-up ground, RGB of 320 × 320 pixels; often a pile or a shelf of it."""
    scene = _ground(rng)
    if rng.random() < PILE_SHARE:
        size = rng.uniform(0.3, 0.6)
        for _ in range(int(rng.integers(4, 14))):
            _put(scene, thing, size * rng.uniform(0.85, 1.15), rng.uniform(0, 1, 2), rng)
    _put(scene, thing, rng.uniform(0.5, 1.1), rng.uniform(0.35, 0.65, 2), rng)
    return _spoiled(scene, rng)


def _connected_to_border(mask: Array) -> Array:
    """The pixels of a (h, w) bool mask that are connected to the border within the mask."""
    reached = np.zeros_like(mask)
    reached[[0, -1]], reached[:, [0, -1]] = mask[[0, -1]], mask[:, [0, -1]]
    before = -1
    while (count := int(reached.sum())) != before:
        before = count
        for _ in range(8):
            grown = reached.copy()
            grown[1:] |= reached[:-1]
            grown[:-1] |= reached[1:]
            grown[:, 1:] |= reached[:, :-1]
            grown[:, :-1] |= reached[:, 1:]
            reached = grown & mask
    return reached


def _ground(rng: np.random.Generator) -> Image.Image:
    """Noise with the spectrum of photos in two muted colours, half of the time bars like shelves, and uneven light."""
    fall = _RADIUS ** rng.uniform(1.0, 1.9)
    noise = [np.fft.irfft2(np.fft.rfft2(rng.standard_normal((SIDE, SIDE))) / fall, (SIDE, SIDE)) for _ in range(2)]
    first, second = ((one - one.mean()) / one.std() for one in noise)
    grey = rng.uniform(40, 200) + rng.normal() * np.array([14, 4, -12]) + rng.normal(0, 5, 3)
    planes = grey[:, None, None] + first * (rng.normal(0, 28) + rng.normal(0, 5, 3))[:, None, None]
    muted = rng.normal(0, 7) * np.array([1.0, 0.4, -0.8]) + rng.normal(0, 3, 3)
    planes += second * muted[:, None, None]
    if rng.random() < 0.5:
        bars = int(rng.integers(2, 9))
        levels = np.broadcast_to(rng.normal(0, 25, bars)[np.arange(SIDE) * bars // SIDE], (SIDE, SIDE))
        planes += levels if rng.random() < 0.5 else levels.T
    ramp = np.linspace(-1, 1, SIDE)
    planes += np.add.outer(ramp * rng.normal(0, 25), ramp * rng.normal(0, 25))
    return Image.merge("RGB", [Image.fromarray(plane) for plane in np.clip(planes, 0, 255).astype(np.uint8)])


def _put(scene: Image.Image, thing: Image.Image, size: float, centre: Array, rng: np.random.Generator) -> None:
    """Paste a thing, turned and tilted; `size` and `centre` (x, y) are shares of the scene's side."""
    scale = size * SIDE / max(thing.size)
    part = thing.resize((max(8, int(thing.width * scale)), max(8, int(thing.height * scale))), _BILINEAR)
    part = part.rotate(rng.normal(0, 14), expand=True, resample=_BILINEAR)
    w, h = part.size
    x, y = rng.uniform(0, 0.18, (2, 4)) * [[w], [h]]
    corners = (-x[0], -y[0], -x[1], h + y[1], w + x[2], h + y[2], w + x[3], -y[3])
    part = part.transform(part.size, Image.Transform.QUAD, corners, _BILINEAR)
    scene.paste(part, (int(centre[0] * SIDE - w / 2), int(centre[1] * SIDE - h / 2)), part)


def _spoiled(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The image in poor light, noisy, mostly blurred, and saved as a small JPEG."""
    levels = (np.arange(256, dtype=np.float32) / 255) ** rng.uniform(0.7, 1.6) * rng.uniform(0.6, 1.1)
    lit = levels[:, None] * rng.uniform(0.93, 1.06, 3)
    light = rng.normal(0, rng.uniform(0, 0.03), (*image.size[::-1], 3))
    for channel, values in enumerate(image.split()):
        light[..., channel] += lit[:, channel][np.asarray(values)]
    out = Image.fromarray((np.clip(light, 0, 1) * 255).astype(np.uint8))
    if rng.random() < 0.6:
        out = out.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.8)))
    file = BytesIO()
    out.save(file, "JPEG", quality=int(rng.integers(40, 85)))
    return Image.open(file).convert("RGB")


_BILINEAR = Image.Resampling.BILINEAR
_RADIUS = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE))
"""Radius of each frequency of a real (SIDE, SIDE) plane, in the order of `rfft2`; 1 in place of the mean's 0."""
_RADIUS[0, 0] = 1.0
