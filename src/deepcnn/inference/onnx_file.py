"""Networks in ONNX files, answered by ONNX Runtime or OpenVINO, without torch."""

from __future__ import annotations

import abc
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deepcnn.errors import ConfigError, RunError
from deepcnn.inference.about import PROPERTIES, About
from deepcnn.inference.classifier import Classifier
from deepcnn.inference.extras import needed
from deepcnn.inference.runtimes import OnnxRuntime, choose

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

IMAGES, PROBABILITIES, LOGITS = "images", "probabilities", "logits"  # what the graph calls them
BLOCK = 64  # images at a time, of each of which there may be ten views


class OnnxNetwork(abc.ABC):
    """A network in a file that answers about images; `properties`: those of the file."""

    properties: dict[str, str]

    @abc.abstractmethod
    def _block(self, images: Pixels) -> tuple[Floats, Floats]:
        """Return probabilities and logits of a block of images."""

    def answers(self, images: Pixels) -> tuple[Floats, Floats]:
        """Return probabilities and logits, float32 [N, classes], of images uint8 [N, H, W, C]."""
        starts = range(0, len(images), BLOCK)
        blocks = [self._block(np.ascontiguousarray(images[i : i + BLOCK])) for i in starts]
        probabilities, logits = zip(*blocks, strict=True)
        return np.concatenate(probabilities), np.concatenate(logits)

    def logits(self, images: Pixels) -> Floats:
        """Return the logits, float32 [N, classes], of images uint8 [N, H, W, C]."""
        return self.answers(images)[1]


class ByOnnxRuntime(OnnxNetwork):
    """A network that ONNX Runtime computes on the processor, in float32."""

    def __init__(self, content: bytes, *, threads: int | None = None, bf16: bool = False) -> None:
        runtime = needed("onnxruntime", "export")
        if bf16:
            raise ConfigError(
                "precision: ONNX Runtime computes this in fp32; bf16 takes --runtime openvino"
            )
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # errors are raised; nothing is to be printed
        if threads is not None:
            options.intra_op_num_threads = threads
        self._session = runtime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        self.properties = dict(self._session.get_modelmeta().custom_metadata_map)

    def _block(self, images: Pixels) -> tuple[Floats, Floats]:
        probabilities, logits = self._session.run([PROBABILITIES, LOGITS], {IMAGES: images})
        return probabilities, logits


class ByOpenVino(OnnxNetwork):
    """A network that OpenVINO computes on the processor, in float32 or bf16."""

    def __init__(self, content: bytes, *, threads: int | None = None, bf16: bool = False) -> None:
        openvino = needed("openvino", "openvino")
        core = openvino.Core()
        model = core.read_model(content)
        # Without the hint it would round to bf16 wherever that is faster.
        settings = {"INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        self._compiled = core.compile_model(model, "CPU", settings)
        self.properties = {
            name: str(model.get_rt_info(["framework", name]).value)
            for name in PROPERTIES
            if model.has_rt_info(["framework", name])
        }

    def _block(self, images: Pixels) -> tuple[Floats, Floats]:
        found = self._compiled({IMAGES: images})
        return np.array(found[PROBABILITIES]), np.array(found[LOGITS])


RUNTIMES: dict[OnnxRuntime, Callable[..., OnnxNetwork]] = {
    "onnxruntime": ByOnnxRuntime,
    "openvino": ByOpenVino,
}


def open_onnx(
    path: Path,
    runtime: Literal["auto"] | OnnxRuntime = "auto",
    *,
    precision: str = "fp32",
    threads: int | None = None,
) -> Classifier:
    """Open a file that `deepcnn export` wrote, to ask it about pictures.

    `runtime`: what computes; "auto": the choice of `runtimes.choose`. `precision`: "fp32" or
    "bf16". `threads`: None is the runtime's choice. Raises RunError for a file that is not
    deepcnn's or is damaged, and ConfigError if a package is missing or cannot do what is asked for.
    """
    if precision not in ("fp32", "bf16"):
        raise ConfigError(f"precision: an ONNX file answers in fp32 or bf16, found {precision}")
    bf16 = precision == "bf16"
    if runtime == "auto":
        runtime = choose(precision)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        network = RUNTIMES[runtime](content, threads=threads, bf16=bf16)
    except ConfigError:
        raise
    except Exception as error:  # each runtime has exceptions of its own for damaged files
        raise RunError(f"{path}: {runtime} cannot read it ({_first_line(error)})") from error
    about = About.from_properties(network.properties, str(path))
    _try_it(network, about, path)
    shape, calibration = about.image_shape, about.calibration
    return Classifier(network, about.classes, shape, calibration, about.fit)


def _try_it(network: OnnxNetwork, about: About, path: Path) -> None:
    """Raise RunError unless the graph takes the images and has the classes that the file names."""
    expected = (1, len(about.classes))
    try:
        found = network.answers(np.zeros((1, *about.image_shape), np.uint8))
        shapes = [each.shape for each in found]
    except Exception as error:
        raise RunError(
            f"{path}: does not answer about images {list(about.image_shape)} as it says "
            f"({_first_line(error)})"
        ) from error
    if shapes != [expected, expected]:
        raise RunError(f"{path}: expected answers {list(expected)}, found {shapes}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
