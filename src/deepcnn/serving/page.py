"""The page that the server shows, with the headers that keep it to itself."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cached_property
from html.parser import HTMLParser
from importlib import resources


@dataclass(frozen=True)
class Page:
    """An HTML page that needs nothing from elsewhere."""

    content: str

    @classmethod
    def upload(cls) -> Page:
        """Return the page that sends pictures to the server, and shows what it answers."""
        return cls(resources.files("deepcnn.serving").joinpath("page.html").read_text("utf-8"))

    @cached_property
    def headers(self) -> dict[str, str]:
        """What browsers are told: no other site may show it, and it asks none but this server.

        Only the scripts that stand in the page itself run, told by their hashes.
        """
        scripts = " ".join(f"'sha256-{digest}'" for digest in _hashes(self.content)) or "'none'"
        policy = {
            "default-src": "'none'",
            "script-src": scripts,
            "style-src": "'unsafe-inline'",
            "img-src": "'self' data: blob:",
            "connect-src": "'self'",
            "form-action": "'none'",
            "base-uri": "'none'",
            "frame-ancestors": "'none'",
        }
        return {
            "Content-Security-Policy": "; ".join(f"{k} {v}" for k, v in policy.items()),
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Frame-Options": "DENY",
        }


def _hashes(page: str) -> list[str]:
    """Return the SHA-256 of each script in a page, in base64."""
    found = _Scripts()
    found.feed(page)
    found.close()
    return [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for script in found.scripts
    ]


class _Scripts(HTMLParser):
    """Collects the texts of a page's scripts."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.scripts: list[str] = []
        self._is_in_one = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag == "script":
            self._is_in_one = True
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._is_in_one = False

    def handle_data(self, data: str) -> None:
        if self._is_in_one:
            self.scripts[-1] += data
