"""Damages checkpoints and stored settings, and looks whether every damage is found.

    python benchmarks/run.py damage --cases 1000 --seed 0 --log damage.jsonl

A small run is trained once. Each case hurts a copy of it: a bit is flipped, a part is cut off or
zeroed, a file is emptied, replaced by noise, a folder, a pipe, a link to nothing or to itself, or
it is gone. Of a checkpoint, the newest one and now and then the one before are hurt; then the run
is opened as evaluation, prediction and export do, and every hundredth is resumed: the newest whole
one must be used, bit for bit, each damaged one be named, and lie there afterwards. Of a file of
JSON, reading must fail with an error that names it. At last, `--flips` single bits are flipped in
the files of JSON alone. A case that takes over ten seconds hangs, which is a failure.
"""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from deepcnn import presets
from deepcnn.errors import DeepcnnError, RunError
from deepcnn.events import Event, Noted
from deepcnn.inference.trained import Trained
from deepcnn.runs import checkpoint
from deepcnn.runs.run import CALIBRATION, CONFIG, ENVIRONMENT, INPUTS, JOB, Run
from deepcnn.training.start import resume, train
from faults import trials

LIMIT = 10  # seconds of a case
FILES = (CONFIG, INPUTS, CALIBRATION, ENVIRONMENT, JOB)
STEPS, EVERY = 40, 10
RESUMED = 100  # one case of a checkpoint in so many is resumed

Hurt = Callable[[Path, random.Random], None]


def flip(path: Path, rng: random.Random) -> None:
    """Flip a bit."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def cut(path: Path, rng: random.Random) -> None:
    """Keep a beginning."""
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(1, len(content))])


def lengthen(path: Path, rng: random.Random) -> None:
    """Put some bytes behind the end."""
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randrange(1, 100)))


def empty(path: Path, rng: random.Random) -> None:  # noqa: ARG001
    """Leave no byte."""
    path.write_bytes(b"")


def zero(path: Path, rng: random.Random) -> None:
    """Zero a part, at least one byte of which was another."""
    content = bytearray(path.read_bytes())
    first = rng.choice([i for i, byte in enumerate(content) if byte])
    stop = rng.randrange(first + 1, len(content) + 1)
    content[first:stop] = bytes(stop - first)
    path.write_bytes(content)


def noise(path: Path, rng: random.Random) -> None:
    """Write random bytes of the same number."""
    path.write_bytes(rng.randbytes(path.stat().st_size))


def folder(path: Path, rng: random.Random) -> None:  # noqa: ARG001
    """Put a folder there."""
    path.unlink()
    path.mkdir()


def pipe(path: Path, rng: random.Random) -> None:  # noqa: ARG001
    """Put a pipe there, into which nobody writes."""
    path.unlink()
    os.mkfifo(path)


def link_to_nothing(path: Path, rng: random.Random) -> None:  # noqa: ARG001
    """Put a link there that leads nowhere."""
    path.unlink()
    path.symlink_to("gone")


def link_to_itself(path: Path, rng: random.Random) -> None:  # noqa: ARG001
    """Put a link there that leads to itself."""
    path.unlink()
    path.symlink_to(path.name)


def gone(path: Path, rng: random.Random) -> None:  # noqa: ARG001
    """Remove it."""
    path.unlink()


HURTS: tuple[Hurt, ...] = (
    *(flip, cut, lengthen, empty, zero, noise),
    *(folder, pipe, link_to_nothing, link_to_itself, gone),
)


def trained(path: Path) -> Path:
    """Train the run that is hurt, with checkpoints of several steps."""
    config = dataclasses.replace(
        presets.tiny(),
        steps=STEPS,
        save_every=EVERY,
        keep=4,
        batch_size=32,
        device="cpu",
        precision="fp32",
        threads=1,
        summary_every=0,
        model=dataclasses.replace(presets.tiny().model, widths=(4, 4, 8, 8)),
    )
    return train(config, run_dir=path).run


@contextmanager
def limited() -> Iterator[None]:
    """Raise TimeoutError where a case hangs."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"took over {LIMIT} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def remains(path: Path) -> object:
    """Return what tells that what lies at a path is still the same."""
    if path.is_symlink():
        return str(path.readlink())
    return path.read_bytes() if path.is_file() else (path.is_dir(), path.is_fifo())


def case_of_checkpoints(run: Path, rng: random.Random, *, resumed: bool) -> dict[str, Any]:
    """Hurt the newest checkpoints of a run, open it, and tell what was found."""
    opened = Run(run)
    *_, third, second, first = checkpoint.paths(opened.checkpoints)
    hurt = [first, second] if rng.random() < 0.25 else [first]
    expected = third if len(hurt) == 2 else second
    whole = expected.read_bytes()
    before = {path: path.read_bytes() for path in hurt}
    kinds = [rng.choice(HURTS) for _ in hurt]
    for each, path in zip(kinds, hurt, strict=True):
        each(path, rng)
    lying = {path: remains(path) for path in hurt if os.path.lexists(path)}
    heard: list[Event] = []
    network = Trained.open(opened, emit=heard.append)
    told = [event.text for event in heard if isinstance(event, Noted)]
    step, tensors, _ = checkpoint.load(expected)
    names = {f"average.{n}": p for n, p in network.model.named_parameters()}
    # A flipped bit that changes nothing, such as e for E in a number, is no damage.
    same = any(unchanged(path, before[path]) for path in lying if path.is_file())
    problems = []
    if not same:
        if network.step != step or not all(torch.equal(tensors[n], p) for n, p in names.items()):
            problems.append(f"expected step {step}, found {network.step}")
        problems += [f"{p.name} is not named" for p in lying if not any(p.name in t for t in told)]
        if len(told) != len(lying):
            problems.append(f"told {len(told)} times")
    if resumed and not problems and not same:
        problems += resumption(opened, lying, before)
    if expected.read_bytes() != whole:
        problems.append("the whole one was changed")
    for path, content in lying.items():
        moved = [path, *path.parent.glob(f"{path.name}.damaged*")]
        if content not in [remains(each) for each in moved if os.path.lexists(each)]:
            problems.append(f"{path.name} was deleted")
    damage = [each.__name__ for each in kinds]
    return {"of": "checkpoint", "damage": damage, "resumed": resumed, "problems": problems}


def unchanged(path: Path, before: bytes) -> bool:
    """Tell whether a damaged checkpoint says what it said before, to the bit."""
    try:
        step, tensors, _ = checkpoint.load(path)
    except (DeepcnnError, OSError):
        return False
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / path.name
        copy.write_bytes(before)
        old = checkpoint.load(copy)
    return step == old.step and all(torch.equal(t, old.tensors[n]) for n, t in tensors.items())


def resumption(run: Run, lying: dict[Path, object], before: dict[Path, bytes]) -> list[str]:
    """Go on with a hurt run, and tell what is not as it should be."""
    heard: list[Event] = []
    resume(run.path, emit=heard.append)
    told = [event.text for event in heard if isinstance(event, Noted)]
    problems = [
        f"resume does not name {p.name}" for p in lying if not any(p.name in t for t in told)
    ]
    for path, content in before.items():
        if path.read_bytes() != content:
            problems.append(f"resumed, {path.name} has other bytes")
    return problems


def case_of_json(run: Path, rng: random.Random) -> dict[str, Any]:
    """Hurt a file of JSON, read it, and tell what was found."""
    name, hurt = rng.choice(FILES), rng.choice(HURTS)
    hurt(run / name, rng)
    return {"of": name, "damage": [hurt.__name__], "problems": reading(run, name)}


def reading(run: Path, name: str) -> list[str]:
    """Tell what is not as it should be when a damaged file is read."""
    try:
        Run(run).read(name)
    except RunError as error:
        return [] if name in str(error) else ["the error does not name it"]
    return ["it is accepted"]


def flips(run: Path, count: int, rng: random.Random) -> dict[str, Any]:
    """Flip so many single bits in the files of JSON, one at a time; tell how many are found."""
    found, accepted = 0, []
    contents = {name: (run / name).read_bytes() for name in FILES}
    for _ in range(count):
        name = rng.choice(FILES)
        content = bytearray(contents[name])
        place, bit = rng.randrange(len(content)), rng.randrange(8)
        content[place] ^= 1 << bit
        (run / name).write_bytes(content)
        if reading(run, name):
            accepted.append(f"{name}: bit {bit} of byte {place}")
        else:
            found += 1
        (run / name).write_bytes(contents[name])
    return {"of": "flips", "count": count, "found": found, "problems": accepted}


def attempt(made: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a case under a limit; whatever it raises is a problem."""
    began = time.perf_counter()
    try:
        with limited():
            found = made()
    except Exception as error:  # whatever it is
        found = {"problems": [f"{type(error).__name__}: {error}"]}
    found["seconds"] = round(time.perf_counter() - began, 4)
    return {**found, "ok": not found["problems"]}


def campaign(cases: int, seed: int, count: int, scratch: Path) -> Iterator[dict[str, Any]]:
    """Yield what each case found, and at last the single flips."""
    template = trained(scratch / "run")
    for number in range(cases):
        rng = random.Random(f"{seed} {number}")
        copy = Path(shutil.copytree(template, scratch / "case"))
        if rng.random() < 0.5:
            resumed = rng.randrange(RESUMED) == 0
            done = attempt(lambda c=copy, r=rng, x=resumed: case_of_checkpoints(c, r, resumed=x))
        else:
            done = attempt(lambda c=copy, r=rng: case_of_json(c, r))
        shutil.rmtree(copy)
        yield {"case": number, **done}
    if count:
        began = time.perf_counter()
        found = flips(template, count, random.Random(f"{seed} flips"))
        found["seconds"] = round(time.perf_counter() - began, 4)
        yield {"case": cases, **found, "ok": not found["problems"]}


def main(arguments: list[str]) -> int:
    """Try all cases, write a line for each, and tell how many failed."""
    parser = trials.parser_of("damage", __doc__, 1000)
    parser.add_argument("--flips", type=int, default=10_000, help="single bits of the JSON files")
    found = trials.options_of(parser, arguments)
    with trials.scratch() as scratch:
        return trials.report(campaign(found.cases, found.seed, found.flips, scratch), found.log)
