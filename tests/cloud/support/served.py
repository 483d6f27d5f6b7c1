"""The search function as it is deployed: Terraform's environment, functions-framework with gunicorn, a filled index."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from tests.deployed import deployed_environ

from visor.settings import PREFIX, Settings
from visor_emulators.demo import running_function

ONLY_HERE = (
    "project", "bucket", "topic", "subscription", "dead_letter_topic", "dead_letter_subscription",
    "index", "home", "model",
)  # fmt: skip
"""Settings that name what the emulators hold; everything else is as Terraform has it."""
UNLIMITED = {"searches_per_minute": 6e6, "searches_burst": 10**6, "reads_per_minute": 6e6, "reads_burst": 10**6}
"""For tests of what comes after the access policy: all requests come from one address."""


@dataclass(frozen=True)
class Served:
    """A running function. `process` is gunicorn's worker, which would be replaced if it died."""

    address: str
    port: int
    process: int

    def memory(self, what: str) -> int:
        """Bytes of the worker's `VmRSS` (now) or `VmHWM` (at most so far)."""
        for line in Path(f"/proc/{self.process}/status").read_text().splitlines():
            if line.startswith(what + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"{what} of {self.process} is not known")

    def is_the_same_process(self) -> bool:
        return self.process == _worker(self.port)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=120)


@contextmanager
def served(index: Settings, **changes: object) -> Iterator[Served]:
    """The search function over an index on the emulators, with some of the deployed settings changed."""
    environ = deployed_environ("search")
    names = {name: getattr(index, name) for name in ONLY_HERE}
    settings = msgspec.structs.replace(Settings.read(environ), **{**names, **changes})
    with pytest.MonkeyPatch.context() as patch:
        for name in environ:
            if not name.startswith(PREFIX):
                patch.setenv(name, environ[name])
        with running_function("search", settings) as address:
            port = urlsplit(address).port or 0
            yield Served(address, port, _worker(port))


def _worker(port: int) -> int:
    """The younger of the two processes that were started for the port: gunicorn's worker, not its master."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if f"--port={port}".encode() in command and parent != os.getpid():
            found.append(int(folder.name))
    [worker] = found
    return worker
