"""Answers about pictures as JSON, the same from the command line and from the server."""

from __future__ import annotations

import os
from typing import Any

from deepcnn.inference.classifier import Prediction, Unread


def as_json(answer: Prediction | Unread, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return an answer as a JSON object: all classes with their probabilities, or an error."""
    if isinstance(answer, Unread):
        return {"path": _text(answer.source), "error": answer.error}
    chances = [float(f"{p:.9g}") for p in answer.probabilities.tolist()]
    return {
        "path": _text(answer.source),
        "label": answer.label,
        "probability": float(f"{answer.probability:.9g}"),
        "unsure": answer.unsure,
        "probabilities": dict(zip(classes, chances, strict=True)),
    }


def _text(source: str) -> str:
    """Return a path in a form that JSON can hold: bytes that are not UTF-8 are shown as bytes."""
    return os.fsencode(source).decode(errors="backslashreplace")
