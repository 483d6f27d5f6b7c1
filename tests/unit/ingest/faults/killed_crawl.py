"""Crawls the source `mine` again and again, killed (SIGKILL) before and after each of its writings, until a run ends.

Run k dies at its k-th step: before or after its writing of an object, its commit or its message. What it left is what
run k + 1 begins with. That as often as the argument says. Prints how many runs were killed. The parent process has one
thread, so that it may fork.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from visor.app import App
from visor.http.transport import GuardedTransport
from visor.ingest import crawl, crawler  # noqa: F401  (imported once, before the forks, like the stores)
from visor.settings import Settings
from visor.sources.bucket import source as bucket
from visor.sources.feed import source as feed
from visor.sources.folder import source as folder
from visor.sources.registry import kinds
from visor.sources.site import source as site
from visor.sources.video import source as video
from visor.sources.wikidata import source as wikidata
from visor.storage import Stores
from visor.storage.local import documents, objects, queue  # noqa: F401

STEPS_MAX = 500


class Steps:
    """Kills this process at a step; there is one before and one after each writing."""

    def __init__(self, last: int) -> None:
        self.left = last

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def written(*args: Any, **keys: Any) -> Any:
            self.step()
            result = write(*args, **keys)
            self.step()
            return result

        return written

    def watch(self, stores: Stores) -> None:
        for store in (stores.objects, stores.documents, stores.queue):
            for name in ("put", "put_file", "delete", "commit", "publish", "receive", "acknowledge"):
                if write := getattr(store, name, None):
                    setattr(store, name, self.around(write))


def crawl_mine(app: App) -> None:
    run = app.crawler.crawl(app.named_source("mine"))
    assert run.state == "complete", run


def main() -> None:
    crawl.SAVE_EVERY = 5
    for module in (feed, folder, bucket):
        module.PAGE_SIZE = 5
    site.PAGE_SIZE, video.PAGE_SIZE, wikidata.PAGE_SIZE = 4, 4, 5
    print(sum(killed_runs(crawl_mine) for _ in range(int(sys.argv[1]))))


def killed_runs(work: Callable[[App], None]) -> int:
    """Runs that were killed before one came to its end. What each would read anew is read before: plug-ins, and whom to
    trust."""
    kinds()
    GuardedTransport().close()
    for last in range(1, STEPS_MAX):
        child = os.fork()
        if not child:
            code = 1
            try:
                with App(Settings.read()) as app:
                    Steps(last).watch(app.stores)
                    work(app)
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert not os.WEXITSTATUS(status), "the run failed"
            return last - 1
        assert os.WTERMSIG(status) == signal.SIGKILL
    raise AssertionError("no run came to its end")


if __name__ == "__main__":
    main()
