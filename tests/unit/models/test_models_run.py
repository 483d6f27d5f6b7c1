"""Pictures to vectors: the arithmetic, the views, damaged directories, threads, and golden evidence for each model."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image
from tests.small_networks import save_onnx

from visor.app import App
from visor.errors import EmbedCrashed, ModelError, ModelNotBuilt
from visor.models import runtime
from visor.models.build.builder import ensure_model
from visor.models.build.convert import sample_picture
from visor.models.builtin import EFFICIENTNET, NSFWJS
from visor.models.description import SAFETY_CLASSES, Preprocessing, WeightedNetwork
from visor.models.embedder import Embedder, _Seen, joined_vector, prepare, view_of
from visor.models.store import MANIFEST
from visor.settings import Settings

GOLDEN = Path(__file__).parents[2] / "golden" / "models"


def sample(width: int = 400, height: int = 300) -> Image.Image:
    square = Image.fromarray((sample_picture(512) * 255).round().astype(np.uint8), "RGB")
    return square.resize((width, height), Image.Resampling.BICUBIC)


def taps(seed: int) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [[rng.random(t.channels, np.float32) for t in n.taps] for n in (NSFWJS, EFFICIENTNET)]


def test_joined_vector_gives_each_part_its_share() -> None:
    parts = [WeightedNetwork(network=NSFWJS, weight=1.0), WeightedNetwork(network=EFFICIENTNET, weight=0.5)]
    given = taps(1)
    vector = joined_vector(parts, given)
    assert (vector.shape, vector.dtype) == ((3328,), np.float32)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    lengths = [np.linalg.norm(vector[a:b]) for a, b in ((0, 768), (768, 2048), (2048, 3328))]
    assert lengths[0] == pytest.approx(lengths[1], abs=1e-6)
    assert np.hypot(lengths[0], lengths[1]) == pytest.approx(2 * lengths[2], abs=1e-6)
    expected = np.sqrt(given[0][0]) / np.linalg.norm(np.sqrt(given[0][0]))
    np.testing.assert_allclose(vector[:768] / lengths[0], expected, atol=1e-6)


def test_part_without_weight_is_left_out_and_silence_has_a_direction() -> None:
    parts = [WeightedNetwork(network=NSFWJS, weight=0.0), WeightedNetwork(network=EFFICIENTNET, weight=1.0)]
    given = taps(2)
    assert joined_vector(parts, given).shape == (1280,)
    silent = joined_vector(parts, [given[0], [np.full(1280, -1, np.float32)]])
    np.testing.assert_allclose(silent, 1280**-0.5, rtol=1e-5)


def test_views_and_preprocessing() -> None:
    assert view_of(Image.new("RGB", (400, 200)), "whole") == (0, 0, 400, 200)
    assert view_of(Image.new("RGB", (400, 200)), "centre") == (112.5, 12.5, 287.5, 187.5)
    how = Preprocessing(size=8, resample="bilinear", mean=(0.5, 0.0, 0.25), deviation=(0.5, 1.0, 0.25))
    prepared = prepare(Image.new("RGB", (33, 9), (255, 51, 0)), how, "centre")
    assert (prepared.shape, prepared.dtype) == ((8, 8, 3), np.float32)
    np.testing.assert_allclose(prepared[3, 5], [1.0, 0.2, -1.0], atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (5000, 2), (299, 299)])
def test_picture_of_any_size_has_a_vector(embedder: Embedder, size: tuple[int, int]) -> None:
    vectors = embedder.embed([Image.new("RGB", size, (200, 30, 30))]).vectors
    assert vectors.shape == (1, embedder.dimension)
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-5)


def test_nothing_in_nothing_out(embedder: Embedder) -> None:
    nothing = embedder.embed([])
    assert nothing.vectors.shape == (0, embedder.dimension)
    assert (nothing.labels, nothing.safety) == ([], [])


def test_answers_are_whole(embedder: Embedder) -> None:
    seen = embedder.embed([sample(), sample(120, 500)])
    for labels, safety in zip(seen.labels, seen.safety, strict=True):
        probabilities = [label.probability for label in labels]
        assert len(labels) == 5
        assert probabilities == sorted(probabilities, reverse=True)
        assert safety is not None
        assert tuple(safety) == SAFETY_CLASSES
        assert sum(safety.values()) == pytest.approx(1, abs=1e-4)


def test_what_may_be_unsafe_is_looked_at_again_in_more_pixels(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then its safety is what the network sees there; the rest stays. Nothing else is looked at twice."""
    monkeypatch.setattr("visor.models.embedder.SUSPECTED", 1.1)
    once = embedder.embed([sample()])
    monkeypatch.setattr("visor.models.embedder.SUSPECTED", 0.0)
    twice = embedder.embed([sample()])
    np.testing.assert_array_equal(twice.vectors, once.vectors)
    assert twice.labels == once.labels
    network, file = embedder._networks[0]
    assert network.second_look is not None
    heads = []
    for size in (network.preprocessing.size, network.second_look):
        picture = prepare(sample(), msgspec.structs.replace(network.preprocessing, size=size))
        [head] = runtime.LiteRt(file.path, threads=1, edge=size).run([picture[None]], [len(network.taps)])
        heads.append(head[0])
    for seen, head in zip((once, twice), heads, strict=True):
        assert seen.safety[0] == pytest.approx(dict(zip(SAFETY_CLASSES, head.tolist(), strict=True)), abs=1e-3)
    assert np.abs(heads[0] - heads[1]).max() > 1e-3


@pytest.mark.slow
def test_many_threads_get_what_one_gets(embedder: Embedder) -> None:
    pictures = [sample(100 + 40 * n, 300 - 20 * n) for n in range(6)]
    alone = np.concatenate([embedder.embed([picture]).vectors for picture in pictures])
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: embedder.embed(pictures).vectors, range(4)))
    for vectors in together:
        np.testing.assert_allclose(vectors, alone, atol=1e-4)


def test_features_lie_behind_the_taps(embedder: Embedder) -> None:
    maps = embedder.features(sample())
    shares = [part for part in embedder.description.parts if part.weight > 0]
    expected = [(tap.edge, tap.edge, tap.channels) for part in shares for tap in part.network.taps]
    assert [feature_map.shape for feature_map in maps] == expected
    first = maps[0].mean(axis=(0, 1)).clip(0) ** shares[0].network.power
    part = embedder.embed([sample()]).vectors[0, : expected[0][2]]
    assert float(first @ part / np.linalg.norm(first) / np.linalg.norm(part)) > 0.999


def test_golden_vector(embedder: Embedder) -> None:
    """Canonical values of `sample()`, measured once. Another processor may round a little differently."""
    name = f"{embedder.description.name}.json"
    golden = msgspec.json.decode((GOLDEN / name).read_bytes())
    seen = embedder.embed([sample()])
    assert embedder.fingerprint == golden["fingerprint"], "the model has changed: measure its golden values again"
    np.testing.assert_allclose(seen.vectors[0, :: embedder.dimension // 32], golden["values"], atol=2e-3)
    assert seen.labels[0][0].name == golden["label"]
    assert seen.safety[0] == pytest.approx(golden["safety"], abs=0.05)


def test_missing_directory_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelNotBuilt, match=r"There is no model in .*Run `visor model build`"):
        Embedder(tmp_path / "none")


def test_damage_is_found_and_named(embedder: Embedder, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(embedder.directory, copy)
    network = next(copy.glob("efficientnet*.tflite"))
    content = network.read_bytes()
    network.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    # What needs no network is not kept waiting for its bytes.
    damaged = Embedder(copy)
    for needed in (damaged.check_files, lambda: damaged.embed([sample()])):
        with pytest.raises(ModelError, match=r"efficientnet_lite0\.tflite has the checksum"):
            needed()
    network.write_bytes(content[:-1])
    with pytest.raises(ModelError, match=r"efficientnet_lite0\.tflite has [\d,]+ bytes, not"):
        Embedder(copy)
    network.unlink()
    with pytest.raises(ModelNotBuilt, match="is missing"):
        Embedder(copy)
    (copy / MANIFEST).write_text('{"format": 1')
    with pytest.raises(ModelError, match="is not valid"):
        Embedder(copy)


def test_later_format_is_refused(embedder: Embedder, tmp_path: Path) -> None:
    manifest = msgspec.json.decode((embedder.directory / MANIFEST).read_bytes())
    (tmp_path / MANIFEST).write_bytes(msgspec.json.encode({**manifest, "format": 99}))
    with pytest.raises(ModelError, match="has format 99, this Visor reads 1 and 2"):
        Embedder(tmp_path)


def test_running_never_imports_the_heavy_libraries(embedder: Embedder) -> None:
    code = (
        "import sys; from pathlib import Path; from PIL import Image; from visor.models.embedder import load_embedder;"
        "from visor.models.embedder import Embedder;"
        f"Embedder(Path({str(embedder.directory)!r})).embed([Image.new('RGB', (9, 9))]);"
        "print([m for m in ('tensorflow', 'keras', 'scipy', 'faiss') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_each_view_of_two_looks_counts_the_same() -> None:
    looks = ((np.full(1, value, np.float32), views) for value, views in ((2.0, 1), (6.5, 2)))
    one, two = (_Seen(taps=[value], head=value, maps=[], views=views) for value, views in looks)
    both = one.mean(two)
    assert (both.views, both.head[0], both.taps[0][0]) == (3, 5.0, 5.0)


@pytest.mark.slow
def test_a_picture_whose_file_was_not_read_yet_is_read_once(embedder: Embedder) -> None:
    """Views are prepared side by side, and Pillow reads a file when its pixels are first asked for."""
    file = io.BytesIO()
    Image.effect_noise((900, 700), 60).convert("RGB").save(file, "PNG")
    whole = Image.open(io.BytesIO(file.getvalue()))
    whole.load()
    expected = embedder.embed([whole]).vectors
    for _ in range(20):
        assert np.allclose(embedder.embed([Image.open(io.BytesIO(file.getvalue()))]).vectors, expected, atol=1e-5)
        embedder.embed_closer(Image.open(io.BytesIO(file.getvalue())))


def test_networks_that_are_loaded_at_once_leave_standard_error_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    dropped = runtime._NATIVE_STDERR_DROPPED
    with ThreadPoolExecutor(2) as threads:
        for _ in range(2):
            threads.submit(dropped.__enter__).result()
            os.write(2, b"lost")
        for _ in range(2):
            threads.submit(dropped.__exit__).result()
    os.write(2, b"written")
    assert capfd.readouterr().err == "written"


def test_a_picture_whose_numbers_are_not_finite_fails_alone(tmp_path: Path) -> None:
    """As networks in half precision do: all such pictures had one vector, and labels without a probability."""
    nodes = [
        helper.make_node("ReduceMean", ["picture"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Sub", ["mean", "least"], ["rest"]),
        helper.make_node("Sqrt", ["rest"], ["pooled"]),
    ]
    takes = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, 32, 32])
    gives = helper.make_tensor_value_info("pooled", TensorProto.FLOAT, [1, 3])
    save_onnx(tmp_path / "n.onnx", nodes, {"least": np.array([0.2], np.float32)}, [takes], [gives])
    (tmp_path / "visor.toml").write_text('[models.mine]\nkind = "file"\nfile = "n.onnx"\nsize = 32\nborrow = []\n')
    settings = Settings(home=tmp_path, config=tmp_path / "visor.toml", model="mine", allow_folders=(str(tmp_path),))
    dark = Image.eval(sample(), lambda value: value // 8)
    embedder = Embedder(ensure_model(settings, say=str))
    assert np.isfinite(embedder.embed([sample()]).vectors).all()
    with pytest.raises(EmbedCrashed, match="The network mine gives numbers that are not finite for this picture"):
        embedder.embed([sample(), dark])
    (tmp_path / "pictures").mkdir()
    for name, picture in (("light", sample()), ("other", sample(300, 300)), ("dark", dark)):
        picture.save(tmp_path / "pictures" / f"{name}.png")
    with App(settings) as app:
        app.crawler.crawl(app.open_folder(tmp_path / "pictures"))
        [message] = app.stores.queue.receive(1, lease_s=60)
        report = app.batch_embedder.embed(message.body)
        [failure] = app.stores.documents.query("failures")
    assert (report.embedded, report.failed) == (2, 1)
    assert (failure.data["code"], failure.data["wanted"]["title"]) == ("embed_crashed", "dark")
    assert failure.data["reason"].startswith("The network mine gives numbers")


@pytest.mark.parametrize(
    ("kind", "shape", "told"),
    [
        (TensorProto.INT64, [1, 3], r"None of the outputs of mine could be the vector: pooled 1×3 int64"),
        (TensorProto.FLOAT, [], "Tap 'pooled' of mine gives a single number"),
    ],
)
def test_what_is_no_vector_is_shown(kind: int, shape: list[int], told: str, tmp_path: Path) -> None:
    axes = {"axes": [2, 3]} if shape else {}
    nodes = [
        helper.make_node("ReduceMean", ["picture"], ["mean"], keepdims=0, **axes),
        helper.make_node("Cast", ["mean"], ["pooled"], to=kind),
    ]
    takes = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, 32, 32])
    save_onnx(tmp_path / "n.onnx", nodes, {}, [takes], [helper.make_tensor_value_info("pooled", kind, shape)])
    (tmp_path / "visor.toml").write_text('[models.mine]\nkind = "file"\nfile = "n.onnx"\nsize = 32\nborrow = []\n')
    with pytest.raises(ModelError, match=told):
        ensure_model(Settings(home=tmp_path, config=tmp_path / "visor.toml", model="mine"), say=str)
