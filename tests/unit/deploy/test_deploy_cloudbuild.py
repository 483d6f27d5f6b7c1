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
from scripts.model_key import model_key

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
        ("CLOUD_LOGGING_ONLY", "CLOUD"),
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
    assert BUILD["options"]["logging"] == "CLOUD_LOGGING_ONLY", "log files in a bucket would be stored and billed"


def test_every_substitution_is_documented_and_used() -> None:
    text = (ROOT / "cloudbuild.yaml").read_text(encoding="utf-8")
    header, body = text[: text.index("substitutions:")], text[text.index("steps:") :]
    for name in BUILD["substitutions"]:
        assert name in header
        assert f"${name}" in body, "Cloud Build refuses what nothing uses"


def test_tensorflow_is_installed_in_one_step_only() -> None:
    installing = [name for name, step in STEPS.items() if "[gcp,build]" in step["args"][-1]]
    assert installing == ["model-build"]
    assert not [name for name, step in STEPS.items() if "tensorflow" in step["args"][-1] and name != "model-build"]


@pytest.mark.parametrize("step", STEPS)
def test_every_script_is_a_script(step: str) -> None:
    shell = STEPS[step]["entrypoint"]
    done = subprocess.run([shell, "-n", "-c", script(step)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what the steps read, and a gcloud and a terraform that keep a folder instead of a cloud."""
    for name in ("scripts", "functions", "shared", "terraform"):
        ignore = shutil.ignore_patterns("__pycache__", ".terraform*", "*.tfstate*")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    for name in ("constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    programs = tmp_path / "programs"
    programs.mkdir()
    (tmp_path / "bucket").mkdir()
    _program(
        programs / "gcloud",
        f"""
import shutil, sys
from pathlib import Path
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
        programs / "terraform",
        f"""
import sys
from pathlib import Path
with Path({str(tmp_path / "terraform.log")!r}).open("a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] == "output":
    print({{"endpoint": "https://visor-search-x.run.app", "page": "https://h/index.html"}}[sys.argv[3]], end="")
""",
    )
    (programs / "python3").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def _program(path: Path, text: str) -> None:
    path.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
    path.chmod(0o755)


def run(step: str, workspace: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    shell, folder = STEPS[step]["entrypoint"], workspace / STEPS[step].get("dir", "")
    command = script(step).replace("/workspace/", f"{workspace}/")
    done = subprocess.run(
        [shell, "-euc", command], cwd=folder, env={**os.environ, **environ}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


def test_a_built_model_is_kept_and_found_again(workspace: Path) -> None:
    """Fetch finds none; a build's result is kept; the next fetch finds it and build unpacks it without TensorFlow."""
    run("model-fetch", workspace)
    assert not (workspace / "build" / "model.tar").exists()
    made = workspace / "home" / "models" / "made-1234"
    made.mkdir(parents=True)
    (made / "model.json").write_text("{}")
    with tarfile.open(workspace / "build" / "model.tar", "w") as archive:
        archive.add(workspace / "home" / "models", "models")
    (workspace / "build" / "model.new").touch()
    run("model-keep", workspace)
    shutil.rmtree(workspace / "build")
    shutil.rmtree(workspace / "home")
    run("model-fetch", workspace)
    run("model-build", workspace)
    assert (made / "model.json").read_text() == "{}"
    run("model-keep", workspace)
    assert not (workspace / "build" / "model.new").exists()


def test_a_model_that_the_bucket_has_not_is_built_and_bundled(workspace: Path) -> None:
    """With TensorFlow, from registries, in an environment that the step makes. Packages that are installed here are
    taken from here: pip checks that they are those that the step asks for."""
    installed = next(path for path in sys.path if path.endswith("site-packages"))
    (workspace / "build").mkdir()
    run("model-build", workspace, VISOR_HOME=str(workspace / "home"), VISOR_MODEL="auto", PYTHONPATH=installed)
    assert (workspace / "build" / "model.new").exists()
    with tarfile.open(workspace / "build" / "model.tar") as archive:
        kept = {Path(name).name for name in archive.getnames()}
    assert "auto.json" in kept
    assert [name for name in kept if name.endswith(".tflite")]
    (workspace / ".venv").symlink_to(sys.prefix)
    run("bundles", workspace, VISOR_HOME=str(workspace / "home"), VISOR_MODEL="auto")
    with zipfile.ZipFile(workspace / "build" / "bundles" / "search.zip") as bundle:
        assert [name for name in bundle.namelist() if name.endswith(".tflite")]


def test_model_key_changes_with_what_makes_the_model_and_nothing_else(workspace: Path) -> None:
    before = model_key("auto", workspace)
    (workspace / "functions" / "search" / "main.py").write_text("")
    assert model_key("auto", workspace) == before
    assert model_key("nsfwjs", workspace) != before
    with (workspace / "shared" / "visor" / "models" / "build.py").open("a") as file:
        file.write("# changed\n")
    assert model_key("auto", workspace) != before


def test_bundles_step_makes_a_bundle_of_every_function(workspace: Path) -> None:
    (workspace / ".venv").symlink_to(sys.prefix)
    made = workspace / "home" / "models" / "made-1234"
    made.mkdir(parents=True)
    (made / "model.json").write_text("{}")
    (made / "network.tflite").write_bytes(b"weights")
    command = script("bundles").replace("build/bundles ", f"build/bundles --model {made} ")
    (workspace / "visor.toml").write_text("[sources]\n")
    environ = {**os.environ, "PYTHONPATH": str(workspace / "shared")}
    done = subprocess.run(["bash", "-euc", command], cwd=workspace, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made_for = {path.stem for path in (workspace / "build" / "bundles").glob("*.zip")}
    assert made_for == {path.parent.name for path in (ROOT / "functions").glob("*/main.py")}
    assert (workspace / "build" / "bundles" / "crawl" / "visor.toml").is_file()


def test_terraform_step_keeps_its_state_in_the_bucket_and_hands_on_the_addresses(workspace: Path) -> None:
    (workspace / "build").mkdir()
    run("terraform", workspace)
    assert 'backend "gcs"' in (workspace / "terraform" / "backend_override.tf").read_text()
    calls = (workspace / "terraform.log").read_text().splitlines()
    assert calls[0] == "init -backend-config=bucket=my-project-visor-state"
    assert calls[1:3] == ["plan -out=../build/plan -var=model=auto", "apply ../build/plan"]
    assert (workspace / "build" / "endpoint").read_text() == "https://visor-search-x.run.app"


@pytest.fixture
def dist(workspace: Path) -> Path:
    folder = workspace / "frontend" / "dist"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>")
    (folder / "config.json").write_text('{"endpoint": "", "title": "Mine"}')
    (folder / "icon.svg").write_text("<svg/>")
    (folder / "assets" / "index-B-1l_bOM.js").write_text("1")
    return folder


def test_page_step_builds_the_page_from_a_clean_checkout(workspace: Path) -> None:
    ignore = shutil.ignore_patterns("node_modules", "dist")
    shutil.copytree(ROOT / "frontend", workspace / "frontend", ignore=ignore)
    shutil.copytree(ROOT / "docs", workspace / "docs")
    run("page", workspace)
    built = workspace / "frontend" / "dist"
    assert json.loads((built / "config.json").read_text(encoding="utf-8"))["endpoint"] == ""
    assert "<script" in (built / "index.html").read_text(encoding="utf-8")
    assert list((built / "assets").glob("*.js"))


def test_publish_step_uploads_the_page_with_the_endpoint(workspace: Path, dist: Path) -> None:
    (workspace / "build").mkdir()
    (workspace / "build" / "endpoint").write_text("https://visor-search-x.run.app")
    run("publish", workspace)
    site = workspace / "bucket" / "my-project-visor-site"
    config = json.loads((site / "config.json").read_text())
    assert config == {"endpoint": "https://visor-search-x.run.app", "title": "Mine"}
    assert (site / "assets" / "index-B-1l_bOM.js").is_file()


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


def test_what_the_owner_says_of_the_page_is_published(dist: Path) -> None:
    publish.write_config(dist, "https://x.run.app/", {"title": "Shop", "notes": [{"text": "Hand-made"}]})
    config = json.loads((dist / "config.json").read_text())
    assert config == {"endpoint": "https://x.run.app", "title": "Shop", "notes": [{"text": "Hand-made"}]}


def test_a_file_of_unknown_type_is_not_published(dist: Path) -> None:
    (dist / "secret.pem").write_text("")
    with pytest.raises(SystemExit, match=r"secret\.pem"):
        list(publish.uploads(dist, "gs://b"))


@pytest.mark.parametrize("endpoint", ["", "http://x.run.app", "visor.run.app", "https://x.run.app/?a=b"])
def test_an_endpoint_that_is_none_is_not_published(dist: Path, endpoint: str) -> None:
    with pytest.raises(SystemExit, match="no endpoint"):
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
        self._send(200 if self.path in answers else 404, *answers.get(self.path, ("text/plain", b"")))

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
    server.broken, server.sniff = {}, "nosniff"
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


def test_smoke_finds_a_stack_trace_and_missing_headers(deployed: Any) -> None:
    deployed.refusal = (500, "text/html", b"Traceback (most recent call last)")
    deployed.sniff = ""
    assert smoke(deployed).stdout.count("WRONG") == 2
