"""Where model directories are, and what they contain: `model.json`, a file for each network, and further files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import msgspec

from visor.errors import ModelError, ModelNotBuilt, SettingsError
from visor.models.description import ModelDescription, Variant
from visor.models.registry import describe
from visor.schema.items import Record
from visor.schema.words import name_weights
from visor.settings import Settings

FORMAT = 2
"""Of model.json. An older Visor would mistake its networks for its own of the same name, which compute differently."""
FORMATS_READ = (1, FORMAT)
MANIFEST = "model.json"


class NetworkFile(Record, frozen=True, kw_only=True):
    """One file of a model directory: a network, or a file that belongs to one."""

    network: str
    """Name of the network; for a file that belongs to one, name and role, such as `mine/tokenizer`."""
    file: str
    sha256: str
    size_bytes: int
    cosine: float
    """Smallest cosine between a tap of the file and of its original, measured when it was built."""
    converter: str
    outputs: tuple[int, ...] = ()
    """Positions of the taps, then of the head, among the outputs of a file that Visor did not make; the taps are pooled
    afterwards. Empty: the file outputs pooled taps, head and feature maps, in this order."""


class ModelManifest(Record, frozen=True, kw_only=True):
    """`model.json` of a model directory: everything needed to run the model and to state its origin."""

    format: int = 1
    fingerprint: str
    variant: Variant
    description: ModelDescription
    files: tuple[NetworkFile, ...]
    label_names: tuple[str, ...] = ()
    label_synonyms: tuple[str, ...] = ()
    """Other names of each label, comma-separated; empty in models built by an older Visor."""
    built_at: str


def models_folder(settings: Settings) -> Path:
    return Path(settings.models).expanduser() if settings.models else settings.home / "models"


def model_directory(settings: Settings, name: str, variant: Variant = "int8") -> Path:
    """Where the model of that name is or would be.

    For a model that was built but is not described here, this is the latest one of that name: the functions have no
    visor.toml.

    Raises:
        SettingsError: There is no such model.
    """
    try:
        description = describe(name, settings)
    except SettingsError:
        built = [path for path in built_models(settings) if path.manifest.description.name == name]
        if not built or settings.config.is_file():
            raise
        return max(built, key=lambda one: one.manifest.built_at).directory
    suffix = "" if variant == "int8" else f"-{variant}"
    return models_folder(settings) / f"{description.name}-{description.fingerprint(variant)[:12]}{suffix}"


class BuiltModel(NamedTuple):
    directory: Path
    manifest: ModelManifest


def built_models(settings: Settings) -> Iterator[BuiltModel]:
    """The models that are built here, in the order of their directories' names; damaged ones are skipped."""
    for path in sorted(models_folder(settings).glob(f"[!.]*/{MANIFEST}")):
        with suppress(ModelError):
            yield BuiltModel(path.parent, read_manifest(path.parent))


def find_model_directory(settings: Settings, fingerprint: str) -> Path | None:
    """Where the model with that fingerprint is; None if it is not here."""
    found = (one.directory for one in built_models(settings) if one.manifest.fingerprint == fingerprint)
    return next(found, None)


def model_fingerprint(settings: Settings) -> str:
    """The fingerprint of `settings.model`, without loading it: compaction has to know whose vectors it merges.

    Raises:
        ModelNotBuilt: It is not there.
    """
    return read_manifest(model_directory(settings, settings.model)).fingerprint


def read_manifest(directory: Path) -> ModelManifest:
    """`model.json` of a model directory.

    Raises:
        ModelNotBuilt: There is none.
        ModelError: This Visor cannot read it.
    """
    path = directory / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=ModelManifest)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise ModelNotBuilt(
            f"There is no model in {directory}",
            valid=f"A directory with {MANIFEST} and a file for each network",
            remedy="Run `visor model build`",
        ) from exc
    except msgspec.DecodeError as exc:
        raise _damaged(path, f"is not valid: {exc}") from exc
    if manifest.format not in FORMATS_READ:
        raise _damaged(path, f"has format {manifest.format}, this Visor reads {' and '.join(map(str, FORMATS_READ))}")
    classes = next((p.network.classes for p in manifest.description.parts if p.network.head == "labels"), 0)
    if len(manifest.label_names) != classes:
        raise _damaged(path, f"names {len(manifest.label_names)} of {classes} labels")
    return manifest


def label_words(manifest: ModelManifest) -> list[dict[str, float]]:
    """For each label, the weight of each word of its names; empty for a model without labels."""
    synonyms = manifest.label_synonyms or ("",) * len(manifest.label_names)
    return [name_weights((n, *s.split(","))) for n, s in zip(manifest.label_names, synonyms, strict=True)]


def check_file(directory: Path, file: NetworkFile) -> Path:
    """The path of the file, after comparing its checksum (20 ms for 22 MB).

    Raises:
        ModelNotBuilt: It is missing.
        ModelError: Its checksum differs.
    """
    path = directory / file.file
    try:
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise _missing(path) from exc
    if digest != file.sha256:
        raise _damaged(path, f"has the checksum {digest[:12]}…, not {file.sha256[:12]}…")
    return path


class ModelFile:
    """A file of a model directory that exists and has the right size; its bytes are checked when they are needed.

    Raises:
        ModelNotBuilt: It is missing.
        ModelError: It has another size.
    """

    def __init__(self, directory: Path, record: NetworkFile) -> None:
        self._directory, self.record = directory, record
        path = directory / record.file
        try:
            size_bytes = path.stat().st_size
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise _missing(path) from exc
        if size_bytes != record.size_bytes:
            raise _damaged(path, f"has {size_bytes:,} bytes, not {record.size_bytes:,}")

    @cached_property
    def path(self) -> Path:
        """Where it is. Raises as `check_file`, which is called once."""
        return check_file(self._directory, self.record)


def _missing(path: Path) -> ModelNotBuilt:
    return ModelNotBuilt(
        f"{path.name} is missing in {path.parent}",
        valid=f"The one that {MANIFEST} names",
        remedy="Delete the folder and run `visor model build`",
    )


def _damaged(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path} {what}",
        valid="The files as `visor model build` wrote them",
        remedy=f"Delete {path.parent} and run `visor model build`",
    )
