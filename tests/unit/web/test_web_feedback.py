"""Explaining a match, rejecting one and the live recall, over real HTTP on the demo shop."""

from __future__ import annotations

import base64
import io
import json

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from visor.app import App
from visor.cli.main import cli
from visor.confidence.features import FEATURES
from visor.demo.catalogue import DemoCatalogue
from visor.errors import StoreUnavailable
from visor.schema.collections import FEEDBACK, FEEDBACK_INBOX
from visor.search.feedback import Feedback, FeedbackLog, all_feedback, query_key, rejected_features
from visor.search.recall_monitor import RecallMonitor
from visor.settings import Settings
from visor.storage import Stores
from visor.web.access import KEY_FILE, KEY_HEADER
from visor.web.site import Server


@pytest.fixture
def picture(demo_catalogue: DemoCatalogue) -> bytes:
    return demo_catalogue.picture(demo_catalogue.products[11]).read_bytes()


@pytest.fixture
def owner(demo_server: Server, demo_app: App) -> dict[str, str]:
    """The header with the owner's key."""
    return {KEY_HEADER: (demo_app.settings.home / KEY_FILE).read_text()}


def png(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_an_explanation_shows_where_the_likeness_sits(client: httpx.Client, picture: bytes) -> None:
    found = client.post("/v1/search", files={"image": picture}).json()["matches"][0]["item"]["id"]
    response = client.post("/v1/explain", files={"image": picture}, data={"request": json.dumps({"match": found})})
    assert response.status_code == 200
    answer = response.json()
    for side in ("query", "item"):
        grid = answer[f"{side}_grid"]
        values = np.array(grid["values"]).reshape(grid["height"], grid["width"])
        assert values.max() == 1
        assert values.min() == 0
        assert png(answer[side]).shape == values.shape
        assert np.abs(png(answer[side]) / 255 - values).max() < 0.01
    same = np.corrcoef(answer["query_grid"]["values"], answer["item_grid"]["values"])[0, 1]
    assert same > 0.95, "the same picture has its likeness in the same place"


def test_the_heat_follows_the_shared_part(client: httpx.Client, picture: bytes, demo_catalogue: DemoCatalogue) -> None:
    """Beside an empty half, the likeness sits in the other; and it moves with it."""
    found = client.post("/v1/search", files={"image": picture}).json()["matches"][0]["item"]["id"]
    shown = Image.open(io.BytesIO(picture)).convert("RGB").resize((400, 400))
    halves = []
    for left in (0, 400):
        page = Image.new("RGB", (800, 400), "white")
        page.paste(shown, (left, 0))
        buffer = io.BytesIO()
        page.save(buffer, "PNG")
        body = {"image": base64.b64encode(buffer.getvalue()).decode(), "match": found}
        values = np.array(client.post("/v1/explain", json=body).json()["query_grid"]["values"]).reshape(16, 16)
        halves.append(values[:, :8].sum() / values.sum())
    assert halves[0] > 0.7
    assert halves[1] < 0.3


def test_items_are_explained_and_vectors_are_not(client: httpx.Client, picture: bytes) -> None:
    answer = client.post("/v1/search", files={"image": picture}).json()
    first, second = (match["item"]["id"] for match in answer["matches"][:2])
    assert client.post("/v1/explain", json={"item": first, "match": second}).status_code == 200
    refused = client.post("/v1/explain", json={"vector": answer["query"]["vector"], "match": second})
    assert refused.status_code == 400
    assert "vector" in refused.json()["detail"]
    assert client.post("/v1/explain", json={"item": first, "match": "0" * 32}).status_code == 404


def test_what_was_called_no_match_is_hidden_for_that_query_only(
    client: httpx.Client, picture: bytes, owner: dict[str, str]
) -> None:
    before = client.post("/v1/search", files={"image": picture}).json()
    ids = [match["item"]["id"] for match in before["matches"]]
    vector = before["query"]["vector"]
    kept = client.post("/v1/feedback", json={"item": ids[0], "query_vector": vector}, headers=owner)
    assert kept.json() == {"kept": True}
    for request in ({"files": {"image": picture}}, {"json": {"vector": vector}}):
        after = client.post("/v1/search", **request).json()  # type: ignore[arg-type]
        assert [match["item"]["id"] for match in after["matches"]][:5] == ids[1:6]
    like = client.post("/v1/search", json={"item": ids[1]}).json()
    assert ids[0] in [match["item"]["id"] for match in like["matches"]]
    assert client.post("/v1/feedback", json={"item": ids[2], "query_item": ids[1]}, headers=owner).status_code == 200
    like = client.post("/v1/search", json={"item": ids[1]}).json()
    assert ids[2] not in [match["item"]["id"] for match in like["matches"]]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"item": "0" * 32, "query_vector": "AAAA"}, 404),
        ({"query_vector": "AAAA"}, 400),
        ({}, 400),
        ({"item": "0" * 32, "verdict": "lovely", "query_item": "0" * 32}, 400),
        ({"item": "0" * 32, "verdict": "harmless", "query_item": "0" * 32}, 400),
        ({"verdict": "harmless"}, 400),
        ({"verdict": "harmless", "query_item": "0" * 32}, 404),
        ({"query_item": "0" * 32}, 400),
    ],
)
def test_feedback_that_cannot_be_is_refused(client: httpx.Client, body: dict[str, str], status: int) -> None:
    response = client.post("/v1/feedback", json=body)
    assert response.status_code == status
    assert response.json()["found"]


def test_a_query_called_harmless_is_kept_and_moves_nothing(client: httpx.Client, picture: bytes, demo_app: App) -> None:
    before = client.post("/v1/search", files={"image": picture}).json()
    vector = before["query"]["vector"]
    learned = rejected_features(demo_app.stores.documents).tolist()
    for _ in range(3):
        kept = client.post("/v1/feedback", json={"query_vector": vector, "verdict": "harmless"})
        assert kept.json() == {"kept": True}
    after = client.post("/v1/search", files={"image": picture}).json()
    assert after["safety"] == before["safety"]
    assert [match["item"]["id"] for match in after["matches"]] == [match["item"]["id"] for match in before["matches"]]
    assert rejected_features(demo_app.stores.documents).tolist() == learned
    harmless = [one for one in all_feedback(demo_app.stores.documents, FEEDBACK_INBOX) if one.verdict == "harmless"]
    assert {(one.query[:7], one.item) for one in harmless} == {("vector:", "")}
    assert len({one.query for one in harmless}) == len(harmless), "said three times, kept once"


def test_one_query_and_one_only(client: httpx.Client, picture: bytes) -> None:
    answer = client.post("/v1/search", files={"image": picture}).json()
    item, vector = answer["matches"][0]["item"]["id"], answer["query"]["vector"]
    assert client.post("/v1/feedback", json={"item": item}).status_code == 400
    both = client.post("/v1/feedback", json={"item": item, "query_item": item, "query_vector": vector})
    assert both.status_code == 400
    large = client.post("/v1/feedback", content=b"x" * 200_000, headers={"Content-Type": "application/json"})
    assert large.status_code == 413


def test_stats_name_what_there_is(client: httpx.Client) -> None:
    assert set(client.get("/v1/stats").json()["capabilities"]) >= {"explain", "feedback"}


def test_stats_tell_how_long_each_stage_takes(client: httpx.Client, picture: bytes) -> None:
    before = client.get("/v1/stats").json()["searches"]
    assert client.post("/v1/search", files={"image": picture}).status_code == 200
    stats = client.get("/v1/stats").json()
    assert stats["searches"] > before
    assert set(stats["stages_ms"]) >= {"decode", "embed", "scan", "confidence", "items", "total"}
    assert all(0 <= stage["p50"] <= stage["p99"] for stage in stats["stages_ms"].values())


def test_the_live_recall_is_told_after_checks(demo_app: App, picture: bytes) -> None:
    service = demo_app.search_service()
    vector = service.embedder.embed([Image.open(io.BytesIO(picture)).convert("RGB")]).vectors[0]
    now = [100.0]
    monitor = RecallMonitor(service.searcher, clock=lambda: now[0])
    service.searcher.refresh()
    assert monitor.result() is None
    assert not monitor.check()
    monitor.waiting.append(vector)
    assert monitor.check()
    result = monitor.result()
    assert result is not None
    assert (result.samples, result.recall_at_12) == (1, 1.0)


def test_checks_take_no_more_than_their_share_of_the_time(demo_app: App) -> None:
    searcher = demo_app.searcher
    searcher.refresh()
    vector = searcher.vector_of(searcher.sample(1)[0])
    assert vector is not None
    ticks = iter([0.0, 0.0, 1.0, 2.0, 50.9, 51.1, 51.1, 52.0])
    monitor = RecallMonitor(searcher, clock=lambda: next(ticks))
    for _ in range(3):
        monitor.waiting.append(vector)
    assert monitor.check(), "from 0 to 1 second"
    assert not monitor.check(), "at 2 seconds: 49 more are to pass"
    assert not monitor.check(), "at 50.9"
    assert monitor.check(), "at 51.1"


def test_feedback_reads_only_news_and_not_more_often_than_it_may(local_stores: Stores) -> None:
    now = [0.0]
    asked: list[object] = []
    documents = local_stores.documents
    query = documents.query

    def counting(collection: str, **options: object) -> object:
        asked.append(options.get("where"))
        return query(collection, **options)  # type: ignore[arg-type]

    documents.query = counting  # type: ignore[method-assign, assignment]
    one = FeedbackLog(documents, freshness_s=30, clock=lambda: now[0])
    other = FeedbackLog(documents, freshness_s=30, clock=lambda: now[0])
    assert one.hidden("q") == frozenset()
    other.add(Feedback(query="q", item="i"))
    other.add(Feedback(query="q", item="i"))
    assert other.hidden("q") == {"i"}
    assert one.hidden("q") == frozenset()
    now[0] = 31
    assert one.hidden("q") == {"i"}
    now[0] = 62
    assert one.hidden("q") == {"i"}
    assert len(asked) == 4
    assert asked[-1], "after the first look, only what is newer"
    assert len(all_feedback(documents)) == 1
    kept = query(FEEDBACK, order_by="given_at")[0].data
    assert set(kept) <= {"query", "item", "verdict", "features", "given_at"}


def test_what_is_hidden_stays_so_while_the_store_is_away(local_stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    log = FeedbackLog(local_stores.documents, freshness_s=30, clock=lambda: now[0])
    log.add(Feedback(query="q", item="i"))
    assert log.hidden("q") == {"i"}

    def away(*_: object, **__: object) -> None:
        now[0] += 40
        raise StoreUnavailable("The store does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(local_stores.documents, "query", away)
        now[0] = 31
        assert [log.hidden("q") for _ in range(3)] == [{"i"}] * 3
        assert now[0] == 71, "only one search waited"
    FeedbackLog(local_stores.documents, freshness_s=30).add(Feedback(query="q", item="j"))
    now[0] = 102
    assert log.hidden("q") == {"i", "j"}


def test_rejected_first_matches_are_there_to_learn_from(local_stores: Stores) -> None:
    log = FeedbackLog(local_stores.documents, freshness_s=0)
    log.add(Feedback(query="a", item="i", features=tuple(float(n) for n in range(len(FEATURES)))))
    log.add(Feedback(query="b", item="i"))
    log.add(Feedback(query="c", item="i", features=(1.0,)))
    assert rejected_features(local_stores.documents).tolist() == [list(range(len(FEATURES)))]


def test_a_query_is_known_again_through_a_link() -> None:
    vector = np.random.default_rng(0).random(64).astype(np.float32)
    vector /= np.linalg.norm(vector)
    linked = vector.astype("<f2").astype(np.float32)
    assert query_key(vector, None) == query_key(linked, None)
    assert query_key(vector, "id") == "id"


def test_feedback_is_exported(local_settings: Settings, local_stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    log = FeedbackLog(local_stores.documents, freshness_s=0)
    log.add(Feedback(query="h", verdict="harmless"))
    assert log.hidden("h") == frozenset()
    log.add(Feedback(query="q", item="i"))
    monkeypatch.setenv("VISOR_HOME", str(local_settings.home))
    exported = json.loads(CliRunner().invoke(cli, ["feedback", "export", "--json"]).stdout)
    pair, harmless = (
        {"query": "q", "item": "i", "verdict": "not_a_match"},
        {"query": "h", "item": "", "verdict": "harmless"},
    )
    assert exported == {"feedback": [pair, harmless]}
    assert CliRunner().invoke(cli, ["feedback", "export"]).stdout == "q  i  not_a_match\nh  -  harmless\n"
