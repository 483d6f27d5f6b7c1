"""Models that an owner describes in visor.toml, without code: a Keras network, a file, or a dual encoder.

[models.mine]
kind = "file"            # or "keras", "dual": docs/models.md
file = "network.pb"      # or url and checksum
…                        # the keys of the kind
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import math
from collections.abc import Callable, Collection
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from visor.config_errors import parse_config
from visor.errors import SettingsError
from visor.models.builtin import EFFICIENTNET, NSFWJS
from visor.models.description import (
    DOWNLOAD_BYTES_MAX,
    Download,
    Given,
    LocalFile,
    ModelDescription,
    Network,
    Preprocessing,
    Source,
    WeightedNetwork,
)
from visor.owner_file import OwnerFile
from visor.schema.items import Record

DUAL_FILES = {
    "picture": ("onnx/vision_model.onnx", "vision_model.onnx"),
    "text": ("onnx/text_model.onnx", "text_model.onnx"),
    "tokenizer": ("tokenizer.json",),
    "preprocessor": ("preprocessor_config.json",),
}
"""Files of a dual encoder by their role, where model hubs keep them."""
DUAL_OPTIONAL = {"config": ("config.json",), "tokenizer_config": ("tokenizer_config.json",)}
"""Files that limit the length of a text if tokenizer.json does not."""

Share = Annotated[float, Meta(gt=0, le=1)]
Channels = float | tuple[float, float, float]
Checksum = Annotated[str, Meta(pattern="^(sha256:[0-9a-f]{64}|md5:[0-9a-f]{32})$")]


class CommonKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys that models of every kind have."""

    kind: Literal["keras", "file", "dual"]
    summary: str = ""
    licence: str = "not told"
    borrow: tuple[Literal["safety", "labels"], ...] = ("safety",)
    """Heads of Visor's own networks that run in addition."""

    def _joined(self, name: str, network: Network, summary: str, labels: tuple[str, ...] = ()) -> ModelDescription:
        has_labels = network.head == "labels"
        borrowed = [NSFWJS] * ("safety" in self.borrow) + [EFFICIENTNET] * ("labels" in self.borrow and not has_labels)
        parts = [WeightedNetwork(network=network, weight=1.0)] + [
            WeightedNetwork(network=one, weight=0.0) for one in borrowed
        ]
        return ModelDescription(
            name=name, summary=self.summary or summary, dimension=0, parts=tuple(parts), label_names=labels
        )


class PictureKeys(CommonKeys, frozen=True, kw_only=True):
    """The keys of a network of pictures alone."""

    views: Annotated[tuple[Literal["whole", "centre"] | Share, ...], Meta(min_length=1)] = ("whole",)
    resample: Literal["bilinear", "bicubic"] = "bilinear"
    power: Annotated[float, Meta(gt=0, le=1)] = 0.5


class KerasKeys(PictureKeys, frozen=True, kw_only=True):
    """`kind = "keras"`: a network of `keras.applications`, with its ImageNet weights."""

    network: str
    layers: tuple[str, ...] = ()
    """None: the last pooled layer."""
    float32: bool = False
    url: str | None = None
    """Another source of the weights than Keras: a mirror, or the owner's own weights for the same network."""
    checksum: Checksum | None = None

    def model(self, name: str, folder: Path) -> ModelDescription:
        known = keras_applications()
        if self.network not in known:
            near = difflib.get_close_matches(self.network, known) or list(known)
            raise SettingsError(
                f"models.{name}.network = '{self.network}' is not in keras.applications",
                valid=", ".join(near),
                remedy="Correct the name",
            )
        about = known[self.network]
        if not (self.checksum or about.checksum):
            raise SettingsError(
                f"models.{name} has no checksum, and Keras pins none for the weights of {self.network}",
                valid='checksum = "sha256:…", 64 hex digits',
                remedy=f"Download {about.url}, and make it from the file: sha256sum FILE",
            )
        source = Download(
            url=self.url or about.url,
            checksum=self.checksum or about.checksum,
            size_bytes=DOWNLOAD_BYTES_MAX if self.url else about.size_bytes_max,
        )
        how = Preprocessing(
            size=about.size,
            resample=self.resample,
            mean=about.mean,
            deviation=about.deviation,
            order=about.order,
            views=self.views,
        )
        given = Given(taps=self.layers, preprocessing=how, application=self.network, float32=self.float32)
        network = Network(
            name=name,
            architecture="keras",
            weights="keras",
            source=source,
            licence=self.licence if self.licence != "not told" else "Apache-2.0",
            preprocessing=how,
            taps=(),
            power=self.power,
            head="labels",
            signed=True,
            given=given,
        )
        return self._joined(name, network, f"{self.network} of keras.applications, trained on ImageNet.")


class FileKeys(PictureKeys, frozen=True, kw_only=True):
    """`kind = "file"`: a .tflite or ONNX file, a frozen .pb, or a SavedModel."""

    file: str | None = None
    url: str | None = None
    checksum: Checksum | None = None
    size: Annotated[int, Meta(ge=16, le=2048)]
    """Edge of the network's square input, in pixels."""
    mean: Channels = 0.0
    deviation: Channels = 1.0
    white: Literal[1, 255] = 1
    """The value of white before mean and deviation."""
    order: Literal["rgb", "bgr"] = "rgb"
    input: str = ""
    taps: tuple[str, ...] = ()
    head: str = ""
    """Tensor with a number for each of `labels`."""
    labels: tuple[str, ...] | str = ()
    """Names in the order of the head, or a text file with one a line."""
    float32: bool = False

    def model(self, name: str, folder: Path) -> ModelDescription:
        source = _source(f"models.{name}", self.file, self.url, self.checksum, folder, key="file")
        how = Preprocessing(
            size=self.size,
            resample=self.resample,
            mean=_three(self.mean, self.white),
            deviation=_three(self.deviation, self.white),
            order=self.order,
            views=self.views,
        )
        for key, numbers in (("mean", how.mean), ("deviation", how.deviation)):
            wrong = [one for one in numbers if not math.isfinite(one) or (one == 0 and key == "deviation")]
            if wrong:
                valid = "Finite numbers" + " other than 0" * (key == "deviation")
                raise SettingsError(f"models.{name}.{key} = {wrong[0]:g}", valid=valid, remedy="Correct it")
        labels = _labels(f"models.{name}.labels", self.labels, folder)
        if bool(labels) != bool(self.head):
            has, lacks = ("labels", "head") if labels else ("head", "labels")
            raise SettingsError(
                f"models.{name} has {has} and no {lacks}",
                valid="A tensor that gives a number for each of `labels`, named by `head`",
                remedy=f"Add `{lacks}`, or leave `{has}` out",
            )
        given = Given(taps=self.taps, input=self.input, head=self.head, preprocessing=how, float32=self.float32)
        network = Network(
            name=name,
            architecture="file",
            weights="file",
            source=source,
            licence=self.licence,
            preprocessing=how,
            taps=(),
            power=self.power,
            head="labels" if labels else None,
            classes=len(labels) or 1000,
            signed=True,
            given=given,
        )
        return self._joined(name, network, f"The owner's {network.source_name}.", labels)


class DualKeys(CommonKeys, frozen=True, kw_only=True):
    """`kind = "dual"`: encoders of pictures and of words that share a space, in the file layout of model hubs."""

    folder: str | None = None
    url: str | None = None
    """URL to which the files' paths are appended."""
    checksums: dict[str, Checksum] = {}
    """Checksums of the files, by path; required with `url`."""
    picture: str = ""
    """Path of the network of pictures within the folder; empty: where hubs keep it."""
    text: str = ""
    picture_output: str = ""
    """Tensor with the vector; empty: the one with the name that hubs use, or the only one."""
    text_output: str = ""
    labels: tuple[str, ...] | str = ()
    """Words that each picture is compared with; they become its content labels."""
    prompt: str = "a photo of {}"
    logit_scale: Annotated[float, Meta(gt=0, le=1e6)] = 100.0

    def model(self, name: str, folder: Path) -> ModelDescription:
        where = f"models.{name}"
        sources = self._sources(where, folder)
        labels = _labels(f"{where}.labels", self.labels, folder)
        if "{}" not in self.prompt:
            raise SettingsError(
                f"{where}.prompt = {self.prompt!r} has no place for a label", valid='Such as "a photo of {}"'
            )
        given = Given(
            taps=(self.picture_output,) if self.picture_output else (),
            text_output=self.text_output,
            prompts=tuple(self.prompt.replace("{}", label) for label in labels),
            logit_scale=self.logit_scale,
        )
        network = Network(
            name=name,
            architecture="dual",
            weights="dual",
            source=sources.pop("picture"),
            files=sources,
            licence=self.licence,
            preprocessing=Preprocessing(size=0, resample="bicubic", mean=(0, 0, 0), deviation=(1, 1, 1)),
            taps=(),
            power=1.0,
            head="labels" if labels else None,
            classes=len(labels) or 1000,
            signed=True,
            given=given,
        )
        return self._joined(name, network, "Pictures and words in one space.", labels)

    def _sources(self, where: str, folder: Path) -> dict[str, Source]:
        """Each file by its role."""
        _one_of(where, "folder", self.folder, self.url)
        found: dict[str, Source] = {}
        named = {"picture": self.picture, "text": self.text}
        for role, usual in (DUAL_FILES | DUAL_OPTIONAL).items():
            paths = (named[role],) if named.get(role) else usual
            if self.folder is not None:
                here = folder / self.folder
                path = next((path for path in paths if (here / path).is_file()), None)
            else:
                path = next((path for path in paths if path in self.checksums), None)
            if path is None and role in DUAL_OPTIONAL:
                continue
            if path is None:
                raise SettingsError(
                    f"{where}: {_there(folder / self.folder) if self.folder else 'checksums'} has no {paths[0]}",
                    valid="For a dual encoder " + ", ".join(paths[0] for paths in DUAL_FILES.values()),
                    remedy="Correct `folder`, or name the files with `picture` and `text`"
                    if self.folder
                    else f'Add "{paths[0]}" = "sha256:…" to [{where}.checksums]',
                )
            local = None if self.folder is None else f"{self.folder}/{path}"
            url = None if self.url is None else f"{self.url.rstrip('/')}/{path}"
            found[role] = _source(where, local, url, self.checksums.get(path), folder, key="folder")
        return found


class KerasApplication(Record, frozen=True, kw_only=True):
    """Keras' own data on one of its networks (scripts/models/keras_networks.py)."""

    url: str
    checksum: str
    parameters: int
    size: int
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    order: Literal["rgb", "bgr"] = "rgb"

    @property
    def size_bytes_max(self) -> int:
        """More than its weights in Keras' file can need: 4 bytes each, and names and empty space around them."""
        return 5 * self.parameters + 10_000_000


@functools.cache
def keras_applications() -> dict[str, KerasApplication]:
    """The networks of `keras.applications`, by name."""
    table = (files("visor.models") / "keras_applications.json").read_bytes()
    return msgspec.json.decode(table, type=dict[str, KerasApplication])


KINDS: dict[str, type[KerasKeys | FileKeys | DualKeys]] = {"keras": KerasKeys, "file": FileKeys, "dual": DualKeys}


def owner_models(config: Path, taken: Collection[str] = ()) -> dict[str, Callable[[], ModelDescription]]:
    """A function that makes the model, for each model of visor.toml, by name.

    Args:
        config: Path of visor.toml; without that file there are no models.
        taken: Names of other models.

    Raises:
        SettingsError: The file is not valid; the functions raise it, too. Both name the line.
    """
    owner_file = OwnerFile(*OwnerFile.text_of(config))
    tables = owner_file.tables("models")
    # A file of a model directory has the name of its network.
    for name in [name for name in tables if name in {"auto", NSFWJS.name, EFFICIENTNET.name, *taken}]:
        found = f"'{name}' is the name of another model or network"
        raise owner_file.error_at(f"models.{name}", found, valid="Another name")
    return {name: functools.partial(_model, owner_file, name, table) for name, table in tables.items()}


def _model(owner_file: OwnerFile, name: str, table: dict[str, Any]) -> ModelDescription:
    where = f"models.{name}"
    try:
        kind = table.get("kind")
        if not isinstance(kind, str) or kind not in KINDS:
            raise SettingsError(
                f"{where}.kind = {kind!r} is not a kind of model" if "kind" in table else f"{where}.kind is missing",
                valid=", ".join(KINDS),
                remedy=f'Write kind = "…" in [{where}]',
            )
        keys = parse_config(table, KINDS[kind], where=where, what=f"a model of kind {kind}")
        return keys.model(name, Path(owner_file.path).parent)
    except SettingsError as exc:
        raise owner_file.located(exc, where) from exc


def _source(
    where: str, file: str | None, url: str | None, checksum: str | None, folder: Path, *, key: str
) -> LocalFile | Download:
    _one_of(where, key, file, url)
    if url is not None:
        if checksum is None:
            raise SettingsError(
                f"{where}.url has no checksum",
                valid='checksum = "sha256:…", 64 hex digits',
                remedy="Get it from where the file is published, or make it from a file that you trust: sha256sum FILE",
            )
        return Download(url=url, checksum=checksum)
    path = folder / str(file)
    if not path.exists() and checksum is None:
        raise SettingsError(
            f"{where}.{key} = '{file}': {_there(path.parent)} has no {path.name}",
            valid="A path, relative to the folder of visor.toml",
            remedy="Correct it",
        )
    return LocalFile(path=str(path.absolute()), checksum=checksum or checksum_of(path))


def _one_of(where: str, key: str, file: str | None, url: str | None) -> None:
    if (file is None) == (url is None):
        raise SettingsError(
            f"{where} has {'neither' if file is None else 'both'} {key} {'nor' if file is None else 'and'} url",
            valid=f"One of {key} and url",
            remedy="Name the network by exactly one of them",
        )
    if file == "":
        raise SettingsError(
            f"{where}.{key} is empty", valid="A path, relative to the folder of visor.toml", remedy="Correct it"
        )


def checksum_of(path: Path) -> str:
    """`sha256:HEX` of a file; for a folder, of its files' paths and checksums, in order."""
    if path.is_file():
        state = path.stat()
        return _file_checksum(path, state.st_mtime_ns, state.st_size)
    inside = sorted(one for one in path.rglob("*") if one.is_file())
    lines = "".join(f"{one.relative_to(path).as_posix()}\0{checksum_of(one)}\n" for one in inside)
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


@functools.cache
def _file_checksum(path: Path, _mtime_ns: int, _size: int) -> str:
    with path.open("rb") as content:
        return "sha256:" + hashlib.file_digest(content, "sha256").hexdigest()


def _there(folder: Path) -> str:
    """The folder and its contents, for an error."""
    if not folder.is_dir():
        return f"{folder}, which is not a folder,"
    names = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(names[:8]) + " …" * (len(names) > 8)
    return f"{folder} ({shown or 'empty'})"


def _labels(where: str, given: tuple[str, ...] | str, folder: Path) -> tuple[str, ...]:
    if isinstance(given, str):
        try:
            given = tuple((folder / given).read_text("utf-8-sig").splitlines())
        except (OSError, ValueError) as exc:  # a NUL in the name, or no UTF-8
            why = exc.strerror if isinstance(exc, OSError) else "its name or its text is not UTF-8"
            raise SettingsError(
                f"{where} cannot be read: {why}", valid="A list of names, or a text file with one a line"
            ) from exc
    names = tuple(name.strip() for name in given if name.strip())
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SettingsError(f"{where} names {twice!r} twice", valid="Each name once")
    return names


def _three(values: Channels, white: int) -> tuple[float, float, float]:
    """Mean or deviation of the three channels, for pixels in [0, 1]."""
    red, green, blue = values if isinstance(values, tuple) else (values,) * 3
    return red / white, green / white, blue / white
