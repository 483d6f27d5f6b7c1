"""Finds and loads what is installed of one group of entry points: kinds of sources, models, or commands."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any

from visor.errors import SettingsError


def plugins(group: str, what: str, found: Iterable[EntryPoint] | None = None) -> dict[str, EntryPoint]:
    """The entry points of a group, by name.

    Args:
        what: What one of them registers, for the error.

    Raises:
        SettingsError: Two plug-ins register the same name.
    """
    by_name: dict[str, EntryPoint] = {}
    for entry in installed(group) if found is None else found:
        other = by_name.setdefault(entry.name, entry)
        # A development install can list the same entry point twice.
        if other.value != entry.value:
            raise SettingsError(
                f"Two plug-ins register the {what} '{entry.name}': {_described(other)} and {_described(entry)}",
                valid=f"A {what.rpartition(' ')[2]} with a name that no other has",
                remedy="Uninstall one of them, or rename its entry point in its pyproject.toml",
            )
    return dict(sorted(by_name.items()))


def load(entry: EntryPoint, what: str) -> Any:
    """The object of an entry point. `what` as in `plugins`.

    Raises:
        SettingsError: It cannot be loaded; the cause is what its package raised.
    """
    package = entry.dist.name if entry.dist else "an unknown package"
    try:
        return entry.load()
    except Exception as exc:
        raise SettingsError(
            f"The {what} {entry.name!r} of {package} cannot be loaded: {type(exc).__name__}: {exc}",
            remedy=f"Install another version of {package}, or uninstall it",
        ) from exc


def installed(group: str) -> EntryPoints:
    """The entry points of a group, of all that is installed; those of a folder that joins `sys.path` later, too."""
    return _installed(group, tuple(map(str, sys.path)))


@functools.cache
def _installed(group: str, path: tuple[str, ...]) -> EntryPoints:
    """Kept: some hundred packages are read for it, which takes 10 ms each time that a source is opened."""
    return entry_points(group=group)


def _described(entry: EntryPoint) -> str:
    return f"{entry.value} ({entry.dist.name if entry.dist else 'unknown package'})"
