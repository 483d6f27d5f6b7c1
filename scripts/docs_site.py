"""MkDocs hooks: README, CONTRIBUTING and CHANGELOG are pages, and links to files of the repository lead to its host."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)")


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pages that are at the repository's root."""
    for name, source in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Links as the site has them. Raises `PluginError` for one whose file does not exist."""
    uri = page.file.src_uri
    folder = "" if uri in PAGES else posixpath.join("docs", posixpath.dirname(uri))
    here = posixpath.dirname(uri) or "."

    def lead(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[1]))
        if not (ROOT / target).exists():
            raise PluginError(f"{uri} links to {match[1]}, which is not there")
        name = next((name for name, source in PAGES.items() if source == target), None)
        if name or (target.startswith("docs/") and (ROOT / target).is_file()):
            return posixpath.relpath(name or target.removeprefix("docs/"), here)
        return f"{config['repo_url']}/blob/main/{target}"

    return LINK.sub(lead, markdown)
