"""Attributes: fields of an item's `extra` that its owner declares, to filter and count by, and how texts are read."""

from __future__ import annotations

import math
import re
from typing import Literal, get_args

AttributeType = Literal["keyword", "number", "flag", "date"]
TYPES: tuple[AttributeType, ...] = get_args(AttributeType)
ATTRIBUTES_MAX = 32
FLAGS = {
    "true": True,
    "yes": True,
    "1": True,
    "on": True,
    "y": True,
    "false": False,
    "no": False,
    "0": False,
    "off": False,
    "n": False,
}

_NUMBER = re.compile(r"\s*([-+]?\d[\d.,]*(?:[eE][-+]?\d+)?)(?:\s*[^\d\s.,].*)?\s*", re.DOTALL)
_THOUSANDS = re.compile(r"[-+]?(?!0)\d{1,3}([.,])\d{3}(?:\1\d{3})*")


def flag_of(text: str) -> bool | None:
    """The value of a flag that a text means; None: it means none."""
    return FLAGS.get(text.strip().casefold())


def number_of(text: str) -> float | None:
    """The number that a text begins with, with or without a unit ('12.5 kg', '1,5', '1.234,50'); None if there is none.

    A comma is a decimal sign unless it separates thousands ('1,234', but not '0,234') or a point follows it.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    digits = "".join(str(int(c)) if c.isdecimal() else c for c in match[1]).rstrip(".,")
    if "," in digits and "." in digits:
        thousands = "," if digits.rindex(",") < digits.rindex(".") else "."
        digits = digits.replace(thousands, "")
    elif _THOUSANDS.fullmatch(digits) and ("," in digits or digits.count(".") > 1):
        digits = digits.replace(",", "").replace(".", "")
    try:
        number = float(digits.replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
