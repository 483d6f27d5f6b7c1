"""`kill -9` at random moments of every command that writes: every picture is findable once, none is lost.

`TEST_KILLS=100 pytest -s` of this file is the long run. `TEST_KILLS_SEED` chooses other moments.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.unit.ingest.test_pipeline_embed import drawing
from tests.unit.sources.catalogue_server import Reply, Request, serving

from visor.schema.items import item_id

pytestmark = [pytest.mark.fault, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("TEST_KILLS", "10"))
SEED = os.environ.get("TEST_KILLS_SEED", "kills")
BETWEEN_CHECKS = 10
PROGRAM = Path(__file__).with_name("killed_commands.py")
SOLD, PUSHED, FILES = 12, 12, 40


@dataclass
class Shop:
    """A feed of articles whose pages and images come and go; images by number for what is pushed."""

    missing: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)
    price: int = 1

    def answer(self, request: Request) -> Reply:
        path = request.path
        if path in self.missing:
            return Reply(status=404)
        if path in self.moved:
            return Reply(status=301, headers={"Location": f"{path}.moved"})
        if path == "/feed":
            rows = [f"{n}\tNumber {n}\t/sold/{n}.png\t/p/{n}\t{self.price} USD" for n in range(SOLD)]
            return Reply("\n".join(["id\ttitle\timage_link\tlink\tprice", *rows]).encode())
        if path.startswith("/p/"):
            return Reply(b"<html>A page</html>", headers={"Content-Type": "text/html"})
        seed = int(path.rpartition("/")[2].partition(".")[0])
        return Reply(
            drawing(seed + (2000 if path.startswith("/sold/") else 3000)), headers={"Content-Type": "image/png"}
        )


class Runs:
    """Runs commands, and kills them within the time that they took the last time."""

    def __init__(self, environ: dict[str, str], log: Path) -> None:
        self._log = log.open("w")
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM)], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
        )
        self.log, self.model, self.day = log, "old", 0.0
        self.seconds: dict[str, float] = {}
        self.killed: Counter[str] = Counter()

    def run(self, *command: str, share: float | None = None, must: bool = True) -> None:
        """Args: share: of the time that the command takes, after which it is killed; None: it ends by itself.
        must: It has to succeed then."""
        after_s = None if share is None else share * self.seconds[command[0]]
        wanted = {"command": command, "model": self.model, "day": self.day, "after_s": after_s}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(wanted).encode() + b"\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        status = answer["status"]
        if share is None and must:
            assert status == 0, f"{command}: {status}\n{self.log.read_text()[-3000:]}"
            self.seconds[command[0]] = answer["seconds"]
        elif os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            self.killed[command[0]] += 1

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()
        self._log.close()


def test_killed_at_random_moments_every_picture_is_found_once(tmp_path: Path) -> None:
    shop, rng, pictures = Shop(), random.Random(SEED), tmp_path / "pictures"
    pictures.mkdir()
    seeds = {number: number for number in range(FILES)}
    for number, seed in seeds.items():
        (pictures / f"{number}.png").write_bytes(drawing(seed))
    with serving(shop.answer) as server:
        (tmp_path / "visor.toml").write_text(f'[sources.shop]\nkind = "feed"\nurl = "{server.url}/feed"\n')
        own = {"VISOR_HOME": str(tmp_path / "home"), "VISOR_CONFIG": str(tmp_path / "visor.toml")}
        limits = {"VISOR_ALLOW_HOSTS": server.host, "VISOR_BATCH_SIZE": "4", "VISOR_FRESHNESS_S": "0"}
        root = str(Path(__file__).parents[4])
        paths = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
        others = {name: value for name, value in os.environ.items() if not name.startswith("VISOR_")}
        runs = Runs({**others, **own, **limits, "PYTHONPATH": paths}, tmp_path / "log")
        commands = {
            "index": ["index", str(pictures)],
            "crawl": ["crawl", "shop"],
            "compact": ["compact", "--relearn"],
            "links": ["links", "--limit", "100"],
            "push": ["push", server.url, str(PUSHED)],
            "say": ["say", "1", "2"],
            "feedback": ["feedback", "accept", "all"],
            "reindex": ["reindex"],
            "check": ["check", "--repair"],
        }

        def settle() -> None:
            """Every command to its end: what is gone is missed by two crawls, and dead on two days."""
            # Only a reindex may use another model than the index's. The first may say that a file could not be read.
            wanted, runs.model = runs.model, "served"
            runs.run(*commands["index"], must=False)
            for _ in range(2):
                for name in ("crawl", "push", "index", "say", "feedback"):
                    runs.run(*commands[name])
            runs.model = wanted
            runs.run(*commands["reindex"])
            for days in (1, 1, 40, 1):
                runs.day += days
                runs.run(*commands["links"])
                runs.run(*commands["index"])
            runs.run(*commands["compact"])
            runs.run("check")
            listed = {item_id("pictures", f"{number}.png"): seed for number, seed in seeds.items()}
            gone = {path for path in shop.missing if path.startswith("/p/")}
            listed |= {item_id("shop", str(n)): 2000 + n for n in range(SOLD) if f"/p/{n}" not in gone}
            listed |= {item_id("push", str(n)): 3000 + n for n in range(PUSHED)}
            (tmp_path / "expected.json").write_text(json.dumps(listed))
            runs.run("verify", str(tmp_path / "expected.json"))

        try:
            settle()
            runs.run(*commands["check"])
            while runs.killed.total() < KILLS:
                for _ in range(BETWEEN_CHECKS):
                    number = rng.randrange(FILES)
                    path = pictures / f"{number}.png"
                    if number in seeds and rng.random() < 0.3:
                        path.unlink()
                        del seeds[number]
                    else:
                        seeds[number] = 100 + rng.randrange(1900)
                        path.write_bytes(drawing(seeds[number]))
                    shop.price += 1
                    shop.missing = {f"/p/{rng.randrange(SOLD)}"}
                    shop.moved |= {f"/sold/{rng.randrange(SOLD)}.png"}
                    runs.day += rng.choice([0, 1])
                    name = rng.choice(list(commands))
                    if name == "reindex" and rng.random() < 0.5:
                        runs.model = "new" if runs.model == "old" else "old"
                    runs.run(*commands[name], share=rng.random() * 1.1)
                settle()
        finally:
            runs.close()
            print(dict(runs.killed))
