"""kill -9 at any moment: what was reported as done is there, what was under way is whole or not there at all."""

from __future__ import annotations

import base64
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from visor.errors import NotFound
from visor.settings import Settings
from visor.storage import Stores, open_stores
from visor.storage.local.queue import SqliteQueue

pytestmark = pytest.mark.fault

WORKER = Path(__file__).with_name("killed_worker.py")


@dataclass
class Expected:
    """What the stores may hold: of each thing the values that are possible."""

    objects: dict[str, set[bytes | None]] = field(default_factory=dict)
    commits: dict[str, set[int]] = field(default_factory=dict)
    meters: dict[str, set[int]] = field(default_factory=dict)
    sure: set[bytes] = field(default_factory=set)
    possible: list[set[bytes]] = field(default_factory=list)
    gone: set[bytes] = field(default_factory=set)

    def take(self, lines: list[bytes]) -> int:
        """Take in what one worker said; how many changes it finished."""
        done = 0
        for number, line in enumerate(lines):
            word, *what = msgspec.json.decode(line)
            if word == "start":
                finished = number + 1 < len(lines)
                done += finished
                self.change(what, finished)
        return done

    def change(self, what: list[Any], finished: bool) -> None:
        kind = what[0]
        if kind == "object":
            _, name, body = what
            new = base64.b64decode(body) if body is not None else None
            self.objects[name] = {new} if finished else self.objects.get(name, {None}) | {new}
        elif kind == "commit":
            _, name, number = what
            self.commits[name] = {number} if finished else self.commits.get(name, {0}) | {number}
            counts = self.meters.get(name, {0})
            self.meters[name] = {n + 1 for n in counts} | (set() if finished else counts)
        elif kind == "publish":
            bodies = {base64.b64decode(body) for body in what[1]}
            if finished:
                self.sure |= bodies
            else:
                self.possible.append(bodies)
        elif finished:
            self.gone.add(base64.b64decode(what[1]))
        else:
            self.possible.append({base64.b64decode(what[1])})

    def compare(self, stores: Stores) -> None:
        """Compare with what the stores hold, and go on from that."""
        listed = {info.name: info for info in stores.objects.list()}
        assert listed.keys() <= self.objects.keys()
        for name, bodies in self.objects.items():
            try:
                data, info = stores.objects.get_with_info(name)
            except NotFound:
                assert None in bodies, name
                assert name not in listed
                self.objects[name] = {None}
            else:
                assert bytes(data) in bodies, name
                assert listed[name] == info
                self.objects[name] = {bytes(data)}
        for name in self.commits:
            left, right, meter = (
                stores.documents.get(collection, [name]).get(name) for collection in ("left", "right", "meters")
            )
            number = left.data["number"] if left else 0
            assert number in self.commits[name]
            assert number == (right.data["number"] if right else 0)
            count = meter.data["commits"] if meter else 0
            assert count in self.meters[name]
            self.commits[name], self.meters[name] = {number}, {count}

    def compare_queue(self, queue: SqliteQueue) -> None:
        found: list[bytes] = []
        while messages := queue.receive(100, lease_s=600):
            found += [message.body for message in messages]
        assert len(set(found)) == len(found), "a message was there twice"
        held = set(found)
        unsure = set().union(*self.possible)
        assert not held & self.gone
        assert self.sure - self.gone - unsure <= held
        assert held <= self.sure | unsure
        for bodies in self.possible:
            if len(bodies) > 1:
                # A publish that was under way: all of its messages or none, but for those acknowledged since.
                assert bodies - self.gone - held in (set(), bodies - self.gone)


def run(home: Path, name: str, seed: int, *, line: int = 0, lines_before_kill: int = 0) -> list[bytes]:
    """One worker's whole lines, from start to its violent end."""
    command = [sys.executable, str(WORKER), str(home), name, str(seed), str(line)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        said = []
        if lines_before_kill:
            said = [worker.stdout.readline() for _ in range(lines_before_kill)]
            worker.kill()
        said += worker.stdout.readlines()
        assert worker.wait(60) == -signal.SIGKILL
    return [text for text in said if text.endswith(b"\n")]


@pytest.mark.parametrize("way", ["between lines", "from outside"])
def test_nothing_is_lost_or_half_done(way: str, tmp_path: Path) -> None:
    rng = random.Random(f"kill {way}")
    settings = Settings(home=tmp_path, embed_attempts_max=10**6)
    expected = Expected()
    done = 0
    for round_ in range(15):
        said: dict[str, list[bytes]] = {}

        def work(name: str, seed: int, moment: int, said: dict[str, list[bytes]] = said) -> None:
            kill = {"line": moment} if way == "between lines" else {"lines_before_kill": 1 + moment // 50}
            said[name] = run(tmp_path, name, seed, **kill)

        # Two at once, so that one is killed while the other waits for its lock.
        threads = [
            threading.Thread(target=work, args=(name, 2 * round_ + number, rng.randrange(1, 3000)))
            for number, name in enumerate("ab")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert said.keys() == {"a", "b"}
        done += sum(expected.take(lines) for lines in said.values())
        with open_stores(settings) as stores:
            expected.compare(stores)
            assert list((tmp_path / "indexes" / "default" / "objects" / ".unfinished").iterdir()) == []
    assert done > 200
    # Past the leases that the dead hold.
    later = SqliteQueue(tmp_path / "indexes" / "default" / "queue.sqlite", 10**6, clock=lambda: time.time() + 10_000)
    expected.compare_queue(later)
    later.close()


def test_a_swap_killed_at_each_of_its_lines(tmp_path: Path) -> None:
    command = [sys.executable, str(WORKER.with_name("killed_put.py")), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rounds = [msgspec.json.decode(text) for text in done.stdout.splitlines()]
    # From the old object to the new one in one step, and nothing else ever.
    states = [(found["data"], found["size"]) for found in rounds]
    old, new = ("old", 3000), ("new", 6000)
    switch = states.index(new)
    assert states == [old] * switch + [new] * (len(states) - switch)
    assert 20 < switch < len(states) - 20
    assert all(found["grows"] and found["swept"] for found in rounds)
    assert any(found["unfinished"] for found in rounds), "no kill left a file to sweep"
    assert all(found["names"] in (["folder/a"], ["folder/a", "other/b"]) for found in rounds)
    assert [found["said"] for found in rounds[:-1]] == [""] * (len(rounds) - 1)
    assert rounds[-1]["said"] == str(rounds[-1]["generation"])
