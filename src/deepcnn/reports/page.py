"""Pages from templates: one file each, which contains all that it needs."""

from __future__ import annotations

import base64
import datetime
import functools
import hashlib
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

import deepcnn
from deepcnn.reports.shrink import shrunk
from deepcnn.shown import printable

ASSETS = resources.files("deepcnn.reports") / "assets"
SCRIPTS = ("page.js", "jpeg.js", "engine.js", "box.js")


def render(template: str, page: dict[str, Any], *, made: bool = True) -> str:
    """Fill in a template, and return the page; everything in `page` is escaped.

    `made`: say when it was made. Only the scripts of this package run in the page, and the page
    cannot load or send anything; its own policy forbids everything else. In names, invisible
    characters and bytes that are not UTF-8 are escaped.
    """
    scripts = [script(name) for name in SCRIPTS]
    filled = (
        _templates()
        .get_template(template)
        .render(
            page=page,
            css=Markup(asset("page.css")),
            scripts=[Markup(each) for each in scripts],
            policy=policy(scripts),
            version=deepcnn.__version__,
            made=f"{datetime.datetime.now():%Y-%m-%d %H:%M}" if made else None,
        )
    )
    return filled.encode(errors="backslashreplace").decode()


def policy(scripts: list[str]) -> str:
    """Return the content security policy of a page with these scripts."""
    hashes = [hashlib.sha256(script.encode()).digest() for script in scripts]
    allowed = " ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in hashes)
    return (
        "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
        f"script-src {allowed}; base-uri 'none'; form-action 'none'"
    )


@functools.cache
def script(name: str) -> str:
    """Return a script in the form in which it is in a page."""
    return shrunk(asset(name))


@functools.cache
def asset(name: str) -> str:
    """Return a file of this package as text."""
    return (ASSETS / name).read_text(encoding="utf-8")


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda found: printable(found) if type(found) is str else found,
    )
