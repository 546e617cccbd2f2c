"""A trained network as an ONNX graph, with everything from the pixels to the probabilities."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn

import deepcnn
from deepcnn.errors import ExportError
from deepcnn.inference.about import About
from deepcnn.inference.answers import margins, mean_of_probabilities
from deepcnn.inference.extras import needed
from deepcnn.inference.onnx_file import IMAGES, LOGITS, PROBABILITIES
from deepcnn.inference.trained import Trained


class _Graph(nn.Module):
    """What `Answers` computes, for all images alike: nothing depends on their values.

    So where views are "unsure" every image is looked at from all sides, and what counts is chosen
    afterwards.
    """

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self._network = copy.deepcopy(trained.model).cpu().eval().requires_grad_(False)
        self._transform = trained.trained_on.transform
        calibration = trained.calibration
        self._temperature = calibration.temperature if calibration is not None else 1.0
        self._margin = calibration.margin if calibration is not None else None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images uint8 [N, H, W, C] to probabilities and logits, float32 [N, classes] each."""
        transform = self._transform
        logits = self._mean(transform.views_of(images))
        if transform.views == "unsure":
            again = (logits + self._mean(transform.shifted_views_of(images))) / 2
            if self._margin is None:
                logits = again
            else:
                logits = torch.where(margins(logits)[:, None] < self._margin, again, logits)
        return torch.softmax(logits / self._temperature, 1), logits

    def _mean(self, views: list[tuple[float, Tensor]]) -> Tensor:
        """Return the mean logits over views; all go through the network together."""
        weights, images = zip(*views, strict=True)
        each: Tensor = self._network(torch.cat(images) if len(images) > 1 else images[0])
        if len(images) == 1:
            return each.float()
        each = each.float().view(len(images), -1, each.shape[1])
        if self._transform.views == "ten":
            return mean_of_probabilities(each)
        return (each * torch.tensor(weights)[:, None, None]).sum(0)


def to_onnx(trained: Trained, about: About) -> bytes:
    """Return a network as the bytes of an ONNX file; `about` becomes its properties.

    Raises ExportError where torch cannot export the network, ConfigError where a package for it is
    missing.
    """
    needed("onnx", "export")
    needed("onnxscript", "export")
    graph = _Graph(trained).eval()
    # More than one image, since torch takes a size of 1 for one that never changes.
    example = torch.zeros(2, *about.image_shape, dtype=torch.uint8)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("N")},),
                input_names=[IMAGES],
                output_names=[PROBABILITIES, LOGITS],
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # whatever torch makes of somebody's own network
        name = trained.config.model.name
        raise ExportError(
            f"the network {name} cannot be exported to ONNX ({_reason(error)}). Expected one that "
            "torch.export can trace, which does the same with every image"
        ) from error
    assert program is not None
    model = program.model
    _tidy(model)
    model.metadata_props.update(about.to_properties())
    content: bytes = program.model_proto.SerializeToString()
    return content


def _tidy(model: Any) -> None:
    """Take out what tells of the machine: the places in the source that each node comes from."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    model.producer_name, model.producer_version = "deepcnn", deepcnn.__version__


def _reason(error: BaseException) -> str:
    """Return the first line of what lies at the bottom of an error, and its kind."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from speaking; what matters is in its errors.

    It speaks of deprecations in itself, of packages that are not needed, and of whole graphs where
    it fails.
    """
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
