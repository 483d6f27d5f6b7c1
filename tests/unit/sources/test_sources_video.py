"""Frames of videos that the test makes: files, downloads and a live stream on a real server."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Sequence
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


def test_a_playlist_of_local_files_is_no_video(stores: Stores) -> None:
    body = b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n"
    with serving(lambda _: Reply(body)) as server, context_for(server.host) as context:
        source = opened(context, stores, f"{server.url}/film.mp4")
        with pytest.raises(SourceError, match="not a video"):
            list(source.read(None))
