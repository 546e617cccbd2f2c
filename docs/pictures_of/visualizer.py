"""What TensorBoard shows of a run: its own pages, seen by Chromium."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from docs.pictures_of.drawing import beside, save, sheet
from numpy.typing import NDArray
from PIL import Image
from tests.helpers.browser import Page, chromium

# The cards that are taken, by their titles, and the names of their pictures.
CARDS = {
    "loss/total_loss": "tensorboard-loss",
    "loss_averaged/total_loss": "tensorboard-loss-averaged",
    "learning_rate": "tensorboard-rate",
    "sparsity/local3": "tensorboard-sparsity",
    "activations/local3": "tensorboard-activations",
    "gradients/conv2.weight": "tensorboard-gradients",
    "variables/conv1.weight": "tensorboard-variables",
    "images/1": "tensorboard-image",
}
WIDTH, HEIGHT = 820, 4000  # of the window: TensorBoard draws only what is seen
GRAPH_WINDOW = 1500, 1200
GAP = 30  # pixels without anything between two parts of the graph
SECONDS = 60  # until all is drawn, on a busy machine
TITLES = """[...document.querySelectorAll("card-view")].map((card) => {
  const { x, y, width, height } = card.getBoundingClientRect();
  return [card.innerText.replace(/\\s*\\n\\s*/, ""), card.innerText, { x, y, width, height }];
})"""
# The graph lies below shadow roots.
GRAPH = """(() => {
  const find = (root) => {
    for (const each of root.querySelectorAll("*")) {
      if (each.matches("g#root, svg#svg")) return each;
      const found = each.shadowRoot && find(each.shadowRoot);
      if (found) return found;
    }
    return null;
  };
  const graph = find(document);
  if (!graph || graph.querySelectorAll(".node").length < 5) return null;
  const parts = [...graph.querySelectorAll(".node, .edgePaths")];
  const boxes = parts.map((part) => part.getBoundingClientRect());
  const x = Math.min(...boxes.map((box) => box.left));
  const y = Math.min(...boxes.map((box) => box.top));
  const right = Math.max(...boxes.map((box) => box.right));
  const bottom = Math.max(...boxes.map((box) => box.bottom));
  return { x: x - 12, y: y - 12, width: right - x + 24, height: bottom - y + 24 };
})()"""


def make(summaries: Path, folder: Path) -> None:
    """Write a picture of each card, and of the graph."""
    with tensorboard(summaries) as address, chromium() as browser:
        tags = "|".join(re.escape(tag) for tag in CARDS)
        query = f"?darkMode=false&smoothing=0&tagFilter={quote(f'^({tags})$')}#timeseries"
        with browser.page(address + query, WIDTH) as page:
            page.resize(WIDTH, HEIGHT)
            for title, box in cards(page).items():
                save(clipped(page, box), folder / f"{CARDS[title]}.png", colours=64)
        with browser.page(f"{address}?darkMode=false#graphs", WIDTH) as page:
            page.resize(*GRAPH_WINDOW)
            found = stacked(clipped(page, settled(page, GRAPH)))
            save(found, folder / "tensorboard-graph.png", colours=64)


def cards(page: Page) -> dict[str, dict[str, float]]:
    """Return where each card is, once all are drawn."""
    found = settled(page, TITLES)
    places: dict[str, dict[str, float]] = {}
    for heading, _, box in found:
        title = next((title for title in CARDS if heading.startswith(title)), None)
        if title is not None:
            places[title] = box
    assert places.keys() == CARDS.keys(), f"TensorBoard shows {sorted(places)}"
    return places


def settled(page: Page, script: str) -> Any:
    """Return what a script gives, once it has given the same for two seconds."""
    deadline, before, since = time.monotonic() + SECONDS, None, time.monotonic()
    while time.monotonic() < deadline:
        found = page.run(script)
        if found != before:
            before, since = found, time.monotonic()
        if before and time.monotonic() - since > 2:
            return before
        time.sleep(0.2)
    raise AssertionError(f"TensorBoard has not drawn its page after {SECONDS} s: {before}")


def clipped(page: Page, box: dict[str, float]) -> Image.Image:
    """Return a part of a page."""
    found = page.send("Page.captureScreenshot", clip={**box, "scale": 1})
    return Image.open(io.BytesIO(base64.b64decode(found["data"])))


def stacked(picture: Image.Image) -> Image.Image:
    """Put what lies beside the first part of a picture below it, so that it gets narrow."""
    dark: NDArray[np.bool_] = np.asarray(picture.convert("L")) < 240
    columns = np.flatnonzero(dark.any(0))
    parts = []
    for part in np.split(columns, np.flatnonzero(np.diff(columns) > GAP) + 1):
        left, right = int(part[0]), int(part[-1]) + 1
        rows = np.flatnonzero(dark[:, left:right].any(1))
        parts.append(picture.crop((left, int(rows[0]), right, int(rows[-1]) + 1)))
    first, *others = parts
    return sheet([[first], [beside(others, gap=GAP)]], gap=GAP) if others else first


@contextmanager
def tensorboard(summaries: Path) -> Iterator[str]:
    """Run TensorBoard on a folder, and give its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(summaries), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = (re.search(r"http://\S+", line) for line in process.stderr)
            yield next(match.group() for match in found if match)
        finally:
            process.terminate()
