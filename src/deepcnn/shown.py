r"""Names and texts from outside, as they may be shown: no character of them commands a terminal.

These are written as Python escapes: control characters, marks that change the direction of writing,
separators other than two spaces, and what is not UTF-8 (lone surrogates). For example, they become
`\x1b` and `\u202e`.
"""

from __future__ import annotations

import os
import shlex


def printable(text: str) -> str:
    """Return a text of one or more lines with visible characters only."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\xa0" else ascii(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """Return a text as `printable` does, on one line."""
    return printable(text).replace("\n", r"\n")


def shown(name: object) -> str:
    """Return a name as an error shows it: on one line, with printable characters only."""
    text = str(name)
    return text if text.isprintable() else repr(text)


def quoted(word: str) -> str:
    r"""Return a word as a shell takes it; with what cannot be seen as bash's $'\x1b'."""
    if word.isprintable():
        return shlex.quote(word)
    seen = (c if c.isprintable() and c not in "\\'" else _escaped(c) for c in word)
    return f"$'{''.join(seen)}'"


def _escaped(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def in_ascii(json: str) -> str:
    """Return ASCII JSON from `json.dumps` without the one control character that it leaves."""
    return json.replace("\x7f", "\\u007f")
