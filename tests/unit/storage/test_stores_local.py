"""What is the embedded stores' own: files, versions of formats, plans of queries."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from visor.errors import CorruptObject, NewerFormat, SettingsError, StoreError, StoreUnavailable
from visor.ingest.seen_set import ROW, SeenSet, object_name
from visor.link_check.state import LinkState
from visor.settings import Settings
from visor.storage import open_documents, open_objects, open_queue
from visor.storage.documents import SERVER_TIME, Put, Where
from visor.storage.local import documents as local_documents
from visor.storage.local import queue as local_queue
from visor.storage.local import sqlite as local_sqlite
from visor.storage.local.documents import SqliteDocuments
from visor.storage.local.liveness import ProcessLock
from visor.storage.local.objects import FolderObjects
from visor.storage.local.queue import SqliteQueue
from visor.storage.local.sqlite import Database, translate


def test_objects_are_plain_files(tmp_path: Path) -> None:
    FolderObjects(tmp_path).put("shards/a.bin", b"hello")
    assert (tmp_path / "shards" / "a.bin").read_bytes() == b"hello"


def test_a_file_is_moved_in_if_it_is_the_only_name_of_its_content(tmp_path: Path) -> None:
    objects = FolderObjects(tmp_path / "objects")
    path = tmp_path / "file"
    path.write_bytes(b"hello")
    inode = path.stat().st_ino
    objects.put_file("moved", str(path))
    assert not path.exists()
    assert (tmp_path / "objects" / "moved").stat().st_ino == inode

    path.write_bytes(b"linked")
    (tmp_path / "second").hardlink_to(path)
    objects.put_file("copied", str(path))
    (tmp_path / "symbolic").symlink_to(path)
    objects.put_file("followed", str(tmp_path / "symbolic"))
    path.write_bytes(b"changed")
    assert bytes(objects.get("copied")) == bytes(objects.get("followed")) == b"linked"
    assert (tmp_path / "symbolic").is_symlink()


def test_names_that_would_be_folder_and_object(tmp_path: Path) -> None:
    objects = FolderObjects(tmp_path)
    objects.put("a/b", b"1")
    for name in ("a", "a/b/c", "a/b/c/d"):
        with pytest.raises(StoreError, match="No object can be named a"):
            objects.put(name, b"2")
    assert [info.name for info in objects.list()] == ["a/b"]
    assert list((tmp_path / ".unfinished").iterdir()) == []


def test_what_another_process_is_writing_is_not_swept(tmp_path: Path) -> None:
    objects = FolderObjects(tmp_path)
    left_behind = tmp_path / ".unfinished" / "left-behind"
    left_behind.write_bytes(b"half")
    with objects._new_file() as file:
        FolderObjects(tmp_path)
        assert Path(file.name).exists()
    assert not left_behind.exists()


def test_generations_grow_with_a_clock_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = FolderObjects(tmp_path)
    first = objects.put("a", b"1")
    monkeypatch.setattr("time.time_ns", lambda: 1_000_000_000_000_000_000)
    second = objects.put("a", b"2", if_generation=first.generation)
    objects.delete("a")
    third = objects.put("a", b"3", if_generation=0)
    assert first.generation < second.generation < third.generation


def test_generations_grow_where_files_keep_whole_seconds_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    utime = os.utime

    def coarse(path: int, times: None = None, *, ns: tuple[int, int] = (0, 0)) -> None:
        utime(path, ns=(ns[0] // 10**9 * 10**9, ns[1] // 10**9 * 10**9))

    monkeypatch.setattr(os, "utime", coarse)
    objects = FolderObjects(tmp_path)
    generations = [objects.put("a", b"1").generation for _ in range(4)]
    assert generations == sorted(set(generations))
    assert objects.stat("a").generation == generations[-1]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="file"):
        FolderObjects(tmp_path / "file")


def test_a_full_disk_is_temporary() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    from visor.storage.local.objects import _translated

    with pytest.raises(StoreUnavailable, match="No space"), _translated("a"), Path("/dev/full").open("wb") as file:
        file.write(b"x" * 100_000)


@pytest.mark.parametrize("version", range(len(local_documents.MIGRATIONS) + 1))
def test_documents_of_every_older_version(version: int, tmp_path: Path) -> None:
    path = tmp_path / "documents.sqlite"
    Database(path, local_documents.MIGRATIONS[:version]).close()
    if version:
        with sqlite3.connect(path) as connection:
            connection.execute(
                "INSERT INTO documents (collection, key, revision, data) VALUES ('commits', 'old', 7, ?)",
                ('{"committed_at": 12.5}',),
            )
        connection.close()
    documents = SqliteDocuments(path)
    documents.commit([Put(collection="commits", key="new", data={"committed_at": SERVER_TIME})])
    found = documents.query("commits", where=[Where(field="committed_at", op=">=", value=12)], order_by="committed_at")
    assert [document.key for document in found] == (["old", "new"] if version else ["new"])
    documents.close()


@pytest.mark.parametrize("version", range(len(local_queue.MIGRATIONS) + 1))
def test_queues_of_every_older_version(version: int, tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    Database(path, local_queue.MIGRATIONS[:version]).close()
    queue = SqliteQueue(path, 5)
    queue.publish([b"1"])
    assert [message.body for message in queue.receive(5, lease_s=60)] == [b"1"]
    queue.close()


def test_a_later_version_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "documents.sqlite"
    Database(path, (*local_documents.MIGRATIONS, "CREATE TABLE later (x)")).close()
    with pytest.raises(NewerFormat, match=f"format {len(local_documents.MIGRATIONS) + 1}.*newer Visor"):
        SqliteDocuments(path)


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    Database(path, ("CREATE TABLE a (x)",)).close()
    with pytest.raises(StoreError):
        Database(path, ("CREATE TABLE a (x)", "CREATE TABLE b (x); CREATE TABLE a (x)"))
    database = Database(path, ("CREATE TABLE a (x)",))
    with database.read() as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("a",)]
    database.close()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "documents.sqlite"
    path.write_bytes(b"no database at all" * 1000)
    with pytest.raises(CorruptObject, match=r"documents\.sqlite"):
        SqliteDocuments(path)


def test_a_database_locked_for_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_sqlite, "BUSY_TIMEOUT_S", 0.1)
    documents = SqliteDocuments(tmp_path / "documents.sqlite")
    other = sqlite3.connect(tmp_path / "documents.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        documents.commit([Put(collection="items", key="a", data={"x": 1})])
    other.execute("COMMIT")
    other.close()
    assert documents.commit([Put(collection="items", key="a", data={"x": 1})]) == [True]
    documents.close()


@pytest.mark.parametrize("successor", [False, True])
def test_what_is_written_to_a_database_that_was_moved_away_is_refused(successor: bool, tmp_path: Path) -> None:
    """Such as by `visor restore` below a running server: SQLite itself would go on writing to the file moved away."""
    settings = Settings(home=tmp_path)
    folder = tmp_path / "indexes" / settings.index
    with contextlib.closing(open_documents(settings)) as documents, contextlib.closing(open_queue(settings)) as queue:
        put = Put(collection="c", key="k", data={"n": 1})
        documents.commit([put])
        folder.rename(tmp_path / "away")
        if successor:
            open_documents(settings).close()
            open_queue(settings).close()
        for call in (lambda: documents.commit([put]), lambda: documents.get("c", ["k"]), lambda: queue.publish([b"x"])):
            with pytest.raises(StoreError, match=r"moved, deleted or replaced .* start it again"):
                call()
    assert folder.exists() == successor


def test_errors_of_the_file_system_are_translated(tmp_path: Path) -> None:
    assert type(translate(PermissionError("no"), tmp_path)) is StoreError
    # A -shm file of a time when the database was read-only stays so.
    assert "-shm" in str(translate(PermissionError("no"), tmp_path))


def test_commits_since_a_time_are_found_by_the_index(tmp_path: Path) -> None:
    documents = SqliteDocuments(tmp_path / "documents.sqlite")
    plans: list[str] = []
    with documents._database.read() as connection:
        connection.set_trace_callback(plans.append)
    documents.query("commits", where=[Where(field="committed_at", op=">", value=5.0)], order_by="committed_at")
    documents.query("runs", order_by="started_at", descending=True, limit=10)
    with documents._database.read() as connection:
        connection.set_trace_callback(None)
        told = [
            " ".join(row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + sql))
            for sql in plans
            if sql.startswith("SELECT")
        ]
    documents.close()
    assert len(told) == 2
    assert all("SEARCH documents USING INDEX" in plan and "TEMP B-TREE" not in plan for plan in told), told
    assert "by_committed_at" in told[0]
    assert "by_started_at" in told[1]


def test_server_time_increases_with_a_clock_set_back(tmp_path: Path) -> None:
    times = iter([1000.0, 999.0, 999.5, 1000.0])
    documents = SqliteDocuments(tmp_path / "documents.sqlite", clock=lambda: next(times))
    seen = []
    for _ in range(4):
        documents.commit([Put(collection="commits", key="a", data={"committed_at": SERVER_TIME})])
        seen.append(documents.get("commits", ["a"])["a"].data["committed_at"])
    documents.close()
    assert seen == [1000.0, 1000.000001, 1000.000002, 1000.000003]


def test_connections_do_not_cross_a_fork(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from visor.storage.local.documents import SqliteDocuments
from visor.storage.documents import Add
documents = SqliteDocuments(Path({str(tmp_path)!r}) / "documents.sqlite")
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        for _ in range(5):
            documents.commit([Add(collection="meters", key="m", amounts={{"n": 1}})])
        os._exit(0)
    children.append(child)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
print(documents.get("meters", ["m"])["m"].data)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "{'n': 15}\n", done.stderr


def test_a_lease_that_ran_out_on_the_last_attempt_makes_a_dead_letter(tmp_path: Path) -> None:
    now = [0.0]
    queue = SqliteQueue(tmp_path / "queue.sqlite", 2, clock=lambda: now[0])
    queue.publish([b"1"])
    assert queue.waiting() == 1
    for attempt in (1, 2):
        (message,) = queue.receive(1, lease_s=10)
        assert message.attempt == attempt
        assert queue.receive(1, lease_s=10) == []
        now[0] += 10
    (letter,) = queue.dead_letters()
    assert (letter.body, letter.attempts, letter.dead_at) == (b"1", 2, 20.0)
    assert "lease" in letter.why
    assert queue.waiting() == 0
    # Too late to be acknowledged or released.
    queue.acknowledge(message)
    queue.release(message, delay_s=0)
    assert queue.receive(1, lease_s=10) == []
    queue.retry(letter)
    queue.retry(letter)
    assert queue.waiting() == 1
    assert queue.dead_letters() == []
    queue.close()


def test_lock_files_of_processes_that_ended_are_removed(tmp_path: Path) -> None:
    """Each process that is killed leaves one behind."""
    alive = ProcessLock(tmp_path)
    with contextlib.closing(alive):
        (tmp_path / "1-killed").touch()
        with contextlib.closing(ProcessLock(tmp_path)) as other:
            assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive.name, other.name])
        assert not other.is_dead(alive.name)
    assert list(tmp_path.iterdir()) == []


def test_a_released_dead_letter_tells_why(tmp_path: Path) -> None:
    queue = SqliteQueue(tmp_path / "queue.sqlite", 1)
    queue.publish([b"1"])
    (message,) = queue.receive(1, lease_s=10)
    queue.release(message, delay_s=0, why="The store is down")
    assert [letter.why for letter in queue.dead_letters()] == ["The store is down"]
    assert queue.dead_letters(limit=1)[0].attempts == 1
    queue.close()


@pytest.mark.parametrize("backend", ["local", "gcp"])
def test_only_the_libraries_of_the_backend_are_imported(backend: str, tmp_path: Path) -> None:
    settings = f"Settings(backend={backend!r}, home=Path({str(tmp_path)!r}), bucket='b', project='p')"
    code = f"""
import sys
from pathlib import Path
from visor.settings import Settings
from visor.storage import open_documents, open_objects, open_queue
open_objects({settings}), open_documents({settings})
print("google.cloud.pubsub_v1" in sys.modules)
open_queue({settings})
print("google.cloud.firestore" in sys.modules, "sqlite3" in sys.modules)
"""
    hosts = {"FIRESTORE_EMULATOR_HOST": "127.0.0.1:1", "PUBSUB_EMULATOR_HOST": "127.0.0.1:1"}
    hosts["STORAGE_EMULATOR_HOST"] = "http://127.0.0.1:1"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=os.environ | hosts
    )
    wanted = "False\nFalse True\n" if backend == "local" else "False\nTrue False\n"
    assert done.stdout == wanted, done.stderr


def test_settings_that_google_cloud_needs() -> None:
    for open_, variable in [(open_objects, "VISOR_BUCKET"), (open_queue, "VISOR_PROJECT")]:
        with pytest.raises(SettingsError, match=variable):
            open_(Settings(backend="gcp"))


def test_open_documents_in_a_home_that_is_new(tmp_path: Path) -> None:
    documents = open_documents(Settings(home=tmp_path / "a" / "b"))
    assert documents.query("items") == []
    documents.close()


def test_an_object_of_a_later_visor_is_not_called_damaged(tmp_path: Path) -> None:
    objects = FolderObjects(tmp_path)
    objects.put("links.json", b'{"format": 2, "problems": 7, "checked": "many"}')
    with pytest.raises(NewerFormat, match="Update Visor"):
        LinkState.load(objects)
    buffer = io.BytesIO()
    np.savez(buffer, progress=np.frombuffer(b'{"format": 2, "number": "two"}', np.uint8), rows=np.empty(0, ROW))
    objects.put(object_name("shop"), buffer.getvalue())
    with pytest.raises(NewerFormat, match="Update Visor"):
        SeenSet.load(objects, "shop")


@pytest.mark.parametrize("progress", [b"[]", b'{"number": "two"}', b"7", b"{"])
def test_a_seen_set_whose_progress_is_none_is_called_damaged(progress: bytes, tmp_path: Path) -> None:
    objects, buffer = FolderObjects(tmp_path), io.BytesIO()
    np.savez(buffer, progress=np.frombuffer(progress, np.uint8), rows=np.empty(0, ROW))
    objects.put(object_name("shop"), buffer.getvalue())
    with pytest.raises(CorruptObject, match="visor check --repair"):
        SeenSet.load(objects, "shop")


def test_a_disk_that_cannot_be_written_is_told_without_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touch(path: Path, **_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "touch", touch)
    with pytest.raises(StoreError, match="objects could not be used: Read-only file system"):
        FolderObjects(tmp_path / "objects")


@pytest.mark.parametrize("is_locked", [True, False])
def test_a_database_that_cannot_be_looked_at_is_not_called_damaged(
    is_locked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repair would make it anew. A folder stands for the file of another user, or on a read-only disk."""
    monkeypatch.setattr(local_sqlite, "BUSY_TIMEOUT_S", 0.0)
    path = tmp_path / "documents.sqlite"
    if not is_locked:
        path.mkdir()
        with pytest.raises(StoreError, match="could not be used: unable to open database file"):
            local_sqlite.damage(path, local_documents.MIGRATIONS)
        return
    SqliteDocuments(path).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable, match="could not be used: database is locked"):
            local_sqlite.damage(path, local_documents.MIGRATIONS)
    assert local_sqlite.damage(path, local_documents.MIGRATIONS) == ""


def test_a_full_disk_is_not_called_damage(tmp_path: Path) -> None:
    """SQLite cannot even read then: it needs a small file next to the database."""
    path = tmp_path / "documents.sqlite"
    SqliteDocuments(path).close()
    code = (
        "import pathlib, resource, signal; from visor.storage.local import documents, sqlite; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000)); "
        f"print(sqlite.damage(pathlib.Path({str(path)!r}), documents.MIGRATIONS))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("", 1)
    assert "StoreUnavailable" in done.stderr
    assert "could not be used: disk I/O error. Valid: A disk with free space" in done.stderr


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A database of 2,000 documents, one page of which is overwritten."""
    path = tmp_path / "documents.sqlite"
    with contextlib.closing(SqliteDocuments(path)) as documents:
        for start in range(0, 2000, 100):
            puts = [Put(collection="items", key=f"{start + n:032x}", data={"x": "y" * 500}) for n in range(100)]
            documents.commit(puts)
    data = bytearray(path.read_bytes())
    middle = len(data) // 8192 * 4096
    data[middle : middle + 4096] = b"\x5a" * 4096
    path.write_bytes(data)
    return path


def test_a_repair_of_a_database_that_a_full_disk_or_its_end_stops_leaves_it_as_it_was(damaged: Path) -> None:
    """What was copied by then passed for the whole database, and the next repair deleted the vectors of the others."""
    before = damaged.read_bytes()
    killed = "import os, sys; sys.addaudithook(lambda what, _: what in ('os.link', 'os.rename') and os._exit(9))"
    full = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))"
    )
    for stopped, said in ((full, "StoreUnavailable"), (killed, "")):
        code = (
            "import pathlib; from visor.storage.local import documents, sqlite; "
            f"{stopped}; sqlite.salvage(pathlib.Path({str(damaged)!r}), documents.MIGRATIONS)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode in (1, 9), done.stderr
        assert said in done.stderr
        assert damaged.read_bytes() == before
    old = local_sqlite.salvage(damaged, local_documents.MIGRATIONS)
    assert old.read_bytes() == before
    assert {path.name for path in damaged.parent.iterdir()} == {damaged.name, old.name}
    with contextlib.closing(SqliteDocuments(damaged)) as documents:
        assert len(documents.query("items")) > 1900
