"""The environment in which Terraform starts a function, read from terraform/ with every variable at its default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from visor.deploy.plan import default_sizes
from visor.deploy.terraform import Terraform, read_terraform, text_of

TERRAFORM = Path(__file__).parents[1] / "terraform"
VARIABLE = re.compile(r"\$\{(?:tostring\()?(?:2 \* )?(?:join\(\",\", )?var\.(\w+)\)?\}")
GIVEN = {"project": "my-project"}
MADE = {
    'var.page.models != null ? "elsewhere" : var.public == "function" ? "function" : "bucket"': "bucket",
    'google_storage_bucket.bucket["index"].name': "my-project-visor-index",
    'google_pubsub_topic.topic["batches"].name': "visor-batches",
    "google_firestore_database.database.name": "(default)",
    'google_pubsub_topic.topic["dead-letters"].name': "visor-dead-letters",
    'join(",", local.cors_origins)': "https://storage.googleapis.com",
    "tostring(var.budget.spend)": "0",
    "tostring(var.budget.dollar)": "1",
    'var.public == "function" ? local.page_config : ""': "",
}
"""What settings are made of, as `terraform/` makes it."""


def deployed_environ(function: str) -> dict[str, str]:
    """Environment variables of `crawl`, `embed`, `compact` or `search`."""
    config = read_terraform(TERRAFORM)
    size = default_sizes(config)[function]
    tables = ["settings", *(["search_environment"] if function == "search" else [])]
    values = {name: value for table in tables for name, value in config.local_values[table].items()}
    return {
        **{name: _evaluated(config, value) for name, value in values.items() if not name.startswith("__")},
        "VISOR_FUNCTION_CPU": size["cpu"],
        "VISOR_FUNCTION_MEMORY_GIB": size["memory_gib"],
        "VISOR_FETCH_INSTANCES": size["instances"],
        "MALLOC_MMAP_THRESHOLD_": "262144",
    }


def _evaluated(config: Terraform, value: Any) -> str:
    plain = text_of(value)
    if plain is not None:
        return plain
    found = VARIABLE.fullmatch(value)
    if found is None:
        return MADE[value.removeprefix("${").removesuffix("}")]
    name = found[1]
    default = config.of("variable")[f"var.{name}"].attributes.get("default", GIVEN.get(name))
    if isinstance(default, list):
        return ",".join(text_of(one) or "" for one in default)
    if isinstance(default, bool):
        return str(default).lower()
    if "2 * " in value:
        return f"{2 * default:g}"
    return (text_of(default) or default) if isinstance(default, str) else f"{default:g}"
