"""Queries MediaWiki's action API (Wikidata, Commons, Wikipedia) by its etiquette: one request at a time, with
`maxlag`, waiting when it says so, and following `continue` to the end (https://www.mediawiki.org/wiki/API:Etiquette)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from mimetypes import guess_type
from typing import Any
from urllib.parse import quote_plus, urlencode

from visor.errors import FetchFailed, FetchUnavailable, SourceError
from visor.schema.items import Record
from visor.sources.client import RetryingClient
from visor.sources.parse.text import plain_text

TITLES_MAX = 50
"""Titles or ids in one request, unless signed in as a bot."""
MAXLAG_S = 5
LAG_WAIT_S = 5.0
CONTINUED_MAX = 50
"""Requests over which one query may be continued."""

TITLES_LENGTH_MAX = 5000
"""Length of the titles of one request as they are in its URL; many servers accept at most 8 kB in all."""
THUMBNAIL_WIDTHS = (20, 40, 60, 120, 250, 330, 500, 960, 1280, 1920, 3840)
"""Widths in pixels; Wikimedia makes no others (https://www.mediawiki.org/wiki/Common_thumbnail_sizes)."""

_PASSING = ("maxlag", "ratelimited", "readonly", "internal_api_error", "cirrussearch-too-busy", "timeout")
_SUITABLE = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif", "image/tiff", "image/svg+xml"})


class WikiImage(Record, frozen=True, kw_only=True):
    """A file of Commons or of a Wikipedia at the requested size."""

    name: str
    """The name without `File:`, with blanks."""
    url: str
    mime: str = "image/jpeg"
    sha1: str | None = None
    licence: str | None = None
    licence_url: str | None = None
    author: str | None = None
    page_url: str | None = None

    @property
    def is_suitable(self) -> bool:
        """Whether it is a picture: not a video, a book or a drawing program's own file."""
        return self.mime in _SUITABLE


class MediaWiki:
    """One wiki's API.

    Args:
        url: The URL of its `api.php`.
    """

    def __init__(self, url: str, client: RetryingClient) -> None:
        self._url = url
        self._client = client

    def ask(self, **parameters: str) -> Iterator[Mapping[str, Any]]:
        """The answers to one query, continued as long as the wiki has more.

        Raises:
            SourceUnavailable: It is too busy for now.
            SourceError: It does not understand the query.
        """
        more: Mapping[str, str] = {}
        for _ in range(CONTINUED_MAX):
            query = {"format": "json", "formatversion": "2", "maxlag": str(MAXLAG_S), **parameters, **more}
            with polite(self._client):
                answer, _ = self._client.get_json(f"{self._url}?{urlencode(query)}", check=_check)
            yield answer
            more = {name: str(value) for name, value in fields(answer.get("continue")).items()}
            if not more:
                return

    def entities(self, ids: Sequence[str], languages: Sequence[str], props: str) -> dict[str, Mapping[str, Any]]:
        """Wikidata's entities by the requested id, even if it redirects to another."""
        found: dict[str, Mapping[str, Any]] = {}
        for some in _chunks(ids):
            for answer in self.ask(
                action="wbgetentities",
                ids="|".join(some),
                props=props,
                languages="|".join(languages),
                languagefallback="1",
                sitefilter="|".join(f"{language}wiki" for language in languages),
            ):
                entities = fields(answer.get("entities")).items()
                found |= {str(id_): fields(entity) for id_, entity in entities if "missing" not in fields(entity)}
        return found

    def images(self, names: Iterable[str], width: int) -> dict[str, WikiImage]:
        """The files of those names, by name, as pictures of at least that width if they are that wide."""
        pages = self._pages(
            sorted({f"File:{name}" for name in names}),
            prop="imageinfo",
            iiprop="url|size|mime|sha1|extmetadata",
            iiextmetadatafilter="LicenseShortName|LicenseUrl|Artist|Credit",
            iiurlwidth=str(next((step for step in THUMBNAIL_WIDTHS if step >= width), THUMBNAIL_WIDTHS[-1])),
        )
        found = ((titles, _image(page)) for page, titles in pages)
        return {title.partition(":")[2]: image for titles, image in found if image for title in titles}

    def images_of_articles(self, titles: Sequence[str]) -> dict[str, list[str]]:
        """Names of the images of each article by its title: its main image first, then the others."""
        found: dict[str, list[str]] = {}
        for page, asked in self._pages(
            titles, prop="pageimages|images", piprop="name", pilimit=str(TITLES_MAX), imlimit="500"
        ):
            chief = [name.replace("_", " ")] if (name := text(page.get("pageimage"))) else []
            names = [text(image.get("title")).partition(":")[2] for image in objects(page.get("images"))]
            for title in asked:
                # A continued answer brings the rest, in any order.
                found[title] = [name for name in dict.fromkeys([*chief, *found.get(title, ()), *names]) if name]
        return found

    def _pages(self, titles: Sequence[str], **parameters: str) -> Iterator[tuple[Mapping[str, Any], list[str]]]:
        """The pages of those titles, each with the requested titles that led to it."""
        for some in _chunks(titles):
            renamed: dict[str, list[str]] = {}
            for answer in self.ask(action="query", titles="|".join(some), redirects="1", **parameters):
                query = fields(answer.get("query"))
                for change in (*objects(query.get("normalized")), *objects(query.get("redirects"))):
                    renamed.setdefault(text(change.get("to")), []).append(text(change.get("from")))
                for page in objects(query.get("pages")):
                    if title := text(page.get("title")):
                        yield page, _asked_as(title, renamed)


@contextmanager
def polite(client: RetryingClient) -> Iterator[None]:
    """Within it, a refusal ends the run, as with `required`; if the wiki refuses the user agent, the error names the
    remedy."""
    with client.required():
        try:
            yield
        except FetchFailed as exc:
            if exc.status == 403:
                exc.remedy = "Set VISOR_USER_AGENT to a name with a way to reach you: Wikimedia refuses those without"
            raise


def _check(answer: Any) -> None:
    """Errors come with status 200 (https://www.mediawiki.org/wiki/API:Errors_and_warnings)."""
    if not isinstance(answer, Mapping):
        raise FetchUnavailable(f"the wiki answers {str(answer)!r:.60}")
    error = answer.get("error")
    if not error:
        return
    code, info = text(fields(error).get("code")), text(fields(error).get("info"))
    if code.startswith(_PASSING):
        raise FetchUnavailable(f"the wiki is busy ({code}: {info:.200})", retry_after_s=LAG_WAIT_S)
    raise SourceError(f"The wiki does not understand the question ({code}: {info:.200})", remedy="Report this")


def _image(page: Mapping[str, Any]) -> WikiImage | None:
    info = next(iter(objects(page.get("imageinfo"))), fields(None))
    url = text(info.get("thumburl")) or text(info.get("url"))
    if not url:
        return None
    said = fields(info.get("extmetadata")).items()
    meta = {name: plain_text(text(fields(value).get("value")), 300) for name, value in said}
    name = text(page.get("title")).partition(":")[2]
    return WikiImage(
        name=name,
        url=url,
        mime=text(info.get("mime")) or guess_type(name)[0] or "an unknown one",
        sha1=text(info.get("sha1")) or None,
        licence=meta.get("LicenseShortName") or None,
        licence_url=meta.get("LicenseUrl") or None,
        author=meta.get("Artist") or meta.get("Credit") or None,
        page_url=text(info.get("descriptionurl")) or None,
    )


def fields(value: Any) -> Mapping[str, Any]:
    """An object of an answer; an empty one in place of anything else: PHP writes an empty object as a list."""
    return value if isinstance(value, Mapping) else {}


def objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects of a list of an answer."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def text(value: Any) -> str:
    """A text of an answer; empty in place of anything else."""
    return value if isinstance(value, str) else ""


def _asked_as(title: str, renamed: Mapping[str, Sequence[str]]) -> list[str]:
    """All requested titles that led to this one: normalised first, then redirected."""
    titles, at = [title], 0
    while at < len(titles) <= 2 * TITLES_MAX:
        titles += [name for name in renamed.get(titles[at], ()) if name not in titles]
        at += 1
    return titles


def _chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many at a time as an answer and a URL may hold."""
    some: list[str] = []
    length = 0
    for value in values:
        added = len(quote_plus(f"{value}|"))
        if len(some) == TITLES_MAX or (some and length + added > TITLES_LENGTH_MAX):
            yield some
            some, length = [], 0
        some.append(value)
        length += added
    if some:
        yield some
