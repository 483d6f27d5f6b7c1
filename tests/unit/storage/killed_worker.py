"""Changes the embedded stores at random and tells what it is about to do and what is done, until it is killed.

Arguments: the home folder, a name, a seed, and the number of the line of `visor.storage.local` at which the process
kills itself (0: never; the parent does).
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from visor.settings import Settings
from visor.storage import Stores, open_stores
from visor.storage.documents import SERVER_TIME, Add, Put


def say(word: str, *what: object) -> None:
    os.write(1, msgspec.json.encode([word, *what]) + b"\n")


def die_at_line(number: int) -> None:
    left = number

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if "/visor/storage/local/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def change(stores: Stores, name: str, number: int, rng: random.Random, scratch: Path) -> None:
    kind = rng.choice(["put", "put_file", "swap", "delete", "commit", "publish", "work"])
    target = f"{name}/{rng.randrange(3)}"
    body = f"{name} {number} ".encode() * rng.randrange(1, 3000)
    if kind in ("put", "put_file"):
        say("start", "object", target, body)
        if kind == "put":
            stores.objects.put(target, body)
        else:
            (scratch / name).write_bytes(body)
            stores.objects.put_file(target, str(scratch / name))
    elif kind == "swap":
        target = f"{name}/manifest"
        old = next((info.generation for info in stores.objects.list(target)), 0)
        say("start", "object", target, body)
        stores.objects.put(target, body, if_generation=old)
    elif kind == "delete":
        say("start", "object", target, None)
        stores.objects.delete(target)
    elif kind == "commit":
        say("start", "commit", name, number)
        stores.documents.commit(
            [
                Put(collection="left", key=name, data={"number": number}, newer_than="number"),
                Put(collection="right", key=name, data={"number": number, "committed_at": SERVER_TIME}),
                Add(collection="meters", key=name, amounts={"commits": 1}),
            ]
        )
    elif kind == "publish":
        bodies = [f"{name} {number} {n}".encode() for n in range(3)]
        say("start", "publish", bodies)
        stores.queue.publish(bodies)
    else:
        for message in stores.queue.receive(2, lease_s=600):
            say("start", "acknowledge", message.body)
            stores.queue.acknowledge(message)
            say("done")
        return
    say("done")


def main() -> None:
    home, name, seed, line = sys.argv[1:]
    die_at_line(int(line))
    rng = random.Random(seed)
    with open_stores(Settings(home=Path(home), embed_attempts_max=10**6)) as stores:
        for number in range(int(seed) * 10_000 + 1, int(seed) * 10_000 + 10_000):
            change(stores, name, number, rng, Path(home))


if __name__ == "__main__":
    main()
