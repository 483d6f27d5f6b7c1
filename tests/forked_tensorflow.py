"""TensorFlow, imported once for all tests of a session that need it in a process of its own: each gets a fork."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from visor.models.build import builder
from visor.models.build.convert import NOT_NEEDED

FORKS = """
import json, os, runpy, sys, traceback
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))
import tensorflow
for line in sys.stdin:
    how, what, arguments, environ, folder = json.loads(line)
    child = os.fork()
    if not child:
        status = 1
        try:
            for number, name in enumerate(("stdin", "stdout", "stderr")):
                os.dup2(os.open(f"{folder}/{name}", os.O_RDWR | os.O_CREAT), number)
            sys.stdin, sys.stdout, sys.stderr = (open(n, "w" if n else "r", closefd=False) for n in range(3))
            sys.argv = [how, *arguments]
            os.environ.clear()
            os.environ.update(environ)
            if how == "-m":
                runpy.run_module(what, run_name="__main__", alter_sys=True)
            else:
                exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
            status = 0
        except SystemExit as exc:
            status = exc.code if isinstance(exc.code, int) else bool(exc.code)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}


class ForkedTensorFlow:
    """Runs `python -m MODULE …` and `python -c CODE …` in a fork of a process that has imported TensorFlow."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def run(
        self,
        command: Sequence[str],
        *,
        input: bytes = b"",  # noqa: A002 — as `subprocess.run` has it
        env: Mapping[str, str] | None = None,
        text: bool = False,
        check: bool = False,
        **_: Any,
    ) -> subprocess.CompletedProcess[Any]:
        """As `subprocess.run`, output captured."""
        how = next(word for word in command if word in ("-m", "-c"))
        what, *arguments = command[list(command).index(how) + 1 :]
        with self._lock, tempfile.TemporaryDirectory() as folder:
            Path(folder, "stdin").write_bytes(input)
            if self._process is None:
                started = [sys.executable, "-c", FORKS, json.dumps(NOT_NEEDED)]
                pipe = subprocess.PIPE
                self._process = subprocess.Popen(
                    started, stdin=pipe, stdout=pipe, env={**os.environ, **QUIET}, text=True
                )
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            job = [how, what, arguments, dict(os.environ if env is None else env), folder]
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            status = int(self._process.stdout.readline())
            out, err = (Path(folder, name).read_bytes() for name in ("stdout", "stderr"))
        done = subprocess.CompletedProcess[Any](
            list(command), status, out.decode() if text else out, err.decode() if text else err
        )
        if check:
            done.check_returncode()
        return done

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()


@pytest.fixture(scope="session")
def tensorflow() -> Iterator[ForkedTensorFlow]:
    """TensorFlow in forks of one process, which starts when it is first asked."""
    forked = ForkedTensorFlow()
    yield forked
    forked.close()


@pytest.fixture(scope="module")
def built_in_forks(tensorflow: ForkedTensorFlow) -> Iterator[None]:
    """Models are converted in such forks."""
    with pytest.MonkeyPatch.context() as patch:
        forked = SimpleNamespace(run=tensorflow.run, TimeoutExpired=subprocess.TimeoutExpired)
        patch.setattr(builder, "subprocess", forked)
        yield
