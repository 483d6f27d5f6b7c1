"""Frames of videos that the test makes: files, downloads and a live stream on a real server."""

from __future__ import annotations

import dataclasses
import io
import os
import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageFilter
from tests.unit.sources.catalogue_server import Reply, Request, context_for, serving

from visor.errors import SourceError
from visor.image_readers.thumbnails import THUMBNAIL_SCHEME, get_thumbnail
from visor.settings import Settings
from visor.sources.contract import Page, Source, SourceContext
from visor.sources.registry import open_source
from visor.sources.video.hls import is_playlist, parse_playlist
from visor.storage import Stores, open_stores
from visor.testing import check_source

RATE = 5


def scene(seed: int) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 255, (9, 9, 3)).astype(np.uint8)
    return Image.fromarray(blocks).resize((256, 256), Image.Resampling.NEAREST)


def video(pictures: Sequence[Image.Image], seconds: float = 1.0, container: str = "mp4") -> bytes:
    """A video that shows each picture for so long."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream: Any = output.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        for picture in pictures:
            for _ in range(round(seconds * RATE)):
                output.mux(stream.encode(av.VideoFrame.from_image(picture)))
        output.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with open_stores(Settings(home=tmp_path / "home")) as stores:
        yield stores


def opened(context: SourceContext, stores: Stores, url: str, **keys: Any) -> Source:
    with_objects = dataclasses.replace(context, objects=stores.objects)
    return open_source("film", {"kind": "video", "url": url, **keys}, with_objects)


def seconds(pages: Sequence[Page]) -> list[float]:
    return [float(item.extra["seconds"]) for page in pages for item in page.items]


BLACK = Image.new("RGB", (256, 256))


def test_black_blurred_and_repeated_frames_are_left_out_and_matches_link_to_their_second(
    stores: Stores, tmp_path: Path
) -> None:
    blurred = scene(2).filter(ImageFilter.GaussianBlur(40))
    (tmp_path / "film.mp4").write_bytes(video([scene(1), BLACK, scene(3), blurred, scene(1), scene(4)]))
    with context_for() as context:
        source = opened(context, stores, str(tmp_path / "film.mp4"), interval_s=1, page_url="https://x.test/film#top")
        (page,) = source.read(None)
        assert seconds([page]) == [0, 2, 5]
        assert [item.page_url for item in page.items] == [f"https://x.test/film#t={t}" for t in (0, 2, 5)]
        for item, seed in zip(page.items, (1, 3, 4), strict=True):
            kept = np.asarray(
                Image.open(io.BytesIO(get_thumbnail(stores.objects, item.image_url.removeprefix(THUMBNAIL_SCHEME))))
            )
            assert np.abs(kept.astype(int) - np.asarray(scene(seed)).astype(int)).mean() < 20
        (again,) = source.read(page.next_pass)
        assert again.items == page.items, "what is missing has to be missed twice"
        (unchanged,) = source.read(again.next_pass)
        assert (unchanged.items, unchanged.partial) == ((), True)


def test_scenes_are_found_wherever_they_begin(stores: Stores, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(video([scene(n) for n in range(4)], seconds=2.0))
    with context_for() as context:
        pages = list(opened(context, stores, str(tmp_path / "film.mp4"), scenes=True).read(None))
    assert len(seconds(pages)) == 4
    assert all(abs(found - expected) <= 0.7 for found, expected in zip(seconds(pages), (0, 2, 4, 6), strict=True))


@pytest.mark.slow
def test_a_download_is_resumed_anywhere_and_costs_one_request_while_it_is_unchanged(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = video([scene(n) for n in range(7)])

    def answer(request: Request) -> Reply:
        if request.headers.get("if-none-match") == '"1"':
            return Reply(status=304)
        return Reply(film, headers={"ETag": '"1"', "Content-Type": "video/mp4"})

    monkeypatch.setattr("visor.sources.video.source.PAGE_SIZE", 2)
    with serving(answer) as server, context_for(server.host) as context:
        check_source(lambda: opened(context, stores, f"{server.url}/film.mp4", interval_s=1))
        pages = list(opened(context, stores, f"{server.url}/film.mp4", interval_s=1).read(None))
        assert seconds(pages) == list(range(7))
        again = list(opened(context, stores, f"{server.url}/film.mp4", interval_s=1).read(pages[-1].next_pass))
        assert seconds(again) == list(range(7))
        before = len(server.requests)
        (page,) = opened(context, stores, f"{server.url}/film.mp4").read(again[-1].next_pass)
        assert page.partial
        assert len(server.requests) == before + 1


class Live:
    """A live stream that lists its last three segments."""

    def __init__(self) -> None:
        self.segments = [video([scene(n)], container="mpegts") for n in range(6)]
        self.first, self.ended = 0, False

    def __call__(self, request: Request) -> Reply:
        if request.path == "/live.m3u8":
            return Reply(
                b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=900000\nbig.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=1\nlow/s.m3u8\n"
            )
        if request.path == "/low/s.m3u8":
            numbers = range(self.first, self.first + 3)
            body = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:{self.first}\n"
            body += "".join(f"#EXTINF:1.0,\n{number}.ts\n" for number in numbers)
            return Reply((body + "#EXT-X-ENDLIST\n" * self.ended).encode())
        number = request.path.removeprefix("/low/").removesuffix(".ts")
        return Reply(self.segments[int(number)]) if number.isdigit() else Reply(status=404)


def test_a_live_stream_goes_on_from_where_it_was(stores: Stores) -> None:
    live = Live()
    with serving(live) as server, context_for(server.host) as context:
        source = opened(context, stores, f"{server.url}/live.m3u8", interval_s=5)
        pages = list(source.read(None))
        assert [item.key for page in pages for item in page.items] == ["0/0.000", "1/0.000", "2/0.000"]
        assert all(page.partial for page in pages), "what a stream no longer lists is not gone"
        live.first = 2
        server.requests.clear()
        again = list(source.read(pages[-1].next_pass))
        assert [item.key for page in again for item in page.items] == ["3/0.000", "4/0.000"]
        assert seconds(again) == [3, 4]
        assert "/low/2.ts" not in server.targets
        (nothing,) = source.read(again[-1].next_pass)
        assert nothing.items == ()
        stopped = list(source.read(pages[0].checkpoint))
        assert [item.key for page in stopped for item in page.items] == ["2/0.000", "3/0.000", "4/0.000"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="k"\n#EXTINF:1,\n1.ts\n', "encrypted"),
        (b"<html>", "not an HLS"),
        (b'#EXTM3U\n#EXT-X-MAP:URI="i.mp4"\n#EXTINF:1,\n1.m4s\n', "EXT-X-MAP"),
    ],
)
def test_a_stream_that_cannot_be_read_says_why(body: bytes, says: str, stores: Stores) -> None:
    with serving(lambda _: Reply(body)) as server, context_for(server.host) as context:
        source = opened(context, stores, f"{server.url}/live.m3u8")
        with pytest.raises(SourceError, match=says):
            list(source.read(None))


def test_a_playlist_reads_no_files_of_this_machine(stores: Stores, tmp_path: Path) -> None:
    secret = tmp_path / "film.ts"
    secret.write_bytes(video([scene(1)], container="mpegts"))
    body = f"#EXTM3U\n#EXTINF:1,\n{secret}\n#EXTINF:1,\n{secret.as_uri()}\n#EXT-X-ENDLIST\n".encode()
    reply = {"/film": Reply(body)}
    with serving(lambda one: reply.get(one.path, Reply())) as server, context_for(server.host) as context:
        pages = list(opened(context, stores, f"{server.url}/film").read(None))
    assert not any(page.items for page in pages)
    assert all(page.failed[0].unread for page in pages)
    (tmp_path / "film.mp4").write_bytes(body)
    with context_for() as context, pytest.raises(SourceError, match="no video in it"):
        list(opened(context, stores, str(tmp_path / "film.mp4")).read(None))


def shown(stores: Stores, page: Page) -> list[Image.Image]:
    names = [item.image_url.removeprefix(THUMBNAIL_SCHEME) for item in page.items]
    return [Image.open(io.BytesIO(get_thumbnail(stores.objects, name))) for name in names]


def file_of(name: str) -> bytes:
    """A film of one second in the shapes that cameras write."""
    film = video([scene(1)], container="mov" if name == "old quicktime" else "mpegts" if "packets" in name else "mp4")
    if name == "192-byte packets":
        return b"".join(b"\0\0\0\0" + film[at : at + 188] for at in range(0, len(film), 188))
    if name == "old quicktime":
        return film.replace(b"ftyp", b"wide", 1)
    matrices = {"turned right": (0, 1, -1, 0), "turned left": (0, -1, 1, 0), "head down": (-1, 0, 0, -1)}
    at = film.index(b"tkhd") + 44
    a, b, c, d = (part << 16 for part in matrices[name])
    return film[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + film[at + 36 :]


@pytest.mark.parametrize(
    ("name", "turn"),
    [
        ("192-byte packets", None),
        ("old quicktime", None),
        ("turned right", Image.Transpose.ROTATE_270),
        ("turned left", Image.Transpose.ROTATE_90),
        ("head down", Image.Transpose.ROTATE_180),
    ],
)
def test_what_cameras_write_is_read_and_stands_upright(
    name: str, turn: Image.Transpose | None, stores: Stores, tmp_path: Path
) -> None:
    (tmp_path / "00001").write_bytes(file_of(name))
    with context_for() as context:
        (page,) = opened(context, stores, str(tmp_path / "00001")).read(None)
    expected = scene(1) if turn is None else scene(1).transpose(turn)
    (found,) = shown(stores, page)
    assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).mean() < 20


@pytest.mark.parametrize(("aspect", "size"), [((16, 11), (372, 256)), ((8, 9), (228, 256)), ((1, 1), (256, 256))])
def test_pixels_that_are_not_square_are_made_so(
    aspect: tuple[int, int], size: tuple[int, int], stores: Stores, tmp_path: Path
) -> None:
    with av.open(str(tmp_path / "film.mp4"), "w") as output:
        stream: Any = output.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(*aspect)
        output.mux(stream.encode(av.VideoFrame.from_image(scene(1))))
        output.mux(stream.encode(None))
    with context_for() as context:
        (page,) = opened(context, stores, str(tmp_path / "film.mp4")).read(None)
    assert [one.size for one in shown(stores, page)] == [size]


@pytest.mark.parametrize(
    ("lines", "variant"),
    [
        (['BANDWIDTH=1,CODECS="mp4a.40.2"', 'BANDWIDTH=9,CODECS="avc1.4d,mp4a.40.2"'], 1),
        (["BANDWIDTH=1", "BANDWIDTH=9,RESOLUTION=640x360"], 1),
        (["BANDWIDTH=9,RESOLUTION=640x360", 'BANDWIDTH=5,RESOLUTION=320x180,CODECS="hvc1.1"'], 1),
        (["BANDWIDTH=9", "BANDWIDTH=5"], 1),
        (['BANDWIDTH=1,CODECS="ec-3"', 'BANDWIDTH=2,CODECS="opus,stpp.ttml"'], None),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_smallest_variant_with_pictures_is_read(lines: list[str], variant: int | None, mark: str) -> None:
    parts = [f"#EXT-X-STREAM-INF:{line}\r\nv{number}/i.m3u8" for number, line in enumerate(lines)]
    data = (mark + "\r\n".join(["#EXTM3U", *parts])).encode()
    assert is_playlist(data)
    if variant is None:
        with pytest.raises(SourceError, match="no video in"):
            parse_playlist(data, "https://x.test/a/m")
    else:
        assert parse_playlist(data, "https://x.test/a/m").variant == f"https://x.test/a/v{variant}/i.m3u8"


def recording(dead: int | None) -> Any:
    segments = [video([scene(n)], container="mpegts") for n in range(3)]

    def answer(request: Request) -> Reply:
        number = request.path.removeprefix("/").removesuffix(".ts")
        if not number.isdigit():
            listed = "".join(f"#EXTINF:1.0,\n{n}.ts?sig=s3cr3t\n" for n in range(3))
            return Reply(f"#EXTM3U\n{listed}#EXT-X-ENDLIST\n".encode())
        return Reply(status=404) if int(number) == dead else Reply(segments[int(number)])

    return answer


@pytest.mark.parametrize(
    ("lines", "segments"),
    [
        ("#EXTINF:4,\na.ts\n#EXTINF:4,", [("a.ts", 4)]),
        ("#EXTINF:-1,TV\na.ts\n#EXTINF:nan,\nb.ts\n#EXTINF:1e999,\nc.ts", [("a.ts", 0), ("b.ts", 0), ("c.ts", 0)]),
        ("#EXTINF:4,\nhttp://[::1/a.ts\n#EXTINF:4,\nb.ts", [("http://[::1/a.ts", 4), ("b.ts", 4)]),
        ("#EXTINF:4,\na.ts\n#EXT-X-GAP\n#EXTINF:4,\nb.ts\n#EXTINF:4,\nc.ts", [("a.ts", 4), ("c.ts", 4)]),
    ],
)
def test_segments_are_what_has_an_address_and_a_time(lines: str, segments: list[tuple[str, float]]) -> None:
    playlist = parse_playlist(f"#EXTM3U\n{lines}\n".encode(), "https://tv.test/live.m3u8")
    assert [(one.url.removeprefix("https://tv.test/"), one.seconds) for one in playlist.segments] == segments


def test_a_playlist_without_segments_is_told(stores: Stores) -> None:
    with serving(lambda _: Reply(b"#EXTM3U\n#EXT-X-ENDLIST")) as server, context_for(server.host) as context:
        (page,) = opened(context, stores, f"{server.url}/live.m3u8").read(None)
    assert (page.partial, page.passed_over) == (True, {"no segment in the playlist": 1})


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("#EXT-X-MEDIA-SEQUENCE:99999999999999999999\n#EXTINF:4,\na.ts", "begins with segment 99999999999999999999"),
        ("#EXT-X-STREAM-INF:RESOLUTION=1x1\na.m3u8", "an attribute is missing in it: bandwidth"),
        ("#EXTINF:abc,\na.ts", "'abc' is not a number"),
    ],
)
def test_what_is_wrong_in_a_playlist_is_said_in_words(lines: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        parse_playlist(f"#EXTM3U\n{lines}\n".encode(), "https://tv.test/live.m3u8")


def test_a_recording_is_read_over_several_runs_and_anew_once_it_was_read_to_its_end(stores: Stores) -> None:
    with serving(recording(None)) as server, context_for(server.host) as context:
        pages = list(opened(context, stores, f"{server.url}/play(format=m3u8)").read(None))
        assert seconds(pages) == [0, 1, 2]
        assert seconds(list(opened(context, stores, f"{server.url}/play").read(pages[0].checkpoint))) == [1, 2]
        assert seconds(list(opened(context, stores, f"{server.url}/play").read(pages[-1].next_pass))) == [0, 1, 2]


def test_a_dead_segment_fails_for_itself(stores: Stores) -> None:
    with serving(recording(1)) as server, context_for(server.host) as context:
        pages = list(opened(context, stores, f"{server.url}/live").read(None))
    assert seconds(pages) == [0, 2]
    (failed,) = [failure for page in pages for failure in page.failed]
    assert (failed.key, failed.unread) == (f"{server.url}/1.ts", True)
    assert "s3cr3t" not in failed.reason


def test_a_video_that_breaks_off_loses_only_its_end(stores: Stores, tmp_path: Path) -> None:
    """A file that is still being copied: what it lacks yet is not gone."""
    whole = video([scene(seed) for seed in range(8)], container="matroska")
    (tmp_path / "film").write_bytes(whole[: len(whole) // 2])
    with context_for() as context:
        (page,) = opened(context, stores, str(tmp_path / "film"), interval_s=1).read(None)
        (tmp_path / "film").write_bytes(whole)
        (again,) = opened(context, stores, str(tmp_path / "film"), interval_s=1).read(None)
    assert seconds([page]) == [0, 1, 2]
    assert seconds([again]) == [*range(8)]
    assert not again.failed
    (failure,) = page.failed
    assert "of 8 s" in failure.reason
    assert (failure.key, failure.unread) == ("film", True)


def test_broken_pieces_of_a_video_do_not_keep_the_others_from_being_read(stores: Stores, tmp_path: Path) -> None:
    data = bytearray(video([scene(seed) for seed in range(8)]))
    start = data.find(b"mdat") + 4
    middle = start + (data.find(b"moov") - start) // 2
    data[middle : middle + 3000] = b"\xff" * 3000
    (tmp_path / "film.mp4").write_bytes(data)
    with context_for() as context:
        (page,) = opened(context, stores, str(tmp_path / "film.mp4"), interval_s=1).read(None)
    assert seconds([page])[:3] == [0, 1, 2]
    assert seconds([page])[-1] > 7
    assert "of its pieces are broken" in page.failed[0].reason
    assert "Errno" not in page.failed[0].reason


def test_a_pipe_is_no_video(stores: Stores, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "film.mp4")
    with context_for() as context, pytest.raises(SourceError, match="is not a file"):
        list(opened(context, stores, str(tmp_path / "film.mp4")).read(None))


def test_sound_alone_is_no_video_and_what_is_left_out_is_counted(stores: Stores, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as output:
        stream: Any = output.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    (tmp_path / "dark.mp4").write_bytes(video([BLACK, scene(1)]))
    with context_for() as context:
        with pytest.raises(SourceError, match="no video in it"):
            list(opened(context, stores, str(tmp_path / "song.m4a")).read(None))
        (page,) = opened(context, stores, str(tmp_path / "dark.mp4"), interval_s=1).read(None)
    assert page.passed_over == {"the frame is black": 1}
