"""Imports a dual encoder: two networks, and the JSON files in which model hubs describe the input of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from visor.errors import ModelError
from visor.models.build.adopt import adopt, copy_network, file_record, output_of
from visor.models.description import Given, Network, Preprocessing
from visor.models.runtime import Runtime, open_runtime
from visor.models.store import NetworkFile
from visor.models.text_encoder import TEXT_INPUTS, TextEncoder, load_tokenizer

TOKENS_MAX = 4096
"""A higher limit is not meant: configurations write 10³⁰ for no limit."""
SIDE_MAX = 2048
"""The same limit as for `size` of other kinds."""
THINGS = (
    "animal bag ball beach bicycle bird book bottle bowl box bread bridge building car cat chair child city clock "
    "cloud computer cup dog dress face fish flower food fruit garden hand hat horse house kitchen lamp landscape man "
    "meal mountain night painting pattern people person phone plant river road room screen sea shirt shoe sky snow "
    "street table text toy tree watch window woman"
)
"""Different things, to find the mean that the vectors of all texts have in common."""


def adopt_dual(
    network: Network, picture: Path, files: Mapping[str, Path], scratch: Path
) -> tuple[Network, list[NetworkFile]]:
    """Write both networks, the tokenizer with its settings, and the vectors of the labels to `scratch`.

    Args:
        picture: The network of pictures.
        files: The other files, by role.

    Raises:
        ModelError: One cannot be read, does not fit the other, or needs an input that Visor does not provide.
    """
    given = network.given or Given()
    how = preprocessing_of(network.name, _json(files["preprocessor"]))
    built, made = adopt(msgspec.structs.replace(network, preprocessing=how), picture, scratch)
    asked = [("text_output", given.text_output)] * bool(given.text_output)
    text = copy_network(network.name, files["text"], scratch / f"{network.name}-text", asked)
    runtime = open_runtime(text, threads=2)
    tokenizer = scratch / f"{network.name}-tokenizer.json"
    prepare_tokenizer(network.name, files, runtime).save(str(tokenizer))
    output = output_of(network.name, "text_output", runtime, given.text_output)
    encoder = TextEncoder(lambda: text, lambda: tokenizer, output)
    try:
        plain = encoder([f"a photo of {thing}" for thing in THINGS.split()])
        labels = encoder(given.prompts) if given.prompts else plain[:0]
    except ModelError:
        raise
    except Exception as exc:
        raise ModelError(
            f"The network of texts of {network.name} does not run: {str(exc).strip().splitlines()[0]}",
            valid="The inputs " + ", ".join(map(str, runtime.inputs)),
            remedy="Get both networks and tokenizer.json from one place",
        ) from exc
    if not (np.isfinite(plain).all() and np.isfinite(labels).all()):
        raise ModelError(
            f"The network of texts of {network.name} gives numbers that are not finite",
            valid="Finite numbers for every text",
            remedy="Export the network with float32 numbers, or name another file as `text`",
        )
    if plain.shape[1] != built.dimension:
        raise ModelError(
            f"{network.name} gives {built.dimension} numbers for a picture and {plain.shape[1]} for a text",
            valid="Both in one space",
            remedy="Name the outputs that are compared as `picture_output` and `text_output`",
        )
    words = scratch / f"{network.name}-words.npy"
    np.save(words, np.vstack([plain.mean(0), labels]))
    for role, path in (("text", text), ("tokenizer", tokenizer), ("words", words)):
        record = file_record(path, f"{network.name}/{role}", cosine=1.0, converter="none: the file as it is")
        made.append(msgspec.structs.replace(record, outputs=(output,) if role == "text" else ()))
    return built, made


def preprocessing_of(name: str, config: Mapping[str, Any]) -> Preprocessing:
    """The preprocessing in a preprocessor_config.json of CLIP, MobileCLIP, SigLIP or the same form.

    Raises:
        ModelError: It has a value that Visor cannot apply.
    """
    size, shortest = _side(config.get("size"))
    crop, _ = _side(config.get("crop_size"))
    is_cropped = bool(config.get("do_center_crop", bool(crop) and shortest)) and bool(crop)
    edge = crop if is_cropped else size
    if not 0 < edge <= SIDE_MAX:
        raise ModelError(
            f"preprocessor_config.json of {name} names no square: size = {config.get('size')!r}",
            valid=f"A size with shortest_edge, or with height and width that are equal; at most {SIDE_MAX} pixels",
            remedy="Get the file from where the networks are published",
        )
    is_normalised = config.get("do_normalize", "image_mean" in config)
    told: dict[str, Any] = {
        "rescale_factor": config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0,
        "image_mean": config.get("image_mean", (0.5,) * 3) if is_normalised else (0.0,) * 3,
        "image_std": config.get("image_std", (0.5,) * 3) if is_normalised else (1.0,) * 3,
    }
    for key, values in told.items():
        numbers = values if isinstance(values, list | tuple) else [values] * 3
        are_numbers = len(numbers) == 3 and all(isinstance(one, int | float) for one in numbers)
        if not are_numbers or (key != "image_mean" and 0 in numbers):
            raise ModelError(
                f"preprocessor_config.json of {name} has {key} = {values!r}",
                valid="A number, or one for each of three channels; not 0 for rescale_factor and image_std",
                remedy="Get the file from where the networks are published",
            )
        told[key] = tuple(numbers)
    scale = 255 * told["rescale_factor"][0]
    red, green, blue = (one / scale for one in told["image_mean"])
    return Preprocessing(
        size=edge,
        resample="bilinear" if config.get("resample", 3) == 2 else "bicubic",
        mean=(red, green, blue),
        deviation=tuple(one / scale for one in told["image_std"]),
        views=(min(edge / size, 1.0) if is_cropped and shortest else "whole",),
    )


def _side(size: Any) -> tuple[int, bool]:
    """Edge in pixels, 0 if missing or not square; and whether it is that of the shorter side only."""
    about = size if isinstance(size, dict) else {"shortest_edge": size}
    if "shortest_edge" not in about and about.get("height") != about.get("width"):
        return 0, False
    told = about.get("shortest_edge", about.get("height"))
    edge = int(told) if isinstance(told, int | float) and told >= 1 else 0
    return edge, bool(edge) and "shortest_edge" in about


def prepare_tokenizer(name: str, files: Mapping[str, Path], runtime: Runtime) -> Any:
    """The tokenizer, set to cut, pad and lower-case texts as in the network's training.

    Raises:
        ModelError: It cannot be read, or the network needs other inputs.
    """
    tokenizer = load_tokenizer(files["tokenizer"])
    from tokenizers import normalizers

    about = _json(files["tokenizer_config"]) if "tokenizer_config" in files else {}
    config = _json(files["config"]) if "config" in files else {}
    alone = len(runtime.inputs) == 1
    if any(one.dtype.kind not in "iu" or not (alone or one.name in TEXT_INPUTS) for one in runtime.inputs):
        raise ModelError(
            f"The network of texts of {name} takes {', '.join(map(str, runtime.inputs))}",
            valid="Whole numbers: " + ", ".join(TEXT_INPUTS),
            remedy="Export the network of texts alone, or name another file as `text`",
        )
    fixed = max((one.shape[-1] for one in runtime.inputs if len(one.shape) > 1), default=0)
    text_config = config.get("text_config") or {}
    told = [(tokenizer.truncation or {}).get("max_length"), text_config.get("max_position_embeddings")]
    told = [fixed or None, *told, about.get("model_max_length"), 77 if config.get("model_type") == "clip" else None]
    length = next((int(one) for one in told if one and 0 < one <= TOKENS_MAX), 64)
    tokenizer.enable_truncation(length)
    # Without a mask, a network was trained on texts of full length; with one, padding changes nothing.
    if fixed or all(one.name != "attention_mask" for one in runtime.inputs):
        pad = about.get("pad_token") or (tokenizer.padding or {}).get("pad_token") or "[PAD]"
        pad = pad.get("content", "[PAD]") if isinstance(pad, dict) else pad
        known = (tokenizer.padding or {}).get("pad_id", text_config.get("pad_token_id", 0))
        pad_id = tokenizer.token_to_id(pad)
        tokenizer.enable_padding(length=length, pad_id=known if pad_id is None else pad_id, pad_token=pad)
    else:
        tokenizer.no_padding()
    if about.get("do_lower_case") or str(config.get("model_type", "")).startswith("siglip"):
        before = [tokenizer.normalizer] if tokenizer.normalizer is not None else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *before])
    return tokenizer


def _json(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as exc:
        why = getattr(exc, "strerror", None) or exc
        raise ModelError(
            f"{path} cannot be read: {why}", valid="JSON as model hubs have it", remedy="Get it from there"
        ) from exc
