"""The public interface: exactly these names, each documented, imported when it is used, and nothing beside them."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import visor
from visor import errors

ERRORS = [
    *("BadRequest", "Conflict", "CorruptObject", "DeployError", "DropItem", "EmbedCrashed", "FetchFailed"),
    *(
        "FetchRefused",
        "FetchUnavailable",
        "Forbidden",
        "FormatError",
        "HostDead",
        "HostPaused",
        "ImageError",
        "KeyRequired",
    ),
    *("ModelError", "ModelNotBuilt", "NewerFormat", "NotConfigured", "NotFound", "NothingToCompare", "OtherModel"),
    "QuotaReached",
    *("RequestError", "RequestTooLarge", "RequestTooSlow", "SettingsError", "SourceError"),
    *("SourceUnavailable", "StoreError", "StoreUnavailable", "UndecodableImage", "UndecodableNow", "UnknownHandle"),
    *("UnknownItem", "UnsafeImage", "UnsupportedMediaType", "VisorError", "WeightsUnavailable"),
]
NAMES = [
    *(
        "CompareAnswer",
        "Condition",
        "Example",
        "Filters",
        "Index",
        "Item",
        "Match",
        "Page",
        "PriceRange",
        "PushItem",
        "SearchResult",
        "Settings",
    ),
    *("Source", "SourceConfig", "SourceContext", "connect", "item_id", "open"),
]
IMPORT_S_MAX = 0.05


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def test_the_names_are_these() -> None:
    assert visor.__all__ == sorted([*ERRORS, *NAMES])


def test_every_error_is_public() -> None:
    classes = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == "visor.errors"
    }
    assert classes == set(ERRORS)


@pytest.mark.parametrize("name", sorted([*ERRORS, *NAMES]))
def test_each_name_is_there_and_documented(name: str) -> None:
    value = getattr(visor, name)
    assert callable(value)
    # An error's line in the tree at the top of visor.errors is its documentation, if it needs no more.
    assert value.__doc__ or f"─ {name}" in str(errors.__doc__), name
    assert name in dir(visor)


@pytest.mark.parametrize("method", [name for name in vars(visor.Index) if not name.startswith("_")])
def test_each_method_of_an_index_is_documented(method: str) -> None:
    assert inspect.getdoc(getattr(visor.Index, method))


def test_nothing_else_is_in_the_namespace() -> None:
    found = run(
        "import visor; print(*sorted(name for name in {*vars(visor), *dir(visor)} if not name.startswith('_')))"
    )
    assert found.split() == sorted(visor.__all__)


def test_the_stub_has_the_same_names() -> None:
    stub = ast.parse((Path(visor.__file__).parent / "__init__.pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module for node in imports for alias in node.names}
    assert homes == visor._MODULES


def test_importing_is_fast() -> None:
    timed = "import time; t = time.perf_counter(); import visor; print(time.perf_counter() - t)"
    assert min(float(run(timed)) for _ in range(3)) < IMPORT_S_MAX


def test_there_is_a_version_and_no_unknown_name() -> None:
    assert visor.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        visor.nothing  # noqa: B018


def test_a_client_needs_no_model_and_no_index_library() -> None:
    run(
        "import sys\n"
        "blocked = {'faiss', 'ai_edge_litert', 'scipy', 'tensorflow', 'pillow_heif', 'numpy', 'PIL',\n"
        "           'flask', 'werkzeug', 'waitress', 'functions_framework', 'google', 'click', 'jmespath'}\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in blocked: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "import visor\n"
        "with visor.connect('http://127.0.0.1:9', timeout_s=2) as index:\n"
        "    for call in (lambda: index.search(b'image', filters=visor.Filters(collection=['cats'])), index.stats):\n"
        "        try:\n"
        "            call()\n"
        "            raise SystemExit('answered')\n"
        "        except visor.StoreUnavailable as exc:\n"
        "            assert '127.0.0.1:9 did not answer' in str(exc), exc\n"
    )
