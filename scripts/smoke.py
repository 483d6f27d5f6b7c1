"""Check a new deployment of Visor: does it answer, and does the page find it?

    python scripts/smoke.py ENDPOINT [--page URL] [--attempts N]

Checks health, statistics, the headers that keep a browser safe, that an invalid request is refused politely, and that
the page and its config.json are there and name this endpoint. Needs nothing but Python. Exit status 1 if a check fails.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

TIMEOUT_S = 60
BETWEEN_S = 5.0


class Wrong(Exception):
    """An answer is not what it should be."""


def ask(url: str, *, data: bytes | None = None) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body of one answer. Neither a redirect nor any status is an error here."""
    if not url.startswith(("https://", "http://127.0.0.1:")):
        raise Wrong(f"{url} is not an https address")
    headers = {"Content-Type": "application/json"} if data is not None else {}
    request = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310 (the scheme is checked above)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.headers, exc.read()
    except (OSError, http.client.HTTPException) as exc:
        raise Wrong(f"{url} does not answer: {exc}") from exc


def document(url: str) -> Any:
    """The JSON document at a URL."""
    status, _, body = ask(url)
    if status != 200:
        raise Wrong(f"{url} answers {status}: {body[:200]!r}")
    try:
        return json.loads(body)
    except ValueError as exc:
        raise Wrong(f"{url} is not JSON: {body[:80]!r}") from exc


def health(endpoint: str) -> str:
    document(f"{endpoint}/v1/health")
    return "is healthy"


def stats(endpoint: str) -> str:
    status, headers, _ = ask(f"{endpoint}/v1/stats")
    if status == 429 and "problem+json" in headers.get("Content-Type", ""):
        return f"answers that no more is free for now (Retry-After: {headers.get('Retry-After')})"
    found = document(f"{endpoint}/v1/stats")
    return f"holds {found.get('index', found).get('images', 0):,} images"


def safe_headers(endpoint: str) -> str:
    _, headers, _ = ask(f"{endpoint}/v1/health")
    if headers.get("X-Content-Type-Options") != "nosniff":
        raise Wrong("answers lack X-Content-Type-Options: nosniff")
    return "sends security headers"


def polite_refusal(endpoint: str) -> str:
    """An invalid search is answered with a problem document, not a stack trace."""
    status, headers, body = ask(f"{endpoint}/v1/search", data=b"{}")
    if status not in (400, 401, 429) or "problem+json" not in headers.get("Content-Type", ""):
        raise Wrong(f"an empty search is answered by {status} {headers.get('Content-Type')}: {body[:200]!r}")
    return "refuses an invalid request politely"


def page_is_there(page: str, endpoint: str) -> str:
    status, headers, body = ask(page)
    if status != 200 or not headers.get("Content-Type", "").startswith("text/html"):
        raise Wrong(f"{page} answers {status} {headers.get('Content-Type')}: {body[:80]!r}")
    config = document(page.rpartition("/")[0] + "/config.json")
    if config.get("endpoint", "").rstrip("/") not in (endpoint, *([""] if page.startswith(endpoint) else [])):
        raise Wrong(f"the page's config.json names {config.get('endpoint')!r}")
    return "page is there and asks this endpoint"


def patiently(check: Callable[[], str], attempts: int, between_s: float = BETWEEN_S) -> str:
    """The check's finding, or its last problem: a new service and its policies take minutes to take effect."""
    for attempt in range(attempts):
        try:
            return check()
        except Wrong:
            if attempt == attempts - 1:
                raise
            time.sleep(between_s)
    raise AssertionError("no attempt was made")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("endpoint")
    parser.add_argument("--page")
    parser.add_argument("--attempts", type=int, default=36, help="5 s apart; once after a check that kept failing")
    args = parser.parse_args()
    endpoint = args.endpoint.rstrip("/")
    checks: list[Callable[[], str]] = [
        lambda: health(endpoint),
        lambda: stats(endpoint),
        lambda: safe_headers(endpoint),
        lambda: polite_refusal(endpoint),
    ]
    if args.page:
        checks.append(lambda: page_is_there(args.page, endpoint))
    wrong = 0
    for check in checks:
        try:
            print(f"ok     {patiently(check, 1 if wrong else args.attempts)}", flush=True)
        except Wrong as exc:
            wrong += 1
            print(f"WRONG  {exc}", flush=True)
    if args.page and not wrong:
        print(f"\nVisor is at {args.page}", flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
