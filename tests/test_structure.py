"""The laws of the house that can be read off the source."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import deepcnn

SOURCE = Path(deepcnn.__file__).parent
REPOSITORY = Path(__file__).parent.parent

# From the roof down. A room imports from lower ones, and within itself in no circle.
ROOMS = [
    "cli",
    "sweep",
    "bench",
    "serving",
    "doctor",
    "training",
    "exports",
    "reports",
    "inference",
    "engines",
    "team",
    "console",
    "runs",
    "learning",
    "inputs",
    "models",
    "kernels",
    "data",
    "presets",
    "devices",
    "hardware",
    "hashing",
    "config",
    "settings",
    "typed",
    "atomic",
    "events",
    "durations",
    "intervals",
    "stopping",
    "durations",
    "machine",
    "shown",
    "errors",
]
WITHOUT_TORCH = [
    "cli",
    "sweep",
    "console",
    "durations",
    "intervals",
    "data",
    "presets",
    "hashing",
    "config",
    "settings",
    "typed",
    "atomic",
    "events",
    "stopping",
    "durations",
    "machine",
    "shown",
    "errors",
]
ALSO_WITHOUT_TORCH = ["runs.run", "runs.log", "runs.find", "inference.classifier", "inference.load"]
# What answers from an ONNX file.
ALSO_WITHOUT_TORCH += [
    f"inference.{name}" for name in ("about", "classifier", "extras", "load", "onnx_file")
]
# All that looks at data but does not train.
ALSO_WITHOUT_TORCH += [f"doctor.{name}" for name in ("duplicates", "examine", "fixes", "page")]
LONGEST_FILE, LONGEST_FUNCTION, MOST_ARGUMENTS = 460, 60, 6
KNOWS_PROCESSES = {"team", "engines.distributed"}  # only they import torch.distributed


@functools.cache
def modules() -> dict[str, Path]:
    """Return the file of each module, by its dotted name below `deepcnn`."""
    return {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in SOURCE.rglob("*.py")
        if path.parent != SOURCE or path.stem not in ("__init__", "__main__")
    }


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(tree: ast.AST) -> set[str]:
    """Return the dotted names that a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(names: set[str]) -> set[str]:
    """Return the modules of the project among imported names."""
    return {name.removeprefix("deepcnn.") for name in names} & modules().keys()


def room(module: str) -> str:
    return module.partition(".")[0]


def test_every_module_is_in_a_room() -> None:
    assert {room(name) for name in modules()} == set(ROOMS)


def test_imports_run_downwards() -> None:
    upwards = [
        f"{name} imports {other}"
        for name, path in modules().items()
        for other in own(imports(parsed(path)))
        if ROOMS.index(room(other)) < ROOMS.index(room(name))
    ]
    assert upwards == []


def test_no_imports_run_in_a_circle() -> None:
    found = {
        name: own(imports(parsed(path))) - {name, room(name)} for name, path in modules().items()
    }
    graphlib.TopologicalSorter(found).prepare()  # raises CycleError, which names the circle


def test_rooms_that_need_no_torch_import_none() -> None:
    names = [
        f"deepcnn.{name}"
        for name in sorted(modules())
        if room(name) in WITHOUT_TORCH or name in ALSO_WITHOUT_TORCH
    ]
    assert len(names) > 40
    script = "import importlib, sys\n" + "".join(
        f"importlib.import_module({name!r}); assert 'torch' not in sys.modules, {name!r}\n"
        for name in names
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_public_names_are_imported_when_asked_for_and_have_no_side_effects() -> None:
    script = """
import sys
import deepcnn
assert "torch" not in sys.modules and "numpy" not in sys.modules
from deepcnn import *
import deepcnn.training.start, deepcnn.inference.evaluation, deepcnn.models, deepcnn.data.open
for name in deepcnn.__all__:
    assert name in dir(deepcnn)
    assert name == "presets" or callable(getattr(deepcnn, name)), name
assert deepcnn.presets.tiny().steps == 200
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout == done.stderr == ""


def test_only_the_command_line_prints_and_few_know_of_processes() -> None:
    for name, path in modules().items():
        tree = parsed(path)
        prints = any(
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "print"
            for node in ast.walk(tree)
        )
        assert not prints or room(name) in ("cli", "console"), name
        knows = any(imported.startswith("torch.distributed") for imported in imports(tree))
        assert not knows or KNOWS_PROCESSES & {name, room(name)}, name


def test_files_functions_and_lists_of_arguments_are_short() -> None:
    too_long: list[str] = []
    for name, path in modules().items():
        text = path.read_text()
        if len(text.splitlines()) > LONGEST_FILE:
            too_long.append(f"{name}: {len(text.splitlines())} lines")
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    too_long.append(f"{name}.{node.name}: {lines} lines")
                if arguments(node) > MOST_ARGUMENTS and not is_exempt(node):
                    too_long.append(f"{name}.{node.name}: {arguments(node)} arguments")
    assert too_long == []


def arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return len([argument for argument in named if argument.arg not in ("self", "cls", "ctx")])


def is_exempt(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether a function may have many: all by name, or those of torch and Triton."""
    by_place = [a for a in node.args.args if a.arg not in ("self", "cls")]
    public = not node.name.startswith("_") or node.name == "__init__"
    if public and len(by_place) <= 2 and node.args.kwonlyargs:
        return True
    decorators = " ".join(map(ast.unparse, node.decorator_list))
    if node.name == "forward" and "staticmethod" in decorators:  # of a torch.autograd.Function
        return True
    return any(word in decorators for word in ("triton.jit", "custom_op", "register_fake"))


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks", "records", "docs"])
def test_no_file_uses_a_private_name_of_another_module(folder: str) -> None:
    found: list[str] = []
    for path in sorted((REPOSITORY / folder).rglob("*.py")):
        tree = parsed(path)
        ours: set[str] = set()  # names that stand for a module of deepcnn
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("deepcnn"):
                private = [alias.name for alias in node.names if is_private(alias.name)]
                found += [f"{path.name}: from {node.module} import {name}" for name in private]
                for alias in node.names:
                    if f"{node.module}.{alias.name}".removeprefix("deepcnn.") in modules():
                        ours.add(alias.asname or alias.name)
        found += [
            f"{path.name}:{node.lineno}: {node.value.id}.{node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in ours
            and is_private(node.attr)
        ]
    assert found == []


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_commands_print_through_the_one_function_that_makes_names_harmless() -> None:
    prints = [
        f"{name}, line {node.lineno}"
        for name, path in modules().items()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id == "print"
    ]
    assert [place.split(",")[0] for place in prints] == ["console"], prints
