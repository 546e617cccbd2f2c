"""How well a network that was trained on CIFAR-10 knows what it does not know.

    python benchmarks/run.py unsure RUN

Expected calibration error before and after the temperature, cross-fitted in two halves; how many
test images are refused at 2 % error; how many pictures of other kinds are called unsure, beside
what the largest softmax alone calls so when it refuses as many test images.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from deepcnn import load, load_dataset
from deepcnn.inference import calibration
from deepcnn.inference.classifier import Classifier
from deepcnn.inference.evaluation import Scorer
from deepcnn.runs.run import Run
from tools import report

COUNT = 2000  # pictures of each other kind
Pixels = NDArray[np.uint8]


def main(arguments: list[str]) -> int:
    """Measure a run, print the figures and store them."""
    parser = report.parser("unsure", __doc__)
    parser.add_argument("run", type=Path, help="directory of the run, which is not changed")
    options = parser.parse_args(arguments)
    out = report.new_file("unsure", options.out, options.remark)
    about = report.circumstances()
    preset = Run.open(options.run).config().preset
    figures = {name: round(value, 4) for name, value in measure(options.run).items()}
    print(json.dumps(figures, indent=2))
    result = {"what": "how sure a network is", "preset": preset, **about, "figures": figures}
    report.store(result, out, options.remark)
    return 0


def measure(run: Path) -> dict[str, Any]:
    """Return the figures of a run of CIFAR-10."""
    scorer = Scorer(run, "test")
    _, answered = scorer.answered()
    right = answered.right
    raw = calibration.probabilities(answered.logits).max(1)
    fitted, _ = calibration.cross_fitted(answered.logits, answered.labels)
    classifier = load(run)
    known = unsure(classifier, scorer.source.load().images)
    figures: dict[str, Any] = {
        "accuracy": float(right.mean()),
        "calibration error before": calibration.expected_calibration_error(raw, right),
        "calibration error after": calibration.expected_calibration_error(fitted.max(1), right),
        "refused": share(known, None, otherwise=True),
        "wrong among the answered": float(1 - right[known == "None"].mean()),
        "called unknown": share(known, "unknown"),
    }
    sure = classifier.probabilities(scorer.source.load().images).max(1)
    same = float(np.quantile(sure, figures["refused"]))
    for name, images in other_kinds().items():
        found = unsure(classifier, images)
        largest = classifier.probabilities(images).max(1)
        figures[f"{name}: unknown"] = share(found, "unknown")
        figures[f"{name}: unsure"] = share(found, None, otherwise=True)
        figures[f"{name}: unsure by softmax alone"] = float((largest < same).mean())
    return figures


def unsure(classifier: Classifier, images: Pixels) -> NDArray[np.str_]:
    """Return what is doubtful about each answer, as a word."""
    found = []
    for start in range(0, len(images), 500):
        some = images[start : start + 500]
        found += [str(a.unsure) for a in classifier.answer(some, [""] * len(some))]
    return np.array(found)


def share(found: NDArray[np.str_], what: str | None, *, otherwise: bool = False) -> float:
    """Return how many are so, or with `otherwise` are not."""
    is_so = found == str(what)
    return float((~is_so if otherwise else is_so).mean())


def other_kinds() -> dict[str, Pixels]:
    """Return pictures 32×32×3 of kinds that CIFAR-10 does not have."""
    random = np.random.default_rng(0)
    clothes = load_dataset("fashion_mnist", "test").images[:COUNT, :, :, 0]
    coarse = random.integers(0, 256, (COUNT, 4, 4, 3), dtype=np.uint8)
    return {
        "Fashion-MNIST": np.stack([scaled(Image.fromarray(image)) for image in clothes]),
        "noise": random.integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8),
        "blobs": np.stack([scaled(Image.fromarray(image)) for image in coarse]),
        "letters": np.stack([letter(i, random) for i in range(COUNT)]),
    }


def scaled(image: Image.Image) -> Pixels:
    """Return a picture at CIFAR-10's size, in colour."""
    return np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC).convert("RGB"))


def letter(number: int, random: np.random.Generator) -> Pixels:
    """Return a letter of a random colour on another one."""
    paper, ink = (tuple(random.integers(0, 256, 3).tolist()) for _ in range(2))
    image = Image.new("RGB", (32, 32), paper)
    text = chr(ord("A") + number % 26)
    ImageDraw.Draw(image).text((8, 2), text, fill=ink, font=ImageFont.load_default(24))
    return np.asarray(image)
