"""Device: what a visitor's own device needs to run the index's model on a picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from visor.models.description import CENTRE_SHARE, CLOSER_VIEWS, Preprocessing, Tap
from visor.models.store import ModelManifest, NetworkFile
from visor.schema.items import Record
from visor.schema.labels import short_name

SUFFIX = ".tflite"


class DeviceNetwork(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One network: its input and its outputs."""

    name: str
    preprocessing: Preprocessing
    taps: tuple[Tap, ...]
    power: float
    """Exponent of each tap: values below 0 count as 0, or keep their sign if `signed`."""
    signed: bool
    head: Literal["labels", "safety"] | None
    logits: bool
    """Whether the head outputs log-odds, not probabilities."""


class DevicePart(Record, frozen=True, kw_only=True):
    """One network's share in the vector; a network with share 0 is run only for its head."""

    network: DeviceNetwork
    weight: float


class DeviceDescription(Record, frozen=True, kw_only=True):
    """The parts that make a vector of `dimension` numbers, in this order."""

    name: str
    dimension: int
    parts: tuple[DevicePart, ...]


class DeviceFile(Record, frozen=True, kw_only=True):
    """One network's file."""

    network: str
    url: str
    """Relative to the URL of this document. Under another URL the file is called `<sha256>.tflite`."""
    size_bytes: int
    sha256: str
    outputs: tuple[int, ...] = ()
    """Positions of taps and head among the outputs of a file that Visor did not make: its taps are feature maps that
    have yet to be averaged. Empty: the file outputs averaged taps, the head, then the feature maps."""


class DeviceModel(Record, frozen=True, kw_only=True):
    """The answer of `GET /v1/model`: the model that makes the index's vectors, and whether a device may run it."""

    fingerprint: str
    """The value that `seen.model` must have."""
    allowed: bool
    reason: str = ""
    """Why it is not allowed, as a sentence."""
    description: DeviceDescription
    label_names: tuple[str, ...] = ()
    """In the order of the head of labels, as `seen.labels` names them."""
    files: tuple[DeviceFile, ...] = ()
    """Empty if it is not allowed."""
    size_bytes: int = 0
    """Size of all files."""
    licences: str
    centre_share: float = CENTRE_SHARE
    """Edge of the view `centre`, as a share of the shorter side."""
    closer_views: tuple[float, ...] = CLOSER_VIEWS
    """The closer views."""
    closer: bool = False
    """Whether this index needs the closer views as well (`seen.closer`)."""


def device_model(
    manifest: ModelManifest,
    *,
    allowed: bool = True,
    closer: bool = False,
    url: Callable[[NetworkFile], str] = lambda file: f"{file.sha256}{SUFFIX}",
) -> DeviceModel:
    """What a device has to know about a model.

    Args:
        allowed: Whether the owner lets devices run the model.
        closer: As `DeviceModel.closer`.
        url: URL of a file, relative to that of the document.
    """
    description = manifest.description
    reason = _reason(manifest) if allowed else "The owner lets only the server embed pictures (VISOR_DEVICE)."
    networks = {part.network.name for part in description.parts}
    files = () if reason else tuple(file for file in manifest.files if file.network in networks)
    return DeviceModel(
        fingerprint=manifest.fingerprint,
        allowed=not reason,
        reason=reason,
        # Without the source of its weights, which may name folders of the owner's machine.
        description=msgspec.convert(description, DeviceDescription, from_attributes=True),
        label_names=tuple(short_name(label) for label in manifest.label_names),
        files=tuple(msgspec.convert({**msgspec.structs.asdict(file), "url": url(file)}, DeviceFile) for file in files),
        size_bytes=sum(file.size_bytes for file in files),
        licences=description.licences,
        closer=closer,
    )


def _reason(manifest: ModelManifest) -> str:
    """Why browsers cannot run a model; empty if they can."""
    files = {file.network: file.file for file in manifest.files}
    for part in manifest.description.parts:
        network = part.network
        if network.weights == "dual" or not files.get(network.name, "").endswith(SUFFIX):
            return f"The network {network.name} does not run in browsers: that takes a {SUFFIX} file."
    return ""
