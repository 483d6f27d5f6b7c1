"""What terraform/ names in the code is there: entry points, settings, topics, collections, accounts."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import msgspec
import pytest

from visor.deploy.terraform import Block, Configuration, read_terraform, references, text_of
from visor.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
TERRAFORM = ROOT / "terraform"
FUNCTIONS = ROOT / "functions"

NEEDED = {
    "backend", "project", "bucket", "topic", "dead_letter_subscription", "database", "index", "home", "model",
    "cors_origins", "crawl_budget_s", "embed_attempts_max",
}  # fmt: skip
"""Settings whose default is the embedded one, so that a function without them would not be what was deployed."""


@pytest.fixture(scope="module")
def config() -> Configuration:
    return read_terraform(TERRAFORM)


def functions(config: Configuration) -> dict[str, str]:
    """Function to the source of its entry in `local.functions`."""
    text = (TERRAFORM / "functions.tf").read_text(encoding="utf-8")
    table = text[text.index("functions = merge") : text.index("# Read by visor.settings")]
    names = re.findall(r"^\s+(\w+) = \{$", table, re.MULTILINE)
    parts = re.split(r"^\s+\w+ = \{$", table, flags=re.MULTILINE)[1:]
    return dict(zip(names, parts, strict=True))


def test_every_function_has_a_main_with_the_entry_point(config: Configuration) -> None:
    found = functions(config)
    assert set(found) == {path.parent.name for path in FUNCTIONS.glob("*/requirements.txt")}
    for name in sorted(path.parent.name for path in FUNCTIONS.glob("*/main.py")):
        tree = ast.parse((FUNCTIONS / name / "main.py").read_text(encoding="utf-8"))
        targets = {
            node.name: [ast.unparse(d) for d in node.decorator_list]
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and node.decorator_list
        }
        kind = "cloud_event" if name in ("embed", "switch") else "http"
        assert targets == {name: [f"functions_framework.{kind}"]}


def test_entry_point_is_the_functions_own_name(config: Configuration) -> None:
    function = config.of("resource")["google_cloudfunctions2_function.function"]
    assert function.inner("build_config")[0].attributes["entry_point"] == "${each.key}"
    assert function.attributes["for_each"] == "${local.functions}"


def test_every_variable_of_the_functions_is_a_setting(config: Configuration) -> None:
    fields = {field.name for field in msgspec.structs.fields(Settings)}
    given = {name for name in config.local_values["settings"] if not name.startswith("__")}
    secret = config.of("resource")["google_cloudfunctions2_function.function"].inner("service_config")[0]
    given |= {text_of(secret.inner("secret_environment_variables")[0].attributes["key"]) or ""}
    assert all(name.startswith(PREFIX) for name in given)
    names = {name.removeprefix(PREFIX).lower() for name in given}
    assert names <= fields, f"no such settings: {names - fields}"
    assert names >= NEEDED, f"not deployed: {NEEDED - names}"


def test_variables_default_to_what_the_settings_default_to(config: Configuration) -> None:
    """A default stands in two places: a test keeps them one."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(Settings)}
    for name in ("crawl_budget_s", "embed_attempts_max", "freshness_s", "quota_share", "key_required"):
        assert config.of("variable")[f"var.{name}"].attributes["default"] == defaults[name]
    assert text_of(config.of("variable")["var.index"].attributes["default"]) == defaults["index"]
    assert text_of(config.of("variable")["var.model"].attributes["default"]) == defaults["model"]


def test_topics_and_subscriptions_are_the_settings_own(config: Configuration) -> None:
    resources = config.of("resource")
    settings = Settings()
    topics = resources["google_pubsub_topic.topic"]
    assert topics.attributes["name"] == '"visor-${each.key}"'
    assert settings.topic == "visor-batches"
    assert '"batches"' in topics.attributes["for_each"]
    dead = resources["google_pubsub_subscription.dead_letters"]
    assert text_of(dead.attributes["name"]) == settings.dead_letter_subscription
    deployed = config.local_values["settings"]["VISOR_DEAD_LETTER_SUBSCRIPTION"]
    assert text_of(deployed) == settings.dead_letter_subscription
    assert text_of(resources["google_firestore_database.database"].attributes["name"]) == settings.database


def collections_in_code() -> dict[str, set[str]]:
    """Collection to the fields that a query anywhere in the package orders or filters by."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "shared" / "visor").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name == "query" and node.args and isinstance(node.args[0], ast.Constant):
                fields = found.setdefault(str(node.args[0].value), set())
                for inner in ast.walk(node):
                    if (
                        isinstance(inner, ast.keyword)
                        and inner.arg == "order_by"
                        and isinstance(inner.value, ast.Constant)
                    ):
                        fields.add(str(inner.value.value))
                    if isinstance(inner, ast.Call) and getattr(inner.func, "id", "") == "Where":
                        field = (
                            inner.args[0] if inner.args else next(k.value for k in inner.keywords if k.arg == "field")
                        )
                        if isinstance(field, ast.Constant):
                            fields.add(str(field.value))
            if name in ("Put", "Add", "Delete"):
                for keyword in node.keywords:
                    if keyword.arg == "collection" and isinstance(keyword.value, ast.Constant):
                        found.setdefault(str(keyword.value.value), set())
    return found


def test_every_collection_is_exempt_and_every_queried_field_is_indexed(config: Configuration) -> None:
    queried = {name: fields for name, fields in config.local_values["queried"].items() if not name.startswith("__")}
    for collection, fields in collections_in_code().items():
        assert collection in queried, f"{collection} is not in terraform/firestore.tf: all its fields would be indexed"
        indexed = {text_of(field) for field in queried[collection]}
        composite = {"source"} if collection == "runs" else set()
        assert fields <= indexed | composite, f"{collection} is queried by {fields}, indexed is {indexed}"


def test_every_account_is_used(config: Configuration) -> None:
    used = {
        step.strip('"')
        for block in config.blocks
        for value in _values(block)
        for reference in references(value)
        if reference.root == "google_service_account"
        for kind, step in reference.steps
        if kind == "index"
    }
    through_tables = {"each.key", "each.value.account"}
    table = {
        name
        for key in ("project_roles", "bucket_roles")
        for name in config.local_values[key]
        if not name.startswith("__")
    }
    text = (TERRAFORM / "main.tf").read_text(encoding="utf-8")
    accounts = set(re.findall(r"^\s{4}(\w+)\s+= \"[A-Z]", text, re.MULTILINE)) | {"switch"}
    assert accounts <= (used - through_tables) | table | set(functions(config))


def _values(block: Block) -> list[object]:
    return [*block.attributes.values(), *(v for inner in block.blocks for v in _values(inner))]
