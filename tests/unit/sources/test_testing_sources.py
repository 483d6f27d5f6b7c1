"""The contract suite finds each way to break the contract; a plug-in made from the template is installed and used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from visor import sources
from visor.cli.main import cli
from visor.errors import DropItem, SettingsError
from visor.schema.items import Item, item_id
from visor.sources.contract import Page
from visor.sources.registry import open_source
from visor.sources.scaffold import package_files, write_source_package
from visor.testing import BrokenContract, check_source, source_context

EXAMPLE = Path(__file__).parents[3] / "examples" / "visor-source-json-feed"


def item(at: int, **changed: Any) -> Item:
    values = {
        "id": item_id("mine", str(at)),
        "source": "mine",
        "key": str(at),
        "image_url": f"https://e.org/{at}.jpg",
        **changed,
    }
    return Item(**values)


class Good:
    """Nine items on three pages."""

    name = "mine"

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        for at in range(int((checkpoint or {}).get("at", 0)), 9, 3):
            following = {"at": at + 3} if at < 6 else None
            yield self.change(Page(items=tuple(map(item, range(at, at + 3))), checkpoint=following), at)

    def change(self, page: Page, at: int) -> Page:
        return page


def broken(change: Callable[[Page, int], Page]) -> type[Good]:
    return type("Broken", (Good,), {"change": lambda self, page, at: change(page, at)})


def test_a_good_source_passes() -> None:
    assert [one.key for one in check_source(Good, pages_min=3)] == [str(at) for at in range(9)]
    with pytest.raises(BrokenContract, match="3 pages, 4 were expected"):
        check_source(Good, pages_min=4)


calls = iter(range(1_000_000))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda page, at: msgspec.structs.replace(page, checkpoint={"at": 6} if at == 0 else page.checkpoint),
            "were left",
        ),
        (lambda page, at: msgspec.structs.replace(page, checkpoint={"at": at + 3}), "only the last page has none"),
        (lambda page, at: msgspec.structs.replace(page, checkpoint=None), "has no checkpoint"),
        (lambda page, at: msgspec.structs.replace(page, next_pass={}), "only the last page may have"),
        (
            lambda page, at: msgspec.structs.replace(page, checkpoint=page.checkpoint and {"at": at + 3, "x": {1}}),
            "not JSON",
        ),
        (lambda page, at: msgspec.structs.replace(page, items=(item(at, title=str(next(calls))),)), "twice"),
        (lambda page, at: msgspec.structs.replace(page, items=(item(at, id="0" * 32),)), "another id"),
        (lambda page, at: msgspec.structs.replace(page, items=(item(at, source="other"),)), "names the source"),
        (lambda page, at: msgspec.structs.replace(page, items=(item(at, image_url="/a.jpg"),)), "not absolute"),
        (lambda page, at: msgspec.structs.replace(page, items=(item(at, price=1.0, currency="€"),)), "ISO 4217"),
        (lambda page, at: msgspec.structs.replace(page, items=(item(at, price=-1.0),)), "price -1"),
        (
            lambda page, at: msgspec.structs.replace(page, items=(item(at, title=5),)),
            "would be refused: .*Expected `str`",
        ),
        (lambda page, at: [item(at)], "yielded a list, not a Page"),
        (lambda page, at: msgspec.structs.replace(page, items=({"key": "a"},)), "holds a dict, not an Item"),
        (lambda page, at: msgspec.structs.replace(page, items=iter(page.items)), "are a tuple_iterator, not a tuple"),
        (lambda page, at: msgspec.structs.replace(page, checkpoint="3"), "a checkpoint is a str, not a mapping"),
    ],
)
def test_each_way_to_break_the_contract_is_found(change: Callable[[Page, int], Page], told: str) -> None:
    with pytest.raises(BrokenContract, match=told):
        check_source(broken(change))


def test_a_row_that_is_dropped_outside_of_a_page_and_a_read_without_pages_are_broken() -> None:
    def read_nothing(self: Good, checkpoint: Mapping[str, Any] | None) -> None: ...

    def drop(page: Page, at: int) -> Page:
        raise DropItem("it has no image")

    with pytest.raises(BrokenContract, match=r"DropItem: it has no image\. It is for one row"):
        check_source(broken(drop))
    with pytest.raises(BrokenContract, match="`read` returned a NoneType"):
        check_source(type("Broken", (Good,), {"read": read_nothing}))


def test_no_page_at_all_is_broken() -> None:
    class Empty(Good):
        def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
            return iter(())

    with pytest.raises(BrokenContract, match="an empty catalogue is one page"):
        check_source(Empty)


def test_a_next_pass_that_loses_items_is_broken() -> None:
    class Forgetful(Good):
        def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
            if checkpoint == {"next": True}:
                yield Page(items=(item(0),))
                return
            *pages, last = super().read(checkpoint)
            yield from pages
            yield msgspec.structs.replace(last, next_pass={"next": True})

    with pytest.raises(BrokenContract, match="misses items"):
        check_source(Forgetful)


def test_built_ins_keep_the_contract(tmp_path: Path) -> None:
    for at in range(3):
        (tmp_path / f"{at}.jpg").write_bytes(b"x")
    with source_context() as context:
        assert len(check_source(lambda: open_source("m", {"kind": "folder", "path": str(tmp_path)}, context))) == 3


def test_the_example_is_what_the_template_makes(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["source", "new", "json_feed", "--folder", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0
    for name, text in package_files("json_feed").items():
        assert (EXAMPLE / name).read_text("utf-8") == text == (tmp_path / EXAMPLE.name / name).read_text("utf-8")


@pytest.mark.parametrize("kind", ["shop_api", "Has-Dash", "1st", "", "../x"])
def test_names_that_a_kind_cannot_have(kind: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be the name"):
        write_source_package(kind, tmp_path)


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (write_source_package("mine", tmp_path) / "own.txt").write_text("x")
    with pytest.raises(SettingsError, match="is not empty"):
        write_source_package("mine", tmp_path)


@pytest.mark.slow
def test_the_example_is_installed_and_used(tmp_path: Path) -> None:
    """As a stranger's package: built, installed beside Visor, found by its entry point, its own test run."""
    installed = tmp_path / "installed"
    build = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    source = tmp_path / "source"
    for name, text in package_files("json_feed").items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    subprocess.run([sys.executable, *build, "--target", str(installed), str(source)], check=True, cwd=tmp_path)
    env = {**os.environ, "PYTHONPATH": str(installed)}
    listed = subprocess.run(
        [sys.executable, "-c", "from visor.cli.main import main; main(['source', 'list', '--json'])"],
        check=True, capture_output=True, text=True, env=env, cwd=tmp_path,
    )  # fmt: skip
    assert json.loads(listed.stdout)["json_feed"] == "visor-source-json-feed"
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(source / "tests")],
        capture_output=True, text=True, env=env, cwd=tmp_path,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout
    assert "1 passed" in tested.stdout


def test_a_plug_in_imports_public_names_only() -> None:
    assert all(hasattr(sources, name) for name in sources.__all__)
    for text in package_files("mine").values():
        modules = re.findall(r"^from (visor[\w.]*) import", text, re.M)
        assert set(modules) <= {"visor.sources", "visor.errors", "visor.testing"}
