"""The documents, and the blocks of code that are in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = {"bash", "curl", "deepcnn", "find", "make", "pip", "python", "tensorboard", "torchrun"}
PROGRAMS |= {"zcat", ".venv/bin/python", ".venv/bin/deepcnn"}
INLINE = re.compile(r"`((?:deepcnn|make) [^`]+)`")
PROMPT = "$ "  # begins a command in a block that shows what is printed, too
OUTPUT = "# → "  # begins a line of what a block of Python prints


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, in which language, and what follows it if that is output."""

    page: str
    line: int
    language: str
    text: str
    output: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A line of a shell: the words of its programs, one for each that a pipe joins."""

    where: str
    text: str
    pipeline: tuple[tuple[str, ...], ...]

    @property
    def words(self) -> tuple[str, ...]:
        """What deepcnn is given, of the one program that is it; empty where none is."""
        for words in self.pipeline:
            if words[0].endswith("deepcnn"):
                return words[1:]
            if words[0] in ("torchrun", "python") and "deepcnn" in words:
                return words[words.index("deepcnn") + 1 :]
        return ()


def pages() -> list[Path]:
    """Return every page that a reader is sent to."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page; one of text right after a block of a shell is its output."""
    text = page.read_text()
    found: list[Block] = []
    end = 0
    for match in FENCE.finditer(text):
        language, body = match.groups()
        line = text[: match.start()].count("\n") + 1
        if body.startswith(PROMPT):
            found += transcript(name_of(page), line, body)
            end = match.end()
            continue
        follows = found and not text[end : match.start()].strip()
        if language == "text" and follows and is_shell(found[-1]) and found[-1].output is None:
            before = found.pop()
            found.append(Block(before.page, before.line, before.language, before.text, body))
        else:
            found.append(Block(name_of(page), line, language, body))
        end = match.end()
    return found


def transcript(page: str, line: int, text: str) -> list[Block]:
    """Return a block for each command that begins with a prompt, with what stands below it."""
    parts = re.split(rf"^{re.escape(PROMPT)}", text, flags=re.MULTILINE)[1:]
    found = []
    for part in parts:
        command, _, output = part.partition("\n")
        found.append(Block(page, line, "sh", f"{command}\n", output or None))
    return found


def is_shell(block: Block) -> bool:
    """Tell whether a block is of commands: named so, or without a name and of nothing else."""
    if block.language in ("sh", "console"):
        return True
    lines = [line.split()[0] for line in whole_lines(block.text) if line.split()]
    return block.language == "" and all(word in PROGRAMS for word in lines)


def whole_lines(text: str) -> list[str]:
    """Return the lines of a shell, those that go on in the next one joined to it."""
    return text.replace("\\\n", " ").splitlines()


def commands_of(block: Block) -> list[Command]:
    """Return the commands of a block, without their comments."""
    found = []
    for line in whole_lines(block.text):
        words = shlex.split(line, comments=True)
        if not words:
            continue
        pipeline: list[list[str]] = [[]]
        for word in words:
            if word == "|":
                pipeline.append([])
            else:
                pipeline[-1].append(word)
        text = shlex.join(words)
        found.append(Command(str(block), text, tuple(tuple(each) for each in pipeline)))
    return found


def inline_commands_of(page: Path) -> list[Command]:
    """Return the commands within the sentences of a page, without what a sentence leaves open."""
    text = FENCE.sub("", page.read_text())
    found = []
    for match in INLINE.finditer(text):
        words = [word for word in shlex.split(match.group(1)) if word not in ("…", "--help")]
        where = f"{name_of(page)}: {match.group(1)}"
        found.append(Command(where, shlex.join(words), (tuple(words),)))
    return found


def printed_by(block: Block) -> str | None:
    """Return what a block of Python says that it prints, or None."""
    lines = [line for line in block.text.splitlines() if re.match(r"#\s*[→>]", line)]
    for line in lines:
        assert line.startswith(OUTPUT), f"{block}: output begins with {OUTPUT!r}, found {line!r}"
    return "".join(line.removeprefix(OUTPUT) + "\n" for line in lines) or None
