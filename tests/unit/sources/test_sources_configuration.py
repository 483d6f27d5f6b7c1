"""visor.toml: what it takes, and what it says about what it does not."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from tests.unit.sources.catalogue_server import context_for

from visor.app import App
from visor.cli.main import cli
from visor.errors import NotConfigured, SettingsError, SourceError
from visor.ingest.crawl import Crawl
from visor.ingest.schedule import due, next_run, states
from visor.ingest.seen_set import SeenSet
from visor.owner_file import line_of
from visor.schema.collections import RUNS
from visor.schema.items import CrawlRun
from visor.settings import Settings
from visor.sources.config import SourcesFile
from visor.sources.contract import Source
from visor.sources.registry import kinds, load_kind, open_source
from visor.storage import Stores, open_stores

TEXT = '''# An owner's sources

[sources.shop]
kind = "shop_api"
every = "6h"
limit = 500
url = "https://shop.example/api"
headers = { x-key = "${SHOP_KEY}", accept = "x" }
only = """
a
b = c
"""

[sources.shop.fields]
key = "id"
image_url = "image"
"extra" = { brand = "brand" }

[sources.shop.paging]
count = 50

[sources.mine]
kind = "folder"
path = "/srv/pictures"
enabled = false
'''


def test_a_file_of_two_sources() -> None:
    configuration = SourcesFile(TEXT)
    assert list(configuration.entries) == ["shop", "mine"]
    shop = configuration.entry("shop")
    assert (shop.common.kind, shop.common.every_s, shop.common.limit) == ("shop_api", 6 * 3600, 500)
    assert "every" not in shop.own
    assert configuration.folders() == ("/srv/pictures",)
    with context_for() as context:
        assert configuration.open("mine", context).name == "mine"


def test_no_file_is_no_sources(tmp_path: Path) -> None:
    configuration = SourcesFile.load(tmp_path / "visor.toml")
    assert configuration.entries == {}
    with pytest.raises(SettingsError, match=r"(?s)no source 'x', and no other.*\[sources\.x\]"):
        configuration.entry("x")


def test_an_unknown_source_of_no_file_says_that_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "shops.toml"
    with pytest.raises(SettingsError) as caught:
        SourcesFile.load(path).entry("shop")
    assert caught.value.found == f"{path} has no source 'shop', and no other: there is no such file"
    assert "VISOR_CONFIG" in caught.value.remedy
    path.write_text("")
    with pytest.raises(SettingsError, match=r"has no source 'shop', and no other\. "):
        SourcesFile.load(path).entry("shop")


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("count = 50", "count = 0", 20, r"sources\.shop\.paging\.count"),
        ("count = 50", "cuont = 50", 20, r"sources\.shop\.paging\.cuont is not a key.*style, param"),
        ('image_url = "image"', "", 14, r"sources\.shop\.fields\.image_url is missing"),
        ("limit = 500", 'limit = "all"', 6, r"sources\.shop\.limit.*whole number"),
        ('every = "6h"', 'every = "often"', 5, r"sources\.shop\.every.*'often' is not an interval.*'30min'"),
        ('kind = "folder"', 'kind = "foder"', 23, r"'foder' is not a kind.*folder"),
        ('path = "/srv/pictures"', 'pth = "/srv"', 24, r"sources\.mine\.pth is not a key.*path \(required\)"),
        ('path = "/srv/pictures"', 'path = ""', 24, r"sources\.mine\.path.*length at least 1"),
        (
            'kind = "folder"\npath = "/srv/pictures"',
            'kind = "video"\nurl = ""',
            24,
            r"sources\.mine\.url of .*does not fit",
        ),
        ('kind = "folder"\npath = "/srv/pictures"', 'kind = "feed"\nurl = ""', 24, r"mine\.url .*length at least 1"),
        ('kind = "folder"\n', "", 22, r"source 'mine' does not name its kind"),
        ("[sources.mine]", "[sources.Mine]", 22, r"'Mine' cannot name a source"),
        ("[sources.mine]", "[source.mine]", 22, r"source is not a key of visor\.toml"),
        ("count = 50", "count = ", 20, r"not valid TOML.*line 20"),
    ],
)
def test_errors_name_line_and_key_and_what_is_valid(old: str, new: str, line: int, says: str) -> None:
    assert old in TEXT
    with pytest.raises(SettingsError, match=f"(?s){says}") as failed:
        SourcesFile(TEXT.replace(old, new, 1))
    if "TOML" not in says:
        expected = line - (1 if new == "" and line > 22 else 0)
        assert f"visor.toml, line {expected}:" in str(failed.value)


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    count: int


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner
    parts: list[int] = []


def test_msgspec_words_its_errors_as_config_errors_reads_them() -> None:
    """msgspec reports keys and paths in its text only; `visor.sources.config_errors` takes them from there."""

    def message(values: object) -> str:
        with pytest.raises(msgspec.ValidationError) as failed:
            msgspec.convert(values, Outer)
        return str(failed.value)

    assert message({"inner": {"count": 1, "x": 1}}) == "Object contains unknown field `x` - at `$.inner`"
    assert message({}) == "Object missing required field `inner`"
    assert message({"inner": {"count": "1"}}) == "Expected `int`, got `str` - at `$.inner.count`"
    assert message({"inner": {"count": 1}, "parts": ["1"]}) == "Expected `int`, got `str` - at `$.parts[0]`"


def test_a_wrong_expression_and_a_missing_secret_are_located_when_the_source_is_opened() -> None:
    wrong = SourcesFile(TEXT.replace('"image"', '"a["'))
    with (
        context_for(SHOP_KEY="12345") as context,
        pytest.raises(SettingsError, match=r"line 16: sources\.shop\.fields\.image_url = 'a\['"),
    ):
        wrong.open("shop", context)
    with (
        context_for() as context,
        pytest.raises(SettingsError, match=r"line 8: sources\.shop\.headers\.x-key.*SHOP_KEY"),
    ):
        SourcesFile(TEXT).open("shop", context)


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("site", {"url": "htps://shop.example/?key=${KEY}"}),
        ("site", {"url": "http://user:${KEY}@shop.example/"}),
        ("site", {"url": "https://shop.example/", "allow": ["(${KEY}"]}),
        ("feed", {"url": "https://shop.example/", "format": "${KEY}"}),
        ("shop_api", {"url": "http://[${KEY}", "fields": {"key": "id", "image_url": "img"}}),
        ("shop_api", {"url": "https://shop.example/", "fields": {"key": "${KEY}", "image_url": "img"}}),
    ],
)
def test_an_error_in_the_configuration_tells_no_secret(kind: str, keys: dict[str, object]) -> None:
    with context_for(KEY="s3cr/3t+") as context, pytest.raises(SettingsError) as caught:
        open_source("s", {"kind": kind, **keys}, context)
    assert "s3cr" not in str(caught.value)
    assert "${KEY}" in str(caught.value)


def test_lines_of_keys() -> None:
    assert line_of(TEXT, "sources.shop.fields.extra.brand") == 17
    assert line_of(TEXT, "sources.shop.b") == 3, "the text of several lines holds no keys"
    assert line_of(TEXT, "nothing") == 1


def entry_point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "visor.sources")


def test_two_plug_ins_of_one_name_are_an_error_and_one_seen_twice_is_not() -> None:
    a, again, b = entry_point("x", "one:A"), entry_point("x", "one:A"), entry_point("x", "two:B")
    assert list(kinds([a, again])) == ["x"]
    with pytest.raises(SettingsError, match=r"Two plug-ins register the source kind 'x': one:A .* and two:B"):
        kinds([a, b])


def test_built_ins_are_found_as_a_strangers_plug_in_is() -> None:
    assert {"folder", "shop_api"} <= set(kinds())


def test_a_missing_library_is_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "visor.sources.folder.source", None)
    with pytest.raises(NotConfigured, match="'folder' cannot be loaded"):
        load_kind("folder")


def test_a_missing_library_is_named_for_a_laptop_and_for_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("protego", "visor.sources.site.source"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "protego", None)
    with pytest.raises(
        NotConfigured, match=r"protego.* pip install 'visor-search\[site\]'; crawl has them if it was bundled"
    ):
        load_kind("site")


def test_a_missing_library_concerns_only_the_sources_that_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "visor.sources.site.source", None)
    configuration = SourcesFile(TEXT + '[sources.web]\nkind = "site"\nurl = "https://e.org"\n')
    with context_for() as context:
        assert configuration.open("mine", context).name == "mine"
        with pytest.raises(
            SettingsError, match=r"(?s)line 26: .*'site' cannot be loaded.*pip install 'visor-search\[site\]'"
        ):
            configuration.open("web", context)


def test_a_function_reads_a_source_that_is_switched_off_and_whose_plug_in_it_does_not_have(tmp_path: Path) -> None:
    """docs/deploy.md: such a source may stay with `enabled = false`."""
    file = tmp_path / "visor.toml"
    file.write_text(TEXT + '[sources.web]\nkind = "elsewhere"\nurl = "https://e.org"\nenabled = false\n')
    with App(Settings(home=tmp_path, backend="gcp", config=file)) as app:
        assert not app.configuration.entry("web").common.enabled
    with (
        App(Settings(home=tmp_path, config=file)) as app,
        pytest.raises(SettingsError, match="'elsewhere' is not a kind of source"),
    ):
        app.configuration  # noqa: B018
    file.write_text(file.read_text().replace("enabled = false\n", "", 2))
    with (
        App(Settings(home=tmp_path, backend="gcp", config=file)) as app,
        pytest.raises(SettingsError, match="'elsewhere' is not a kind of source"),
    ):
        app.configuration  # noqa: B018


PLUG_INS = """
from visor.sources import Item, Page, SourceConfig, make_item


class Base:
    class Config(SourceConfig, frozen=True, kw_only=True):
        token: str = ""

    def __init__(self, name, config, context):
        self.name, self.token = name, config.token

    def page(self, source, *keys, **fields):
        return Page(items=tuple(make_item(source, key, f"https://e.org/{key}.jpg") for key in keys), **fields)


class Raises(Base):
    def read(self, checkpoint):
        yield self.page(self.name, "a", "b", checkpoint={"at": 2})
        raise KeyError(f"no offers for {self.token}")


class Dicts(Base):
    def read(self, checkpoint):
        yield {"items": []}


class Foreign(Base):
    def read(self, checkpoint):
        yield self.page("other", "a")


class Opening(Base):
    def __init__(self, name, config, context):
        raise RuntimeError("no such thing")


class Unread(Base):
    pass


class Misnamed(Base):
    def __init__(self, name, config, context):
        self.name = "mine"

    read = Dicts.read


class NoConfig:
    pass
"""


@pytest.fixture
def plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package whose kinds of sources are broken, each in its own way."""
    (tmp_path / "broken_kinds.py").write_text(PLUG_INS)
    (tmp_path / "no_python.py").write_text("def (:")
    about = tmp_path / "broken_kinds-1.0.dist-info"
    about.mkdir()
    about.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: broken-kinds\nVersion: 1.0\n")
    names = ("Raises", "Dicts", "Foreign", "Opening", "Unread", "Misnamed", "NoConfig", "Missing")
    entries = [f"{name.lower()} = broken_kinds:{name}\n" for name in names]
    about.joinpath("entry_points.txt").write_text(
        "[visor.sources]\n" + "".join(entries) + "python = no_python:X\n"
        "[visor.commands]\nbroken = no_python:X\nother = broken_kinds:Base\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("broken_kinds", "no_python"):
        monkeypatch.delitem(sys.modules, module, raising=False)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (
            "python",
            r"'python' of broken-kinds cannot be loaded: SyntaxError: .*Install another version of broken-kinds",
        ),
        ("missing", "'missing' of broken-kinds cannot be loaded: AttributeError: .*Missing"),
        ("noconfig", "kind 'noconfig' has no `Config` .*Give its class one"),
    ],
)
def test_a_plug_in_that_cannot_be_loaded_concerns_only_the_sources_that_need_it(
    plug_ins: None, kind: str, says: str
) -> None:
    configuration = SourcesFile(TEXT + f'[sources.web]\nkind = "{kind}"\n')
    with context_for() as context:
        assert configuration.open("mine", context).name == "mine"
        with pytest.raises(SettingsError, match=f"(?s)line 26: .*{says}"):
            configuration.open("web", context)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("opening", r"Source 's' failed: RuntimeError: no such thing \(broken_kinds\.py, line \d+\)"),
        ("unread", "kind 'unread' made no source called 's'"),
        ("misnamed", "kind 'misnamed' made no source called 's'"),
    ],
)
def test_a_plug_in_that_makes_no_source_is_an_error_in_words(plug_ins: None, kind: str, says: str) -> None:
    with context_for() as context, pytest.raises(SourceError, match=says):
        open_source("s", {"kind": kind}, context)


@pytest.mark.parametrize(
    ("kind", "says", "published"),
    [
        ("raises", r"Source 's' failed: KeyError: .*no offers for \$\{TOKEN\}.* \(broken_kinds\.py, line \d+\)", 2),
        ("dicts", "Source 's' failed: it yielded a dict, not a Page", 0),
    ],
)
def test_what_a_plug_in_does_wrong_fails_its_source_and_the_pages_before_count(
    plug_ins: None, tmp_path: Path, kind: str, says: str, published: int
) -> None:
    stores = open_stores(Settings(home=tmp_path / "home"))
    with context_for(TOKEN="geheim-12345") as context:
        opened = open_source("s", {"kind": kind, "token": "${TOKEN}"}, context)
        with pytest.raises(SourceError, match=says) as raised:
            _crawl(opened, stores)
        assert raised.value.__cause__ is None, "a traceback would show the secret"
        (run,) = stores.documents.query(RUNS)
        assert (run.data["state"], run.data["code"]) == ("failed", "source_error")
        assert "geheim" not in str(run.data)
        assert stores.queue.waiting() == (published > 0)
        assert SeenSet.load(stores.objects, "s").progress.checkpoint == ({"at": 2} if published else None)


def test_an_item_of_another_source_is_refused(plug_ins: None, tmp_path: Path) -> None:
    stores = open_stores(Settings(home=tmp_path / "home"))
    with context_for() as context:
        run = _crawl(open_source("s", {"kind": "foreign"}, context), stores)
        assert (run.state, run.published, run.failed) == ("empty", 0, 1)
        assert "it names the source 'other', not 's'" in run.why
        assert not stores.queue.waiting()


def test_a_command_of_another_package_that_is_broken_does_not_take_the_help_along(plug_ins: None) -> None:
    helped = CliRunner().invoke(cli, ["--help"], catch_exceptions=False)
    assert "Read a source and publish what changed." in helped.output
    assert "The command 'broken' of broken-kinds cannot be loaded" in helped.output
    with pytest.raises(SettingsError, match="The command 'other' is a type"):
        CliRunner().invoke(cli, ["other"], catch_exceptions=False)


def _crawl(source: Source, stores: Stores) -> CrawlRun:
    objects, documents, queue = stores.objects, stores.documents, stores.queue
    return Crawl(source, objects=objects, documents=documents, queue=queue, settings=Settings()).run()


NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def run(source: str, started_at: str, state: str = "complete") -> CrawlRun:
    return CrawlRun(id=f"{source}-1", source=source, started_at=started_at, state=state)  # type: ignore[arg-type]


def test_sources_are_due_by_their_schedule() -> None:
    configuration = SourcesFile(TEXT.replace("enabled = false", 'every = "1d"'))
    shop = configuration.entry("shop")
    assert next_run(shop, None, NOW) == NOW
    assert next_run(shop, run("shop", "2026-05-04T11:00:00+00:00", "postponed"), NOW) == NOW
    assert next_run(shop, run("shop", "2026-05-04T11:00:00+00:00"), NOW) == NOW.replace(hour=17)
    assert [entry.name for entry in due(configuration, {}, NOW)] == ["mine", "shop"]
    early, late = "2026-05-01T00:00:00+00:00", "2026-05-04T11:00:00+00:00"
    runs = {"shop": run("shop", early), "mine": run("mine", late)}
    assert [entry.name for entry in due(configuration, runs, NOW)] == ["shop"]
    runs = {"shop": run("shop", early), "mine": run("mine", "2026-04-01T00:00:00+00:00")}
    assert [entry.name for entry in due(configuration, runs, NOW)] == ["mine", "shop"]


def test_a_source_that_is_switched_off_is_never_due() -> None:
    configuration = SourcesFile(TEXT)
    assert [entry.name for entry in due(configuration, {}, NOW)] == ["shop"]
    (shop, mine) = states(configuration, {}, [("shop", "fetch_failed"), ("shop", "fetch_failed")], NOW)
    assert (shop.failures, mine.next_at) == ({"fetch_failed": 2}, None)


def test_a_source_state_counts_what_failed() -> None:
    configuration = SourcesFile(TEXT.replace("enabled = false", "requests_a_day = 50"))
    failed = CrawlRun(
        id="m-2", source="mine", started_at="2026-05-02T00:00:00+00:00", state="failed", code="source_error"
    )
    runs = {"mine": [run("mine", "2026-05-03T00:00:00+00:00"), failed, failed]}
    (_, mine) = states(configuration, runs, [], NOW, requests={"mine": 7})
    assert (mine.runs, mine.failed_runs) == (3, {"source_error": 2})
    assert (mine.requests_today, mine.requests_a_day) == (7, 50)
    assert mine.last == runs["mine"][0]


def test_the_command_shows_each_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "visor.toml").write_text(TEXT)
    monkeypatch.setenv("VISOR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VISOR_CONFIG", str(tmp_path / "visor.toml"))
    result = CliRunner().invoke(cli, ["sources"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "shop (shop_api)\n  never crawled" in result.output
    assert "mine (folder), switched off" in result.output


def test_a_source_without_anything_to_index_fails_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built_settings: Settings
) -> None:
    monkeypatch.setenv("VISOR_MODELS", str(built_settings.home / "models"))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (tmp_path / "visor.toml").write_text(f'[sources.mine]\nkind = "folder"\npath = "{pictures.as_posix()}"\n')
    monkeypatch.setenv("VISOR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VISOR_CONFIG", str(tmp_path / "visor.toml"))
    for words in (["crawl", "mine"], ["index", "mine"]):
        result = CliRunner().invoke(cli, words)
        assert (result.exit_code, "Nothing was found to index" in result.output) == (1, True)
    result = CliRunner().invoke(cli, ["sources"])
    assert (result.exit_code, "empty, 0 seen" in result.output) == (0, True)
    assert "Nothing was found to index" in result.output


def test_the_account_of_a_run_names_the_most_frequent_first() -> None:
    run = CrawlRun(
        id="m", source="m", started_at="", failures={"no picture": 2}, passed_over={"robots.txt": 41, "tiny": 1}
    )
    assert run.account() == ["41 passed over: robots.txt", "2 failed: no picture", "1 passed over: tiny"]
