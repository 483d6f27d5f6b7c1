"""What terraform/ names in the code is there: entry points, settings, topics, collections, accounts."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from visor.deploy.terraform import Terraform, read_terraform, text_of
from visor.schema import collections as stored
from visor.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[4]
TERRAFORM = ROOT / "terraform"
FUNCTIONS = ROOT / "functions"

NEEDED = {
    "backend", "project", "bucket", "topic", "dead_letter_subscription", "database", "index", "home", "model",
    "cors_origins", "crawl_budget_s", "embed_attempts_max",
}  # fmt: skip
"""Settings whose default is the embedded one, so that a function without them would not be what was deployed."""


@pytest.fixture(scope="module")
def config() -> Terraform:
    return read_terraform(TERRAFORM)


def functions(config: Terraform) -> dict[str, str]:
    """Function to the source of its entry in `local.functions`."""
    text = (TERRAFORM / "functions.tf").read_text(encoding="utf-8")
    table = text[text.index("functions = merge") : text.index("# Read by visor.settings")]
    names = re.findall(r"^\s+(\w+) = \{$", table, re.MULTILINE)
    parts = re.split(r"^\s+\w+ = \{$", table, flags=re.MULTILINE)[1:]
    return dict(zip(names, parts, strict=True))


def test_every_function_has_a_main_with_the_entry_point(config: Terraform) -> None:
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


def test_entry_point_is_the_functions_own_name(config: Terraform) -> None:
    function = config.of("resource")["google_cloudfunctions2_function.function"]
    assert function.inner("build_config")[0].attributes["entry_point"] == "${each.key}"
    assert function.attributes["for_each"] == "${local.functions}"


def test_every_variable_of_the_functions_is_a_setting(config: Terraform) -> None:
    fields = {field.name for field in msgspec.structs.fields(Settings)}
    given = {name for name in config.local_values["settings"] if not name.startswith("__")}
    given |= {"VISOR_OWNER_KEY"} & set(
        re.findall(r"VISOR_\w+", (TERRAFORM / "functions.tf").read_text(encoding="utf-8"))
    )
    assert all(name.startswith(PREFIX) for name in given)
    names = {name.removeprefix(PREFIX).lower() for name in given}
    assert names <= fields, f"no such settings: {names - fields}"
    assert names >= NEEDED, f"not deployed: {NEEDED - names}"


def test_variables_default_to_what_the_settings_default_to(config: Terraform) -> None:
    """A default stands in two places: a test keeps them one."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(Settings)}
    for name in ("crawl_budget_s", "embed_attempts_max", "freshness_s", "quota_share", "key_required", "unsafe_query"):
        assert config.of("variable")[f"var.{name}"].attributes["default"] == defaults[name]
    assert text_of(config.of("variable")["var.index"].attributes["default"]) == defaults["index"]
    assert text_of(config.of("variable")["var.model"].attributes["default"]) == defaults["model"]


def test_topics_and_subscriptions_are_the_settings_own(config: Terraform) -> None:
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
    # `visor stats` asks Cloud Monitoring how much of it waits.
    batches = resources["google_pubsub_subscription.batches"]
    assert text_of(batches.attributes["name"]) == settings.subscription, "docs/operations.md sets none"
    assert text_of(config.local_values["settings"]["VISOR_SUBSCRIPTION"]) == text_of(batches.attributes["name"])
    assert "VISOR_SUBSCRIPTION" in str(config.of("output")["output.settings"].attributes["value"])
    assert text_of(resources["google_firestore_database.database"].attributes["name"]) == settings.database


@dataclass(frozen=True)
class Query:
    """What a query in the code asks Firestore for: fields compared with `==`, by order, and sorted by."""

    where: str
    collection: str
    equal: frozenset[str]
    ranges: frozenset[str]
    order_by: str | None


def constants(tree: ast.Module) -> dict[str, str]:
    """Names of text constants in a module, those that it imports from others of the package included."""
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("visor."):
            path = ROOT / "shared" / Path(*(node.module or "").split("."))
            path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            theirs = (
                constants(ast.parse(path.read_text(encoding="utf-8"))) if {n.name for n in node.names} & NAMES else {}
            )
            found |= {n.asname or n.name: theirs[n.name] for n in node.names if n.name in theirs}
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found |= {target.id: node.value.value for target in node.targets if isinstance(target, ast.Name)}
    return found


NAMES = {name for name in vars(stored) if name.isupper()}
"""What constants with a collection's name are called; a query by any other name fails the test."""


def text(node: ast.expr | None, names: dict[str, str]) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return names.get(node.id) if isinstance(node, ast.Name) else None


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((k.value for k in call.keywords if k.arg == name), None)


def calls(tree: ast.AST, name: str) -> list[ast.Call]:
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        c for c in found if (c.func.attr if isinstance(c.func, ast.Attribute) else getattr(c.func, "id", "")) == name
    ]


def queries(root: Path) -> tuple[list[Query], set[str]]:
    """Every query of documents in the package, and every collection that is queried or written."""
    found, collections = [], set()
    for path in sorted(root.rglob("*.py")):
        if path.is_relative_to(root / "storage"):
            continue  # the backends hand on what they are asked
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = constants(tree)
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            compared = [
                (text(keyword(c, "field"), names), text(keyword(c, "op"), names)) for c in calls(function, "Where")
            ]
            for call in (c for c in calls(function, "query") if ast.unparse(c.func).endswith("documents.query")):
                arguments = function.args.args[-len(function.args.defaults) :] if function.args.defaults else []
                defaults = {
                    argument.arg: text(default, names)
                    for argument, default in zip(arguments, function.args.defaults, strict=True)
                }
                collection = text(call.args[0], names | {n: v for n, v in defaults.items() if v})
                order = keyword(call, "order_by")
                place = f"{path.name}: {function.name}"
                if collection is None and len(call.args) == 1 and not call.keywords:
                    continue  # a whole collection, which needs no index
                assert collection, f"{place} queries a collection that this test cannot tell"
                assert order is None or text(order, names), f"{place} sorts by what this test cannot tell"
                used = compared if keyword(call, "where") is not None else []
                assert all(field and op for field, op in used), f"{place} compares what this test cannot tell"
                equal = frozenset(str(field) for field, op in used if op == "==")
                ranges = frozenset(str(field) for field, op in used if op != "==")
                found.append(Query(place, collection, equal, ranges, text(order, names)))
        for kind in ("Put", "Add", "Delete"):
            written = {text(keyword(c, "collection"), names) for c in calls(tree, kind)}
            collections |= {name for name in written if name}
    return found, collections | {q.collection for q in found}


def needed(query: Query) -> tuple[set[str], tuple[str, ...] | None]:
    """Single fields that a query needs an index of, or the fields of the composite index that it needs."""
    sorted_ = {query.order_by} if query.order_by else set()
    fields = query.equal | query.ranges | sorted_
    if len(fields) > 1 and (query.ranges | sorted_):
        return set(), (*sorted(query.equal), *sorted(query.ranges | sorted_))
    return set(fields), None


def test_firestore_indexes_are_what_the_queries_need_and_no_more(config: Terraform) -> None:
    queried = {
        name: {text_of(field) for field in fields}
        for name, fields in config.local_values["queried"].items()
        if not name.startswith("__")
    }
    composite = {
        (
            str(block.attributes["collection"]).strip('"').removeprefix("${var.index}-"),
            *(text_of(field.attributes["field_path"]) for field in block.inner("fields")),
        )
        for block in config.of("resource").values()
        if block.labels[0] == "google_firestore_index"
    }
    found, collections = queries(ROOT / "shared" / "visor")
    assert {q.collection for q in found} >= {"items", "commits", "runs", "feedback", "failures"}
    assert set(queried) >= collections, "all fields of a collection that is not listed would be indexed"
    single: dict[str, set[str]] = {name: set() for name in queried}
    several = set()
    for query in found:
        fields, together = needed(query)
        single[query.collection] |= fields
        if together:
            several.add((query.collection, *together))
    assert single == queried
    assert several == composite


@pytest.mark.parametrize(
    ("body", "single", "composite"),
    [
        ('documents.query("runs", order_by="at")', {"at"}, None),
        ('documents.query("runs", where=[Where(field="a", op="==", value=1)], order_by="at")', set(), ("a", "at")),
        ('documents.query("runs", where=[Where(field="at", op=">", value=1)], order_by="at")', {"at"}, None),
        ('documents.query(COLLECTION, where=[Where(field="a", op=">", value=1)], order_by="b")', set(), ("a", "b")),
        ('documents.query("runs", limit=5)', set(), None),
    ],
)
def test_needs_of_a_planted_query_are_told(
    tmp_path: Path, body: str, single: set[str], composite: tuple[str, ...] | None
) -> None:
    (tmp_path / "planted.py").write_text(f'COLLECTION = "runs"\n\ndef ask(documents):\n    return {body}\n')
    [query], collections = queries(tmp_path)
    assert collections == {"runs"}
    assert needed(query) == (single, composite)
