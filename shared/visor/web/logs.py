"""Logs as Cloud Logging reads them: one JSON object a line, with severity, message and what the record carries."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

CARRIED = ("trace", "batch", "items", "source", "stage")
"""Attributes that a log call may pass in `extra` and that become fields of the line."""


class CloudFormatter(logging.Formatter):
    """One line of JSON a record. Never a picture's bytes: only what the message and `CARRIED` say."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "severity": record.levelname if record.levelname in SEVERITIES else "DEFAULT",
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "message": record.getMessage(),
            "logger": record.name,
        }
        line.update({name: getattr(record, name) for name in CARRIED if hasattr(record, name)})
        if "trace" in line:
            line["logging.googleapis.com/trace"] = line.pop("trace")
        if record.exc_info:
            line["message"] = f"{line['message']}\n{self.formatException(record.exc_info)}"
        return json.dumps(line, ensure_ascii=False, default=str)


SEVERITIES = frozenset({"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})


def log_to_cloud(level: int = logging.INFO) -> None:
    """Send all logs of this process to standard error in Cloud Logging's form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(CloudFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("faiss", "google", "httpcore", "httpx", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
