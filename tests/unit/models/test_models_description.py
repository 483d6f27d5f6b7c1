"""The registry of models holds together, and a fingerprint changes with what changes a vector and with nothing else."""

from __future__ import annotations

import msgspec
import pytest

from visor.errors import SettingsError
from visor.models.builtin import EFFICIENTNET
from visor.models.description import ModelDescription, WeightedNetwork
from visor.models.registry import BUILT, DEFAULT, describe, installed

JOINED = describe("nsfwjs+efficientnet_lite0")
MODELS = [describe(name) for name in installed()]


def with_network(model: ModelDescription, part: int, **changes: object) -> ModelDescription:
    parts = list(model.parts)
    parts[part] = msgspec.structs.replace(parts[part], network=msgspec.structs.replace(parts[part].network, **changes))
    return msgspec.structs.replace(model, parts=tuple(parts))


def test_names_and_fingerprints_are_unique() -> None:
    assert len({model.name for model in MODELS}) == len(MODELS)
    assert len({model.fingerprint() for model in MODELS}) == len(MODELS)
    networks = {part.network.name: part.network for model in MODELS for part in model.parts}
    assert all(networks[part.network.name] == part.network for model in MODELS for part in model.parts)


def test_auto_is_the_default_sees_all_and_its_package_is_of_its_fingerprint() -> None:
    model = describe("auto")
    assert model == describe(DEFAULT)
    assert model.sees_labels
    assert model.sees_safety
    assert set(BUILT) == {model.fingerprint()}


def test_dimension_must_be_what_the_parts_make() -> None:
    with pytest.raises(ValueError, match="says 7 numbers, its parts make 1280"):
        ModelDescription(
            name="odd", summary="", dimension=7, parts=(WeightedNetwork(network=EFFICIENTNET, weight=1.0),)
        )


def test_unknown_model_is_told_with_what_there_is() -> None:
    with pytest.raises(
        SettingsError, match=r"no model named 'resnet'.*auto, efficientnet_lite0, .*lite2, imagenet, nsfwjs"
    ):
        describe("resnet")


def test_fingerprint_changes_with_what_changes_a_vector() -> None:
    how = JOINED.parts[1].network.preprocessing
    changed = [
        with_network(JOINED, 0, power=1.0),
        with_network(JOINED, 1, preprocessing=msgspec.structs.replace(how, views=("whole",))),
        with_network(JOINED, 1, preprocessing=msgspec.structs.replace(how, resample="bilinear")),
        msgspec.structs.replace(JOINED, parts=(JOINED.parts[0], WeightedNetwork(network=EFFICIENTNET, weight=0.5))),
        msgspec.structs.replace(JOINED, parts=JOINED.parts[::-1]),
    ]
    fingerprints = {model.fingerprint() for model in [JOINED, *changed]} | {JOINED.fingerprint("float32")}
    assert len(fingerprints) == len(changed) + 2


def test_fingerprint_is_blind_to_words_and_to_heads_only() -> None:
    assert msgspec.structs.replace(JOINED, summary="Other words.").fingerprint() == JOINED.fingerprint()
    imagenet = describe("imagenet")
    alone = msgspec.structs.replace(imagenet, parts=imagenet.parts[:1])
    assert alone.fingerprint() == imagenet.fingerprint()


def test_description_survives_json() -> None:
    for model in MODELS:
        again = msgspec.json.decode(msgspec.json.encode(model), type=ModelDescription)
        assert again == model
        assert again.fingerprint() == model.fingerprint()


def test_input_side_is_enough_for_every_view() -> None:
    assert describe("nsfwjs").input_side == 251
    assert describe("efficientnet_lite0").input_side == 256
