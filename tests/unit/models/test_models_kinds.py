"""Each kind of model that visor.toml describes: built, searched with, served, and reindexed from one to the other."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from tests.forked_tensorflow import ForkedTensorFlow
from tests.model_kinds import MODELS, check_end_to_end, pictures, write_toml
from tests.small_networks import KERAS, NEEDS_TENSORFLOW, Origin, checksum, make_networks, run_code

from visor.errors import ModelError, VisorError
from visor.models.build.builder import ensure_model
from visor.models.embedder import load_embedder
from visor.models.registry import describe
from visor.models.store import model_directory, read_manifest
from visor.settings import Settings

pytestmark = [pytest.mark.build, pytest.mark.slow, NEEDS_TENSORFLOW, pytest.mark.usefixtures("built_in_forks")]

NAMES = list(MODELS)


@pytest.fixture(scope="module")
def networks(tensorflow: ForkedTensorFlow, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    make_networks(folder, tensorflow.run)
    write_toml(folder)
    return folder


@pytest.fixture(scope="module")
def own(networks: Path, built_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a home that has the default model, from which heads are borrowed, and of the owner's visor.toml."""
    home = tmp_path_factory.mktemp("home")
    default = model_directory(built_settings, "auto")
    shutil.copytree(default, home / "models" / default.name)
    shutil.copytree(built_settings.home / "downloads", home / "downloads")
    return Settings(home=home, config=networks / "visor.toml")


@pytest.mark.parametrize("name", NAMES)
def test_end_to_end(name: str, own: Settings, tmp_path: Path) -> None:
    other = NAMES[NAMES.index(name) - 1]
    check_end_to_end(msgspec.structs.replace(own, index=name), pictures(tmp_path / "pictures"), name, other)


def test_a_keras_application_by_its_name(own: Settings, tensorflow: ForkedTensorFlow, tmp_path: Path) -> None:
    """Random weights under the real name of the file, from a mirror, with their own checksum."""
    path = tmp_path / "tensorflow" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"
    path.parent.mkdir()
    run_code(tensorflow.run, KERAS, "MobileNetV2", str(path))
    with Origin(tmp_path) as url:
        mirror = f'url = "{url}/tensorflow/{path.name}"\nchecksum = "{checksum(path)}"\n'
        models = {
            "mobile": f'kind = "keras"\nnetwork = "MobileNetV2"\n{mirror}',
            "inner": f'kind = "keras"\nnetwork = "MobileNetV2"\nlayers = ["block_6_expand_relu"]\n{mirror}borrow = []',
            "absent": f'kind = "keras"\nnetwork = "MobileNetV2"\nlayers = ["mixed10"]\n{mirror}',
            "other": f'kind = "keras"\nnetwork = "MobileNet"\n{mirror}',
        }
        config = write_toml(tmp_path, models)
        settings = msgspec.structs.replace(own, config=config, index="keras")
        check_end_to_end(settings, pictures(tmp_path / "pictures"), "mobile", "inner")
        for name, told in (
            ("absent", r"absent has no layer 'mixed10'.*such as .*Correct `layers`"),
            ("other", r"The weights in .*mobilenet_v2.*\.h5 do not fit MobileNet: "),
        ):
            with pytest.raises(ModelError, match=told):
                ensure_model(msgspec.structs.replace(settings, model=name), say=str)
    built = read_manifest(model_directory(settings, "mobile"))
    assert [(tap.layer, tap.channels, tap.edge) for tap in built.description.parts[0].network.taps] == [
        ("global_average_pooling2d", 1280, 7)
    ]
    seen = load_embedder(msgspec.structs.replace(settings, model="mobile")).embed([Image.new("RGB", (80, 60))])
    assert (len(seen.labels[0]), seen.safety[0] is None) == (5, False)


def test_formats_of_one_network_give_one_vector(own: Settings) -> None:
    """The same weights and preprocessing, as a .pb with its scaling inside and from after its scaling on."""
    picture = Image.linear_gradient("L").convert("RGB").resize((64, 64))
    one, two = (
        load_embedder(msgspec.structs.replace(own, model=name)).embed([picture]).vectors[0]
        for name in ("prototype", "frozen")
    )
    pooled = two[16:] / np.linalg.norm(two[16:])
    assert float(one @ pooled) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("prototype", "pool_3:0", "pool_4:0", r"no tensor 'incept/pool_4:0', which its `taps`.*Valid: .*pool_3"),
        ("prototype", "DecodeJpeg/contents:0", "Nothing:0", "no tensor 'incept/Nothing:0', which its `input` names"),
        ("prototype", 'input = "incept/DecodeJpeg/contents:0"', 'input = "softmax"', "Input 'softmax' of .* takes"),
        ("prototype", "white = 255", "white = 1", "takes whole numbers, and mean and deviation make fractions.*white"),
        ("saved", '"logits"', '"features"', r"Head '.*' of .* gives 4096 numbers for 4 labels"),
        ("saved", "size = 32", "size = 48", r"takes \?×32×32×3.*A square of `size` = 48"),
        ("saved", 'taps = ["features"]', "", "has 3 outputs: features, logits, pooled.*Add `taps`"),
        ("lite", 'taps = ["Identity"]', 'taps = ["pool"]', "no tensor 'pool', which its `taps` .*Valid: Identity"),
        ("whole-numbers", 'taps = ["Identity"]', "", r"2 outputs that could be the vector: Identity 1×16 float32"),
        ("onnx", 'taps = ["features"]', 'taps = ["feature"]', "no tensor 'feature'.*Valid: features"),
        ("onnx", "size = 32", 'size = 32\ninput = "pixels"', "no tensor 'pixels'.*`input`.*Valid: pixel_values"),
        ("onnx", "size = 32", "size = 64", r"Input 'pixel_values' of .* takes \?×3×32×32.*A square of `size` = 64"),
        ("onnx", '"network.onnx"', '"visor.toml"', "visor.toml of .* is not a TensorFlow graph"),
        ("saved", '"saved"', '"."', "holds 1|cannot be read|SavedModels"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_what_is_there(
    name: str, old: str, new: str, told: str, own: Settings, networks: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "networks"
    shutil.copytree(networks, folder)
    assert old in MODELS[name]
    write_toml(folder, {"mine": MODELS[name].replace(old, new)})
    settings = msgspec.structs.replace(own, config=folder / "visor.toml", model="mine")
    if "holds 1" in told:  # a folder above the model's is taken for it
        ensure_model(settings, say=str)
        return
    with pytest.raises(ModelError, match=told):
        ensure_model(settings, say=str)


def test_a_changed_file_is_another_model_and_a_pinned_one_is_refused(
    own: Settings, networks: Path, tmp_path: Path
) -> None:
    shutil.copy(networks / "network.onnx", tmp_path)
    pinned = f'checksum = "{checksum(tmp_path / "network.onnx")}"\n'
    config = write_toml(tmp_path, {"free": MODELS["onnx"], "pinned": MODELS["onnx"] + pinned})
    settings = msgspec.structs.replace(own, config=config, model="pinned")
    before = [describe(name, settings).fingerprint() for name in ("free", "pinned")]
    assert before[0] == before[1]
    (tmp_path / "network.onnx").write_bytes(b"another")
    assert describe("free", settings).fingerprint() != before[0]
    assert describe("pinned", settings).fingerprint() == before[1]
    with pytest.raises(
        VisorError, match=r"network.onnx has the checksum sha256:[0-9a-f]{64}. Valid: .*as in visor.toml"
    ):
        ensure_model(settings, say=str)


def test_a_built_model_is_found_by_its_name_where_nobody_describes_it(own: Settings, tmp_path: Path) -> None:
    """As in the functions, which have no visor.toml."""
    settings = msgspec.structs.replace(own, model="onnx")
    directory = ensure_model(settings, say=str)
    elsewhere = msgspec.structs.replace(settings, config=tmp_path / "visor.toml")
    assert model_directory(elsewhere, "onnx") == directory == ensure_model(elsewhere, say=str)
    assert load_embedder(elsewhere).dimension == 16
