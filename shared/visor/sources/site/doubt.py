"""Recognises what replaces a page that had items: a sign-in, a check for robots, a server's error. Words and forms
show this when the status does not."""

from __future__ import annotations

import re
from typing import Any

TEXT_LENGTH = 600
"""Characters of a page's text in which it may say why it is not the requested page."""

_NOT_NOW = re.compile(
    # The page suspects robots, or makes them wait.
    r"just a moment|attention required|access (?:to this page )?(?:has been |is )?denied|checking your browser"
    r"|(?:not|you) a (?:human|robot)|verify(?:ing)? (?:that )?you|security check|unusual traffic"
    r"|pardon our interruption|requests? (?:has been |was )?blocked|rate limit|too many requests"
    # The server does not work.
    r"|(?:fatal|internal server|database|application|runtime|parse|uncaught) (?:error|exception)|error establishing"
    r"|sqlstate|traceback \(most recent|bad gateway|gateway time-?out|service (?:is )?(?:temporarily )?unavailable"
    r"|(?:under|for|scheduled|routine) maintenance|maintenance mode|temporarily (?:unavailable|offline|down|closed)"
    r"|back (?:online )?(?:soon|shortly)|be right back|wartung|bald (?:wieder|zurück)|vorübergehend"
    r"|maintenance en cours|mantenimiento|manutenzione|manutenção|onderhoud|konserwacj|údržb|обслуживан"
    r"|технически\w+ работ|メンテナンス|维护|점검",
    re.IGNORECASE,
)
_FIRST = re.compile(
    r"enable (?:javascript|cookies)|accept (?:all )?cookies|cookies akzeptieren|bitte (?:melden|loggen)"
    r"|(?:please|must|have to) (?:log|sign) ?in|age verification|(?:verify|confirm) your age|altersprüfung"
    r"|(?:are you|you are|i am|you must be|bist du|sind sie|êtes-vous)[^.?!]{0,20} (?:18|21)\b",
    re.IGNORECASE,
)
"""Steps that a reader has to take first."""
_GONE = re.compile(
    r"\b(?:404|410)\b|not found|no longer|not exist|n['’]t exist|sold out|discontinued|removed"
    r"|nicht (?:mehr|gefunden)|ausverkauft|n['’]existe|introuvable|épuisé|no (?:existe|encontrad)|agotado"
    r"|non (?:esiste|trovat)|esaurit|não (?:existe|encontrad)|niet (?:gevonden|meer)|uitverkocht"
    r"|nie (?:znaleziono|istnieje)|nenalezen|не найден|見つかりません|不存在",
    re.IGNORECASE,
)
_CHECKS = re.compile(
    r"challenge-platform|_Incapsula_|captcha|datadome|perimeterx|px-cloud|awswaf|ddos-guard", re.IGNORECASE
)
"""Scripts that check whether the reader is a robot."""


def stands_in(document: Any, text: str) -> str:
    """The sign, on a page without a picture, that it replaces another page; empty if there is none.

    Args:
        document: The page, as lxml reads it.
        text: The visible text, its title first.
    """
    if said := says_not_now(text):
        return said
    if says_gone(text):
        return ""
    if asked := _FIRST.search(text[:TEXT_LENGTH]):
        return f"says {asked[0]!r}"
    if document.xpath("//input[translate(@type,'PASWORD','pasword')='password']"):
        return "asks for a password"
    if any(_CHECKS.search(url) for url in document.xpath("//script/@src | //iframe/@src")):
        return "checks its reader"
    return ""


def says_not_now(text: str) -> str:
    """A page's message, also in its title, that robots or a server's error keep it from showing its contents."""
    said = _NOT_NOW.search(text[:TEXT_LENGTH])
    return f"says {said[0]!r}" if said else ""


def says_gone(text: str) -> bool:
    """Whether the text of a page says that its contents are gone."""
    return _GONE.search(text[:TEXT_LENGTH]) is not None


def visible_text(document: Any) -> str:
    """The title and the text of a page, without the elements that browsers do not show."""
    found: list[str] = []
    for element in document.iter():
        if element.tag not in ("script", "style", "template") and isinstance(element.tag, str):
            found.append(element.text or "")
        found.append(element.tail or "")
    return " ".join(" ".join(found).split())
