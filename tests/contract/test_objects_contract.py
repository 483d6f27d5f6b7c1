"""What every object store promises."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from tests.contract.processes import in_processes

from visor.errors import Conflict, NotFound, StoreError
from visor.settings import Settings
from visor.storage import open_objects
from visor.storage.objects import ObjectStore


def test_what_is_put_can_be_read(objects: ObjectStore) -> None:
    info = objects.put("shards/a.bin", b"hello")
    assert (info.name, info.size_bytes) == ("shards/a.bin", 5)
    assert info.generation > 0
    assert bytes(objects.get("shards/a.bin")) == b"hello"
    data, read = objects.get_with_info("shards/a.bin")
    assert bytes(data) == b"hello"
    assert read == info == objects.stat("shards/a.bin")


def test_views_are_read_only(objects: ObjectStore) -> None:
    objects.put("a", b"hello")
    with pytest.raises(TypeError):
        objects.get("a")[0] = 0


def test_memoryviews_and_empty_objects_are_taken(objects: ObjectStore) -> None:
    objects.put("view", memoryview(b"xhellox")[1:6])
    assert bytes(objects.get("view")) == b"hello"
    assert objects.put("empty", b"").size_bytes == 0
    assert bytes(objects.get("empty")) == b""
    assert objects.get_with_info("empty")[1].size_bytes == 0
    assert bytes(objects.get("empty", start=0, end=10)) == b""


def test_ranges_are_cut_like_slices(objects: ObjectStore) -> None:
    body = random.Random(1).randbytes(3000)
    objects.put("a", body)
    for start, end in [(0, 10), (5, None), (0, 3000), (2990, 5000), (3000, None), (4000, 5000), (7, 7)]:
        assert bytes(objects.get("a", start=start, end=end)) == body[start:end]
    for start, end in [(-1, None), (5, 4)]:
        with pytest.raises(ValueError, match="range"):
            objects.get("a", start=start, end=end)


def test_large_objects(objects: ObjectStore) -> None:
    body = random.Random(2).randbytes(9_000_001)
    objects.put("large", body)
    assert bytes(objects.get("large")) == body
    assert bytes(objects.get("large", start=8_388_600, end=8_388_700)) == body[8_388_600:8_388_700]


def test_put_overwrites_with_a_new_generation(objects: ObjectStore) -> None:
    generations = [objects.put("a", f"{n}".encode()).generation for n in range(5)]
    assert len(set(generations)) == 5
    assert bytes(objects.get("a")) == b"4"
    assert objects.stat("a").generation == generations[-1]


def test_the_same_bytes_get_a_new_generation(objects: ObjectStore) -> None:
    assert objects.put("a", b"x").generation != objects.put("a", b"x").generation


def test_generations_of_a_name_differ_through_deletion(objects: ObjectStore) -> None:
    first = objects.put("a", b"1").generation
    objects.delete("a")
    assert objects.put("a", b"2").generation != first


def test_create_only_if_missing(objects: ObjectStore) -> None:
    objects.put("manifest", b"1", if_generation=0)
    with pytest.raises(Conflict, match="manifest"):
        objects.put("manifest", b"2", if_generation=0)
    assert bytes(objects.get("manifest")) == b"1"


def test_compare_and_swap(objects: ObjectStore) -> None:
    first = objects.put("manifest", b"1").generation
    second = objects.put("manifest", b"2", if_generation=first).generation
    with pytest.raises(Conflict):
        objects.put("manifest", b"3", if_generation=first)
    data, info = objects.get_with_info("manifest")
    assert (bytes(data), info.generation) == (b"2", second)


def test_swapping_what_is_missing_conflicts(objects: ObjectStore) -> None:
    with pytest.raises(Conflict):
        objects.put("manifest", b"1", if_generation=12345)
    with pytest.raises(NotFound):
        objects.get("manifest")


def test_put_file(objects: ObjectStore, tmp_path: Path) -> None:
    body = random.Random(3).randbytes(300_000)
    path = tmp_path / "segment"
    path.write_bytes(body)
    info = objects.put_file("segments/a", str(path))
    assert info == objects.stat("segments/a")
    assert bytes(objects.get("segments/a")) == body

    path.write_bytes(b"other")
    with pytest.raises(Conflict):
        objects.put_file("segments/a", str(path), if_generation=info.generation + 1)
    assert path.read_bytes() == b"other"
    assert bytes(objects.get("segments/a")) == body
    assert objects.put_file("segments/a", str(path), if_generation=info.generation).generation != info.generation
    assert bytes(objects.get("segments/a")) == b"other"


def test_put_file_of_no_file(objects: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        objects.put_file("a", str(tmp_path / "none"))


def test_missing(objects: ObjectStore) -> None:
    objects.put("folder/a", b"1")
    for name in ("none", "none/at/all", "folder"):
        for read in (objects.get, objects.get_with_info, objects.stat):
            with pytest.raises(NotFound, match=name):
                read(name)
        objects.delete(name)
    with pytest.raises(NotFound):
        objects.get("none", start=5, end=10)


def test_delete(objects: ObjectStore) -> None:
    objects.put("a", b"1")
    objects.delete("a")
    objects.delete("a")
    with pytest.raises(NotFound):
        objects.get("a")
    assert list(objects.list()) == []


def test_a_view_outlives_its_object(objects: ObjectStore) -> None:
    body = random.Random(4).randbytes(100_000)
    objects.put("a", body)
    view = objects.get("a")
    objects.put("a", b"new")
    objects.delete("a")
    assert bytes(view) == body


def test_list_is_ordered_and_filtered_by_prefix(objects: ObjectStore) -> None:
    names = ["a", "a-b", "b/c", "b-c", "b/d/e", "b0", "shards/1", "shards/10", "shards/2", "shards-old/1", "ü"]
    infos = {name: objects.put(name, name.encode()) for name in names}
    assert list(objects.list()) == [infos[name] for name in sorted(names)]
    for prefix in ("shards", "shards/", "shards/1", "b/", "b", "none", "none/", "b/d/e"):
        expected = sorted(name for name in names if name.startswith(prefix))
        assert [info.name for info in objects.list(prefix)] == expected, prefix


@pytest.mark.parametrize(
    "name",
    ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", ".hidden", "a/.b", "a\\b", "a\nb"],
)
def test_names_that_are_none(objects: ObjectStore, name: str) -> None:
    for use in (lambda: objects.put(name, b"1"), lambda: objects.get(name), lambda: objects.stat(name)):
        with pytest.raises(StoreError, match="is not a valid object name"):
            use()
    with pytest.raises(StoreError, match="is not a valid object name"):
        objects.delete(name)


def test_names_that_are_too_long(objects: ObjectStore) -> None:
    objects.put("x" * 255, b"1")
    objects.put("/".join(["y" * 99] * 9), b"1")
    for name in ("x" * 256, "/".join(["y" * 100] * 9)):
        with pytest.raises(StoreError, match="is not a valid object name"):
            objects.put(name, b"1")


def test_two_indexes_do_not_see_each_other(settings: Settings) -> None:
    one, other = (open_objects(msgspec.structs.replace(settings, index=f"{settings.index}-{n}")) for n in "ab")
    one.put("a", b"1")
    assert list(other.list()) == []
    with pytest.raises(NotFound):
        other.get("a")
    one.close()
    other.close()


def increment(objects: ObjectStore, times: int) -> None:
    """Add `times` to the number in one object by compare-and-swap."""
    for _ in range(times):
        while True:
            data, info = objects.get_with_info("counter")
            try:
                objects.put("counter", str(int(bytes(data)) + 1).encode(), if_generation=info.generation)
            except Conflict:
                continue
            break


def test_threads_lose_no_swap(objects: ObjectStore) -> None:
    objects.put("counter", b"0")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: increment(objects, 8), range(4)))
    assert bytes(objects.get("counter")) == b"32"


def increment_in_process(settings: Settings, argument: str) -> str:
    objects = open_objects(settings)
    increment(objects, int(argument))
    objects.close()
    return "done"


def test_processes_lose_no_swap(objects: ObjectStore, settings: Settings) -> None:
    objects.put("counter", b"0")
    in_processes(__file__, "increment_in_process", settings, ["10"] * 3)
    assert bytes(objects.get("counter")) == b"30"


def test_only_one_of_many_creates(objects: ObjectStore) -> None:
    def create(number: int) -> bool:
        try:
            objects.put("one", str(number).encode(), if_generation=0)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = [number for number, created in enumerate(pool.map(create, range(8))) if created]
    assert [int(bytes(objects.get("one")))] == won


def test_readers_see_whole_objects(objects: ObjectStore) -> None:
    bodies = [bytes([n]) * (100_000 + n) for n in range(20)]
    objects.put("a", bodies[0])

    def write() -> None:
        for body in bodies:
            objects.put("a", body)

    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(write)
        while not writing.done():
            data, info = objects.get_with_info("a")
            assert bytes(data) in bodies
            assert info.size_bytes == len(data)
        writing.result()
