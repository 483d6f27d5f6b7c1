"""What the owner set, and whether it works on Google Cloud: Terraform's variables and visor.toml."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from visor.errors import SettingsError
from visor.settings import PREFIX, Settings
from visor.sources.config import SourcesFile

HERE_ONLY = {"folder": "reads a folder of this machine; put the pictures into a bucket, and name it (kind = 'bucket')"}
OBJECTS = frozenset({"budget", "page", "settings", "sizes", "source_secrets", "telemetry"})
"""Variables with names and values."""
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def given_variables(folder: Path, variables: Sequence[str] = ()) -> dict[str, Any]:
    """What the owner set, as Terraform reads it: terraform.tfvars, `*.auto.tfvars`, both also as JSON, then
    `variables` as `name=value`.

    Raises:
        SettingsError: One does not parse or has another type, or python-hcl2 is not installed.
    """
    names = ["terraform.tfvars", "terraform.tfvars.json"]
    automatic = sorted([*folder.glob("*.auto.tfvars"), *folder.glob("*.auto.tfvars.json")])
    texts = [(path, path.read_bytes()) for path in [*(folder / n for n in names), *automatic] if path.is_file()]
    for name, _, value in (variable.partition("=") for variable in variables):
        # As on Terraform's command line, where a text needs no quotes.
        literal = re.fullmatch(r"\s*([\[{\"].*|true|false|null|-?\d+(\.\d+)?)\s*", value, re.DOTALL)
        quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        texts.append((Path(f"--var {name}"), f"{name} = {value if literal else quoted}".encode()))
    given: dict[str, Any] = {}
    for path, text in texts:
        given |= _parsed(path, text)
    for name in OBJECTS & given.keys():
        if not isinstance(given[name], dict | None):
            raise SettingsError(
                f"The variable {name} is {given[name]!r:.80}",
                valid=f"{name} = {{ … }}",
                remedy="Correct it in terraform.tfvars, or in --var (docs/deploy.md, Variables)",
            )
    return dict(_without_null(given))


def _without_null(value: Any) -> Any:
    """`null` means the default, as with Terraform, in objects as well."""
    if isinstance(value, dict):
        return {name: _without_null(inner) for name, inner in value.items() if inner is not None}
    return [_without_null(inner) for inner in value] if isinstance(value, list) else value


def _parsed(path: Path, content: bytes) -> dict[str, Any]:
    if not content.strip():
        return {}
    try:
        import hcl2

        text = content.decode()

        if path.suffix == ".json":
            import json

            return dict(json.loads(text))
        return {name: _plain(value) for name, value in hcl2.loads(text + "\n").items() if not name.startswith("__")}
    except ImportError as exc:
        remedy = "Install Visor with its extra `deploy`: pip install 'visor-search[deploy]'"
        raise SettingsError(
            "Terraform's variables cannot be read: python-hcl2 is not installed", remedy=remedy
        ) from exc
    except Exception as exc:
        raise SettingsError(
            f"{path} cannot be read: {exc}".splitlines()[0],
            valid='Lines such as `time_zone = "Europe/Berlin"`',
            remedy="Correct it; `terraform fmt` shows the line that it cannot parse",
        ) from exc


def _plain(value: Any) -> Any:
    """What python-hcl2 read, without the quotes that it leaves."""
    if isinstance(value, dict):
        return {str(_plain(k)): _plain(v) for k, v in value.items() if not str(k).startswith("__")}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, str) and len(value) > 1 and value.startswith('"'):
        return value[1:-1].replace('\\"', '"').replace("\\\\", "\\").replace("$${", "${")
    return value


def check_owner(given: Mapping[str, Any], config: Path | None) -> list[str]:
    """Names of the sources that will be crawled.

    Args:
        given: As from `given_variables`.
        config: The owner's visor.toml, if any.

    Raises:
        SettingsError: Something in them cannot work on Google Cloud; the message names every such problem.
    """
    settings = {f"{PREFIX}{name.upper().removeprefix(PREFIX)}": str(v) for name, v in given.get("settings", {}).items()}
    Settings.read(settings)
    if config is None:
        return []
    sources = SourcesFile.load(config)
    wrong = [problem for name in sources.entries for problem in _problems(name, sources, given)]
    if wrong:
        raise SettingsError(
            f"{config} cannot work on Google Cloud: " + "; ".join(wrong),
            valid="Sources that can be read without this machine's files, variables and network",
            remedy="Correct it, or switch a source off with `enabled = false`",
        )
    return [name for name, entry in sources.entries.items() if entry.common.enabled]


def _problems(name: str, sources: SourcesFile, given: Mapping[str, Any]) -> Iterator[str]:
    entry, where = sources.entry(name), f"source '{name}'"
    if not entry.common.enabled:
        return
    kind = entry.common.kind
    own = {point.name for point in entry_points(group="visor.sources") if point.value.startswith("visor.")}
    if kind in HERE_ONLY:
        yield f"{where} {HERE_ONLY[kind]}"
    elif kind not in own:
        yield f"{where} is of kind {kind}, a plug-in that is not in the bundle"
    missing = {found for text in _texts(entry.own) for found in _VARIABLE.findall(text)} - set(
        given.get("source_secrets", {})
    )
    for variable in sorted(missing):
        yield (
            f"{where} names ${{{variable}}}, which nothing sets there: run `gcloud secrets create ID --data-file=-`, "
            f'then set source_secrets = {{ {variable} = "ID" }} in terraform.tfvars'
        )
    for text in _texts(entry.own):
        if reason := _unreachable(text):
            yield f"{where}: {text:.100} {reason}"
    url = str(entry.own.get("url", ""))
    if kind == "video" and not url.startswith("${") and not _URL.match(url):
        yield f"{where}: {url:.100} is a file of this machine"
    if kind == "bucket" and "public_url" not in entry.own and not _may_read(url, given.get("read_buckets", ())):
        gs = url.startswith("gs://")
        yield f"{where} reads {url:.100} without public_url: " + (
            f'set read_buckets = ["{url:.100}"] in terraform.tfvars'
            if gs
            else "set it, because embed has no account there"
        )


def _may_read(url: str, buckets: Sequence[str]) -> bool:
    return any(f"{url.rstrip('/')}/".startswith(f"{one.rstrip('/')}/") for one in buckets)


def _unreachable(text: str) -> str | None:
    """Why a URL of the configuration cannot be reached from Google Cloud; None for other texts."""
    if not _URL.match(text):
        return None
    try:
        parts = urlsplit(text)
        host = (parts.hostname or "").rstrip(".")
    except ValueError as exc:
        return f"is not a URL: {exc}"
    if parts.scheme == "file":
        return "is a file of this machine"
    if parts.scheme not in ("http", "https") or "$" in host:
        return None
    try:
        private = not ipaddress.ip_address(host if ":" in host else socket.inet_aton(host)).is_global
    except (ValueError, OSError):
        private = "." not in host or host.endswith((".localhost", ".local", ".internal", ".lan", ".home.arpa"))
    return "is an address of this machine or network" if private else None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
