"""What a network takes of another one: which layers, in which form, and from which files."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from deepcnn import presets
from deepcnn.errors import ConfigError, DeepcnnError
from deepcnn.inference.parent import LARGEST, New, Parent, fit, open_parent
from deepcnn.models.build import build_model
from deepcnn.runs import checkpoint
from deepcnn.settings import ModelConfig
from tests.helpers.stored import change
from tests.helpers.tiny import saved, tensors

CLASSES = tuple("abcde")
WIDTHS = {
    "speednet": (6, 8, 10),
    "residual_speednet": (6, 8, 10),
    "tutorial": (8, 8, 16, 12),
    "cuda_convnet": (8, 8, 6, 4),
    "mlp": (16, 12),
}


def parent_of(name: str, shape: tuple[int, int, int]) -> tuple[Parent, nn.Module]:
    """Return a network with random weights and statistics, and the same as a parent."""
    model = build_model(name, shape=shape, classes=len(CLASSES), widths=WIDTHS[name], seed=3)
    torch.manual_seed(0)
    for weight in model.state_dict().values():
        if weight.is_floating_point():
            weight.copy_(torch.rand(weight.shape) * 0.2 + (weight.ndim < 2) * 0.1)
    config = dataclasses.replace(presets.quick(), model=ModelConfig(name, WIDTHS[name]))
    path = Path("runs/first")
    return Parent(path, path, 7, True, model.state_dict(), config, CLASSES), model.eval()


def child_of(
    parent: Parent,
    shape: tuple[int, int, int],
    classes: tuple[str, ...] = CLASSES,
    model: ModelConfig | None = None,
) -> New:
    """Return a network for other images, with the widths that can take the parent's weights."""
    assert parent.config is not None
    wanted = model or parent.config.model
    wanted = dataclasses.replace(wanted, widths=parent.widths_for(wanted, shape[0]))
    made = build_model(wanted.name, shape=shape, classes=len(classes), widths=wanted.widths)
    return New(wanted, made.eval(), shape, classes)


def answers(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.double()(images)
    return found


@pytest.mark.parametrize("name", ["speednet", "residual_speednet", "tutorial", "cuda_convnet"])
@pytest.mark.parametrize(("there", "here"), [(3, 1), (1, 3)])
def test_a_gray_picture_has_the_same_answer_with_any_number_of_channels(
    name: str, there: int, here: int
) -> None:
    parent, old = parent_of(name, (there, 20, 20))
    new = child_of(parent, (here, 20, 20))
    weights, began = fit(parent, new)
    assert began.left == {}
    assert len(began.refitted) == 1
    new.model.load_state_dict(weights)
    gray = torch.rand(4, 1, 20, 20, dtype=torch.float64)
    expected = answers(old, gray.expand(-1, there, -1, -1))
    assert expected.std() > 1e-3
    found = answers(new.model, gray.expand(-1, here, -1, -1))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_colours_of_gray_filters_weigh_the_same() -> None:
    parent, _ = parent_of("tutorial", (1, 16, 16))
    weights, _ = fit(parent, child_of(parent, (3, 16, 16)))
    for channel in range(3):
        expected = parent.weights["conv1.weight"][:, 0] / 3
        torch.testing.assert_close(weights["conv1.weight"][:, channel], expected)


def test_the_same_network_is_taken_whole_and_as_it_is() -> None:
    parent, _ = parent_of("speednet", (3, 16, 16))
    weights, began = fit(parent, child_of(parent, (3, 16, 16)))
    assert weights.keys() == parent.weights.keys()
    assert all(weights[name] is tensor for name, tensor in parent.weights.items())
    assert (began.left, began.refitted, began.step, began.averaged) == ({}, (), 7, True)


@pytest.mark.parametrize("classes", [tuple("edcba"), tuple("vwxyz"), tuple("abc")])
def test_other_classes_get_a_head_of_their_own_and_statistics_go_along(
    classes: tuple[str, ...],
) -> None:
    parent, _ = parent_of("speednet", (3, 16, 16))
    weights, began = fit(parent, child_of(parent, (3, 32, 24), classes))
    assert began.left == {"head": "other classes"}
    assert weights.keys() == parent.weights.keys() - {"head.weight"}
    assert "group1_1.norm.running_var" in weights


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("tutorial", {"local3": "16×128 there, 16×288 here"}),
        ("cuda_convnet", {"local3", "local4", "fc10"}),
    ],
)
def test_layers_that_depend_on_the_size_of_images_are_left_out_and_named(
    name: str, left: dict[str, str] | set[str]
) -> None:
    parent, _ = parent_of(name, (3, 16, 16))
    weights, began = fit(parent, child_of(parent, (3, 24, 24)))
    assert began.left == left if isinstance(left, dict) else began.left.keys() == left
    assert {"conv1.weight", "conv2.bias"} <= weights.keys()
    assert not {name for name in weights if name.startswith("local3")}


def test_a_fully_connected_network_for_other_sizes_keeps_its_later_layers() -> None:
    parent, _ = parent_of("mlp", (1, 8, 8))
    _, began = fit(parent, child_of(parent, (1, 9, 9)))
    assert began.taken == ("hidden2", "softmax_linear")


@pytest.mark.parametrize("widths", [(6, 8, 11), (8, 6, 8, 10)])
def test_other_widths_are_refused_with_the_option_to_give(widths: tuple[int, ...]) -> None:
    parent, _ = parent_of("speednet", (3, 16, 16))
    with pytest.raises(ConfigError, match=r"--model\.name speednet --model\.widths 6 8 10"):
        fit(parent, child_of(parent, (3, 16, 16), model=ModelConfig("speednet", widths)))


def test_another_network_takes_layers_of_the_same_name_and_shape_or_is_refused() -> None:
    parent, _ = parent_of("tutorial", (3, 16, 16))
    other = ModelConfig("cuda_convnet", WIDTHS["cuda_convnet"])
    _, began = fit(parent, child_of(parent, (3, 16, 16), model=other))
    assert began.taken == ("conv1", "conv2")
    assert began.left["fc10"] == "not there"
    with pytest.raises(ConfigError, match=r"no layer of mlp is like .*--model\.name tutorial"):
        fit(parent, child_of(parent, (3, 16, 16), model=ModelConfig("mlp")))


def test_a_network_of_ones_own_takes_layers_by_name() -> None:
    def make(channels: int, classes: int) -> nn.Module:
        features = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        flat = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(features, flat, nn.Linear(4, classes))

    config = dataclasses.replace(presets.quick(), model=ModelConfig("(Sequential)"))
    path = Path("first")
    parent = Parent(path, path, 7, True, make(3, 5).state_dict(), config, CLASSES)
    new = New(config.model, make(1, 2), (1, 8, 8), ("x", "y"))
    weights, began = fit(parent, new)
    assert began.left == {"2": "other classes"}
    assert (began.taken, began.refitted) == (("0.0", "0.1"), ("0.0",))
    torch.testing.assert_close(
        weights["0.0.weight"], parent.weights["0.0.weight"].sum(1, keepdim=True)
    )
    assert began.described() == (
        "Began with first, step 7: took 0 (0 fitted to other channels); new: 2 (other classes)."
    )


def test_a_run_its_checkpoints_and_a_copy_give_the_averaged_weights(
    tiny_run: Path, tmp_path: Path
) -> None:
    stored = tensors(tiny_run)
    copy = Path(shutil.copy(saved(tiny_run)[-1], tmp_path / "copy.safetensors"))
    for path, classes in ((tiny_run, True), (saved(tiny_run)[-1], True), (copy, False)):
        parent = open_parent(path)
        assert (parent.step, parent.averaged) == (40, True)
        assert (parent.classes is not None) == classes
        for name, weight in parent.weights.items():
            assert torch.equal(weight, stored[f"average.{name}"]), name
    assert open_parent(saved(tiny_run)[0]).step == 20


def test_the_best_checkpoint_is_taken_where_it_is_kept(tiny_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (run / "checkpoints" / "best").mkdir()
    best = shutil.copy(saved(run)[0], run / "checkpoints" / "best")
    assert open_parent(run).step == 20
    assert open_parent(Path(best)).classes == open_parent(run).classes != ()


def hostile(kind: str, run: Path, tmp_path: Path) -> Path:
    """Return a path that nothing can begin with."""
    path = tmp_path / "x.safetensors"
    whole = saved(run)[-1]
    if kind == "cut":
        path.write_bytes(whole.read_bytes()[:-5])
    elif kind == "flipped":
        content = bytearray(whole.read_bytes())
        content[-9] ^= 1
        path.write_bytes(content)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(LARGEST + 1)
    elif kind == "foreign":
        safetensors.torch.save_file({"w": torch.zeros(2)}, path)
    elif kind == "nested":
        text = {"deepcnn": "[" * 100_000}
        safetensors.torch.save_file({"w": torch.zeros(2)}, path, text)
    elif kind == "infinite step":
        text = {"deepcnn": '{"step": Infinity, "sha256": ""}'}
        safetensors.torch.save_file({"w": torch.zeros(2)}, path, text)
    elif kind == "not finite":
        step, found, _ = checkpoint.load(whole)
        found["average.conv1.bias"][0] = torch.nan
        said = {"format": checkpoint.FORMAT, "step": step}
        text = {"deepcnn": json.dumps({**said, "sha256": checkpoint.digest(said, found)})}
        safetensors.torch.save_file(found, path, text)
    elif kind == "wider":
        run = Path(shutil.copytree(run, tmp_path / "run"))
        change(run, model={"name": "tutorial", "widths": [600, 16, 64, 64]})
        path = run
    elif kind == "inputs":
        run = Path(shutil.copytree(run, tmp_path / "run"))
        (run / "inputs.json").write_text('{"inputs": [], "classes": []}')
        path = run
    elif kind == "folder":
        path = tmp_path
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "found nothing there"),
        ("folder", "expected the directory of a run"),
        ("cut", "or a damaged one"),
        ("flipped", "does not match its own SHA-256"),
        ("pipe", "found another thing there"),
        ("huge", "expected weights of at most"),
        ("foreign", "expected weights as `deepcnn export"),
        ("nested", "or a damaged one"),
        ("infinite step", "damaged: its content"),
        ("not finite", "expected finite numbers"),
        ("wider", r"model\.widths: expected \(600, 16, 64, 64\), found \[16, 16"),
        ("inputs", "not as deepcnn writes it"),
    ],
)
def test_what_nothing_can_begin_with_is_one_error(
    tiny_run: Path, tmp_path: Path, kind: str, message: str
) -> None:
    path = hostile(kind, tiny_run, tmp_path)
    with pytest.raises(DeepcnnError, match=message) as error:
        open_parent(path)
    assert str(path) in str(error.value)
