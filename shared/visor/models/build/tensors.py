"""Finds the tensors that an owner names: input, taps and head of a network that Visor does not know."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from visor.errors import ModelError
from visor.models.description import Network, Preprocessing, Tap
from visor.models.embedder import is_planar

NAMES_SHOWN = 8


def find_name(wanted: str, names: Sequence[str]) -> str | None:
    """The name among `names` that `wanted` means: itself, with or without the `:0` of TensorFlow's tensors, or without
    its first part, the scope under which a program imported the file (`incept/pool_3:0` for a file's `pool_3`).
    """
    known = {name.removesuffix(":0"): name for name in names}
    base = wanted.removesuffix(":0")
    return known.get(base, known.get(base.partition("/")[2]))


def no_tensor(network: str, key: str, wanted: str, names: Sequence[str]) -> ModelError:
    """The error for a name that does not exist."""
    near = difflib.get_close_matches(wanted, names, n=NAMES_SHOWN // 2, cutoff=0.5)
    shown = list(dict.fromkeys([*near, *names[len(near) - NAMES_SHOWN :]]))
    more = f"; {len(names)} in all" if len(names) > len(shown) else ""
    return ModelError(
        f"{network} has no tensor '{wanted}', which its `{key}` names",
        valid=f"{', '.join(shown)}{more}",
        remedy=f"Correct `{key}` in visor.toml",
    )


def check_input(network: Network, name: str, shape: Sequence[int], *, whole_numbers: bool) -> None:
    """Check that an input accepts a picture as it will be prepared.

    Args:
        shape: 0 is an axis of any length; empty: unknown.
        whole_numbers: Whether it takes unscaled integers.

    Raises:
        ModelError: It does not.
    """
    how = network.preprocessing
    told = f"Input '{name}' of {network.name} takes {'×'.join(str(edge or '?') for edge in shape)}"
    sides = [*shape[-2:]] if is_planar(shape) else [*shape[-3:-1]]
    channels = shape[-3] if is_planar(shape) else shape[-1] if shape else 3
    if shape and (len(shape) not in (3, 4) or channels not in (0, 3) or (len(shape) == 4 and shape[0] > 1)):
        raise ModelError(
            told, valid="One picture: 1×height×width×3, or 1×3×height×width", remedy="Name another tensor as `input`"
        )
    if any(side not in (0, how.size) for side in sides):
        raise ModelError(told, valid=f"A square of `size` = {how.size}", remedy="Correct `size` in visor.toml")
    if whole_numbers and _span(how) <= 2:
        raise ModelError(
            f"Input '{name}' of {network.name} takes whole numbers, and mean and deviation make fractions",
            valid="white = 255, which gives it 0 to 255",
            remedy="Correct `white`, `mean` and `deviation` in visor.toml",
        )


def _span(how: Preprocessing) -> float:
    """Distance from black to white, after mean and deviation."""
    return max(abs(1 / deviation) for deviation in how.deviation)


def tap_of(network: Network, name: str, values: NDArray[np.float32]) -> Tap:
    """The tap for an output for one picture, with its channels in the last axis.

    Raises:
        ModelError: It is not a vector, map or row of tokens, or has numbers that are not finite.
    """
    if values.ndim not in (1, 2, 3) or values.shape[-1] < 2:
        raise ModelError(
            f"Tap '{name}' of {network.name} gives {'×'.join(map(str, values.shape)) or 'a single number'}",
            valid="A vector, or a feature map of vectors",
            remedy="Name another tensor in `taps`",
        )
    if not np.isfinite(values).all():
        raise ModelError(
            f"Tap '{name}' of {network.name} gives numbers that are not finite",
            valid="Finite numbers for a picture prepared as visor.toml says",
            remedy="Check `mean`, `deviation` and `white`",
        )
    square = values.ndim == 3 and values.shape[0] == values.shape[1] > 1
    return Tap(layer=name, channels=values.shape[-1], edge=values.shape[0] if square else 0)


def is_logits(network: Network, name: str, head: NDArray[np.float32]) -> bool:
    """Whether a head outputs log-odds: some are below 0 or above 1.

    Raises:
        ModelError: It does not output a number for each label.
    """
    if head.size != network.classes:
        raise ModelError(
            f"Head '{name}' of {network.name} gives {head.size} numbers for {network.classes} labels",
            valid="One number for each of `labels`",
            remedy="Correct `head` or `labels` in visor.toml",
        )
    return bool(head.min() < 0 or head.max() > 1 + 1e-3)
