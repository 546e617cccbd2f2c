"""What the listeners hear of a training before its first step."""

from __future__ import annotations

import torch

from deepcnn.events import Noted, Started, Traced
from deepcnn.runs import graph
from deepcnn.training.session import Session


def started(session: Session) -> Started:
    """Return the event that the training begins."""
    config = session.config
    return Started(
        run=str(session.run.path),
        preset=config.preset,
        model=config.model.name,
        step=session.state.step,
        steps=config.steps,
        batch_size=config.batch_size,
        parameters=sum(p.numel() for p in session.state.model.parameters()),
        examples=sum(session.trained_on.counts["train"]),
        device=str(session.place.device),
        precision=session.place.precision,
        threads=torch.get_num_threads(),
        towers=config.towers,
        processes=session.team.count,
    )


def trace(session: Session) -> None:
    """Tell the listeners the graph of a step, before the first step of a run with summaries."""
    if not session.config.summary_every or session.state.step:
        return
    try:
        nodes = graph.trace_step(
            session.state,
            session.transform,
            session.engine.device,
            towers=session.engine.towers,
            processes=session.team.count,
        )
    except Exception as error:  # whatever somebody's own network does with float64 raises
        if not session.own_network:
            raise
        session.emit(Noted(f"The graph of the network cannot be drawn: {error}"))
        return
    session.tell(Traced(nodes))
