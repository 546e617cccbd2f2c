"""The laws of the house that can be read off the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import deepcnn

SOURCE = Path(deepcnn.__file__).parent

# From the roof down. A module imports from lower floors, or from those left of it on its own.
FLOORS = [
    ["__main__"],
    ["cli"],
    ["bench"],
    ["training"],
    ["evaluation"],
    ["inference"],
    ["engines.start"],
    ["engines.processes"],
    ["engines.team"],
    ["engines.towers", "engines.planned", "engines.launch"],
    ["engines.single", "engines.signs", "summaries", "graph", "run", "data.batches"],
    ["data.feeds", "data.contact_sheet", "data.convert"],
    ["state", "data.datasets", "data.stream"],
    ["data.layouts", "data.synthetic", "data.catalog"],
    ["models.__init__"],
    ["models.tutorial", "models.speednet", "models.mlp"],
    ["models.layers", "models.speednet_gpu"],
    [
        "models.opaque",
        "models.winograd",
        "models.fourier",
        "models.response_norm",
        "models.speednet_kernels",
        "averages",
        "optim",
        "objective",
        "checkpoint",
        "data.augment",
    ],
    ["devices", "data.augment_gpu", "models.pixels"],
    ["data.source"],
    ["data.shuffle"],
    [
        *("presets", "data.download", "data.arrays", "data.order"),
        *("data.formats.cifar", "data.formats.idx", "data.formats.mat", "data.formats.npz"),
        *("data.formats.pictures", "data.formats.tfrecord"),
    ],
    ["data.shards", "data.formats.listings"],
    ["config", "atomic", "events"],
    ["errors", "__init__", "engines.__init__", "data.__init__", "data.formats.__init__"],
]
WITHOUT_TORCH = {
    *("config", "presets", "events", "errors", "atomic", "run", "__init__"),
    *(
        "data.order",
        "data.arrays",
        "data.download",
        "data.datasets",
        "data.contact_sheet",
        "data.formats.cifar",
        "data.formats.idx",
        "data.formats.listings",
        "data.formats.mat",
        "data.formats.npz",
        "data.formats.pictures",
        "data.formats.tfrecord",
        "data.shards",
        "data.shuffle",
        "data.source",
        "data.stream",
        "data.layouts",
        "data.catalog",
        "data.synthetic",
        "data.convert",
    ),
}


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts): path
        for path in SOURCE.rglob("*.py")
    }


def imports(path: Path) -> set[str]:
    """Return what a module imports at its top, TYPE_CHECKING blocks aside, as dotted names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(names: set[str]) -> set[str]:
    """Return the project's modules among imported names, as FLOORS calls them."""
    known = modules()
    found = set()
    for name in names:
        if name == "deepcnn" or not name.startswith("deepcnn."):
            continue
        short = name.removeprefix("deepcnn.")
        found |= {short} & known.keys()
        found |= {f"{short}.__init__"} & known.keys()
    return found


def test_every_module_has_a_floor() -> None:
    placed = [name for floor in FLOORS for name in floor]
    assert sorted(placed) == sorted(modules())


def test_imports_run_downwards() -> None:
    height = {name: -i for i, floor in enumerate(FLOORS) for name in floor}
    packages = {"data.__init__", "data.formats.__init__", "__init__"}
    upwards = [
        f"{name} imports {other}"
        for name, path in modules().items()
        if name != "__init__"  # it names the public functions, and imports them when asked
        for other in own(imports(path)) - packages
        if height[other] >= height[name]
    ]
    assert upwards == []


def test_modules_that_need_no_torch_import_none() -> None:
    script = "import sys, importlib\n"
    for name in sorted(WITHOUT_TORCH):
        module = f"deepcnn.{name}".removesuffix(".__init__")
        script += (
            f"importlib.import_module({module!r}); assert 'torch' not in sys.modules, {name!r}\n"
        )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_public_names_are_imported_when_asked_for_and_have_no_side_effects() -> None:
    script = """
import sys
import deepcnn
assert "torch" not in sys.modules and "numpy" not in sys.modules
from deepcnn import build_model, evaluate, load_dataset, presets, train
import deepcnn.training.start, deepcnn.inference.evaluation, deepcnn.models, deepcnn.data.open
for name in deepcnn.__all__:
    assert name in dir(deepcnn)
for name in ("build_model", "evaluate", "load_dataset", "train"):
    assert callable(getattr(deepcnn, name)), name
assert presets.tiny().steps == 200
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout == done.stderr == ""


def test_only_the_command_line_prints_and_only_engines_know_of_processes() -> None:
    for name, path in modules().items():
        calls = [
            node
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "print"
        ]
        assert not calls or name == "cli", name
        assert "torch.distributed" not in imports(path) or name.startswith("engines."), name
