"""The project's own baseline: what `make gate` holds the embedded networks to."""

from __future__ import annotations

import re
from pathlib import Path

from reasonx_eval.gate.baseline import baseline_runs, load_baseline
from reasonx_eval.gate.policy import load_policy
from reasonx_eval.models.loading.load import load_model
from reasonx_eval.protocols.protocol import all_protocols

REPO = Path(__file__).parents[3]
BASELINE = REPO / "leaderboards" / "baselines" / "ci.json"


def test_baseline_is_of_the_networks_and_protocols_in_the_package() -> None:
    policy = load_policy(REPO / "leaderboards" / "policy.toml")
    runs = baseline_runs(load_baseline(BASELINE), BASELINE)
    weights = {}
    for name in sorted({run.name for run in runs}):
        model = load_model(name)
        weights[name] = model.info.weights_sha256
        model.close()
    for run in runs:
        assert policy.rules(run.protocol), f"{run.protocol.ref} has no margin"
        assert run.digest == all_protocols()[run.protocol.ref].digest
        assert run.model.weights_sha256 == weights[run.name], (
            f"{run.name} has other weights than its baseline: make gate, then reasonx-eval gate build/gate "
            '--update-baseline --reason "..."'
        )


def test_make_gates_what_is_in_the_baseline() -> None:
    makefile = (REPO / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^test:.*(\n\t.*)*\n\t\$\(MAKE\) .*\bgate\b", makefile, flags=re.M)
    names = re.search(r"for model in ([\w -]+);", makefile)
    assert names is not None
    assert set(names[1].split()) == {entry.model for entry in load_baseline(BASELINE).entries}
