"""Device: what a visitor's own device needs to look at a picture as the index's model does."""

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
    """One network: what goes in, and what its outputs are."""

    name: str
    preprocessing: Preprocessing
    taps: tuple[Tap, ...]
    power: float
    """Exponent of each tap, after what is below 0 was taken as 0, or with its sign where `signed`."""
    signed: bool
    head: Literal["labels", "safety"] | None
    logits: bool
    """Whether the head gives log-odds, not probabilities."""


class DevicePart(Record, frozen=True, kw_only=True):
    """One network's share in the vector; a share of 0 is asked for its head only."""

    network: DeviceNetwork
    weight: float


class DeviceDescription(Record, frozen=True, kw_only=True):
    """How the parts make a vector of `dimension` numbers, in this order."""

    name: str
    dimension: int
    parts: tuple[DevicePart, ...]


class DeviceFile(Record, frozen=True, kw_only=True):
    """One network's file."""

    network: str
    url: str
    """Relative to the address of this document. Under another address the file is called `<sha256>.tflite`."""
    size_bytes: int
    sha256: str
    outputs: tuple[int, ...] = ()
    """Places of taps and head among the outputs of a file that Visor did not make: feature maps that are yet to be
    averaged. None: the file gives averaged taps, the head, then the feature maps."""


class DeviceModel(Record, frozen=True, kw_only=True):
    """The answer of `GET /v1/model`: what makes the index's vectors, and whether a device may look with it."""

    fingerprint: str
    """What `seen.model` has to be."""
    allowed: bool
    reason: str = ""
    """Why not, as a sentence."""
    description: DeviceDescription
    label_names: tuple[str, ...] = ()
    """In the order of the head of labels, as `seen.labels` names them."""
    files: tuple[DeviceFile, ...] = ()
    """None where it is not allowed."""
    size_bytes: int = 0
    """Of all files."""
    licences: str
    centre_share: float = CENTRE_SHARE
    """Edge of the view `centre`, as a share of the shorter side."""
    closer_views: tuple[float, ...] = CLOSER_VIEWS
    """Views of a closer look."""
    closer: bool = False
    """Whether this index wants a closer look as well (`seen.closer`)."""


def device_model(
    manifest: ModelManifest,
    *,
    allowed: bool = True,
    closer: bool = False,
    url: Callable[[NetworkFile], str] = lambda file: f"{file.sha256}{SUFFIX}",
) -> DeviceModel:
    """What a device has to know of a model.

    Args:
        allowed: Whether the owner lets devices look.
        closer: As `DeviceModel.closer`.
        url: Address of a file, relative to that of the document.
    """
    description = manifest.description
    reason = _reason(manifest) if allowed else "The owner has pictures looked at on the server (VISOR_DEVICE)."
    networks = {part.network.name for part in description.parts}
    files = () if reason else tuple(file for file in manifest.files if file.network in networks)
    return DeviceModel(
        fingerprint=manifest.fingerprint,
        allowed=not reason,
        reason=reason,
        # Without where its weights come from, which may name folders of the owner's machine.
        description=msgspec.convert(description, DeviceDescription, from_attributes=True),
        label_names=tuple(short_name(label) for label in manifest.label_names),
        files=tuple(msgspec.convert({**msgspec.structs.asdict(file), "url": url(file)}, DeviceFile) for file in files),
        size_bytes=sum(file.size_bytes for file in files),
        licences=description.licences,
        closer=closer,
    )


def _reason(manifest: ModelManifest) -> str:
    """Why browsers cannot run a model; empty where they can."""
    files = {file.network: file.file for file in manifest.files}
    for part in manifest.description.parts:
        network = part.network
        if network.weights == "dual" or not files.get(network.name, "").endswith(SUFFIX):
            return f"The network {network.name} does not run in browsers: that takes a {SUFFIX} file."
    return ""
