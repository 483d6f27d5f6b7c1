"""Dual encoders: pictures and words in one space, in the file layout of model hubs."""

from __future__ import annotations

import base64
import json
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from PIL import Image
from tests.dual_network import COLOURS, LAYOUT, MEAN, PATTERNS, TOML, VOCABULARY, WIDTH, make_dual, save_text
from tests.model_kinds import check_end_to_end, indexed, pictures, write_toml
from tests.small_networks import Origin, checksum, make_onnx
from tokenizers import Tokenizer

from visor.app import App
from visor.errors import ModelError
from visor.models.build.builder import ensure_model
from visor.models.build.dual import prepare_tokenizer, preprocessing_of
from visor.models.embedder import Embedder, load_embedder
from visor.models.runtime import open_runtime
from visor.models.store import read_manifest
from visor.settings import Settings
from visor.web.site import Server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A visor.toml beside the files of the encoder and the pictures."""
    folder = tmp_path_factory.mktemp("dual")
    make_dual(folder / "dual", pictures(folder / "pictures"))
    make_onnx(folder / "pictures.onnx")
    other = 'kind = "file"\nfile = "pictures.onnx"\nsize = 32\ntaps = ["pooled"]\nborrow = []'
    write_toml(folder, {"mine": TOML, "other": other})
    return folder


@pytest.fixture(scope="module")
def own(folder: Path) -> Settings:
    return Settings(home=folder / "home", config=folder / "visor.toml", model="mine")


@pytest.fixture(scope="module")
def embedder(own: Settings) -> Embedder:
    ensure_model(own, say=str)
    return load_embedder(own)


def pieces(folder: Path) -> tuple[list[str], list[Image.Image]]:
    """Names and the middles of all pictures, which the training never saw as they are."""
    paths = sorted((folder / "pictures").glob("*.png"))
    return [path.stem for path in paths], [Image.open(path).crop((17, 5, 139, 113)) for path in paths]


def test_pictures_are_found_by_words(embedder: Embedder, folder: Path) -> None:
    names, images = pieces(folder)
    seen = embedder.embed(images)
    for wanted in names:
        colour, pattern = wanted.split()
        text = embedder.embed_text([f"{COLOURS[colour].upper()} {PATTERNS[pattern]}"])
        assert text.shape == (1, embedder.dimension)
        assert names[int((seen.vectors @ text[0]).argmax())] == wanted
    labels = [COLOURS[name.split()[0]] for name in names]
    assert [one[0].name for one in seen.labels] == labels
    assert all(one is not None and float(one.sum()) == pytest.approx(1) for one in seen.probabilities)


def test_texts_of_any_length(embedder: Embedder) -> None:
    """Longer than the network takes, of unknown words, of none: a vector of unit length, the same alone as in a row."""
    texts = ["rote " * 500, "xyzzy 🐈", "", "grüne"]
    vectors = embedder.embed_text(texts)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4))
    assert np.allclose(embedder.embed_text(["grüne"])[0], vectors[3])
    assert embedder.embed_text([]).shape == (0, embedder.dimension)


def test_a_model_without_words_says_so(own: Settings) -> None:
    settings = msgspec.structs.replace(own, model="other")
    ensure_model(settings, say=str)
    with pytest.raises(ModelError, match=r'other reads no words. Valid: A model of kind = "dual"'):
        load_embedder(settings).embed_text(["rote"])


def test_end_to_end(own: Settings, folder: Path) -> None:
    check_end_to_end(msgspec.structs.replace(own, index="ends"), folder / "pictures", "mine", "other")


@pytest.mark.slow
def test_words_find_over_http(own: Settings, folder: Path) -> None:
    """Alone and beside a picture; the index knows English titles only. Many pictures, so that a space is learned."""
    settings = msgspec.structs.replace(own, index="words", allow_folders=(str(folder),), searches_burst=1000)
    names, images = pieces(folder)
    many = folder / "many"
    many.mkdir()
    for number, (name, image) in enumerate(zip(names * 10, images * 10, strict=True)):
        image.crop((number % 17, number % 13, 100 + number % 11, 90 + number % 7)).save(many / f"{name} {number}.png")
    ensure_model(settings, say=str)
    with App(settings) as app:
        indexed(app, many)
        server = Server(app.site({})).start()
        try:
            ask = partial(httpx.post, f"{server.address}/v1/search", timeout=60)
            for text, wanted in (("rote Punkte", "red dots"), ("gelbe", "yellow"), ("KAROS", "checks")):
                alone = ask(json={"text": text, "k": 5}).raise_for_status().json()
                assert all(wanted in match["item"]["title"] for match in alone["matches"]), text
                assert {match.get("similarity") for match in alone["matches"]} == {None}
            shown = base64.b64encode((folder / "pictures" / "green bars.png").read_bytes()).decode()
            both = ask(json={"text": "blaue", "image": shown, "k": 3}).raise_for_status().json()
            assert {match["item"]["title"].rpartition(" ")[0] for match in both["matches"]} == {"blue bars"}
            said = ask(json={"text": "yellow rows 77", "k": 3}).raise_for_status().json()["matches"][0]
            assert said["confidence"] > 0
            assert app.searcher.space.name is not None
        finally:
            server.stop()


def test_from_an_address(own: Settings, folder: Path, tmp_path: Path) -> None:
    paths = ["onnx/vision_model.onnx", "onnx/text_model.onnx", "tokenizer.json", "preprocessor_config.json"]
    sums = {path: checksum(folder / "dual" / path) for path in paths}
    with Origin(folder / "dual") as url:
        keys = TOML.replace('folder = "dual"', f'url = "{url}/"') + "[models.far.checksums]\n"
        models = {"far": keys + "".join(f'"{path}" = "{sums[path]}"\n' for path in paths)}
        settings = Settings(home=tmp_path / "home", config=write_toml(tmp_path, models), model="far")
        manifest = read_manifest(ensure_model(settings, say=str))
    assert [file.network for file in manifest.files] == ["far", "far/text", "far/tokenizer", "far/words"]
    assert load_embedder(settings).embed_text(["rote"]).shape == (1, 24)


@pytest.mark.parametrize(
    ("path", "content", "told"),
    [
        ("tokenizer.json", "{}", r"The tokenizer .*tokenizer.json cannot be read"),
        ("preprocessor_config.json", "[", r"preprocessor_config.json cannot be read"),
        ("preprocessor_config.json", '{"size": {"height": 32, "width": 64}}', r"names no square: size = {'height': 32"),
        ("onnx/vision_model.onnx", "x", r"vision_model.onnx of mine cannot be read"),
        ("onnx/text_model.onnx", None, r"The network of texts of mine takes pixel_values"),
        ("visor.toml", 'picture_output = "pooler"\n', r"no tensor 'pooler', which its `taps`|`picture_output`"),
        ("visor.toml", 'text_output = "pooled"\n', r"no tensor 'pooled', which its `text_output` .*text_embeds"),
        ("visor.toml", 'picture_output = "seen"\n', r"gives 192 numbers for a picture and 24 for a text"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(path: str, content: str | None, told: str, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "dual", tmp_path / "dual")
    settings = Settings(home=tmp_path / "home", config=write_toml(tmp_path, {"mine": TOML}), model="mine")
    if path == "visor.toml":
        write_toml(tmp_path, {"mine": TOML + str(content)})
    elif content is None:
        make_onnx(tmp_path / "dual" / path)
    else:
        (tmp_path / "dual" / path).write_text(content)
    with pytest.raises(ModelError, match=told):
        ensure_model(settings, say=str)


def test_texts_whose_vectors_are_not_finite_are_told(folder: Path, tmp_path: Path) -> None:
    """As networks in half precision give: labels would have no probability."""
    shutil.copytree(folder / "dual", tmp_path / "dual")
    table = np.full((len(VOCABULARY), WIDTH), np.nan, np.float32)
    save_text(tmp_path / "dual" / "onnx" / "text_model.onnx", table, offset=table[0])
    settings = Settings(home=tmp_path / "home", config=write_toml(tmp_path, {"mine": TOML}), model="mine")
    with pytest.raises(ModelError, match="network of texts of mine gives numbers that are not finite"):
        ensure_model(settings, say=str)


def test_other_words_are_another_model(own: Settings, folder: Path, tmp_path: Path, embedder: Embedder) -> None:
    shutil.copytree(folder / "dual", tmp_path / "dual")
    models = {"mine": TOML, "labels": TOML.replace("blaue", "karos"), "prompt": TOML.replace('"{}"', '"ein {}"')}
    settings = Settings(home=own.home, config=write_toml(tmp_path, models))
    made = {name: ensure_model(msgspec.structs.replace(settings, model=name), say=str) for name in models}
    assert made["mine"] == embedder.directory
    assert len({read_manifest(one).fingerprint for one in made.values()}) == 3
    checks = next(image for name, image in zip(*pieces(folder), strict=True) if name == "blue checks")
    assert Embedder(made["labels"]).embed([checks]).labels[0][0].name == "karos"


@pytest.mark.parametrize(
    ("changed", "size", "views", "first_mean", "resample"),
    [
        ({}, 48, (1.0,), MEAN[0], "bicubic"),
        ({"size": 224, "crop_size": 224}, 224, (1.0,), MEAN[0], "bicubic"),
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}, 224, (0.875,), 0.48, "bicubic"),
        ({"size": {"height": 384, "width": 384}, "crop_size": None, "do_center_crop": None}, 384, ("whole",), 0.48,
         "bicubic"),
        ({"size": {"height": 384, "width": 384}, "do_center_crop": False, "resample": 2}, 384, ("whole",), 0.48,
         "bilinear"),
        ({"do_normalize": False}, 48, (1.0,), 0.0, "bicubic"),
        ({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3}, 48, (1.0,), 0.5, "bicubic"),
    ],
)  # fmt: skip
def test_preprocessing_of_hubs(
    changed: dict[str, Any], size: int, views: tuple[Any, ...], first_mean: float, resample: str
) -> None:
    """As CLIP, OpenCLIP, SigLIP and MobileCLIP write it."""
    config = json.loads(json.dumps(LAYOUT | {"image_mean": MEAN, "image_std": [0.3] * 3} | changed))
    how = preprocessing_of("mine", config)
    assert (how.size, how.views, how.resample) == (size, views, resample)
    assert how.mean[0] == pytest.approx(first_mean)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"image_mean": None}, "image_mean = None"),
        ({"image_mean": [0.5]}, r"image_mean = \[0.5\]. Valid: A number, or one for each of three channels"),
        ({"image_std": [0.3, 0, 0.3]}, r"image_std = \[0.3, 0, 0.3\]"),
        ({"rescale_factor": 0}, "rescale_factor = 0"),
        ({"size": {"shortest_edge": "x"}, "crop_size": None}, "no square: size = {'shortest_edge': 'x'}"),
        ({"size": 10**9, "crop_size": None}, "no square: size = 1000000000.*at most 2048 pixels"),
    ],
)
def test_preprocessing_that_cannot_be_is_told(changed: dict[str, Any], told: str) -> None:
    config = LAYOUT | {"image_mean": MEAN, "image_std": [0.3] * 3} | changed
    with pytest.raises(ModelError, match=f"preprocessor_config.json of mine (has|names) {told}"):
        preprocessing_of("mine", config)


def test_the_library_that_is_missing_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    files = {"tokenizer": folder / "dual" / "tokenizer.json"}
    with pytest.raises(ModelError, match=r"read with the library tokenizers.*pip install 'visor-search\[words\]'"):
        prepare_tokenizer("mine", files, open_runtime(folder / "dual" / "onnx" / "text_model.onnx", threads=1))


@pytest.mark.parametrize(
    ("about", "config", "tokens", "text"),
    [
        ({}, {"text_config": {"max_position_embeddings": 16}}, 16, "ROTE"),
        ({"model_max_length": 10**30}, {}, 64, "ROTE"),
        ({"model_max_length": 32, "pad_token": {"content": "[PAD]"}}, {}, 32, "ROTE"),
        ({"do_lower_case": True}, {"model_type": "clip", "text_config": None}, 77, "Rote"),
        ({}, {"model_type": "siglip2", "text_config": {"max_position_embeddings": 64}}, 64, "rOte"),
    ],
)
def test_texts_are_cut_and_padded_as_the_files_say(
    about: dict[str, Any], config: dict[str, Any], tokens: int, text: str, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder / "dual", tmp_path / "dual")
    (tmp_path / "dual" / "tokenizer_config.json").write_text(json.dumps(about))
    (tmp_path / "dual" / "config.json").write_text(json.dumps(config))
    directory = ensure_model(
        Settings(home=tmp_path / "home", config=write_toml(tmp_path, {"mine": TOML}), model="mine"), say=str
    )
    tokenizer = Tokenizer.from_file(str(directory / "mine-tokenizer.json"))
    assert len(tokenizer.encode("rote " * 200).ids) == tokens
    assert tokenizer.encode(text).ids == tokenizer.encode("rote").ids == [2]
