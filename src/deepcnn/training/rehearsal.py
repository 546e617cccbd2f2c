"""A rehearsal: it times the first steps of each part of a training, and a little scoring."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable

import numpy as np
from torch import nn

from deepcnn.config import Config
from deepcnn.data.source import Source
from deepcnn.data.splits import Split
from deepcnn.events import ignore
from deepcnn.team.team import Team
from deepcnn.training.forecast import Costs, phases_of, reporting
from deepcnn.training.scores import Scores
from deepcnn.training.session import FromPython, Session

STEPS = 10_000  # as if there were so many, so that every phase has room for a few
LEAST, MOST = 2, 20  # steps of a phase that are timed, after one that is not
SCORED = 500  # images


def rehearse(
    config: Config,
    given: FromPython,
    *,
    seconds: float,
    report: bool,
    clock: Callable[[], float] = time.perf_counter,
) -> Costs:
    """Measure what the parts of a training cost; nothing of it is kept.

    `given`: with the data, which are in memory. `seconds`: the time that all timed steps may take,
    without two steps of each phase. `report`: whether a report is written at the end.
    """
    assert given.material is not None
    config = dataclasses.replace(
        config, steps=STEPS, epochs=None, summary_every=0, evaluate_every=0, keep_best=False
    )
    material = dataclasses.replace(given.material, config=config)
    own = given.model
    if isinstance(own, nn.Module):  # which is trained in place, and not yet
        own = copy.deepcopy(own)
    given = dataclasses.replace(given, material=material, model=own)
    with Session.open(Team(), config, given, ignore) as session:
        session.rehearse(session.schedule)
        shares = phases_of(config)
        session.state.model.train()
        phases = [(share, _step(session, share, seconds / len(shares), clock)) for share in shares]
        scoring = _scoring(session, material.to_score, clock)
    scored = sum(map(len, material.to_score.values()))
    return Costs(tuple(phases), scoring, reporting(scored) * report, measured=True)


def _step(session: Session, share: float, seconds: float, clock: Callable[[], float]) -> float:
    """Return the seconds of a step at a share of the training."""
    # The feeds are functions of the step, so any step may come next.
    session.state.step = round(share * STEPS) + 1
    _make(session)  # allocates and chooses kernels
    began, made = clock(), 0
    while made < LEAST or (made < MOST and clock() - began < seconds):
        _make(session)
        made += 1
    return (clock() - began) / made


def _make(session: Session) -> None:
    session.fix_settled(session.state.step)
    losses = session.engine.step()
    session.state.forget_gradients()
    losses.tolist()  # waits for a GPU


def _scoring(session: Session, to_score: dict[Split, Source], clock: Callable[[], float]) -> float:
    """Return the seconds for scoring all splits, estimated from a few images."""
    session.engine.settle()
    few = {split: first(source, SCORED) for split, source in to_score.items()}
    scores = Scores(
        few, session.transform, session.place, session.team, stay=session.feed.in_memory
    )
    [*scores.of(session.state, last=True)]  # allocates and chooses kernels
    began = clock()
    [*scores.of(session.state, last=True)]
    share = sum(map(len, to_score.values())) / sum(map(len, few.values()))
    return (clock() - began) * share


def first(source: Source, count: int) -> Source:
    """Return the first examples of a source."""
    return source if len(source) <= count else source.select(np.arange(len(source)) < count)
