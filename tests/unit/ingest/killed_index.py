"""Indexes a folder, then merges, killed (SIGKILL) before and after each write of the stores, until a run ends.

Argument: the folder. As `killed_crawl`: run k dies at its k-th step, and run k + 1 begins with what it left. Prints how
many runs of indexing and of merging were killed, as JSON.
"""

from __future__ import annotations

import json
import sys

from killed_crawl import killed_runs

from visor.app import Assembly
from visor.ingest.worker import Worker
from visor.models import embedder  # noqa: F401  (imported once, before the forks)


def index(assembly: Assembly) -> None:
    source = assembly.open_source("pictures", {"kind": "folder", "path": sys.argv[1]})
    assert assembly.crawl(source).state == "complete"
    Worker(assembly.stores.queue, assembly.batch_embedder, threads=1).drain()


def merge(assembly: Assembly) -> None:
    assembly.merge()


if __name__ == "__main__":
    print(json.dumps([killed_runs(index), killed_runs(merge)]))
