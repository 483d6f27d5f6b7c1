"""Every kind of model of visor.toml, and what each has to do end to end, on whichever stores."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
from PIL import Image
from tests.small_networks import LABELS, SIZE

import visor
from visor.app import App
from visor.ingest.worker import Worker
from visor.models.build.builder import ensure_model
from visor.settings import Settings
from visor.web.site import Server

COLOURS = {"red": (220, 30, 30), "green": (30, 190, 40), "blue": (40, 60, 220), "yellow": (230, 220, 40)}
PNG = {"Content-Type": "image/png"}
HEAD = f'head = "{{}}"\nlabels = {list(LABELS)}\n'

MODELS: dict[str, str] = {
    # The prototype's own names: it fed JPEG bytes and imported the file under `incept`.
    "prototype": f"""
kind = "file"
file = "network.pb"
input = "incept/DecodeJpeg/contents:0"
taps = ["incept/pool_3:0"]
size = {SIZE}
white = 255
borrow = []
""",
    "frozen": f"""
kind = "file"
file = "network.pb"
input = "Mul:0"
taps = ["mixed_10/join", "pool_3"]
size = {SIZE}
mean = 128
deviation = 128
white = 255
borrow = ["safety", "labels"]
""",
    "saved": f"""
kind = "file"
file = "saved"
taps = ["features"]
size = {SIZE}
views = ["whole", 0.8]
borrow = []
{HEAD.format("logits")}""",
    "lite": f"""
kind = "file"
file = "network.tflite"
taps = ["Identity"]
size = {SIZE}
order = "bgr"
borrow = []
{HEAD.format("Identity_1")}""",
    "whole-numbers": f"""
kind = "file"
file = "whole_numbers.tflite"
taps = ["Identity"]
size = {SIZE}
borrow = []
""",
    "onnx": f"""
kind = "file"
file = "network.onnx"
taps = ["features"]
size = {SIZE}
mean = [0.485, 0.456, 0.406]
deviation = [0.229, 0.224, 0.225]
power = 1.0
{HEAD.format("logits")}""",
}


def write_toml(folder: Path, models: dict[str, str] = MODELS) -> Path:
    """A visor.toml with the models, in the folder of their networks."""
    path = folder / "visor.toml"
    path.write_text("".join(f"[models.{name}]\n{text}\n" for name, text in models.items()))
    return path


def pictures(folder: Path) -> Path:
    """Sixteen pictures, four patterns in each of four colours, named so."""
    folder.mkdir(exist_ok=True)
    y, x = np.mgrid[0:120, 0:150]
    patterns = {"dots": np.hypot(x % 30 - 15, y % 30 - 15) < 9, "bars": x % 24 < 11, "rows": y % 24 < 11}
    patterns["checks"] = (x // 20 + y // 20) % 2 == 0
    # A real picture has shades, and is not taken for a blank one.
    shade = 0.5 + 0.25 * np.sin(x / 11 + y / 17) + 0.25 * np.cos(x / 23 - y / 9)
    for colour, rgb in COLOURS.items():
        for pattern, mask in patterns.items():
            pixels = np.where(mask[..., None], np.array(rgb) * shade[..., None], 90 + 160 * shade[..., None])
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{colour} {pattern}.png")
    return folder


def indexed(app: App, folder: Path) -> None:
    """Crawl the folder, embed and merge."""
    app.crawler.crawl(app.open_folder(folder))
    Worker(app.stores.queue, app.batch_embedder, threads=1).drain()
    app.merge()


def check_end_to_end(settings: Settings, folder: Path, name: str, other: str) -> None:
    """A model indexes, finds each picture by a smaller copy, serves it, and another takes over by a reindex."""
    settings = msgspec.structs.replace(
        settings, model=name, freshness_s=0.0, allow_folders=(str(folder),), searches_burst=1000
    )
    ensure_model(settings, say=str)
    with App(settings) as app:
        indexed(app, folder)
        embedder = app.embedder
        server = Server(app.site({})).start()
        try:
            for path in sorted(folder.glob("*.png"))[::5]:
                answer = asked(server.address, path)
                first = answer["matches"][0]
                assert first["item"]["title"] == path.stem, f"{name}: {path.stem} found {first['item']['title']}"
                assert bool(answer.get("labels")) == embedder.description.sees_labels
                request = {"match": first["item"]["id"], "image": base64.b64encode(path.read_bytes()).decode()}
                heat = httpx.post(f"{server.address}/v1/explain", json=request, timeout=60)
                assert heat.status_code == (200 if embedder.description.has_maps else 400), heat.text
        finally:
            server.stop()
    settings = msgspec.structs.replace(settings, model=other)
    ensure_model(settings, say=str)
    with visor.open(settings=settings) as index:
        found = index.search(folder / "red dots.png", k=1)
        assert [match.item.title for match in found] == ["red dots"], "until the reindex, the first model answers"
    with App(settings) as app:
        app.reindex()
        Worker(app.stores.queue, app.batch_embedder, threads=1).drain()
        app.merge()
        server = Server(app.site({})).start()
        try:
            path = folder / "red dots.png"
            assert asked(server.address, path)["matches"][0]["item"]["title"] == path.stem
            assert httpx.get(f"{server.address}/v1/stats", timeout=60).json()["model"]["name"] == other
        finally:
            server.stop()


def asked(address: str, path: Path) -> dict[str, Any]:
    """The answer to a smaller copy of a picture."""
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        picture.resize((110, 88), Image.Resampling.BICUBIC).save(buffer, "PNG")
    answer = httpx.post(f"{address}/v1/search", content=buffer.getvalue(), headers=PNG, timeout=60)
    found: dict[str, Any] = answer.raise_for_status().json()
    return found
