"""Runs a function of a test module in processes of their own, on stores opened from the same settings."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from visor.settings import Settings

CODE = """
import importlib.util, sys, msgspec
from pathlib import Path
from visor.settings import Settings
path, name, settings, argument = sys.argv[1:]
spec = importlib.util.spec_from_file_location("worker", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
settings = msgspec.json.decode(settings, type=Settings, dec_hook=lambda kind, value: kind(value))
sys.stdout.write(msgspec.json.encode(getattr(module, name)(settings, argument)).decode())
"""


def in_processes(file: str, function: str, settings: Settings, arguments: list[str]) -> list[object]:
    """What `function(settings, argument)` of the module `file` returned, a process an argument, all at once."""
    encoded = msgspec.json.encode(settings, enc_hook=str).decode()

    def run(argument: str) -> object:
        command = [sys.executable, "-c", CODE, str(Path(file).resolve()), function, encoded, argument]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return msgspec.json.decode(done.stdout)

    with ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(run, arguments))
