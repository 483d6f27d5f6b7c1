"""Faults for functions in processes of their own: each step may once be killed, fail, or take too long.

A fault is a file `POINT.ACTION` in a folder. Whoever gets to a point and removes its file meets the fault, so each
happens once, however many processes run and however often they start again. Points are `STORE.METHOD.before` and
`.after`, and `STORE.METHOD(NAME).before` for objects whose name starts so.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from visor.app import App
from visor.errors import StoreUnavailable
from visor.settings import Settings
from visor.storage import Stores

FOLDER = "FAULTS_FOLDER"
ACTIONS = ("kill", "exception", "unavailable", "stall")
STALL_S = 13.0
"""Longer than the shortest acknowledgement deadline that Pub/Sub takes, 10 s."""

MAIN = """
import importlib.util
import visor.app
from tests.cloud.support.faults import FaultyApp
visor.app.App = FaultyApp
spec = importlib.util.spec_from_file_location("deployed_main", {path!r})
deployed = importlib.util.module_from_spec(spec)
spec.loader.exec_module(deployed)
{name} = deployed.{name}
"""


def plan(folder: Path, points: list[str]) -> None:
    for point in points:
        (folder / point).touch()


def write_main(folder: Path, name: str, functions: Path) -> None:
    """A main.py that is the function's own, with faults."""
    (folder / name).mkdir(parents=True)
    text = MAIN.format(path=str(functions / name / "main.py"), name=name)
    (folder / name / "main.py").write_text(text, encoding="utf-8")


class FaultyApp(App):
    """The app of a function, with faults between it and its stores, its origin and its model."""

    def __init__(self, settings: Settings) -> None:
        real = App(settings)
        super().__init__(
            settings,
            stores=Stores(
                objects=Faulty("objects", lambda: real.stores.objects),  # type: ignore[arg-type]
                documents=Faulty("documents", lambda: real.stores.documents),  # type: ignore[arg-type]
                queue=Faulty("queue", lambda: real.stores.queue),  # type: ignore[arg-type]
            ),
            embedder=Faulty("model", lambda: real.embedder),  # type: ignore[arg-type]
            read_image=_around("origin.read", real.read_image),
        )


class Faulty:
    """What `opened` gives, with faults around each of its methods."""

    def __init__(self, name: str, opened: Callable[[], Any]) -> None:
        self._name, self._opened = name, opened

    def __getattr__(self, method: str) -> Any:
        real = getattr(self._opened(), method)
        return _around(f"{self._name}.{method}", real) if callable(real) else real


def _around(point: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        about = f"({args[0].partition('-')[0].partition('/')[0]})" if args and isinstance(args[0], str) else ""
        for name in {point, point + about}:
            _meet(name + ".before")
        result = real(*args, **kwargs)
        for name in {point, point + about}:
            _meet(name + ".after")
        return result

    return call


def _meet(point: str) -> None:
    for action in ACTIONS:
        try:
            (Path(os.environ[FOLDER]) / f"{point}.{action}").unlink()
        except FileNotFoundError:
            continue
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "exception":
            raise RuntimeError(f"A planned fault at {point}")
        if action == "unavailable":
            raise StoreUnavailable(f"A planned fault at {point}")
        time.sleep(STALL_S)
