"""The box of a page in which a network answers: pictures are given to it, and it is read."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tests.helpers.browser import Page

SAID = "document.getElementById('said').textContent"
ANSWERED = """new Promise((done) => {
  const look = () => (document.getElementById("took").textContent ? done() : setTimeout(look, 10));
  look();
})"""


def as_file(path: Path) -> str:
    """Return JavaScript that makes a file with the content and the name of this one."""
    content = base64.b64encode(path.read_bytes()).decode()
    data = f"Uint8Array.from(atob('{content}'), (sign) => sign.charCodeAt(0))"
    return f"new File([{data}], {json.dumps(path.name)})"


def drop(page: Page, *paths: Path) -> None:
    page.run(f"""{{
        const dataTransfer = new DataTransfer();
        for (const file of [{", ".join(map(as_file, paths))}]) dataTransfer.items.add(file);
        const event = {{ dataTransfer, cancelable: true, bubbles: true }};
        document.body.dispatchEvent(new DragEvent("drop", event));
    }}""")


def paste(page: Page, path: Path) -> None:
    page.run(f"""{{
        const clipboardData = new DataTransfer();
        clipboardData.items.add({as_file(path)});
        dispatchEvent(new ClipboardEvent("paste", {{ clipboardData }}));
    }}""")


def choose(page: Page, path: Path, field: str = "#file") -> None:
    root = page.send("DOM.getDocument")["root"]["nodeId"]
    node = page.send("DOM.querySelector", nodeId=root, selector=field)["nodeId"]
    page.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])


def check_answered(page: Page, answer: Any) -> None:
    """Wait for an answer, and fail unless it is that of `predict`."""
    page.run(ANSWERED)
    said = page.run(SAID)
    assert said.startswith(f"{answer.label} {100 * answer.probability:.1f}")
    assert ("unsure" in said) == (answer.unsure is not None)
