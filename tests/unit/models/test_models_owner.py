"""visor.toml's models: what each kind takes, what is told of what it does not, and what makes another fingerprint."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import msgspec
import pytest
from tests.forked_tensorflow import ForkedTensorFlow
from tests.small_networks import run_code

from visor.errors import SettingsError
from visor.models.description import Download, ModelDescription
from visor.models.owner import keras_applications, owner_models
from visor.models.registry import describe
from visor.settings import Settings
from visor.sources.config import SourcesFile

SHA = "sha256:" + "a" * 64
DUAL = f"""
kind = "dual"
url = "https://models.example/siglip/resolve/1234"
[models.mine.checksums]
"onnx/vision_model.onnx" = "{SHA}"
"onnx/text_model.onnx" = "{SHA}"
"tokenizer.json" = "{SHA}"
"preprocessor_config.json" = "{SHA}"
"""
FILE = f'kind = "file"\nurl = "https://e.org/n.onnx"\nchecksum = "{SHA}"\nsize = 224\n'


def described(folder: Path, text: str) -> ModelDescription:
    (folder / "visor.toml").write_text(f"[models.mine]\n{text}")
    return describe("mine", Settings(home=folder, config=folder / "visor.toml"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", r"line 1: models.mine.kind is missing. Valid: keras, file, dual"),
        ('kind = ["file"]', r"line 2: models.mine.kind = \['file'\] is not a kind of model"),
        ('kind = "torch"', r"line 2: models.mine.kind = 'torch' is not a kind of model. Valid: keras, file, dual"),
        ('kind = "keras"', r"models.mine.network is missing from a model of kind keras"),
        ('kind = "keras"\nnetwork = "Resnet50"', r"line 3: models.mine.network = 'Resnet50' is not in keras.*ResNet50"),
        ('kind = "keras"\nnetwork = "MobileNet"', r"no checksum, and Keras pins none for .* of MobileNet.*sha"),
        ('kind = "keras"\nnetwork = "ResNet50"\nchecksum = "md5:1"', r"line 4: models.mine.checksum of a model"),
        ('kind = "keras"\nnetwork = "ResNet50"\nlayer = "x"', r"line 4: models.mine.layer is not a key.*layers"),
        ('kind = "file"\nsize = 224', r"models.mine has neither file nor url. Valid: One of file and url"),
        (FILE + 'file = "n.onnx"', r"models.mine has both file and url"),
        ('kind = "file"\nurl = "https://e.org/n.onnx"\nsize = 224', r"models.mine.url has no checksum"),
        ('kind = "file"\nfile = "nets/n.pb"\nsize = 224', r"line 3: models.mine.file = 'nets/n.pb': .* has no n.pb"),
        ('kind = "file"\nfile = ""\nsize = 224', r"line 3: models.mine.file is empty. Valid: A path"),
        ('kind = "file"\nfile = "n.pb"', r"models.mine.size is missing"),
        (FILE.replace("224", "5000"), r"line 5: models.mine.size of a model of kind file does not fit. Valid: .*2048"),
        (FILE + "mean = [1, 2]", r"line 6: models.mine.mean"),
        (FILE + "mean = [0, nan, 0]", r"line 6: models.mine.mean = nan. Valid: Finite numbers"),
        (FILE + "deviation = 0", r"line 6: models.mine.deviation = 0"),
        (FILE + "deviation = inf", r"line 6: models.mine.deviation = inf. Valid: Finite numbers other than 0"),
        (FILE + "white = 100", r"line 6: models.mine.white"),
        (FILE + 'head = "logits"', r"models.mine has head and no labels"),
        (FILE + 'labels = ["a"]', r"models.mine has labels and no head"),
        (FILE + 'head = "x"\nlabels = ["a", "b", "a"]', r"line 7: models.mine.labels names 'a' twice"),
        (FILE + 'head = "x"\nlabels = "names.txt"', r"line 7: models.mine.labels cannot be read"),
        (FILE + 'head = "x"\nlabels = "a\\u0000"', r"line 7: models.mine.labels cannot be read"),
        (FILE + "views = []", r"line 6: models.mine.views"),
        (FILE + "views = [1.5]", r"line 6: models.mine.views"),
        (FILE + 'borrow = ["words"]', r"line 6: models.mine.borrow"),
        ('kind = "dual"', r"models.mine.*has neither folder nor url"),
        ('kind = "dual"\nfolder = "clip"', r"clip, which is not a folder, has no onnx/vision_model.onnx"),
        ('kind = "dual"\nfolder = ""', r"line 3: models.mine.folder is empty"),
        ("logit_scale = inf\n" + DUAL, r"line 2: models.mine.logit_scale"),
        (DUAL.replace("tokenizer.json", "tok.json"), r"checksums has no tokenizer.json.*Add .tokenizer.json. = "),
        ('prompt = "photo"\n' + DUAL, r"line 2: models.mine.prompt = 'photo' has no place for a label"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=told):
        described(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[models.auto]\n", "'auto' is the name of another model"),
        ("[models.nsfwjs]\n", "'nsfwjs' is the name of another model"),
        ("[models.nsfwjs_inception_v3]\n", "'nsfwjs_inception_v3' is the name of another model or network"),
        ("[models.Mine]\n", "'Mine' cannot name a model"),
        ("models = 1\n", "models is not a table"),
        ("[models]\nmine = 1\n", "line 2: models.mine is not a table"),
        ("[model.mine]\n", r"model is not a key of visor.toml. Valid: The keys sources, models"),
    ],
)
def test_names_and_tables(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "visor.toml").write_text(text)
    with pytest.raises(SettingsError, match=told):
        describe("mine", Settings(config=tmp_path / "visor.toml"))


def test_sources_and_models_share_the_file(tmp_path: Path) -> None:
    """A model that is described wrongly stops no crawl, and a source that is stops no model."""
    text = f'[sources.s]\nkind = "folder"\npath = "/x"\n[models.mine]\n{FILE}\n[models.wrong]\nkind = 1\n'
    assert list(SourcesFile(text).entries) == ["s"]
    (tmp_path / "visor.toml").write_text(text.replace("path", "paht"))
    assert describe("mine", Settings(config=tmp_path / "visor.toml")).name == "mine"


@pytest.mark.parametrize(
    "changed",
    [
        FILE.replace("a" * 64, "b" * 64),
        FILE + 'taps = ["pool"]',
        FILE + 'input = "x"',
        FILE + "mean = 0.5",
        FILE + "white = 255",
        FILE + 'order = "bgr"',
        FILE + "views = [0.9]",
        FILE + 'resample = "bicubic"',
        FILE + "power = 1",
        FILE + "float32 = true",
        FILE + 'head = "x"\nlabels = ["a"]',
        FILE + 'head = "x"\nlabels = ["b"]',
    ],
)
def test_fingerprint_changes_with_what_changes_a_vector_or_a_label(changed: str, tmp_path: Path) -> None:
    same = [FILE, FILE + 'summary = "x"', FILE + 'licence = "MIT"', FILE + "borrow = []", FILE + "mean = [0, 0, 0]"]
    known = {described(tmp_path, text).fingerprint() for text in same}
    assert len(known) == 1
    assert described(tmp_path, changed).fingerprint() not in known


def test_an_address_may_ask_for_a_download(tmp_path: Path) -> None:
    """Hubs' buttons copy such addresses; what is asked for is not part of the file's name."""
    model = described(tmp_path, FILE.replace("n.onnx", "n.onnx?download=true"))
    assert (model.summary, model.extras) == ("The owner's n.onnx.", ("build", "onnx"))
    assert model.parts[0].network.stays_as_it_is


def test_labels_of_a_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n", "utf-8-sig")
    assert described(tmp_path, FILE + 'head = "x"\nlabels = "names.txt"').label_names == ("cat", "dog")


def test_heads_are_borrowed(tmp_path: Path) -> None:
    """Safety unless it is not wanted; labels only where they are."""
    for text, parts in (
        (FILE, ["mine", "nsfwjs_inception_v3"]),
        (FILE + "borrow = []", ["mine"]),
        (FILE + 'borrow = ["labels"]', ["mine", "efficientnet_lite0"]),
        ('kind = "keras"\nnetwork = "ResNet50"\nborrow = ["safety", "labels"]', ["mine", "nsfwjs_inception_v3"]),
        (DUAL, ["mine", "nsfwjs_inception_v3"]),
    ):
        model = described(tmp_path, text)
        assert [part.network.name for part in model.parts] == parts
        assert [part.weight for part in model.parts] == [1.0, 0.0][: len(parts)]


def test_preprocessing_is_what_was_declared(tmp_path: Path) -> None:
    how = described(tmp_path, FILE + "mean = [103.5, 116, 124]\ndeviation = 255\nwhite = 255").parts[0]
    assert how.network.preprocessing.mean == pytest.approx((103.5 / 255, 116 / 255, 124 / 255))
    assert how.network.preprocessing.deviation == (1, 1, 1)
    caffe = described(tmp_path, 'kind = "keras"\nnetwork = "ResNet50"').parts[0].network.preprocessing
    assert (caffe.order, caffe.size) == ("bgr", 224)
    assert caffe.mean == pytest.approx((123.68 / 255, 116.779 / 255, 103.939 / 255), abs=1e-5)


@pytest.mark.build
@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="compares with Keras")
@pytest.mark.parametrize("name", ["MobileNetV3Small", "ResNet50", "DenseNet121"])
def test_keras_applications_are_those_of_keras(name: str, tensorflow: ForkedTensorFlow) -> None:
    """The table says what Keras says. The others were written down by the same script."""
    script = Path(__file__).parents[3] / "scripts" / "models"
    code = (
        f"import json, sys; sys.path.insert(0, {str(script)!r});"
        "from keras_networks import described, network_names;"
        f"print(json.dumps([described({name!r}), network_names()]))"
    )
    about, names = msgspec.json.decode(run_code(tensorflow.run, code))
    known = keras_applications()
    assert sorted(known) == names
    assert msgspec.convert(about, type(known[name])) == known[name]


def test_models_are_made_when_they_are_asked_for(tmp_path: Path) -> None:
    """A model whose file is not there does not stop another."""
    (tmp_path / "visor.toml").write_text(f'[models.lost]\nkind = "file"\nfile = "x"\nsize = 32\n[models.mine]\n{FILE}')
    makers = owner_models(tmp_path / "visor.toml")
    assert list(makers) == ["lost", "mine"]
    assert isinstance(makers["mine"]().parts[0].network.source, Download)
