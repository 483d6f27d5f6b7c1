"""The plan that terraform/ deploys: sizes and schedules from its variables."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from visor.deploy.owner import given_variables
from visor.deploy.terraform import Terraform, read_terraform, text_of
from visor.errors import SettingsError
from visor.free_tier.cost_model import UsagePlan
from visor.settings import PREFIX, Settings

FUNCTIONS = ("crawl", "embed", "compact", "search")
COUNTED = ("batch_size", "freshness_s", "links_a_day")
"""Settings that are numbers of a plan under the same name."""


def deployed_plan(folder: Path) -> UsagePlan:
    """The defaults of `UsagePlan`, changed by the folder's variables and terraform.tfvars.

    Without such a folder (Visor installed without a checkout): the defaults, which are those of terraform/.
    """
    try:
        config = read_terraform(folder)
    except SettingsError:
        return UsagePlan()
    sizes = default_sizes(config)
    values = given_variables(folder)
    for function in FUNCTIONS:
        sizes[function] |= values.get("sizes", {}).get(function, {})
    changes: dict[str, Any] = {
        f"{function}_instances": int(_number(sizes[function], "instances")) for function in ("embed", "search")
    }
    changes |= {name: max(least, paid_instances(values)) for name, least in changes.items()}
    for function in FUNCTIONS:
        changes[f"{function}_cpu"] = _number(sizes[function], "cpu")
        changes[f"{function}_memory_gib"] = _number(sizes[function], "memory_gib")
    for function in ("crawl", "compact"):
        name = f"{function}_schedule"
        cron = values.get(name) or text_of(config.of("variable")[f"var.{name}"].attributes["default"])
        changes[f"{function}_runs_a_day"] = runs_a_day(cron or "0 * * * *")
    changes["page_from_function"] = values.get("public") == "function"
    changes["models_from"] = "elsewhere" if values.get("page", {}).get("models") else "bucket"
    settings = {name.lower().removeprefix("visor_"): str(value) for name, value in values.get("settings", {}).items()}
    if settings.get("device", "true").lower() in ("false", "0"):
        changes["device"] = 0.0
    given = {**settings, **values}
    read = Settings.read({PREFIX + name.upper(): str(given[name]) for name in COUNTED if name in given})
    changes |= {name: getattr(read, name) for name in COUNTED}
    changes["publish"] = bool(values.get("publish"))
    changes["switch"] = bool(values.get("billing_account"))
    changes["metrics"] = bool(values.get("metrics"))
    changes["owner_key"] = bool(values.get("owner_key_version"))
    return msgspec.structs.replace(UsagePlan(), **changes)


def paid_instances(values: Mapping[str, Any]) -> int:
    """How many instances the sum to spend pays for, day and night, calculated as in functions.tf."""
    budget = {"spend": 0, "dollar": 1, **values.get("budget", {})}
    return min(20, int(_number(budget, "spend") / _number(budget, "dollar", above=0) / (2 * 2.29)))


def _number(values: Mapping[str, Any], name: str, *, above: float = -1) -> float:
    try:
        number = float(values[name])
    except (TypeError, ValueError):
        number = math.nan
    if not above < number < math.inf:
        raise SettingsError(
            f"{name} is {values[name]!r:.80} in Terraform's variables",
            valid="A number, as in: budget = { spend = 5, dollar = 0.92 }",
            remedy="Correct it in terraform.tfvars",
        )
    return number


def default_sizes(config: Terraform) -> dict[str, dict[str, Any]]:
    """Defaults in the type of the variable `sizes`: by function `cpu`, `memory_gib` and `instances`, as text."""
    type_ = str(config.of("variable")["var.sizes"].attributes["type"])
    found: dict[str, dict[str, Any]] = {}
    for function in FUNCTIONS:
        part = type_[re.search(rf"\b{function}\b", type_).end() :]  # type: ignore[union-attr]
        found[function] = dict(re.findall(r"(\w+) = optional\(number, ([\d.]+)\)", part)[:3])
    return found


def runs_a_day(cron: str) -> float:
    """The most runs a day of a cron line: the fields for days and months are ignored.

    Raises:
        SettingsError: It is not a cron line.
    """
    try:
        minute, hour, *_ = cron.split()
        return float(_values(minute, 60) * _values(hour, 24))
    except (ValueError, ZeroDivisionError) as exc:
        raise SettingsError(
            f"The schedule {cron!r:.80} is not a cron line",
            valid="Five fields, minute hour day month weekday, as in: 17 3 * * *",
            remedy="Correct crawl_schedule or compact_schedule in terraform.tfvars",
        ) from exc


def _values(field: str, whole: int) -> int:
    if "," in field:
        return sum(_values(part, whole) for part in field.split(","))
    span, _, step = field.partition("/")
    first, _, last = span.partition("-")
    count = whole if span == "*" else int(last or first) - int(first) + 1
    if step and span != "*" and not last:
        count = whole - int(first)
    return -(-count // int(step or 1))
