"""Logs in the format of Cloud Logging: one JSON object per line, with severity, message and fields of the record."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime

from flask import has_request_context, request

CARRIED = ("batch", "run", "items", "source", "stage")
"""Attributes that a log call may pass in `extra` and that become fields of the line."""
QUERY = re.compile(r"(/[^\s?'\"<>]*)\?[^\s'\"<>]+")
"""The query of a URL or path in a message."""
TRACE_HEADER = "X-Cloud-Trace-Context"
"""`TRACE/SPAN;o=OPTIONS`, set by Cloud Run on every request; lines with it are shown with their request."""


class CloudFormatter(logging.Formatter):
    """One line of JSON per record: the message and the attributes in `CARRIED`, never an image's bytes.

    Args:
        project: The project in whose traces the current request is named; empty: it is not named.
    """

    def __init__(self, project: str = "") -> None:
        super().__init__()
        self.project = project

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "severity": record.levelname if record.levelname in SEVERITIES else "DEFAULT",
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "message": record.getMessage(),
            "logger": record.name,
        }
        line.update({name: getattr(record, name) for name in CARRIED if hasattr(record, name)})
        if trace := self._trace():
            line["logging.googleapis.com/trace"] = trace
        if record.exc_info:
            line["message"] = f"{line['message']}\n{self.formatException(record.exc_info)}"
        # The query of a URL may hold the secret that opens it: a signature, a key.
        line["message"] = QUERY.sub(r"\1?…", str(line["message"]))
        return json.dumps(line, ensure_ascii=False, default=str)

    def _trace(self) -> str | None:
        if not self.project or not has_request_context():
            return None
        trace = request.headers.get(TRACE_HEADER, "").partition("/")[0]
        return f"projects/{self.project}/traces/{trace}" if trace.isalnum() else None


SEVERITIES = frozenset({"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})


def log_to_cloud(project: str = "", level: int = logging.INFO) -> None:
    """Send all logs of this process to standard error in Cloud Logging's form, with traces of that project."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(CloudFormatter(project))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("faiss", "google", "httpcore", "httpx", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
