"""The weights of a trained network in their own file, with all that is needed to ask it.

It is a safetensors file (https://github.com/huggingface/safetensors): a JSON header, then raw
little-endian tensors. Nothing in it can be executed. The tensors have the names of the network's
layers, as in the literature. One entry of the metadata, `deepcnn`, holds the fields of `About`, and
the SHA-256 of these and of the tensors, since the format itself would load a flipped bit silently.
"""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from deepcnn import config as configs
from deepcnn.errors import CheckpointError, ConfigError, RunError
from deepcnn.inference.about import About
from deepcnn.inference.trained import Trained
from deepcnn.inputs.transform import Transform
from deepcnn.learning.state import check_fit
from deepcnn.models.build import BUILDERS, Given, network
from deepcnn.runs.checkpoint import add_tensors
from deepcnn.runs.trained_on import TrainedOn


def to_safetensors(trained: Trained, about: About) -> bytes:
    """Return a network's weights as a safetensors file; the same weights give the same bytes."""
    state = trained.model.state_dict()
    weights = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    values = about.to_dict()
    content = {**values, "sha256": _digest(values, weights)}
    return safetensors.torch.save(weights, {"deepcnn": json.dumps(content, ensure_ascii=False)})


def read_weights(path: Path) -> tuple[About, dict[str, Tensor]]:
    """Return what a file says about its network, and the weights by name, on the processor.

    Raises CheckpointError if the file is missing, damaged, or not written by `deepcnn export`.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            values = json.loads((file.metadata() or {}).get("deepcnn", "null"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        sha256 = values.pop("sha256")
        about = About.from_dict(values, str(path))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such file of weights") from error
    except (
        *(safetensors.SafetensorError, RunError, OSError),
        *(AttributeError, KeyError, TypeError, ValueError, RecursionError),
    ) as error:
        raise CheckpointError(
            f"{path}: expected weights as `deepcnn export RUN --to safetensors` writes them, found "
            f"another file, or a damaged one ({error})"
        ) from error
    if sha256 != _digest(values, weights):
        raise CheckpointError(
            f"{path}: damaged: its content does not match its own SHA-256. Export it again."
        )
    return about, weights


def trained_of(path: Path, model: Given | None = None) -> Trained:
    """Open the network of a file of weights.

    `model`: the network again, if it is not one of this package. Raises CheckpointError as
    `read_weights` does, and RunError if network and weights do not fit.
    """
    about, weights = read_weights(path)
    try:
        config = configs.from_dict(about.settings)
        transform = Transform.from_dict(about.inputs)
        if transform.image_shape != about.image_shape:
            raise ValueError(f"images {about.image_shape} for a transform of others")
    except (ConfigError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: not as deepcnn writes it ({error})") from error
    shape, classes = transform.shape, len(about.classes)
    if model is None and config.model.name in BUILDERS:
        # Without memory at first: a file that speaks of more weights than it holds gets none.
        with torch.device("meta"):
            planned = network(config.model, None, shape=shape, classes=classes)
        check_fit(planned.state_dict(), weights, str(path))
    given = copy.deepcopy(model) if isinstance(model, nn.Module) else model
    net = network(config.model, given, shape=shape, classes=classes)
    check_fit(net.state_dict(), weights, str(path))
    net.load_state_dict(weights)
    on = TrainedOn(transform, about.classes)
    return Trained(config, on, net, about.step, about.averaged, about.calibration)


def _digest(values: dict[str, Any], weights: dict[str, Tensor]) -> str:
    as_json = json.dumps(values, sort_keys=True)
    digest = hashlib.sha256(as_json.encode())
    add_tensors(digest, weights)
    return digest.hexdigest()
