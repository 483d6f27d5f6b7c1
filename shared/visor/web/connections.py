"""Connections of waitress: a request that is broken, too large or late is also answered with a problem document,
though no application ever sees it."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask
from waitress.utilities import Error

from visor.errors import BadRequest, RequestTooLarge, RequestTooSlow, VisorError
from visor.web.body import SEND_LESS
from visor.web.openapi import PROBLEM
from visor.web.problems import problem_of


class _Refused(Error):  # type: ignore[misc]
    """waitress's own error, as Visor reports it."""

    def __init__(self, said: VisorError) -> None:
        super().__init__(said.found)
        self.said = said


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    def __init__(self, adj: Any) -> None:
        super().__init__(adj)
        self.since = time.time()


class _Refusal(ErrorTask):  # type: ignore[misc]
    def execute(self) -> None:
        document = problem_of(_said(self.request.error))
        body = msgspec.json.encode(document)
        self.status = f"{document.status} {document.title}"
        self.response_headers.append(("Content-Type", PROBLEM))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection that reports why it is closed."""

    parser_class, error_task_class = _Parser, _Refusal
    request: Any
    requests: list[Any]

    def refuse_if_late(self, now: float, within_s: float) -> None:
        """Answer a request that has begun, but has not arrived `within_s`, or of which nothing more arrives."""
        with self.requests_lock:
            late = self.request
            is_late = late is not None and now - late.since > within_s
            is_still = now - self.last_activity > self.adj.channel_timeout
            if late is None or self.requests or not (is_late or is_still):
                return
            late.error = _Refused(
                RequestTooSlow(
                    f"Only {late.body_bytes_received:,} bytes of the body arrived in {now - late.since:.0f} s",
                    valid=f"The whole request within {within_s:g} s, without long pauses",
                    remedy=SEND_LESS,
                )
            )
            late.completed = True
            self.request, self.requests = None, [late]
            self.server.add_task(self)


def refuse_late(server: TcpWSGIServer, now: float, within_s: float) -> None:
    """As `server.maintenance`, with an answer for connections that have begun a request."""
    for channel in list(server.active_channels.values()):
        channel.refuse_if_late(now, within_s)
    TcpWSGIServer.maintenance(server, now)


def _said(error: Error) -> VisorError:
    if isinstance(error, _Refused):
        return error.said
    kind = RequestTooLarge if error.code == 413 else BadRequest
    return kind(f"{error.reason}: {error.body}", valid="An HTTP request as in /openapi.json", remedy="Correct it")
