"""What stands in the place of a page that had items: a sign-in, a check for robots, a server's error. Words and forms
tell, where the status does not."""

from __future__ import annotations

import re
from typing import Any

TEXT_LENGTH = 600
"""Characters of a page's text in which it says why it is not the page that was asked for."""

_NOT_NOW = re.compile(
    # Robots are doubted, or have to wait.
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
"""What a reader has to do first."""
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
"""Scripts that doubt their reader."""


def stands_in(document: Any, text: str) -> str:
    """What a page without a picture says or has that one in the place of another does; empty if nothing.

    Args:
        document: The page, as lxml reads it.
        text: What a reader sees of it, its title first.
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
    """What a page or its title says of robots, or of its server, that keeps it from showing what is there."""
    said = _NOT_NOW.search(text[:TEXT_LENGTH])
    return f"says {said[0]!r}" if said else ""


def says_gone(text: str) -> bool:
    """Whether a page says in words that what was there is gone."""
    return _GONE.search(text[:TEXT_LENGTH]) is not None


def visible_text(document: Any) -> str:
    """The title and the text of a page, without what browsers do not show."""
    found: list[str] = []
    for element in document.iter():
        if element.tag not in ("script", "style", "template") and isinstance(element.tag, str):
            found.append(element.text or "")
        found.append(element.tail or "")
    return " ".join(" ".join(found).split())
