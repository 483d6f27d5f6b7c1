"""A small Wikimedia on this machine: the query service, Wikidata's, Commons' and two Wikipedias' APIs, as their public
documentation describes them (query.wikidata.org User Manual; API:Wbgetentities, API:Imageinfo, API:Pageimages,
API:Images, API:Continue, API:Errors and warnings)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from tests.unit.sources.catalogue_server import Reply, Request

IDS_MAX = 50


@dataclass
class Entity:
    labels: dict[str, str] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    instance_of: str | None = None
    subclass_of: str | None = None
    pictures: list[tuple[str, str]] = field(default_factory=list)
    """Names and ranks."""
    articles: dict[str, str] = field(default_factory=dict)
    """Titles by language."""
    redirects_to: int | None = None
    deleted: bool = False


@dataclass
class File:
    mime: str = "image/jpeg"
    licence: str = "CC BY-SA 4.0"
    author: str = '<a href="//commons.wikimedia.org/wiki/User:Ann" title="User:Ann">Ann</a>'
    sha1: str = "aa"


@dataclass
class Article:
    pageimage: str | None = None
    images: list[str] = field(default_factory=list)


class Wikimedia:
    def __init__(self) -> None:
        self.entities: dict[int, Entity] = {}
        self.files: dict[str, File] = {}
        self.articles: dict[str, dict[str, Article]] = {"en": {}, "de": {}}
        self.query_limit_max = 10_000
        """A query for more does not end in time."""
        self.lagging = 0
        """So many more requests are refused because of replication lag."""
        self.refuses = False
        """As a robot that does not say who it is."""
        self.widths: set[int] = set()
        """That were asked for."""
        self.problems: list[str] = []

    def __call__(self, request: Request) -> Reply:
        if "visor" not in request.headers.get("user-agent", "").lower() or "http" not in request.headers["user-agent"]:
            return Reply(b"Please set a user agent with contact information", 403)
        if self.refuses:
            return Reply(b"Please respect our robot policy https://w.wiki/4wJS", 403)
        if len(request.target) > 8000:
            return Reply(b"<title>414 Request-URI Too Long</title>", 414)
        if request.path == "/sparql":
            return self._query(request.query["query"])
        if self.lagging:
            self.lagging -= 1
            error = {"code": "maxlag", "info": "Waiting for wdqs1: 7 seconds lagged.", "lag": 7}
            return Reply.json({"error": error}, **{"Retry-After": "5", "MediaWiki-API-Error": "maxlag"})
        if request.query.get("maxlag") != "5" or request.query.get("formatversion") != "2":
            self.problems.append(request.target)
        if request.query["action"] == "wbgetentities":
            return self._entities(request.query)
        return self._pages(request.path.split("/")[1], request.query)

    def _query(self, query: str) -> Reply:
        limit = int(re.search(r"LIMIT (\d+)", query)[1])  # type: ignore[index]
        after = int(re.search(r"\?n > (\d+)", query)[1])  # type: ignore[index]
        if limit > self.query_limit_max:
            return Reply(b"SPARQL-QUERY: ...\njava.util.concurrent.TimeoutException\n\tat java.util", 500)
        class_ = re.search(r"wdt:P31 wd:(Q\d+)", query)
        if class_:
            found = [n for n, entity in self.entities.items() if entity.instance_of == class_[1]]
        else:
            used = {entity.instance_of for entity in self.entities.values()}
            found = [
                n for n, entity in self.entities.items() if entity.subclass_of and entity.pictures and f"Q{n}" in used
            ]
        rows = [n for n in sorted(found) if n > after][:limit]
        integer = "http://www.w3.org/2001/XMLSchema#integer"
        bindings = [{"n": {"type": "literal", "datatype": integer, "value": str(n)}} for n in rows]
        return Reply.json({"head": {"vars": ["n"]}, "results": {"bindings": bindings}})

    def _entities(self, query: dict[str, str]) -> Reply:
        ids = query["ids"].split("|")
        if len(ids) > IDS_MAX:
            return _error("toomanyvalues", f"Too many values supplied for parameter ids. The limit is {IDS_MAX}.")
        found = {}
        for id_ in ids:
            entity = self.entities.get(int(id_[1:]))
            if entity is None or entity.deleted:
                found[id_] = {"id": id_, "missing": True}
            elif entity.redirects_to is not None:
                target = self._entity(entity.redirects_to, query)
                found[id_] = {**target, "redirects": {"from": id_, "to": target["id"]}}
            else:
                found[id_] = self._entity(int(id_[1:]), query)
        return Reply.json({"entities": found, "success": 1})

    def _entity(self, number: int, query: dict[str, str]) -> dict[str, Any]:
        entity = self.entities[number]
        languages = query["languages"].split("|")

        def said(texts: dict[str, str]) -> dict[str, Any]:
            return {code: {"language": code, "value": texts[code]} for code in languages if code in texts}

        claims: dict[str, list[Any]] = {}
        for name, rank in entity.pictures:
            value = {"snaktype": "value", "datavalue": {"value": name, "type": "string"}}
            claims.setdefault("P18", []).append({"mainsnak": value, "rank": rank})
        for property_, id_ in (("P31", entity.instance_of), ("P279", entity.subclass_of)):
            if id_:
                value = {"snaktype": "value", "datavalue": {"value": {"id": id_}, "type": "wikibase-entityid"}}
                claims[property_] = [{"mainsnak": {"snaktype": "somevalue"}, "rank": "normal"}]
                claims[property_].append({"mainsnak": value, "rank": "normal"})
        wanted = query["sitefilter"].split("|")
        links = {
            f"{code}wiki": {"site": f"{code}wiki", "title": title}
            for code, title in entity.articles.items()
            if f"{code}wiki" in wanted
        }
        document = {"labels": said(entity.labels), "descriptions": said(entity.descriptions), "claims": claims}
        props = query["props"].split("|")
        kept = {name: value for name, value in {**document, "sitelinks": links}.items() if name in props}
        return {"id": f"Q{number}", "type": "item", **kept}

    def _pages(self, wiki: str, query: dict[str, str]) -> Reply:
        titles = query["titles"].split("|")
        if len(titles) > IDS_MAX:
            return _error("toomanyvalues", "Too many values supplied for parameter titles.")
        normalised = [{"from": title, "to": _normal(title)} for title in titles if _normal(title) != title]
        names = [_normal(title) for title in titles]
        if "imageinfo" in query["prop"]:
            self.widths.add(int(query["iiurlwidth"]))
            pages = [self._file(name, int(query["iiurlwidth"])) for name in names]
            return Reply.json({"query": {"normalized": normalised, "pages": pages}, "batchcomplete": True})
        return self._articles(wiki, names, normalised, query)

    def _file(self, title: str, width: int) -> dict[str, Any]:
        name = title.partition(":")[2]
        file = self.files.get(name)
        if file is None:
            return {"ns": 6, "title": title, "missing": True, "imagerepository": ""}
        under = name.replace(" ", "_")
        info = {
            "url": f"https://upload.wikimedia.org/commons/a/aa/{under}",
            "thumburl": f"https://upload.wikimedia.org/commons/thumb/a/aa/{under}/{width}px-{under}",
            "descriptionurl": f"https://commons.wikimedia.org/wiki/File:{under}",
            "mime": file.mime,
            "sha1": file.sha1,
            "extmetadata": {
                "LicenseShortName": {"value": file.licence, "source": "commons-desc-page"},
                "LicenseUrl": {"value": "https://creativecommons.org/licenses/by-sa/4.0", "source": "x"},
                "Artist": {"value": file.author, "source": "commons-desc-page"},
            },
        }
        return {"ns": 6, "title": title, "imagerepository": "shared", "imageinfo": [info]}

    def _articles(self, wiki: str, titles: list[str], normalised: list[dict[str, str]], query: dict[str, str]) -> Reply:
        """Two images a request, so that `continue` has to be followed, as with `imlimit` on a long article."""
        skip = int(query.get("imcontinue", "0"))
        pages, more = [], False
        for title in titles:
            article = self.articles[wiki].get(title)
            if article is None:
                pages.append({"ns": 0, "title": title, "missing": True})
                continue
            page: dict[str, Any] = {"ns": 0, "title": title}
            if article.pageimage and not skip:
                page["pageimage"] = article.pageimage.replace(" ", "_")
            shown = article.images[skip : skip + 2]
            page["images"] = [{"ns": 6, "title": f"File:{name}"} for name in shown]
            more = more or len(article.images) > skip + 2
            pages.append(page)
        answer: dict[str, Any] = {"query": {"normalized": normalised, "pages": pages}}
        if more:
            answer["continue"] = {"imcontinue": str(skip + 2), "continue": "||pageimages"}
        return Reply.json(answer)


def _normal(title: str) -> str:
    return title.replace("_", " ")


def _error(code: str, info: str) -> Reply:
    return Reply.json({"error": {"code": code, "info": info, "docref": "See /w/api.php"}})
