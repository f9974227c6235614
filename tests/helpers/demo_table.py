"""The table of reasonx_eval/README.md, from the results of `reasonx-eval demo`.

``python -m tests.helpers.demo_table DEMO_FOLDER`` writes it into reasonx_eval/README.md; tests/test_pages.py compares.
"""

from __future__ import annotations

import sys
from pathlib import Path

from reasonx_eval.io.results import Result, load_result
from reasonx_eval.metrics.table import metric_info
from reasonx_eval.report.tables import arrow, format_value
from tests.helpers.pages import EVAL, fill

START, END = "<!-- table -->", "<!-- end of table -->"
DATASET = "scenes-wild"
SHOWN = {"depth": ("abs_rel", "delta1"), "normals": ("mean_deg", "within_22_5"), "albedo": ("whdr10", "whdr20"),
         "irradiance": ("si_mse",)}  # fmt: skip


def results(demo: Path) -> list[Result]:
    found = [load_result(p) for p in sorted(demo.glob(f"results/*/{DATASET}*/*/result.json"))]
    return sorted(found, key=lambda r: (list(SHOWN).index(str(r.protocol.rules["task"])), r.model.name))


def row(result: Result, name: str) -> str:
    """Model, metric, value and interval as the cells of a Markdown row."""
    value, interval = format_value(result.aggregate[name])
    unit = f" {metric_info(name).unit}" if metric_info(name).unit else ""
    return f"| `{result.model.name}` | {metric_info(name).label} {arrow(name)} | {value}{unit} | {interval} |"


def table(demo: Path) -> str:
    lines = ["| task | model | metric | value | 95 % interval |", "|---|---|---|---|---|"]
    signatures = []
    for result in results(demo):
        task = str(result.protocol.rules["task"])
        for name in SHOWN[task]:
            lines.append(f"| {task} {row(result, name)}")
        signatures.append(result.signature)
    return "\n".join([START, *lines, "", "```", *dict.fromkeys(signatures), "```", END])


def main() -> None:
    fill(EVAL, START, END, table(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
