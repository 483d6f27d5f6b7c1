"""Options and output that several commands share."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")


class Number(click.FloatRange):
    """A finite number from `min` to `max`."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not math.isfinite(found := super().convert(value, param, ctx)):
            self.fail(f"{value!r} is not finite.", param, ctx)
        return found


class GivenPath(click.Path):
    """A path that is not empty: an empty one, as from an unset shell variable, would mean the current folder."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not os.fspath(value):
            self.fail("The path is empty. Give it, '.' for the current folder.", param, ctx)
        return super().convert(value, param, ctx)


def say(message: str) -> None:
    """Print a line on standard error, so that standard output has only results."""
    click.echo(message, err=True)


def print_json(document: Any) -> None:
    """Print the document of `--json`: in UTF-8, whatever the terminal's encoding is."""
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, elsewhere a line per tenth. Yields a function that adds to the count."""
    if sys.stderr.isatty():
        with click.progressbar(length=total or 0, label=label, file=sys.stderr, show_pos=True) as bar:
            yield bar.update
        return
    done, printed = 0, 0

    def add(count: int) -> None:
        nonlocal done, printed
        done += count
        if total and (done * 10 // total > printed * 10 // total or done == total):
            printed = done
            say(f"{label}: {done} of {max(done, total)}")

    yield add
