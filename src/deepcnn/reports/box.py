"""The box in a page where a network answers about the user's picture, and a page with only this."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from PIL import Image

from deepcnn.errors import ConfigError
from deepcnn.inference.about import name_of_data
from deepcnn.inference.trained import Trained
from deepcnn.reports.packing import packed, prove, rounded
from deepcnn.reports.page import render
from deepcnn.reports.program import trace

MOST = 48_000_000  # characters of weights: more is no page any longer
SHAPES = (1, 3)  # channels of images that a browser's picture can become


def demo(trained: Trained) -> dict[str, Any]:
    """Return what the box needs; if its engine cannot compute the network, `refused` says why."""
    try:
        program, weights = box_program(trained)
    except ConfigError as error:
        return {"program": None, "weights": "", "refused": f"{error}."}
    return {"program": program, "weights": weights, "refused": None}


def demo_page(trained: Trained) -> str:
    """Return a page in which a trained network answers about pictures, offline: one file.

    Raises ConfigError if the page's engine cannot compute an operation; it names this operation.
    """
    program, weights = box_program(trained)
    config, classes = trained.config, trained.trained_on.classes
    about = (
        f"A network that was trained by deepcnn (preset {config.preset}, data "
        f"{name_of_data(config)}, step {trained.step:,}) tells {len(classes):,} classes apart, "
        "here in this page."
    )
    page = {
        "title": "What is on this picture?",
        "about": about,
        "classes": classes,
        "demo": {"program": program, "weights": weights, "refused": None},
    }
    return render("demo.html", page, made=False)


def box_program(trained: Trained) -> tuple[dict[str, Any], str]:
    """Return the program for the page's engine, in a form for JSON, and its weights in base64.

    It is first compared with the network. Raises ConfigError if it cannot be made.
    """
    transform, calibration = trained.trained_on.transform, trained.calibration
    if trained.config.fit != "crop":
        raise ConfigError(f"it was trained with --fit {trained.config.fit}, and a page only crops")
    if transform.channels not in SHAPES:
        raise ConfigError(f"its images have {transform.channels} channels, not 1 or 3")
    temperature = calibration.temperature if calibration is not None else 1.0
    program = trace(trained.model, transform.shape)
    prove(rounded(program), trained.model, transform, temperature)
    operations, weights = packed(program)
    if len(weights) > MOST:
        raise ConfigError(
            f"its weights take {len(weights) / 1e6:.0f} MB in a page, and {MOST / 1e6:.0f} are the "
            "most"
        )
    kind = calibration.kind if calibration is not None else None
    return {
        "classes": trained.trained_on.classes,
        "image": transform.image_shape,
        "tallFirst": tall_first(),
        "crop": (transform.crop_height, transform.crop_width),
        "standardize": transform.standardize,
        "mean": transform.mean,
        "std": transform.std or (1.0,) * transform.channels,
        "views": transform.views,
        "margin": calibration and calibration.margin,
        "temperature": temperature,
        "error": calibration and calibration.error,
        "leastProbability": calibration and calibration.least_probability,
        "leastEnergy": calibration and calibration.least_energy,
        "kind": kind
        and {"mean": kind.mean, "precision": kind.precision, "most": kind.most_distance},
        "operations": operations,
    }, weights


@functools.cache
def tall_first() -> bool:
    """Tell whether the Pillow of this machine shrinks tall pictures by columns first.

    Older versions begin with the rows. The results differ, since values are rounded and clipped in
    between.
    """
    noise = np.random.default_rng(0).integers(0, 2, (64, 8), dtype=np.uint8) * 255
    picture, filtered = Image.fromarray(noise), Image.Resampling.LANCZOS
    by_columns = picture.resize((8, 4), filtered).resize((4, 4), filtered)
    return picture.resize((4, 4), filtered).tobytes() == by_columns.tobytes()
