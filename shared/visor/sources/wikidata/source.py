"""`wikidata`: the entities for which Wikidata has an image, without importing a dump.

Ids come from the query service, page by page in the order of their numbers; names, descriptions and articles from
Wikidata's API; the image from Commons, else from the Wikipedia article, always as a thumbnail, with licence and
author, because Commons asks for attribution.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar
from unicodedata import normalize
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Meta

from visor.errors import DropItem, FetchUnavailable, SettingsError, SourceUnavailable
from visor.http.retry import RetryPolicy
from visor.schema.items import Item
from visor.sources.client import RetryingClient
from visor.sources.contract import Page, RowErrors, SourceConfig, SourceContext, page_of, slices
from visor.sources.parse.item import make_item
from visor.sources.parse.text import TITLE_LENGTH_MAX
from visor.sources.wikidata.mediawiki import MediaWiki, WikiImage, fields, objects, polite, text

IDS_PER_QUERY = 500
IDS_PER_QUERY_MIN = 25
"""A query that the service does not finish in time is repeated for fewer ids, down to this."""
PAGE_SIZE = 50
"""Entities of one page: as many as the API returns in one answer."""
ARTICLE_IMAGES_MAX = 5
"""Images of an article that are checked for a suitable one."""

_ID = re.compile(r"Q[1-9]\d{0,11}\Z")
# Drawings that are not the subject of an article: of the interface, of flags and maps, of other projects.
_DECORATION = re.compile(
    r"\.svg$|logo|icon|flag[ _]of|map[ _]of|locator|commons-|wikt?i|edit-|question[ _]book|ambox|padlock|disambig"
    r"|symbol[ _]|signature",
    re.IGNORECASE,
)

INSTANCES = """SELECT ?n WHERE {{
  ?item wdt:P31 wd:{class_} .
  BIND(xsd:integer(STRAFTER(STR(?item), "entity/Q")) AS ?n)
  FILTER(?n > {after})
}} ORDER BY ?n LIMIT {limit}"""

_NO_INSTANCE = (
    "the query service lists no instance of {}; scholarly articles have their own graph, with"
    ' query_url = "https://query-scholarly.wikidata.org/sparql"'
)

# A class is an entity that is a subclass of something and has an instance.
CLASSES = """SELECT DISTINCT ?n WHERE {{
  ?item wdt:P279 [] ; wdt:P18 [] .
  FILTER EXISTS {{ ?instance wdt:P31 ?item }}
  BIND(xsd:integer(STRAFTER(STR(?item), "entity/Q")) AS ?n)
  FILTER(?n > {after})
}} ORDER BY ?n LIMIT {limit}"""


class WikidataConfig(SourceConfig, frozen=True, kw_only=True):
    """The keys of a `wikidata` source: either all instances of some classes, or one picture of each class."""

    instances_of: tuple[str, ...] = ()
    """Ids of classes: ["Q3305213"] are paintings."""
    classes: bool = False
    """One picture of each class that has a picture."""
    languages: Annotated[tuple[str, ...], Meta(min_length=1)] = ("en",)
    """Languages of names, descriptions and articles; the first one available counts."""
    width: Annotated[int, Meta(ge=120, le=1280)] = 500
    """Width of pictures in pixels. Wikimedia makes 120, 250, 330, 500, 960 and 1280; others are rounded up to these."""
    articles: bool = True
    """Take a picture of the article if Wikidata names none."""
    query_url: str = "https://query.wikidata.org/sparql"
    wikidata_url: str = "https://www.wikidata.org/w/api.php"
    commons_url: str = "https://commons.wikimedia.org/w/api.php"
    wikipedia_url: str = "https://{language}.wikipedia.org/w/api.php"
    patience: RetryPolicy = RetryPolicy()


class WikidataSource:
    """The checkpoint is the class and the number of the last entity."""

    Config: ClassVar[type[SourceConfig]] = WikidataConfig

    def __init__(self, name: str, config: WikidataConfig, context: SourceContext) -> None:
        wrong = [id_ for id_ in config.instances_of if not _ID.match(id_)]
        if wrong or config.classes == bool(config.instances_of):
            raise SettingsError(
                f"sources.{name}.instances_of and classes do not say what to read"
                + (f": {wrong[0]!r} is not an id" if wrong else ""),
                valid='Either instances_of = ["Q3305213"] or classes = true',
            )
        self.name = name
        self._config = config
        self._queries = RetryingClient(
            name,
            context,
            patience=RetryPolicy(attempts=2, delay_max_s=config.patience.delay_max_s),
            accept="application/sparql-results+json",
        )
        client = RetryingClient(name, context, patience=config.patience, accept="application/json")
        self._wikidata = MediaWiki(config.wikidata_url, client)
        self._commons = MediaWiki(config.commons_url, client)
        self._wikipedias = {
            language: MediaWiki(config.wikipedia_url.replace("{language}", language), client)
            for language in config.languages
        }
        self._names: dict[str, str] = {}

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        """See `visor.sources.contract` for the contract."""
        before = checkpoint or {}
        at = str(before.get("class", ""))
        classes: list[str] = [""] if self._config.classes else sorted(set(self._config.instances_of))
        todo = [class_ for class_ in classes if class_ >= at]
        if not todo:
            yield Page()
        for class_, following in zip(todo, [*todo[1:], None], strict=True):
            done = {"class": following, "after": 0} if following is not None else None
            numbers = self._numbers(class_, int(before.get("after", 0)) if class_ == at else 0)
            for some, is_last in slices(numbers, PAGE_SIZE):
                ids = [f"Q{number}" for number in some]
                page = self._page(ids, class_, done if is_last else {"class": class_, "after": some[-1]})
                if not some and class_ != at:
                    # Nothing at all: the class may be wrong, or in another graph.
                    page = msgspec.structs.replace(page, passed_over={_NO_INSTANCE.format(class_): 1})
                yield page

    def _numbers(self, class_: str, after: int) -> Iterator[int]:
        """The numbers of a class's entities after `after`, in order."""
        limit = IDS_PER_QUERY
        while True:
            query = (INSTANCES if class_ else CLASSES).format(class_=class_, after=after, limit=limit)
            url = f"{self._config.query_url}?{urlencode({'query': query, 'format': 'json'})}"
            try:
                with polite(self._queries):
                    answer, _ = self._queries.get_json(url, check=_check)
            except SourceUnavailable:
                if limit <= IDS_PER_QUERY_MIN:
                    raise
                limit //= 2
                continue
            found = sorted({int(_number(row)) for row in answer["results"]["bindings"]})
            yield from found
            if len(found) < limit:
                return
            after, limit = found[-1], IDS_PER_QUERY

    def _page(self, ids: Sequence[str], class_: str, checkpoint: Mapping[str, Any] | None) -> Page:
        entities = self._wikidata.entities(ids, self._config.languages, "labels|descriptions|sitelinks|claims")
        names = {id_: name for id_, entity in entities.items() if (name := _image_name(entity))}
        files = self._commons.images(names.values(), self._config.width)
        its_own = {id_: files[name] for id_, name in names.items() if name in files}
        images = {id_: image for id_, image in its_own.items() if image.is_suitable}
        if self._config.articles:
            images |= self._article_images({id_: entities[id_] for id_ in entities.keys() - images.keys()})
        kinds = {id_: class_ or text(next(iter(_values(entity, "P279")), "")) for id_, entity in entities.items()}
        collections = self._names_of(sorted({kind for kind in kinds.values() if kind}))

        def make(id_: str, errors: RowErrors) -> Item:
            if id_ not in entities:
                raise DropItem("it was deleted")
            if id_ not in images and id_ in its_own:
                raise DropItem(f"its picture has the format {its_own[id_].mime}")
            if id_ not in images:
                raise DropItem("neither it nor its article has a picture")
            return self._item(id_, entities[id_], images[id_], collections.get(kinds[id_]))

        return page_of(((id_, id_) for id_ in ids), make, checkpoint=checkpoint)

    def _item(self, id_: str, entity: Mapping[str, Any], image: WikiImage, collection: str | None) -> Item:
        page_url = f"https://www.wikidata.org/wiki/{id_}"
        extra = {"wikidata": page_url, "file_page": image.page_url or "", "licence_url": image.licence_url or ""}
        article = self._article(entity)
        if article:
            language, title = article
            page_url = f"https://{language}.wikipedia.org/wiki/{quote(title.replace(' ', '_'))}"
        return make_item(
            self.name,
            id_,
            image.url,
            page_url=page_url,
            title=(self._said(entity, "labels") or id_)[:TITLE_LENGTH_MAX],
            description=self._said(entity, "descriptions"),
            collection=collection,
            licence=image.licence,
            author=image.author,
            image_etag=image.sha1,
            extra=extra,
        )

    def _article_images(self, entities: Mapping[str, Mapping[str, Any]]) -> dict[str, WikiImage]:
        """The first suitable image of the article of each entity that has one."""
        found: dict[str, WikiImage] = {}
        articles = {id_: article for id_, entity in entities.items() if (article := self._article(entity))}
        for language, wikipedia in self._wikipedias.items():
            titles = {id_: title for id_, (theirs, title) in articles.items() if theirs == language}
            of_article = wikipedia.images_of_articles(sorted(set(titles.values()))) if titles else {}
            candidates = {
                id_: [name for name in of_article.get(title, ()) if not _DECORATION.search(name)][:ARTICLE_IMAGES_MAX]
                for id_, title in titles.items()
            }
            files = wikipedia.images((name for names in candidates.values() for name in names), self._config.width)
            for id_, names in candidates.items():
                suitable = [files[name] for name in names if name in files and files[name].is_suitable]
                found |= {id_: suitable[0]} if suitable else {}
        return found

    def _article(self, entity: Mapping[str, Any]) -> tuple[str, str] | None:
        """Language and title of the entity's article in the first language that has one."""
        links = fields(entity.get("sitelinks"))
        found = (
            (language, text(fields(links.get(f"{language}wiki")).get("title"))) for language in self._config.languages
        )
        return next((article for article in found if article[1]), None)

    def _said(self, entity: Mapping[str, Any], what: str) -> str | None:
        said = fields(entity.get(what))
        found = (text(fields(said.get(language)).get("value")) for language in self._config.languages)
        return next(filter(None, found), None)

    def _names_of(self, ids: Sequence[str]) -> dict[str, str]:
        unknown = [id_ for id_ in ids if id_ not in self._names]
        if unknown:
            if len(self._names) > 10_000:
                self._names.clear()
            for id_, entity in self._wikidata.entities(unknown, self._config.languages, "labels").items():
                self._names[id_] = self._said(entity, "labels") or id_
        return {id_: self._names[id_] for id_ in ids if id_ in self._names}


def _check(answer: Any) -> None:
    bindings = fields(fields(answer).get("results")).get("bindings")
    if not isinstance(bindings, list):
        raise FetchUnavailable("the query service answers without results")
    if not all(text(_number(row)).isdecimal() for row in bindings):
        raise FetchUnavailable("the query service answers with a row that has no number")


def _number(row: Any) -> Any:
    return fields(fields(row).get("n")).get("value")


def _values(entity: Mapping[str, Any], property_: str) -> list[Any]:
    """Values of a property: the preferred ones, else the normal ones (the rank that queries call 'truthy')."""
    by_rank: dict[str, list[Any]] = {}
    for claim in objects(fields(entity.get("claims")).get(property_)):
        value = fields(fields(claim.get("mainsnak")).get("datavalue")).get("value")
        if value is not None:
            by_rank.setdefault(text(claim.get("rank")) or "normal", []).append(
                value["id"] if isinstance(value, Mapping) and "id" in value else value
            )
    return by_rank.get("preferred") or by_rank.get("normal") or []


def _image_name(entity: Mapping[str, Any]) -> str | None:
    """A name as the wiki writes it: in Unicode's composed form, without underscores."""
    name = next(iter(_values(entity, "P18")), None)
    return normalize("NFC", name).replace("_", " ") if isinstance(name, str) else None
