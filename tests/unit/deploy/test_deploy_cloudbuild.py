"""cloudbuild.yaml: valid, and its steps do what they should where no cloud is needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripts import publish
from scripts.models.model_key import model_key

from visor.models.builtin import NSFWJS
from visor.settings import Settings

pytestmark = pytest.mark.build

ROOT = Path(__file__).resolve().parents[3]
BUILD: dict[str, Any] = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text(encoding="utf-8"))
STEPS: dict[str, dict[str, Any]] = {step["id"]: step for step in BUILD["steps"]}
VALUES = {"PROJECT_ID": "my-project", **{k: str(v) for k, v in BUILD["substitutions"].items()}}
CHECK = Path(sys.executable).with_name("check-jsonschema")


def substituted(text: str) -> str:
    """As Cloud Build does it: `$NAME` and `${NAME}` of known names, `$$` for a dollar. Unknown names are an error."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return substituted(VALUES[found["bare"] or found["braced"]])

    return re.sub(r"\$\$|\$(?P<bare>[A-Z_]+[A-Z0-9_]*)|\$\{(?P<braced>\w+)\}", value, text)


def script(step: str) -> str:
    return substituted(STEPS[step]["args"][-1])


def validate(path: Path) -> subprocess.CompletedProcess[str]:
    command = [str(CHECK), "--builtin-schema", "vendor.cloudbuild", str(path)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.skipif(not CHECK.is_file(), reason="check-jsonschema is not installed")
def test_fits_the_published_schema_and_a_mistake_does_not(tmp_path: Path) -> None:
    done = validate(ROOT / "cloudbuild.yaml")
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "cloudbuild.yaml"
    text = (ROOT / "cloudbuild.yaml").read_text(encoding="utf-8")
    for right, mistake in (
        ("waitFor:", "wait_for:"),
        ("timeout: 3600s", "timeout: [3600]"),
        ("GCS_ONLY", "GCS"),
    ):
        assert right in text
        wrong.write_text(text.replace(right, mistake, 1), encoding="utf-8")
        assert validate(wrong).returncode == 1, mistake


def test_steps_wait_for_steps_that_are_there_and_come_before() -> None:
    seen = {"-"}
    for step in BUILD["steps"]:
        assert set(step.get("waitFor", [])) <= seen, step["id"]
        seen.add(step["id"])


def test_runs_on_the_free_machine() -> None:
    assert "machineType" not in BUILD["options"]
    assert "pool" not in BUILD["options"]


def test_its_log_is_shown_while_it_runs_and_kept_for_a_day() -> None:
    """gcloud shows what is written to a bucket, and an account of one's own takes a bucket of one's own."""
    assert BUILD["options"]["logging"] == "GCS_ONLY"
    bucket, _, folder = substituted(BUILD["logsBucket"]).removeprefix("gs://").partition("/")
    assert bucket == substituted(VALUES["_STATE_BUCKET"])
    [rule] = json.loads((ROOT / "terraform" / "state_bucket_lifecycle.json").read_text())["rule"]
    assert f"{folder}/" in rule["condition"]["matchesPrefix"]


def test_every_substitution_is_documented_and_used_and_the_weights_are_the_pinned_ones() -> None:
    text = (ROOT / "cloudbuild.yaml").read_text(encoding="utf-8")
    header, body = text[: text.index("substitutions:")], text[text.index("steps:") :]
    for name in BUILD["substitutions"]:
        assert name in header
        assert f"${name}" in body, "Cloud Build refuses what nothing uses"
    [nsfwjs] = re.findall(r"npm pack [^\n]* (\S+);", body)
    assert nsfwjs == f"{NSFWJS.source.name}@{NSFWJS.source.version}"


def test_tensorflow_is_installed_in_one_step_only() -> None:
    installing = [name for name, step in STEPS.items() if "[build]" in step["args"][-1]]
    assert installing == ["model-build"]
    assert not [name for name, step in STEPS.items() if "tensorflow" in step["args"][-1] and name != "model-build"]


@pytest.mark.parametrize("step", STEPS)
def test_every_script_is_a_script(step: str) -> None:
    shell = STEPS[step]["entrypoint"]
    done = subprocess.run([shell, "-n", "-c", script(step)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


IMAGES = {
    "python:3.11-slim": "bash cat mkdir python tar touch",
    "gcr.io/google.com/cloudsdktool/google-cloud-cli:slim": "bash cat gcloud python3",
    "node:22-slim": "bash node npm sh",
    "hashicorp/terraform:1.11": "cp sh sleep terraform",
}
"""What each image holds of what the steps use; no C++ compiler, no Git and no Java is in any. The run below fails where
a tool is missing here, and where one is here that no step uses."""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is uploaded of this checkout, and the tools of each image: real ones that write down that they ran, and a
    gcloud and a terraform that keep a folder instead of a cloud."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().split():
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bucket").mkdir()
    (tmp_path / "visor.toml").write_text('[sources.shop]\nkind = "feed"\nurl = "https://shop.example/feed.xml"\n')
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    _program(
        fakes / "gcloud",
        f"""
import shutil, sys
from pathlib import Path
with Path({str(tmp_path / "gcloud.log")!r}).open("a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1:4] == ["scheduler", "jobs", "run"]:
    sys.exit()
arguments = [a for a in sys.argv[1:] if not a.startswith("--")]
assert arguments[:2] == ["storage", "cp"], arguments
bucket = Path({str(tmp_path / "bucket")!r})
*sources, target = [bucket / p[5:] if p.startswith("gs://") else Path(p) for p in arguments[2:]]
for source in sources:
    if not source.exists():
        sys.exit(f"ERROR: {{source}} matched no objects")
    folder = sys.argv[-1].endswith("/")
    (target if folder else target.parent).mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target / source.name if folder else target)
""",
    )
    _program(
        fakes / "terraform",
        f"""
import sys
from pathlib import Path
log = Path({str(tmp_path / "terraform.log")!r})
earlier = log.read_text() if log.exists() else ""
log.write_text(earlier + " ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] == "apply" and "apply" not in earlier:
    sys.exit("Error: Permission denied on resource project my-project")
if sys.argv[1] == "output":
    print({OUTPUTS!r}[sys.argv[3]], end="")
""",
    )
    _program(fakes / "sleep", "")
    real = {"python": sys.executable, "python3": sys.executable}
    for image, tools in IMAGES.items():
        for tool in tools.split():
            path = fakes / tool if (fakes / tool).exists() else real.get(tool) or shutil.which(tool)
            program = tools_of(tmp_path, image) / tool
            program.parent.mkdir(parents=True, exist_ok=True)
            # Nothing is installed beside Python where gcloud is.
            bare = " -S" if tool == "python3" else ""
            program.write_text(f'#!/bin/sh\necho {tool} >> "{program.parent}.used"\nexec {path}{bare} "$@"\n')
            program.chmod(0o755)
    return tmp_path


OUTPUTS = {
    "endpoint": "https://visor-search-x.run.app",
    "page": "https://h/index.html",
    "site": "gs://my-project-visor-site",
    "page_config": '{"title": "Mine", "models": "./models/"}',
    "crawl_now": "gcloud scheduler jobs run visor-crawl --location=us-central1 --project=my-project",
}


def _program(path: Path, text: str) -> None:
    path.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
    path.chmod(0o755)


def tools_of(workspace: Path, image: str) -> Path:
    """The folder that is PATH in that image."""
    return workspace / "images" / re.sub(r"\W", "-", image)


def run(step: str, workspace: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a step as Cloud Build does, with the tools of its image and nothing else."""
    image, folder = tools_of(workspace, STEPS[step]["name"]), workspace / STEPS[step].get("dir", "")
    lines = [substituted(line).replace("/workspace/", f"{workspace}/") for line in STEPS[step].get("env", [])]
    kept = {name: os.environ[name] for name in os.environ if name.startswith(("PIP_", "HOME", "SSL_", "NODE_"))}
    done = subprocess.run(
        [image / STEPS[step]["entrypoint"], "-euc", script(step)],
        cwd=folder,
        env={**kept, "PATH": str(image), **dict(line.split("=", 1) for line in lines), **environ},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{step}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_step_succeeds_with_what_its_image_holds(
    workspace: Path, deployed: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """From an upload to a smoke test, with a model that is neither in the bucket nor published. TensorFlow is taken
    from here; pip checks that it is what the step asks for."""
    installed = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    nothing = str(tmp_path_factory.mktemp("nothing"))
    for step in STEPS:
        if step == "smoke":
            own = f"http://127.0.0.1:{deployed.server_port}"
            (workspace / "build" / "endpoint").write_text(own)
            (workspace / "build" / "page").write_text(f"{own}/index.html")
        more = {"PYTHONPATH": installed} if step == "model-build" else {}
        done = run(step, workspace, PIP_FIND_LINKS=nothing, PIP_COMPILE="0", **more)
    assert done.stdout.rstrip().endswith(f"Visor is at {own}/index.html")
    site = workspace / "bucket" / "my-project-visor-site"
    config = json.loads((site / "config.json").read_text(encoding="utf-8"))
    assert (config["endpoint"], config["title"]) == (OUTPUTS["endpoint"], "Mine")
    with zipfile.ZipFile(workspace / "build" / "bundles" / "search.zip") as bundle:
        assert len([name for name in bundle.namelist() if name.endswith(".tflite")]) == 2
    with zipfile.ZipFile(workspace / "build" / "bundles" / "crawl.zip") as bundle:
        assert "visor.toml" in bundle.namelist()
    assert OUTPUTS["crawl_now"].removeprefix("gcloud ") in (workspace / "gcloud.log").read_text()
    assert 'backend "gcs"' in (workspace / "terraform" / "backend_override.tf").read_text()
    calls = [line.split()[0] for line in (workspace / "terraform.log").read_text().splitlines()]
    assert calls[:4] == ["init", "plan", "apply", "apply"], "the first apply of a fresh project may fail"
    for image, tools in IMAGES.items():
        used = set(tools_of(workspace, image).with_name(f"{tools_of(workspace, image).name}.used").read_text().split())
        assert used == set(tools.split()), image
    kept = next((workspace / "bucket").glob("*/models/*.tar"))
    assert kept.name == f"{model_key('auto', workspace)}.tar"


def test_a_kept_model_is_found_again_without_tensorflow(workspace: Path, built_settings: Settings) -> None:
    (workspace / "build").mkdir()
    (workspace / "home" / "downloads").mkdir(parents=True)
    (workspace / "build" / "model.key").write_text("auto-1\n")
    kept = workspace / "bucket" / "my-project-visor-state" / "models" / "auto-1.tar"
    kept.parent.mkdir(parents=True)
    with tarfile.open(kept, "w") as archive:
        archive.add(built_settings.home / "models", "models")
    (workspace / ".venv").symlink_to(sys.prefix)
    for step in ("model-fetch", "model", "model-weights", "model-build", "model-keep"):
        run(step, workspace)
    assert not (workspace / "build" / "model.new").exists()
    assert not list((workspace / "home" / "downloads").iterdir())


def test_a_tool_that_an_image_lacks_ends_the_build(workspace: Path) -> None:
    (workspace / "build").mkdir()
    for tool in ("cp", "terraform", "sleep"):
        program = tools_of(workspace, STEPS["terraform"]["name"]) / tool
        program.rename(program.with_suffix(".gone"))
        with pytest.raises(AssertionError, match=f"{tool}: not found"):
            run("terraform", workspace)
        program.with_suffix(".gone").rename(program)
    run("terraform", workspace)


def test_model_key_changes_with_what_makes_the_model_and_nothing_else(workspace: Path) -> None:
    before = model_key("auto", workspace)
    (workspace / "functions" / "search" / "main.py").write_text("")
    assert model_key("auto", workspace) == before
    assert model_key("nsfwjs", workspace) != before
    with (workspace / "shared" / "visor" / "models" / "build" / "convert.py").open("a") as file:
        file.write("# changed\n")
    assert model_key("auto", workspace) != before


@pytest.fixture
def dist(workspace: Path) -> Path:
    folder = workspace / "frontend" / "dist"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>")
    (folder / "config.json").write_text('{"endpoint": "", "title": "Mine"}')
    (folder / "icon.svg").write_text("<svg/>")
    (folder / "assets" / "index-B-1l_bOM.js").write_text("1")
    return folder


def test_headers_and_order_of_uploads(dist: Path) -> None:
    commands = {Path(path).name: command for command in publish.uploads(dist, "gs://b") for path in command[5:-1]}
    assert f"--cache-control={publish.FOR_EVER}" in commands["index-B-1l_bOM.js"]
    assert "--content-type=text/javascript; charset=utf-8" in commands["index-B-1l_bOM.js"]
    assert commands["index-B-1l_bOM.js"][-1] == "gs://b/assets/"
    assert "--content-type=image/svg+xml" in commands["icon.svg"]
    assert "--cache-control=no-cache" in commands["index.html"]
    assert list(commands)[-2:] == ["config.json", "index.html"], "what names others comes last"


def test_a_service_that_serves_the_page_is_opened_without_all_users(workspace: Path, dist: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "publish.py"), str(dist), "run://p/us-central1/visor-search"]
    done = subprocess.run(
        [*command, "--endpoint", "https://x.run.app", "--dry-run"], capture_output=True, text=True, check=True
    )
    where = "--region=us-central1 --project=p --quiet"
    assert done.stdout.strip() == f"gcloud run services update visor-search --no-invoker-iam-check {where}"
    assert json.loads((dist / "config.json").read_text())["endpoint"] == ""


@pytest.mark.parametrize(("gcloud", "said"), [("exit 7", "failed with status 7"), (None, "gcloud is not installed")])
def test_a_page_that_is_not_published_is_said_in_words(
    dist: Path, tmp_path: Path, gcloud: str | None, said: str
) -> None:
    if gcloud is not None:
        (tmp_path / "gcloud").write_text(f"#!/bin/sh\n{gcloud}\n")
        (tmp_path / "gcloud").chmod(0o755)
    command = [sys.executable, str(ROOT / "scripts" / "publish.py"), str(dist), "gs://b", "--endpoint"]
    done = subprocess.run([*command, "https://x.run.app"], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_what_the_owner_says_of_the_page_is_published(dist: Path) -> None:
    publish.write_config(dist, "https://x.run.app/", {"title": "Shop", "notes": [{"text": "Hand-made"}]})
    config = json.loads((dist / "config.json").read_text())
    assert config == {"endpoint": "https://x.run.app", "title": "Shop", "notes": [{"text": "Hand-made"}]}


@pytest.mark.parametrize(
    ("config", "folder"),
    [
        ({"models": "./models/"}, "gs://b/models/"),
        ({"export": "./data/"}, "gs://b/data/"),
        ({"models": "https://files.example/models/"}, None),
        ({}, None),
    ],
)
def test_devices_have_the_bundled_model_from_the_bucket(
    tmp_path: Path, config: dict[str, str], folder: str | None
) -> None:
    assert publish.models_folder(config, "gs://b") == folder
    model = tmp_path / "models" / "made-0123456789ab"
    model.mkdir(parents=True)
    files = [{"network": "a", "file": "a.tflite", "sha256": "12ab"}, {"network": "b", "file": "b.onnx", "sha256": "3"}]
    (model / "model.json").write_text(json.dumps({"files": files}))
    (model / "a.tflite").write_bytes(b"a")
    [command] = publish.model_uploads(tmp_path / "models", "gs://b/models/")
    assert command[-2:] == [str(model / "a.tflite"), "gs://b/models/12ab.tflite"]
    assert {f"--cache-control={publish.FOR_EVER}", "--gzip-local-all", "--no-clobber"} <= set(command)
    with pytest.raises(SystemExit, match="no model"):
        list(publish.model_uploads(tmp_path / "none", "gs://b/models/"))


def test_a_file_of_unknown_type_is_not_published(dist: Path) -> None:
    (dist / "secret.pem").write_text("")
    with pytest.raises(SystemExit, match=r"secret\.pem"):
        list(publish.uploads(dist, "gs://b"))


@pytest.mark.parametrize("endpoint", ["", "http://x.run.app", "visor.run.app", "https://x.run.app/?a=b"])
def test_an_endpoint_that_is_none_is_not_published(dist: Path, endpoint: str) -> None:
    with pytest.raises(SystemExit, match="not an endpoint"):
        publish.write_config(dist, endpoint)


class Deployed(BaseHTTPRequestHandler):
    """A deployed Visor as far as the smoke test asks, well or broken in one respect."""

    def do_GET(self) -> None:
        server: Any = self.server
        own = f"http://127.0.0.1:{server.server_port}"
        answers = {
            "/v1/health": ("application/json", b"{}"),
            "/v1/stats": ("application/json", b'{"index": {"images": 5}}'),
            "/index.html": ("text/html; charset=utf-8", b"<!doctype html>"),
            "/config.json": ("application/json", json.dumps({"endpoint": own}).encode()),
            **server.broken,
        }
        status = server.statuses.get(self.path, 200)
        self._send(status if self.path in answers else 404, *answers.get(self.path, ("text/plain", b"")))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._send(*self.server.refusal)  # type: ignore[attr-defined]

    def _send(self, status: int, type_: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", type_)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", self.server.sniff)  # type: ignore[attr-defined]
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def deployed() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Deployed)
    server.broken, server.statuses, server.sniff = {}, {}, "nosniff"
    server.refusal = (400, "application/problem+json", b"{}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def smoke(server: Any) -> subprocess.CompletedProcess[str]:
    own = f"http://127.0.0.1:{server.server_port}"
    command = [
        sys.executable,
        str(ROOT / "scripts" / "smoke.py"),
        own,
        "--page",
        f"{own}/index.html",
        "--attempts",
        "1",
    ]
    return subprocess.run(command, capture_output=True, text=True)


def test_smoke_finds_all_well(deployed: Any) -> None:
    done = smoke(deployed)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("ok ") == 5
    assert done.stdout.rstrip().endswith("/index.html")
    assert "5 images" in done.stdout


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/v1/stats", ("text/html", b"<h1>Error</h1>")),
        ("/index.html", ("application/octet-stream", b"<!doctype html>")),
        ("/config.json", ("application/json", b'{"endpoint": "https://other.run.app"}')),
    ],
)
def test_smoke_finds_what_is_broken(deployed: Any, path: str, answer: tuple[str, bytes]) -> None:
    deployed.broken = {path: answer}
    done = smoke(deployed)
    assert done.returncode == 1
    assert done.stdout.count("WRONG") == 1


@pytest.mark.parametrize(("status", "type_", "well"), [(429, "application/problem+json", 1), (429, "text/html", 0)])
def test_smoke_passes_where_only_the_free_tier_is_used_up(deployed: Any, status: int, type_: str, well: int) -> None:
    """The first crawl, which fills the page, is started after it."""
    deployed.broken, deployed.statuses = {"/v1/stats": (type_, b"{}")}, {"/v1/stats": status}
    done = smoke(deployed)
    assert done.returncode == 1 - well
    assert done.stdout.count("no more is free for now") == well


def test_smoke_finds_an_answer_that_is_cut_off(deployed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(self: Deployed, status: int, type_: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    monkeypatch.setattr(Deployed, "_send", cut)
    done = smoke(deployed)
    assert (done.returncode, done.stderr) == (1, "")
    assert "does not answer: IncompleteRead" in done.stdout


def test_smoke_finds_a_stack_trace_and_missing_headers(deployed: Any) -> None:
    deployed.refusal = (500, "text/html", b"Traceback (most recent call last)")
    deployed.sniff = ""
    assert smoke(deployed).stdout.count("WRONG") == 2
