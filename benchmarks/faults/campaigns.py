"""All campaigns of faults on one machine, one after another, and a table of what came of them.

    python benchmarks/run.py campaigns --size reduced     # some minutes
    python benchmarks/run.py campaigns --size full        # twenty minutes

Each is a program of its own (`run.py NAME --help`), which ends with status 0 if all its cases were
as they should be and logs a case a line. The status of this one is 0 if that of all is.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tools import program, report

# By the name in `run.PROGRAMS`: the arguments of the reduced form and of the full one.
CAMPAIGNS: dict[str, dict[str, list[str]]] = {
    "faults_of_kills": {"reduced": ["--cases", "120"], "full": []},
    "faults_of_power": {"reduced": ["--cases", "250"], "full": []},
    "faults_of_two": {"reduced": ["--cases", "70"], "full": []},
    "hostile_files": {"reduced": ["--cases", "60"], "full": []},
    "faults_of_writing": {"reduced": ["--cases", "60"], "full": []},
    "faults_of_signals": {"reduced": ["--cases", "30"], "full": []},
    "damage": {
        "reduced": ["--cases", "60", "--flips", "1000"],
        "full": ["--cases", "1200", "--flips", "10000"],
    },
    "bits_under_load": {"reduced": ["--cases", "12", "--steps", "20"], "full": []},
    "follow": {"reduced": ["--seconds", "20"], "full": ["--seconds", "300", "--followers", "3"]},
    "soak": {"reduced": ["--seconds", "60"], "full": ["--seconds", "1800"]},
}


@dataclass(frozen=True)
class Row:
    """What came of a campaign: cases tried and failed, seconds, whether it ended well.

    `kills`, and `kills_inside_a_save` of a checkpoint, where a campaign kills.
    """

    name: str
    cases: int
    failed: int
    seconds: float
    ok: bool
    kills: int
    kills_inside_a_save: int

    def text(self) -> str:
        """Return a line of the table."""
        end = "" if self.ok else "  FAILED"
        return f"{self.name:<20}{self.cases:>8,}{self.failed:>8,}{self.seconds:>9.0f}{end}"


def main(arguments: list[str]) -> int:
    """Run all, or those that are named, and print the table."""
    parser = report.parser("campaigns", __doc__)
    parser.add_argument("--size", choices=["reduced", "full"], default="reduced")
    parser.add_argument("--only", nargs="+", choices=list(CAMPAIGNS), default=list(CAMPAIGNS))
    parser.add_argument("--logs", type=Path, help="a folder for the logs; default: none are kept")
    parser.add_argument("--store", action="store_true", help="store the table as a result")
    options = parser.parse_args(arguments)
    out = report.new_file("campaigns", options.out, options.remark) if options.store else None
    with tempfile.TemporaryDirectory() as scratch:
        logs = options.logs or Path(scratch)
        logs.mkdir(parents=True, exist_ok=True)
        rows = [run(name, CAMPAIGNS[name][options.size], logs) for name in options.only]
    print(f"\n{'campaign':<20}{'cases':>8}{'failed':>8}{'seconds':>9}")
    for row in rows:
        print(row.text())
    if out is not None:
        about = {"what": f"campaigns of faults, {options.size}", **report.circumstances()}
        report.store(about | {"campaigns": [asdict(row) for row in rows]}, out, options.remark)
    return 0 if all(row.ok for row in rows) else 1


def run(name: str, arguments: list[str], logs: Path) -> Row:
    """Run one in a process of its own, which must not share this one's threads."""
    print(f"{name} {' '.join(arguments)}", flush=True)
    log = logs / f"{name}.jsonl"
    began = time.perf_counter()
    command = [sys.executable, str(program.BENCHMARKS / "run.py"), name, *arguments]
    status = subprocess.run([*command, "--log", str(log)]).returncode
    seconds = time.perf_counter() - began
    cases = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    failed = sum(not case["ok"] for case in cases)
    kills = [call for case in cases for call in case.get("killed", [])]
    inside = sum("checkpoints/" in call for call in kills)
    return Row(name, len(cases), failed, round(seconds, 1), status == 0, len(kills), inside)
