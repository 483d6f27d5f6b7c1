"""Indexes a folder, then merges, killed (SIGKILL) before and after each write of the stores, until a run ends.

Argument: the folder. As `killed_crawl`: run k dies at its k-th step, and run k + 1 begins with what it left. Prints how
many runs of indexing and of merging were killed, as JSON.
"""

from __future__ import annotations

import json
import sys

import ai_edge_litert.interpreter  # noqa: F401  (imported once, before the forks, like those below)
import faiss  # noqa: F401
import tantivy  # noqa: F401
from killed_crawl import killed_runs

import visor.index.merge.merge  # noqa: F401
from visor.app import App
from visor.confidence import fit_index  # noqa: F401
from visor.image_readers import readers  # noqa: F401
from visor.ingest import reindex  # noqa: F401
from visor.ingest.worker import Worker
from visor.models import embedder, registry  # noqa: F401
from visor.search import feedback, visitors  # noqa: F401


def index(app: App) -> None:
    source = app.open_source("pictures", {"kind": "folder", "path": sys.argv[1]})
    assert app.crawler.crawl(source).state == "complete"
    Worker(app.stores.queue, app.batch_embedder, threads=1).drain()


def merge(app: App) -> None:
    app.merge()


if __name__ == "__main__":
    registry.installed()
    print(json.dumps([killed_runs(index), killed_runs(merge)]))
