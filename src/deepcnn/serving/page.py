"""The page that the server shows, with the headers that isolate it."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cached_property
from html.parser import HTMLParser
from importlib import resources
from typing import TYPE_CHECKING

from deepcnn.errors import ConfigError

if TYPE_CHECKING:
    from deepcnn.inference.trained import Trained

_KINDS_OF_SCRIPTS = (None, "", "text/javascript", "module")  # others hold data, and do not run


@dataclass(frozen=True)
class Page:
    """An HTML page that needs nothing from elsewhere.

    `sends_since`: the reason why it sends pictures to the server; None: it answers by itself.
    """

    content: str
    sends_since: str | None = None

    @classmethod
    def of(cls, trained: Trained) -> Page:
        """Return the page in which the network answers, or the sending one if no page can."""
        from deepcnn.reports.box import demo_page  # with torch, which ONNX files do without

        try:
            return cls(demo_page(trained))
        except ConfigError as error:
            return cls.upload(str(error))

    @classmethod
    def upload(cls, why: str) -> Page:
        """Return the page that sends pictures to the server, and shows its answers."""
        content = resources.files("deepcnn.serving").joinpath("page.html").read_text("utf-8")
        return cls(content, why)

    @cached_property
    def headers(self) -> dict[str, str]:
        """Headers for browsers: no other site may show the page, and it asks only this server.

        Only the scripts in the page itself run; they are known by their hashes.
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
    """Return the SHA-256 of each script in a page that runs, in base64."""
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

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script" and dict(attrs).get("type") in _KINDS_OF_SCRIPTS:
            self._is_in_one = True
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._is_in_one = False

    def handle_data(self, data: str) -> None:
        if self._is_in_one:
            self.scripts[-1] += data
