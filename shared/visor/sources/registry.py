"""Finds the class of a source's kind among the installed plug-ins and opens the source with a checked configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any, cast

from visor.config_errors import parse_config
from visor.errors import NotConfigured, SettingsError, SourceError
from visor.plugins import load, plugins
from visor.sources.contract import Source, SourceConfig, SourceContext, SourceKind
from visor.sources.gate import GuardedSource, guarded
from visor.sources.secrets import Secrets

GROUP = "visor.sources"


def kinds(found: Iterable[EntryPoint] | None = None) -> dict[str, EntryPoint]:
    """The installed kinds of sources, by name.

    Raises:
        SettingsError: Two plug-ins register the same name.
    """
    return plugins(GROUP, "source kind", found)


def load_kind(kind: str, key: str = "kind") -> SourceKind:
    """The class that reads sources of that kind; `key` is where the configuration names it.

    Raises:
        SettingsError: No plug-in of that name is installed.
        NotConfigured: The plug-in is installed, but a library that it needs is not, or it cannot be loaded.
    """
    installed = kinds()
    if kind not in installed:
        raise SettingsError(
            f"{key} = '{kind}' is not a kind of source",
            valid=", ".join(installed),
            remedy="Correct `kind`, or install the plug-in that brings it",
        )
    try:
        return cast(SourceKind, load(installed[kind], "source kind"))
    except SettingsError as exc:
        why = exc.__cause__
        if not isinstance(why, ImportError):
            raise NotConfigured(exc.found, remedy=exc.remedy) from exc
        raise NotConfigured(f"The source kind '{kind}' cannot be loaded: {why}{_how_to_get(installed[kind])}") from why


def _how_to_get(entry: EntryPoint) -> str:
    """The sentence about the missing libraries of a kind."""
    if entry.value.partition(".")[0] == "visor":
        return (
            f". Install its libraries: pip install 'visor-search[{entry.name}]'; crawl has them if it was bundled "
            "by `scripts/bundle.py --config` with the visor.toml that names the source"
        )
    dist = entry.dist
    if dist is None or entry.name not in (dist.metadata.get_all("Provides-Extra") or ()):
        return ""
    return f". Install its libraries: pip install '{dist.name}[{entry.name}]'"


def open_source(name: str, config: Mapping[str, Any], context: SourceContext) -> Source:
    """The source that `config` describes: its `kind`, and the keys of that kind.

    Raises:
        SettingsError: The configuration is not valid; names the key, what was found and what is valid.
        NotConfigured: The source cannot be used here at present.
        SourceError: Its plug-in failed, or made something that is not a source of that name.
    """
    kind, cls, own = source_class(name, config)
    secrets = Secrets(context.environ)
    expanded = secrets.expand(own, f"sources.{name}")
    with guarded(name, secrets):
        typed = parse_config(expanded, cls.Config, where=f"sources.{name}", what=f"a source of kind {kind}")
        source = cls(name, typed, replace(context, secrets=secrets))
    if getattr(source, "name", None) != name or not callable(getattr(source, "read", None)):
        raise SourceError(
            f"The plug-in of source kind '{kind}' made no source called '{name}'",
            valid="An object with name and read",
            remedy="Keep the name that it is given as `name`, as docs/sources.md shows",
        )
    return GuardedSource(source, secrets)


def source_class(name: str, config: Mapping[str, Any]) -> tuple[str, SourceKind, dict[str, Any]]:
    """Kind, class and own keys of a source's configuration, `${NAME}` not filled in. Raises as `open_source`."""
    kind = config.get("kind")
    if not isinstance(kind, str):
        raise SettingsError(
            f"The source '{name}' does not name its kind",
            valid=", ".join(kinds()),
            remedy=f'Add kind = "…" to [sources.{name}]',
        )
    cls = load_kind(kind, f"sources.{name}.kind")
    if not issubclass(getattr(cls, "Config", type(None)), SourceConfig):
        raise NotConfigured(
            f"The plug-in of source kind '{kind}' has no `Config` that is a SourceConfig",
            remedy="Give its class one, as docs/sources.md shows",
        )
    return kind, cls, {key: value for key, value in config.items() if key != "kind"}
