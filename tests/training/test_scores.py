from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from deepcnn.data.open import load_dataset
from deepcnn.data.source import in_memory
from deepcnn.devices import Place
from deepcnn.events import Evaluated
from deepcnn.inference.answers import Answers
from deepcnn.inference.scoring import Blocks, Score
from deepcnn.runs.log import to_json
from deepcnn.team.team import Team
from deepcnn.training import scores
from deepcnn.training.scores import Scores, logged_scores
from tests.helpers.tiny import TINY, state_of, transform_of


@pytest.mark.parametrize("stay", [True, False])
@pytest.mark.parametrize("device", ["meta", "cpu"])  # meta stands for a GPU
def test_what_is_scored_on_a_gpu_stays_there_if_it_is_to(
    monkeypatch: pytest.MonkeyPatch, device: str, stay: bool
) -> None:
    arrays = load_dataset("synthetic", "test")
    seen: list[list[tuple[Tensor, Tensor]]] = []

    def score(answers: Answers, blocks: Callable[[], Blocks], keep: object) -> Score:
        assert keep is None  # before the last step
        seen.append(list(blocks()))
        return Score(1, len(arrays), 0.0)

    monkeypatch.setattr(scores, "score", score)
    place = Place(torch.device(device), "fp32")
    source = {"test": in_memory(arrays)}
    made = Scores(source, transform_of(TINY), place, Team(), stay=stay)  # type: ignore[arg-type]
    for _ in range(2):
        (evaluated,) = made.of(state_of(TINY))
        assert (evaluated.split, evaluated.correct, evaluated.total) == ("test", 1, 512)
    first, second = ([tensor for pair in blocks for tensor in pair] for blocks in seen)
    assert all(tensor.device.type == device for tensor in first)
    same = all(a is b for a, b in zip(first, second, strict=True))
    assert same == (device == "meta" and stay)
    assert sum(len(labels) for labels in first[1::2]) == len(arrays)
    if device == "cpu":
        for images in (first[::2], second[::2]):  # each time anew
            assert torch.equal(torch.cat(images), torch.from_numpy(arrays.images))


def test_the_scores_of_a_step_are_found_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert logged_scores(log, step=10) == []
    made = [Evaluated(step, split, True, 3, 4, 0.5) for step in (10, 20) for split in ("a", "b")]
    log.write_text("".join(to_json(event) + "\n" for event in made))
    assert logged_scores(log, step=20) == made[2:]
    assert logged_scores(log, step=30) == []
    assert logged_scores(log, split="a", before=20) == made[:1]
