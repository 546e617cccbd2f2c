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
from deepcnn.inference.answers import mean_of_probabilities
from deepcnn.inference.extras import needed
from deepcnn.inference.onnx_file import IMAGES, LOGITS, PROBABILITIES
from deepcnn.inference.second_look import AGAIN, FIRST, joined
from deepcnn.inference.trained import Trained


class _Looks(nn.Module):
    """What `Answers` computes, in the same way for all images: nothing depends on their values."""

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self._network = copy.deepcopy(trained.model).cpu().eval().requires_grad_(False)
        self._transform = trained.trained_on.transform

    def _mean(self, views: list[tuple[float, Tensor]]) -> Tensor:
        """Return the mean logits over views; all views go through the network together."""
        weights, images = zip(*views, strict=True)
        each: Tensor = self._network(torch.cat(images) if len(images) > 1 else images[0])
        if len(images) == 1:
            return each.float()
        each = each.float().view(len(images), -1, each.shape[1])
        if self._transform.views == "ten":
            return mean_of_probabilities(each)
        return (each * torch.tensor(weights)[:, None, None]).sum(0)


class _First(_Looks):
    """The looks that every image gets."""

    def forward(self, images: Tensor) -> Tensor:
        """Map images uint8 [N, H, W, C] to mean logits, float32 [N, classes]."""
        return self._mean(self._transform.views_of(images))


class _Again(_Looks):
    """The looks at the unsure images."""

    def forward(self, images: Tensor) -> Tensor:
        """Map images uint8 [N, H, W, C] to mean logits, float32 [N, classes]."""
        return self._mean(self._transform.shifted_views_of(images))


class _Graph(_Looks):
    """The whole graph, if there is no choice: every image gets all its views."""

    def __init__(self, trained: Trained) -> None:
        super().__init__(trained)
        self._temperature = _temperature(trained)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images uint8 [N, H, W, C] to probabilities and logits, float32 [N, classes] each."""
        logits = self._mean(self._transform.views_of(images))
        if self._transform.views == "unsure":
            logits = (logits + self._mean(self._transform.shifted_views_of(images))) / 2
        return torch.softmax(logits / self._temperature, 1), logits


def to_onnx(trained: Trained, about: About) -> bytes:
    """Return a network as the bytes of an ONNX file; `about` becomes its properties.

    Raises ExportError if torch cannot export the network, and ConfigError if a package for it is
    missing.
    """
    onnx = needed("onnx", "export")
    needed("onnxscript", "export")
    try:
        with _quiet(), torch.no_grad():
            model = _whole(trained, about)
    except Exception as error:  # whatever torch makes of somebody's own network
        name = trained.config.model.name
        raise ExportError(
            f"the network {name} cannot be exported to ONNX ({_reason(error)}). Expected one that "
            "torch.export can trace, which does the same with every image"
        ) from error
    onnx.helper.set_model_props(model, about.to_properties())
    content: bytes = model.SerializeToString()
    return content


def _whole(trained: Trained, about: About) -> Any:
    """Return the ONNX model of a network."""
    calibration = trained.calibration
    margin = None if calibration is None else calibration.margin
    if trained.trained_on.transform.views != "unsure" or margin is None:
        return _traced(_Graph(trained), about, PROBABILITIES, LOGITS)
    return joined(
        _traced(_First(trained), about, FIRST),
        _traced(_Again(trained), about, AGAIN),
        classes=len(about.classes),
        margin=margin,
        temperature=_temperature(trained),
    )


def _traced(graph: nn.Module, about: About, *outputs: str) -> Any:
    """Return the ONNX model of a function of images."""
    # More than one image, since torch takes a size of 1 for one that never changes.
    example = torch.zeros(2, *about.image_shape, dtype=torch.uint8)
    program = torch.onnx.export(
        graph.eval(),
        (example,),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("N")},),
        input_names=[IMAGES],
        output_names=outputs,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    _tidy(program.model)
    return program.model_proto


def _temperature(trained: Trained) -> float:
    return trained.calibration.temperature if trained.calibration is not None else 1.0


def _tidy(model: Any) -> None:
    """Remove what tells about the machine: the places in the source from which nodes come."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    model.producer_name, model.producer_version = "deepcnn", deepcnn.__version__


def _reason(error: BaseException) -> str:
    """Return the first line and the kind of an error's first cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from printing; what matters is in its errors.

    It prints deprecations in itself, packages that are not needed, and whole graphs when it fails.
    """
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
