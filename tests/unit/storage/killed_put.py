"""Forks a process for each line that a compare-and-swap of an object runs, and has it killed there.

Argument: an empty folder. Prints, a JSON line each: what the process said, and what the folder held afterwards.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
from killed_worker import die_at_line

from visor.storage.local.objects import FolderObjects


def swap(root: Path, line: int, out: int) -> None:
    objects = FolderObjects(root)
    old = objects.put("folder/a", b"old" * 1000, if_generation=0)
    die_at_line(line)
    new = objects.put("folder/a", b"new" * 2000, if_generation=old.generation)
    objects.put("other/b", b"made")
    sys.settrace(None)
    os.write(out, str(new.generation).encode())


def main() -> None:
    line = 0
    said = b""
    while not said:
        line += 1
        root = Path(sys.argv[1]) / str(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            swap(root, line, writing)
            os._exit(0)
        os.close(writing)
        said = os.read(reading, 100)
        os.close(reading)
        os.waitpid(child, 0)

        unfinished = len(list((root / ".unfinished").iterdir()))
        objects = FolderObjects(root)
        data, info = objects.get_with_info("folder/a")
        again = objects.put("folder/a", b"again", if_generation=info.generation)
        found = {
            "said": said.decode(),
            "data": bytes(data[:3]).decode(),
            "size": len(data),
            "generation": info.generation,
            "names": [info.name for info in objects.list()],
            "grows": again.generation > info.generation,
            "unfinished": unfinished,
            "swept": not list((root / ".unfinished").iterdir()),
        }
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")


if __name__ == "__main__":
    main()
