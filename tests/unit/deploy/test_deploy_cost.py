"""The cost model: free by default with a quarter to spare, arithmetic that adds up, growth that meets a named limit."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import httpx
import msgspec
import pytest
from click.testing import CliRunner

from visor.app import App
from visor.cli.cost import cost_command
from visor.demo.catalogue import DemoCatalogue
from visor.deploy.plan import deployed_plan, runs_a_day
from visor.errors import SettingsError
from visor.free_tier.allowances import allowances, counted, image_sizes
from visor.free_tier.cost_model import DAYS, ENOUGH, Line, UsagePlan, cold_starts_a_day, first_limit, lines, looks_a_day
from visor.free_tier.growth import (
    cost,
    device_use,
    first_load_bytes,
    first_load_cost,
    first_load_days_for,
    growth_limits,
    roomy,
    search_size,
)
from visor.free_tier.quota import Meter
from visor.schema.items import BATCH_SIZE_MAX
from visor.schema.search import SearchRequest
from visor.search.query import Stopwatch, seen_of
from visor.settings import Settings
from visor.storage.local.documents import SqliteDocuments
from visor.web.site import PAGE, Server
from visor_bench.load.counting import drift, record

ROOT = Path(__file__).resolve().parents[3]
COUNTED = ROOT / "shared" / "visor" / "free_tier" / "counted.json"


def by_name(found: list[Line]) -> dict[tuple[str, str], Line]:
    return {(line.service, line.metric): line for line in found}


def test_the_defaults_are_free_everywhere() -> None:
    plan = UsagePlan()
    assert (plan.images, plan.recrawl_days, plan.churn, plan.searches_a_day) == (100_000, 7, 0.05, 1000)
    close = {f"{x.service} {x.metric}": round(x.share, 3) for x in lines(plan) if x.share > ENOUGH}
    assert close.keys() == {
        "Cloud Storage Class B operations",
        "Artifact Registry stored",
    }, "docs/deploy.md says which are close"
    assert max(close.values()) < 0.9


def test_the_defaults_are_what_terraform_deploys() -> None:
    assert deployed_plan(ROOT / "terraform") == UsagePlan()
    assert UsagePlan().batch_size == Settings().batch_size == BATCH_SIZE_MAX
    assert UsagePlan().freshness_s == Settings().freshness_s
    assert UsagePlan().links_a_day == Settings().links_a_day


def test_what_the_owner_sets_is_what_is_counted(tmp_path: Path) -> None:
    folder = shutil.copytree(ROOT / "terraform", tmp_path / "terraform", ignore=shutil.ignore_patterns(".terraform*"))
    (folder / "terraform.tfvars").write_text(
        'project = "p"\nsizes = { search = { memory_gib = 4, instances = 3 } }\ncompact_schedule = "0 3 * * *"\n'
        'billing_account = "0A1B2C-3D4E5F-6A7B8C"\n',
        encoding="utf-8",
    )
    plan = deployed_plan(folder)
    assert (plan.search_memory_gib, plan.search_instances, plan.compact_runs_a_day) == (4, 3, 1)
    assert plan.search_cpu == UsagePlan().search_cpu
    assert plan.switch
    assert not plan.page_from_function
    (folder / "more.auto.tfvars").write_text('public = "function"\n')
    assert deployed_plan(folder).page_from_function
    assert (plan.device, plan.models_from) == (UsagePlan().device, "bucket")
    assert (plan.links_a_day, plan.freshness_s, plan.batch_size) == (300, 30, 64)
    (folder / "more.auto.tfvars").write_text(
        'freshness_s = 5\nsettings = { links_a_day = "500", VISOR_BATCH_SIZE = 16 }\n'
        "sizes = { search = null }\nbudget = { spend = null }\npage = { models = null }\n"
    )
    plan = deployed_plan(folder)
    assert (plan.links_a_day, plan.freshness_s, plan.batch_size) == (500, 5, 16)
    assert (plan.search_instances, plan.models_from) == (2, "bucket"), "null is the default, in objects as well"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ("budget = { spend = 5, dollar = 0 }", "dollar is 0"),
        ('budget = { spend = "5 EUR" }', "spend is '5 EUR'"),
        ('sizes = { search = { cpu = "two" } }', "cpu is 'two'"),
        ("sizes = { search = { instances = [] } }", "instances is"),
    ],
)
def test_variables_that_terraform_would_refuse_are_refused(tmp_path: Path, variables: str, said: str) -> None:
    shutil.copy(ROOT / "terraform" / "variables.tf", tmp_path)
    (tmp_path / "terraform.tfvars").write_text(variables)
    with pytest.raises(SettingsError, match=said):
        deployed_plan(tmp_path)


def test_several_crawls_a_day_use_a_days_allowance_together() -> None:
    daily, hourly = (
        {line.metric: line for line in lines(UsagePlan(recrawl_days=days)) if line.per == "day"} for days in (1, 1 / 24)
    )
    rest = {line.metric: line for line in lines(UsagePlan(churn=0, images=0, recrawl_days=1)) if line.per == "day"}
    for metric in ("reads", "writes"):
        changes = daily[metric].used - rest[metric].used
        assert hourly[metric].used == pytest.approx(rest[metric].used + 24 * changes, rel=0.01)
        assert (hourly[metric].share > 1) == (hourly[metric].cost > 0)


@pytest.mark.parametrize(
    ("variables", "device", "models_from"),
    [
        ("", UsagePlan().device, "bucket"),
        ('page = { models = "https://files.example/models/" }', UsagePlan().device, "elsewhere"),
        ('settings = { device = "false" }', 0.0, "bucket"),
        ('settings = { VISOR_DEVICE = "False" }', 0.0, "bucket"),
    ],
)
def test_where_devices_look_by_default_is_what_is_counted(
    tmp_path: Path, variables: str, device: float, models_from: str
) -> None:
    folder = shutil.copytree(ROOT / "terraform", tmp_path / "terraform", ignore=shutil.ignore_patterns(".terraform*"))
    (folder / "terraform.tfvars").write_text(f'project = "p"\n{variables}\n', encoding="utf-8")
    plan = deployed_plan(folder)
    assert (plan.device, plan.models_from) == (device, models_from)


def test_devices_stop_looking_by_default_before_the_bucket_costs_anything(tmp_path: Path) -> None:
    """As many downloads as the meter lets through, beside all else that is planned, are free."""
    plan, meter = UsagePlan(), Meter(SqliteDocuments(tmp_path / "visor.sqlite"), Settings(), limited=True)
    most = meter.headroom("bucket_model") * 1e6 / image_sizes().model_bytes
    share = most / (plan.visits_a_day * DAYS)
    assert plan.device < share < 1
    over = [line for line in lines(msgspec.structs.replace(plan, device=share)) if line.share > 1]
    assert over == []


def test_looks_for_news_are_at_most_one_a_search_and_one_a_period() -> None:
    plan = UsagePlan(searches_a_day=100, active_hours=10, freshness_s=30, search_instances=2)
    assert looks_a_day(plan) == 100
    assert looks_a_day(msgspec.structs.replace(plan, searches_a_day=1_000_000)) == 2 * 10 * 120
    (reads,) = [x for x in lines(UsagePlan()) if (x.service, x.metric) == ("Firestore", "reads")]
    assert "looks for news: 1,000 × 2" in reads.arithmetic


def test_images_are_free_whatever_the_sources_are() -> None:
    kinds = dict.fromkeys((f"{kind}_sources" for kind in image_sizes().sources), True)
    (images,) = [x for x in lines(msgspec.structs.replace(UsagePlan(), **kinds)) if x.service == "Artifact Registry"]
    assert images.share <= 1
    assert "runtime, stored once: " in images.arithmetic
    assert all(f"crawl of {kind}: " in images.arithmetic for kind in image_sizes().sources)
    (switch,) = [x for x in lines(UsagePlan(switch=True)) if x.service == "Artifact Registry"]
    assert switch.share <= 1


def test_every_allowance_has_a_line_in_its_order() -> None:
    found = [(line.service, line.metric) for line in lines(UsagePlan())]
    assert found == [(a.service, a.metric) for a in allowances().allowances]


def test_shares_are_used_over_free() -> None:
    for line in lines(UsagePlan()):
        assert line.share == pytest.approx(line.used / line.free)


def test_arithmetic_adds_up() -> None:
    """What is shown is what was calculated: evaluate the text."""
    for line in lines(UsagePlan()):
        inner, _, divisor = line.arithmetic.removeprefix("(").partition(") / ")
        if inner == "nothing":
            assert line.used == 0
            continue
        total = 0.0
        for term in inner.split(" + "):
            product = 1.0
            for factor in term.rpartition(": ")[2].split(" × "):
                product *= float(factor.replace(",", ""))
            total += product
        assert total / (2**30 if divisor else 1) == pytest.approx(line.used, rel=0.005), line


@pytest.mark.parametrize(
    "field",
    [
        "images",
        "churn",
        "searches_a_day",
        "visits_a_day",
        "returns_a_day",
        "vector_numbers",
        "deployments_a_month",
        "links_a_day",
    ],
)
def test_more_of_anything_uses_no_less(field: str) -> None:
    small = UsagePlan()
    large = msgspec.structs.replace(small, **{field: type(getattr(small, field))(getattr(small, field) * 2)})
    before, after = by_name(lines(small)), by_name(lines(large))
    assert all(after[key].used >= before[key].used * (1 - 1e-6) for key in before)
    assert any(after[key].used > before[key].used for key in before)


def test_a_million_images_do_not_fit_and_the_limit_is_named() -> None:
    worst = first_limit(lines(msgspec.structs.replace(UsagePlan(), images=1_000_000)))
    assert (worst.service, worst.metric) in {
        ("Cloud Storage", "stored"),
        ("Firestore", "writes"),
        ("Firestore", "reads"),
    }
    assert worst.share > 1


def test_fit_is_the_edge() -> None:
    found = {one.what: one for one in growth_limits(UsagePlan())}
    images = found["images"].largest
    assert all(x.share <= 1 for x in lines(msgspec.structs.replace(UsagePlan(), images=images)))
    over = [x for x in lines(msgspec.structs.replace(UsagePlan(), images=images + 2)) if x.share > 1]
    assert [f"{x.service}, {x.metric}" for x in over] == [found["images"].limit]
    assert found["percent of this plan"].largest >= 110


def test_a_budget_buys_what_costs_no_more() -> None:
    plan = UsagePlan()
    small, large = (growth_limits(plan, budget=budget) for budget in (5.0, 6.0))
    for little, more, free in zip(small, large, growth_limits(plan), strict=True):
        assert free.largest < little.largest < more.largest
    images = msgspec.structs.replace(plan, images=small[0].largest)
    assert 4.9 < cost(roomy(images)) <= 5.0 < cost(roomy(msgspec.structs.replace(images, images=images.images + 1)))


@pytest.mark.parametrize(
    ("plan", "budget"),
    [
        (UsagePlan(images=3_000_000), 0.01),
        (UsagePlan(images=3_000_000), 1.0),
        (UsagePlan(searches_a_day=100_000.0), 1.0),
        (UsagePlan(), math.nan),
    ],
)
def test_what_does_not_pay_for_the_plan_never_loads_it(plan: UsagePlan, budget: float) -> None:
    assert math.isinf(first_load_days_for(plan, budget))


@pytest.mark.parametrize("budget", [5.0, 6.0, 10.0, 50.0])
def test_a_first_load_costs_what_its_days_allow(budget: float) -> None:
    plan = msgspec.structs.replace(UsagePlan(), images=3_000_000)
    days = first_load_days_for(plan, budget)
    assert first_load_cost(plan, days) <= budget * max(1, days / DAYS) * 1.001
    assert first_load_days_for(plan, budget * 2) <= days
    assert days >= plan.images * counted().each("embed", "seconds") / 2 / 86_400


GROWING = [10**power * step for power in range(9) for step in (1, 2, 3, 4, 6, 7, 8, 9)]


@pytest.mark.parametrize("grows", ["images", "searches_a_day"])
def test_more_never_costs_less(grows: str) -> None:
    costs = [cost(roomy(msgspec.structs.replace(UsagePlan(), **{grows: number}))) for number in (0, *GROWING)]
    assert costs == sorted(costs)


@pytest.mark.parametrize(
    ("images", "memory_gib", "cpu"),
    [(100_000, 1, 1), (3_000_000, 2, 1), (10_000_000, 8, 2), (40_000_000, 24, 6), (60_000_000, 32, 8), (10**9, 32, 8)],
)
def test_a_search_function_has_the_processors_that_google_wants_for_its_memory(
    images: int, memory_gib: float, cpu: float
) -> None:
    plan = roomy(UsagePlan(images=images))
    assert (plan.search_memory_gib, plan.search_cpu) == (memory_gib, cpu)
    assert (search_size(plan) is not None) == (images < 10**9)


@pytest.mark.slow
def test_a_larger_budget_never_buys_less() -> None:
    before = [one.largest for one in growth_limits(UsagePlan())]
    for budget in (0.0001, 0.01, 0.1, 1.0, 5.0, 6.0, 20.0, 100.0, 200.0, 10_000.0):
        found = [one.largest for one in growth_limits(UsagePlan(), budget=budget)]
        assert all(more >= less for more, less in zip(found, before, strict=True)), budget
        assert search_size(UsagePlan(images=found[0])), "not more than a function holds"
        before = found


def test_where_no_searches_are_planned_visits_are_not_multiplied() -> None:
    (found,) = [one for one in growth_limits(UsagePlan(searches_a_day=0.0)) if "in proportion" in one.what]
    assert found.largest > 1000


def test_what_is_free_costs_nothing_and_the_rest_its_price() -> None:
    assert cost(UsagePlan()) == 0
    for line in lines(msgspec.structs.replace(UsagePlan(), images=1_000_000, searches_a_day=20_000.0)):
        assert (line.cost > 0) <= (line.share > 1), line
    (stored,) = [x for x in lines(UsagePlan(images=1_000_000)) if (x.service, x.metric) == ("Firestore", "stored")]
    assert stored.cost == pytest.approx((stored.used - 1) * 0.15)


def test_what_is_easily_left_out_is_counted() -> None:
    found = by_name(lines(UsagePlan()))
    parts = {
        ("Cloud Run", "data out"): ("embed: ", "crawl: ", "links: "),
        ("Cloud Run", "vCPU time"): ("pauses of a polite crawl: ", "other starts: "),
        ("Cloud Storage", "Class B operations"): ("page again: ",),
        ("Cloud Storage", "stored"): ("state and kept models: ",),
        ("Artifact Registry", "stored"): ("runtime, stored once: ", "replaced images: "),
    }
    for name, terms in parts.items():
        assert [term for term in terms if term not in found[name].arithmetic] == []
    assert 0.4 < first_load_bytes(UsagePlan()) / 2**30 < 0.6


def test_a_page_from_the_function_is_read_from_there() -> None:
    bucket, function = (by_name(lines(UsagePlan(page_from_function=by))) for by in (False, True))
    key = ("Cloud Storage", "Class B operations")
    assert function[key].used < bucket[key].used / 5
    assert function["Cloud Storage", "data out"].used == 0
    assert function["Cloud Run", "data out"].used > bucket["Cloud Run", "data out"].used + 0.2
    assert function["Cloud Run", "requests"].used > bucket["Cloud Run", "requests"].used


def test_cold_starts_follow_from_gaps() -> None:
    busy = cold_starts_a_day(UsagePlan())
    sparse = cold_starts_a_day(msgspec.structs.replace(UsagePlan(), searches_a_day=50))
    assert busy < sparse
    assert cold_starts_a_day(msgspec.structs.replace(UsagePlan(), searches_a_day=3)) == pytest.approx(3)
    assert cold_starts_a_day(msgspec.structs.replace(UsagePlan(), searches_a_day=0)) == 0


@pytest.mark.parametrize(
    ("cron", "runs"),
    [("17 3 * * *", 1), ("47 */6 * * *", 4), ("*/15 * * * *", 96), ("0 8-20/4 * * *", 4), ("0,30 1,2 * * *", 4)],
)
def test_runs_a_day(cron: str, runs: float) -> None:
    assert runs_a_day(cron) == runs


def test_batches_cost_one_write_each_as_the_design_says() -> None:
    assert counted().each("embed", "class_a") * BATCH_SIZE_MAX <= 1
    assert counted().each("search", "class_b") == 0
    assert counted().each("search", "firestore_reads") <= 13
    assert counted().each("crawl", "firestore_reads") == 0


@pytest.mark.slow
def test_answers_are_no_larger_than_they_are_counted(
    demo_app: App, demo_server: Server, demo_catalogue: DemoCatalogue
) -> None:
    with httpx.Client(base_url=demo_server.address, timeout=60) as client:
        picture = demo_catalogue.picture(demo_catalogue.products[7]).read_bytes()
        searched = client.post("/v1/search", files={"image": picture})
        service = demo_app.search_service()
        seen = seen_of(service.queries.query(SearchRequest(), picture, Stopwatch()), service.embedder.fingerprint)
        on_device = client.post("/v1/search", json={"seen": msgspec.to_builtins(seen), "link": False})
        match = searched.json()["matches"][0]["item"]["id"]
        explained = client.post("/v1/explain", files={"image": picture}, data={"request": f'{{"match": "{match}"}}'})
        asked = [client.get(f"/v1/{path}") for path in ("stats", "facets", "items?limit=8")]
    sizes = {
        "search": int(searched.headers["Content-Length"]),
        "seen": int(on_device.headers["Content-Length"]),
        "explain": int(explained.headers["Content-Length"]),
        "reading": sum(int(one.headers["Content-Length"]) for one in asked) / len(asked),
    }
    print(sizes)
    for operation, size in sizes.items():
        known = counted().each(operation, "response_bytes")
        assert known / 2 < size <= known, (operation, size)


@pytest.mark.skipif(not PAGE.is_dir(), reason="the page is not built")
def test_a_device_reads_no_more_of_the_page_than_it_is_counted() -> None:
    """One of the two builds of the runtime, its code, and the workers."""
    runtimes = [path.stat().st_size for path in PAGE.rglob("litert*") if path.suffix != ".js"]
    code = [path.stat().st_size for path in PAGE.rglob("litert*.js")]
    workers = [path.stat().st_size for path in PAGE.rglob("worker*.js")]
    known = counted().each("runtime", "page_bytes")
    assert known * 0.9 < max(runtimes) + max(code) + max(workers) <= known


@pytest.mark.skipif(not PAGE.is_dir(), reason="the page is not built")
def test_a_visit_reads_no_more_than_it_is_counted() -> None:
    languages = {path.stem for path in (PAGE.parent / "src/words/messages").iterdir()}
    # What looks at pictures is read by those alone who want that, and the rest by visitors of an export.
    others = ("litert", "worker", "serviceWorker", "shell", "app", "icon")
    found = sorted(
        (path for path in PAGE.rglob("*") if path.is_file() and not path.name.startswith(others)),
        key=lambda path: path.stat().st_size,
    )
    # Of the languages, a visitor's only.
    spoken = [path for path in found if path.name.partition("-")[0] in languages]
    files = [path for path in found if path not in spoken[:-1]]
    assert len(spoken) == len(languages)
    assert len(files) <= counted().each("visit", "class_b")
    assert sum(path.stat().st_size for path in files) <= counted().each("visit", "page_bytes")


def test_drift_is_found_and_named() -> None:
    known = counted().operations["embed"].counts["firestore_writes"].value
    assert drift({"embed": {"firestore_writes": known * 1.05}}) == []
    [found] = drift({"embed": {"firestore_writes": known * 1.3}})
    assert "firestore_writes" in found
    assert drift({"search": {"class_a": 5.0}}), "a resource that is not named is 0"


def test_measurements_are_recorded_with_their_command(tmp_path: Path) -> None:
    path = tmp_path / "counted.json"
    path.write_bytes(COUNTED.read_bytes())
    record({"search": {"firestore_reads": 12_500.0}}, command="pytest tests/cloud/test_counts.py", path=path)
    document = json.loads(path.read_text(encoding="utf-8"))
    figure = document["operations"]["search"]["counts"]["firestore_reads"]
    assert figure == {"value": 12_500.0, "basis": "measured", "why": "pytest tests/cloud/test_counts.py"}
    assert document["operations"]["embed"] == json.loads(COUNTED.read_text(encoding="utf-8"))["operations"]["embed"]


def test_every_figure_says_where_it_is_from() -> None:
    for operation in counted().operations.values():
        assert operation.unit.startswith("1,000 ")
        assert all(len(figure.why) >= 5 for figure in operation.counts.values())
    for one in allowances().allowances:
        assert one.url.startswith("https://cloud.google.com/")
        assert one.read in allowances().reading


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cost_command, ["--terraform", str(ROOT / "terraform"), *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_json_is_one_document_with_lines() -> None:
    document = json.loads(run("--json", "--images", "200000"))
    assert document["plan"]["images"] == 200_000
    assert set(document["lines"][0]) >= {"service", "metric", "used", "free", "share"}
    assert document["free"] is True
    assert "fit" not in document


def test_table_explains_and_fits() -> None:
    text = run("--explain", "--fit")
    assert "The first limit to growth: " in text
    assert "    = embed: " in text
    assert "percent of this plan; the next limit is " in text
    assert "https://cloud.google.com/" in text


def test_a_plan_that_is_not_free_is_said_so() -> None:
    assert "Not free: " in run("--images", "5000000")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--recrawl-days 0", "more than 0"),
        ("--embed-instances 0", "more than 0"),
        ("--budget nan", "is not finite"),
        ("--budget inf", "is not finite"),
        ("--budget 5,00", "is not a valid number"),
        ("--budget €5", "is not a valid number"),
        ("--budget=-1", "not in the range"),
        ("--searches-a-day nan", "is not finite"),
    ],
)
def test_nonsense_is_refused(arguments: str, said: str) -> None:
    done = CliRunner().invoke(cost_command, arguments.split())
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize("dollar", ["1", "0.9", "150"])
@pytest.mark.parametrize("budget", ["0", "0.01", "5", "1000"])
@pytest.mark.slow
def test_lines_add_up_in_the_currency_of_the_budget(budget: str, dollar: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISOR_BUDGET_DOLLAR", dollar)
    document = json.loads(run("--json", "--budget", budget, "--images", "1000000"))
    plan = msgspec.convert(document["plan"], UsagePlan)
    assert sum(line["cost"] for line in document["lines"]) == pytest.approx(document["cost"])
    assert document["cost"] == pytest.approx(cost(plan) * float(dollar))
    assert document["images"] <= document["next"]["images"]
    assert document["searches_a_day"] <= document["next"]["searches_a_day"]
    assert (document["first_load_days"] is None) == (0 < float(budget) < document["cost"])


def test_what_no_function_holds_is_said() -> None:
    assert "No function holds so many images" in run("--images", "100000000")
    assert json.loads(run("--images", "100000000", "--json"))["held"] is False


@pytest.mark.parametrize(
    ("models_from", "allowance", "fewer"),
    [("function", "Cloud Run's data out", 1), ("bucket", "Cloud Storage's data out", 100), ("elsewhere", "", 0)],
)
def test_devices_that_look_search_more_and_have_the_model_sent(models_from: str, allowance: str, fewer: int) -> None:
    plan = UsagePlan(models_from=models_from)
    use = device_use(plan)
    assert use.searches_a_day > use.today > plan.searches_a_day
    assert use.allowance.startswith(allowance)
    assert use.downloads_a_month <= fewer * 2**30 / (0.79 * use.model_bytes)
    assert use.planned == round(plan.visits_a_day * plan.device * DAYS)
    over = {line.metric for line in lines(plan) if line.share > 1}
    assert ("data out" in over) == (models_from == "function")
    told = CliRunner().invoke(cost_command, ["--models-from", models_from], catch_exceptions=False)
    assert f"{use.searches_a_day:,} searches a day fit" in told.output
    assert ("tighter limit" in told.output) == (models_from == "function")


def test_devices_share_of_the_searches_is_a_share() -> None:
    none, planned, all_ = ({one.metric: one for one in lines(UsagePlan(device=share))} for share in (0.0, 0.1, 1.0))
    assert "devices" not in none["data out"].arithmetic
    assert lines(UsagePlan(device=0.1)) == lines(UsagePlan())
    assert none["Class B operations"].used < planned["Class B operations"].used < all_["Class B operations"].used
    for plan in (["--device", "1.5"], ["--searches-a-day", "1e300"], ["--images", "9" * 20], ["--active-hours", "25"]):
        assert CliRunner().invoke(cost_command, plan).exit_code == 2
