"""The gate as a GitHub Action: its own steps, run in somebody else's folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.pages import EVAL, ROOT, text

FOLDER = ROOT / ".github" / "actions" / "gate"
POLICY = 'schema = 1\n[protocol."depth/scenes-wild@1"]\nabs_rel = { margin = 0.004 }\ndelta1 = { margin = 0.01 }\n'


def _action() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "action.yml").read_text(encoding="utf-8")))


def _steps(folder: Path, **inputs: str) -> int:
    """Run the steps as GitHub does: each by `bash -eo pipefail`, with the inputs in its environment."""
    action = _action()
    given = {name: str(one.get("default", "")) for name, one in action["inputs"].items()} | inputs
    for step in action["runs"]["steps"]:
        if "run" not in step or step["name"] == "Install":
            continue
        env = {k: given[v.removeprefix("${{ inputs.").removesuffix(" }}")] for k, v in step.get("env", {}).items()}
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", step["run"]], cwd=folder, check=False, capture_output=True, text=True,
            env={**os.environ, **env, "PATH": f"{folder}:{os.environ['PATH']}",
                 "GITHUB_STEP_SUMMARY": str(folder / "summary"), "GITHUB_OUTPUT": str(folder / "output")})  # fmt: skip
        if done.returncode:
            return done.returncode
    return 0


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "policy.toml").write_text(POLICY, encoding="utf-8")
    for name, module in (("reasonx-eval", "reasonx_eval.cli.main"), ("python", "")):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {f"-m {module}" if module else ""} "$@"\n')
        program.chmod(0o755)
    return tmp_path


@pytest.mark.slow
def test_the_same_model_passes_and_another_regresses(repository: Path) -> None:
    run = ["--protocol", "depth/scenes-wild", "--limit", "12", "--out", "first", "--quiet"]
    subprocess.run([repository / "reasonx-eval", "run", "--model", "tiny", *run], cwd=repository, check=True,
                   capture_output=True)  # fmt: skip
    subprocess.run([repository / "reasonx-eval", "gate", "first", "--policy", "policy.toml", "--baseline",
                    "baseline.json", "--update-baseline", "--reason", "first"], cwd=repository, check=True,
                   capture_output=True)  # fmt: skip
    inputs = {"model": "tiny", "protocol": "depth/scenes-wild", "arguments": "--limit 12"}
    assert _steps(repository, **inputs) == 0
    assert (repository / "output").read_text() == "outcome=pass\n"
    assert "pass" in (repository / "summary").read_text()
    (repository / "policy.toml").write_text("nothing =", encoding="utf-8")
    assert _steps(repository, **inputs) != 0


def test_the_workflow_of_the_page_uses_the_inputs_that_there_are() -> None:
    block = text(EVAL).partition("# .github/workflows/gate.yml\n")[2].partition("```")[0]
    steps = yaml.safe_load(block)["jobs"]["gate"]["steps"]
    used = next(s for s in steps if "actions/gate" in s.get("uses", ""))
    inputs = _action()["inputs"]
    assert set(used["with"]) <= set(inputs)
    assert {name for name, one in inputs.items() if one.get("required")} <= set(used["with"])
