from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

from deepcnn.events import Evaluated, Stepped
from deepcnn.runs.log import JsonLog


def test_the_log_survives_a_line_cut_off_by_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"event": "A"}\n{"event": "B", "st')
    with closing(JsonLog(path)) as log:
        log(Evaluated(3, "test", True, 1, 2, float("nan")))
        log(Stepped(1, {"a": float("inf")}, {}, 0.1, 1.0, 1.0))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["A", "Evaluated", "Stepped"]
    assert lines[1]["loss"] is None
    assert lines[2]["losses"] == {"a": None}
