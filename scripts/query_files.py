"""Count the files of `visor` that a warm search runs through, from the web entry to the answer.

    python scripts/query_files.py [--most N]

Indexes a few generated images with the model of VISOR_MODEL in a temporary folder, runs the same search twice, and
traces the second one in all threads. Prints the files, and exits with 1 if there are more than N (default 24): a reader
who follows a query should not have to open more.
"""

from __future__ import annotations

import argparse
import base64
import io
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image
from werkzeug import Request
from werkzeug.test import Client

import visor
from visor.app import App
from visor.ingest.worker import Worker
from visor.models.embedder import load_embedder
from visor.settings import Settings

MOST = 24
IMAGES = 136
"""Enough images for a projection and a calibration."""
PACKAGE = str(Path(visor.__file__).parent)


class Tracer:
    """Counts calls by file while it is switched on. Install it before the threads start that it should see."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.is_on = False

    def install(self) -> None:
        threading.setprofile(self)
        sys.setprofile(self)

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if self.is_on and event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            self.calls[frame.f_code.co_filename] += 1


def files_of_a_warm_search(folder: Path, images: int = IMAGES) -> Counter[str]:
    """Calls by file, named from the package's folder."""
    (folder / "images").mkdir()
    for number, pixels in enumerate(generated(images)):
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    tracer = Tracer()
    mine = Settings(home=folder / "home", allow_folders=(str(folder / "images"),))
    with App(mine, embedder=load_embedder(Settings.read())) as app:
        app.crawler.crawl(app.open_source("images", {"kind": "folder", "path": str(folder / "images")}))
        Worker(app.stores.queue, app.batch_embedder).drain()
        app.merge()
        tracer.install()
        try:
            search = Request.application(app.http_api())
            client = Client(search)
            buffer = io.BytesIO()
            Image.fromarray(next(generated(1))).save(buffer, "PNG")
            request = {"image": base64.b64encode(buffer.getvalue()).decode()}
            for is_warm in (False, True):
                tracer.is_on = is_warm
                response = client.post("/v1/search", json=request)
                tracer.is_on = False
                if response.status_code != 200 or not response.get_json()["matches"]:
                    sys.exit(f"The search failed: {response.status} {response.get_data(as_text=True)}")
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    return Counter({str(Path(name).relative_to(PACKAGE)): count for name, count in tracer.calls.items()})


def generated(count: int) -> Any:
    """Seeded images, (96, 96, 3) uint8: blots of colour."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
        yield np.asarray(small.resize((96, 96), Image.Resampling.BICUBIC))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=MOST, help="files that are allowed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="visor-query-") as folder:
        calls = files_of_a_warm_search(Path(folder))
    for name, count in sorted(calls.items()):
        print(f"{count:6} {name}")
    print(f"A warm search runs {len(calls)} files; {args.most} are allowed.")
    sys.exit(len(calls) > args.most)


if __name__ == "__main__":
    main()
