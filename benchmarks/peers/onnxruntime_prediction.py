"""Prediction with ONNX Runtime: logits of a batch, and of one image.

    python onnxruntime_prediction.py RUN...     # needs deepcnn, onnx, onnxscript, onnxruntime

Each RUN is a directory that `deepcnn train` has written. Its network, with the parameters of the
newest checkpoint, is exported by torch.onnx, with the size of the batch left open, and runs on two
threads. The last line printed is JSON: images per second, for one image its milliseconds, and for
how many images of the test set the largest logit is the one that torch finds.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from deepcnn.data.open import open_dataset
from deepcnn.inference.trained import Trained, newest
from deepcnn.runs.run import Run

BATCH = 256
CALLS = {BATCH: 20, 1: 500}
THREADS = 2


def open_session(model: nn.Module, shape: tuple[int, int, int]) -> onnxruntime.InferenceSession:
    """Return a session that computes `model` on images [N, *shape], for any N."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        example = torch.zeros(2, *shape)
        dynamic = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(
            model, (example,), file, dynamo=True, dynamic_shapes=dynamic, verbose=False
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def predict(path: Path) -> tuple[str, dict[str, float], str]:
    """Return the name of a run's preset, the speed of its network, and how often torch agrees."""
    run = Run.open(path)
    trained = Trained.load(run, newest(run)[0])
    preset, model = trained.config.preset, trained.model.eval()
    session = open_session(model, trained.trained_on.transform.shape)
    name = session.get_inputs()[0].name
    images = test_images(trained)
    speed = {}
    for unit, count in (("images/s", BATCH), ("ms", 1)):
        some = images[:count].numpy()
        seconds = median_seconds(lambda some=some: session.run(None, {name: some}), CALLS[count])
        speed[f"{preset}: {unit}, batch {count}"] = (
            round(1000 * seconds, 3) if count == 1 else round(count / seconds)
        )
    agreeing = 0
    with torch.no_grad():
        for some in images.split(BATCH):
            found = session.run(None, {name: some.numpy()})[0].argmax(1)
            agreeing += int(np.count_nonzero(found == model(some).argmax(1).numpy()))
    return preset, speed, f"{agreeing} of {len(images)}"


def test_images(trained: Trained) -> torch.Tensor:
    """Return the test set as the network's input, float32 [N, C, H, W] in plain memory order."""
    arrays = open_dataset(trained.config).split("test").load()
    transform = trained.trained_on.transform
    return transform.evaluate(torch.from_numpy(arrays.images)).contiguous()


def median_seconds(call: Callable[[], object], calls: int) -> float:
    """Return the median time of some calls, after a tenth as many to warm up."""
    for _ in range(calls // 10):
        call()
    seconds = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def main() -> None:
    """Measure and print."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    result: dict[str, object] = {}
    agreement = {}
    for path in sys.argv[1:]:
        preset, speed, agreement[preset] = predict(Path(path))
        result |= speed
    result["agreement with torch"] = agreement
    result["versions"] = {
        "python": sys.version.split()[0],
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
