"""Runs `visor` commands that the parent names, each in a process of its own, and kills them (SIGKILL) when it says.

A line of JSON on standard input is one run: `command` (the words after `visor`, or those of `OWN`), `model` (`old`,
`new`, or `served`: the index's own), `day` (by which links' clock is ahead) and `after_s` (seconds until the kill, or
null). A line of JSON on standard output answers it: `status` as `waitpid` gives it, and `seconds`. This process has one
thread, so that it may fork.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import faiss  # noqa: F401  (imported once, before the forks, like those below)
import tantivy  # noqa: F401
from tests.unit.ingest.test_pipeline_embed import drawing
from tests.unit.ingest.test_pipeline_reindex import NEW, OLD, Model

from visor.app import App
from visor.check import check  # noqa: F401
from visor.cli import crawl, doctor, index, search  # noqa: F401
from visor.cli.main import main
from visor.confidence import fit_index  # noqa: F401
from visor.http.transport import GuardedTransport
from visor.image_readers import readers  # noqa: F401
from visor.index.format.current_model import read_current
from visor.index.merge import merge, segment_builder  # noqa: F401
from visor.ingest import crawler, embed, reindex, worker  # noqa: F401
from visor.ingest.schedule import live_failures
from visor.link_check.check import LinkCheck
from visor.schema.items import item_id
from visor.schema.push import PushItem
from visor.schema.search import FeedbackRequest, SearchRequest
from visor.search.service import SearchService  # noqa: F401
from visor.settings import Settings
from visor.sources.config import PUSHED
from visor.sources.feed import source as feed  # noqa: F401
from visor.sources.folder import source as folder  # noqa: F401
from visor.sources.registry import kinds
from visor.storage import open_stores
from visor.storage.local import documents, objects, queue  # noqa: F401

DAY_S = 86_400


def push(url: str, count: str) -> None:
    with App(Settings.read()) as app:
        for key in range(int(count)):
            app.pusher.push_one(PushItem(key=str(key), image_url=f"{url}/{key}.png"))


def feedback(first: str, second: str) -> None:
    said = FeedbackRequest(item=item_id(PUSHED, first), query_item=item_id(PUSHED, second))
    with App(Settings.read()) as app:
        app.search_service().keep_feedback(said, by_owner=int(first) % 2 == 0)


def verify(expected: str) -> None:
    """Args: expected: a JSON file of item id to the seed of its picture: those are found, each once, and no others."""
    seeds: dict[str, int] = json.loads(Path(expected).read_text())
    with App(Settings.read()) as app:
        assert app.stores.queue.waiting() == 0
        assert app.stores.queue.dead_letters() == []
        assert live_failures(app.stores.documents) == []
        service = app.search_service()
        service.refresh()
        assert app.searcher.notice is None, app.searcher.notice
        found = sorted(app.searcher.sample(10_000))
        assert found == sorted(seeds), set(found) ^ set(seeds)
        for seed in set(seeds.values()):
            alike = {item for item, other in seeds.items() if other == seed}
            (first, *_) = service.search(SearchRequest(k=3, mode="exact"), drawing(seed)).matches
            assert first.verdict == "exact"
            assert {first.item.id, *(place.item for place in first.places)} == alike, seed
    state = doctor._try("index", lambda: doctor._index(Settings.read()))
    assert state.state != "missing", state


OWN = {"push": push, "say": feedback, "verify": verify}


def served() -> Model:
    with open_stores(Settings.read()) as stores:
        current, _ = read_current(stores.documents)
    return NEW if current is not None and current.current == NEW.fingerprint else OLD


def run(command: list[str], model: str, day: float) -> None:
    App.embedder = served() if model == "served" else OLD if model == "old" else NEW  # type: ignore[assignment]
    App.fingerprint = App.embedder.fingerprint  # type: ignore[assignment,method-assign]
    links = LinkCheck.__init__.__kwdefaults__
    links |= {"clock": lambda: time.time() + day * DAY_S, "sleep": lambda seconds: None}
    if command[0] in OWN:
        OWN[command[0]](*command[1:])
    else:
        main(command)


if __name__ == "__main__":
    kinds()
    GuardedTransport().close()
    for line in sys.stdin:
        wanted = json.loads(line)
        started = time.monotonic()
        child = os.fork()
        if not child:
            code = 1
            try:
                os.dup2(2, 1)
                run(wanted["command"], wanted["model"], wanted["day"])
                code = 0
            except SystemExit as exc:
                code = exc.code if isinstance(exc.code, int) else bool(exc.code)
            except BaseException as exc:  # noqa: BLE001 — told on standard error, and the exit status
                print(repr(exc), file=sys.stderr)
            finally:
                sys.stderr.flush()
                os._exit(code)
        ended, status = 0, 0
        if wanted["after_s"] is not None:
            time.sleep(wanted["after_s"])
            ended, status = os.waitpid(child, os.WNOHANG)
            if not ended:
                os.kill(child, signal.SIGKILL)
        if not ended:
            _, status = os.waitpid(child, 0)
        print(json.dumps({"status": status, "seconds": time.monotonic() - started}), flush=True)
