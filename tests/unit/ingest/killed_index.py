"""Indexes a folder, then merges, killed (SIGKILL) before and after each write of the stores, until a run ends.

Argument: the folder. As `killed_crawl`: run k dies at its k-th step, and run k + 1 begins with what it left. Prints how
many runs of indexing and of merging were killed, as JSON.
"""

from __future__ import annotations

import json
import sys

from killed_crawl import killed_runs

from visor.app import App
from visor.ingest.worker import Worker
from visor.models import embedder  # noqa: F401  (imported once, before the forks)


def index(app: App) -> None:
    source = app.open_source("pictures", {"kind": "folder", "path": sys.argv[1]})
    assert app.crawl(source).state == "complete"
    Worker(app.stores.queue, app.batch_embedder, threads=1).drain()


def merge(app: App) -> None:
    app.merge()


if __name__ == "__main__":
    print(json.dumps([killed_runs(index), killed_runs(merge)]))
