"""What a model directory holds: `model.json` and a .tflite file for each network."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from visor.errors import ModelError, ModelNotBuilt
from visor.models.description import ModelDescription, Variant
from visor.records import Record

FORMAT = 1
MANIFEST = "model.json"


class NetworkFile(Record, frozen=True, kw_only=True):
    """One .tflite file of a model directory."""

    network: str
    file: str
    sha256: str
    size_bytes: int
    cosine: float
    """Smallest cosine between a tap of the file and of Keras, measured when it was built."""
    converter: str


class ModelManifest(Record, frozen=True, kw_only=True):
    """`model.json` of a model directory: everything that is needed to run it and to say where it is from."""

    format: int = FORMAT
    fingerprint: str
    variant: Variant
    description: ModelDescription
    files: tuple[NetworkFile, ...]
    label_names: tuple[str, ...] = ()
    built_at: str


def read_manifest(directory: Path) -> ModelManifest:
    """`model.json` of a model directory.

    Raises:
        ModelNotBuilt: There is none.
        ModelError: It is not one that this Visor reads.
    """
    path = directory / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=ModelManifest)
    except FileNotFoundError as exc:
        raise ModelNotBuilt(
            f"There is no model in {directory}",
            valid=f"A model directory holds {MANIFEST} and a .tflite file for each network",
            remedy="Run `visor model build`",
        ) from exc
    except msgspec.DecodeError as exc:
        raise _damaged(path, f"is not valid: {exc}") from exc
    if manifest.format != FORMAT:
        raise _damaged(path, f"has format {manifest.format}, this Visor reads {FORMAT}")
    if manifest.description.sees_labels and len(manifest.label_names) != 1000:
        raise _damaged(path, f"names {len(manifest.label_names)} of 1000 labels")
    return manifest


def check_file(directory: Path, file: NetworkFile) -> Path:
    """The path of the file, after comparing its checksum (20 ms for 22 MB).

    Raises:
        ModelNotBuilt: It is missing.
        ModelError: It is another file.
    """
    path = directory / file.file
    try:
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except FileNotFoundError as exc:
        raise ModelNotBuilt(
            f"{path.name} is missing in {directory}",
            valid=f"{MANIFEST} names it",
            remedy="Delete the folder and run `visor model build`",
        ) from exc
    if digest != file.sha256:
        raise _damaged(path, f"has the checksum {digest[:12]}…, not {file.sha256[:12]}…")
    return path


def _damaged(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path} {what}",
        valid="The files as `visor model build` wrote them",
        remedy=f"Delete {path.parent} and run `visor model build`",
    )
