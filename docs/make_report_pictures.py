"""Makes the pictures of a report in docs/after_training.md.

    python -m docs.make_report_pictures              # of `quick`, trained in build/ if missing
    python -m docs.make_report_pictures --run RUN    # of a run that is there

The pages are seen with Chromium: the system's, or the one of tests/packages.py.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from tests.helpers.box import ANSWERED, drop
from tests.helpers.browser import Browser, chromium

import deepcnn
from deepcnn.reports.subject import subject_of
from deepcnn.reports.write import write

ROOT = Path(__file__).resolve().parent.parent
WIDTHS = (390, 1280)  # of a telephone and of a desk's screen
DROPPED = 7  # the test image that is dropped into the page: a frog
BOTTOM = "Math.ceil(document.getElementById('box').getBoundingClientRect().bottom) + 16"


def main() -> int:
    """Train where that is not done yet, and write the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=ROOT / "build" / "quick")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    options = parser.parse_args()
    if not options.run.exists():
        deepcnn.train("quick", seed=0, run_dir=options.run, progress=True)
    options.out.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        report(browser, options.run, options.out)
    return 0


def report(browser: Browser, run: Path, folder: Path) -> None:
    """Write the top of a run's report, down to its answer about a picture."""
    with tempfile.TemporaryDirectory() as scratch:
        page_file = write(subject_of(run), Path(scratch) / "report.html")
        picture = Path(scratch) / "frog.png"
        test = deepcnn.load_dataset("cifar10", "test")
        Image.fromarray(test.images[DROPPED]).save(picture)
        for width in WIDTHS:
            with browser.page(page_file.as_uri(), width) as page:
                drop(page, picture)
                page.run(ANSWERED)
                page.resize(width, page.run(BOTTOM))
                seen = Image.open(io.BytesIO(page.picture())).convert("RGB")
            seen.save(folder / f"report-{width}.png", optimize=True)


if __name__ == "__main__":
    sys.exit(main())
