"""Shortens scripts by what only a reader needs, so that pages are small."""

from __future__ import annotations

import re

# Strings, templates, comments; names and numbers; blanks; any other sign. No regular expressions:
# the scripts of this package have none.
_PARTS = re.compile(
    r"""(?P<text>"(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`)|(?P<comment>//[^\n]*)|(?P<word>[\w$]+)"""
    r"""|(?P<line>\n\s*)|(?P<blank>[ \t]+)|(?P<sign>.)"""
)


def shrunk(script: str) -> str:
    """Return a script without comments, and without characters that have no meaning.

    The end of a line stays if it may end a statement. Semicolons and commas are removed before a
    closing bracket. const becomes let, since the difference only matters to authors. This is for
    scripts that have no regular expression, no template inside a template, no empty statement and
    no array with holes.
    """
    kept = ""
    blank = ""  # what stood before the next part
    for part in _PARTS.finditer(script):
        if part.lastgroup in ("comment", "blank"):
            blank = blank or " "
            continue
        if part.lastgroup == "line":
            blank = "\n"
            continue
        if part[0] in ("}", ")", "]"):
            kept = kept.removesuffix(";" if part[0] == "}" else ",").removesuffix(",")
        elif blank == "\n":
            kept += "" if kept[-1:] in ("", ";", "{", "(", "[", ",") else "\n"
        elif blank and _needs_blank(kept[-1:], part[0][0]):
            kept += " "
        kept, blank = kept + ("let" if part[0] == "const" else part[0]), ""
    return kept + "\n"


def _needs_blank(before: str, after: str) -> bool:
    """Tell whether two characters need a blank between them to keep their meaning."""
    words = re.fullmatch(r"[\w$]{2}", before + after) is not None
    return words or (before == after and before in "+-")
