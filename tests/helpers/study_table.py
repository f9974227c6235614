"""The table of benchmarks/study/README.md, from leaderboards/study/study.json.

``python -m tests.helpers.study_table STUDY`` copies study.json, study.md and study.png of a finished `python -m
benchmarks.study` to leaderboards/study and writes the table into its page; tests/benchmarks/test_study.py compares.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.study.report import brief
from benchmarks.study.summary import StudyRow
from reasonx_eval.io.files import write_bytes
from tests.helpers.pages import ROOT, STUDY, fill

FOLDER = ROOT / "leaderboards" / "study"
START, END = "<!-- study -->", "<!-- end of study -->"


def rows() -> list[StudyRow]:
    study = json.loads((FOLDER / "study.json").read_text(encoding="utf-8"))
    return [StudyRow.model_validate(r) for r in study["rows"]]


def table() -> str:
    return f"{START}\n{brief(rows())}{END}"


def main() -> None:
    for name in ("study.json", "study.md", "study.png"):
        write_bytes(FOLDER / name, (Path(sys.argv[1]) / name).read_bytes())
    fill(STUDY, START, END, table())


if __name__ == "__main__":
    main()
