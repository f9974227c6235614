"""Imports go down: a floor of the house never imports one above it, no module imports itself in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]

#: from the lowest floor up; rooms of one floor may import each other's modules
FLOORS = {
    "reasonx_eval": (
        ("types", "errors"), ("io",), ("metrics",), ("protocols",), ("datasets", "models"), ("registry",), ("scoring",),
        ("statistics",), ("run",), ("selftest", "sensitivity"), ("report",), ("gate", "leaderboard", "doctor"),
        ("demo",), ("cli",),
    ),
    "reasonx_ft": (
        ("types",), ("training",), ("annotation",), ("judges",), ("grpo",), ("policies",), ("tuning", "pretraining"),
        ("demo",), ("cli",),
    ),
}  # fmt: skip

#: (importer, imported): names of a room that resolve on first use, from a floor above, by what the room is for
LAZY = {
    ("reasonx_eval.metrics", "reasonx_eval.scoring.arrays"),  # depth_metrics & co. read protocols, which know metrics
}


@cache
def modules() -> dict[str, Path]:
    found = {}
    for package in FLOORS:
        for path in sorted((_ROOT / package).rglob("*.py")):
            found[".".join(path.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imports(tree: ast.AST, name: str, *, top_only: bool = False) -> Iterator[str]:
    """Modules of both packages that a module imports; `top_only` leaves out what a function imports when called."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{name}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in modules() else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            if not top_only:
                yield from imports(node, name)
        elif not (top_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            yield from imports(node, name, top_only=top_only)


@cache
def edges(*, top_only: bool = False) -> dict[str, set[str]]:
    return {name: set(imports(ast.parse(path.read_text(encoding="utf-8")), name, top_only=top_only))
            for name, path in modules().items()}  # fmt: skip


def floor(name: str) -> int | None:
    """The number of a module's floor; None for the package itself, whose names resolve on first use."""
    package, _, rest = name.partition(".")
    room = rest.partition(".")[0]
    if not room or room in ("api", "__main__"):
        return None
    for number, rooms in enumerate(FLOORS[package]):
        if room in rooms:
            return number
    raise AssertionError(f"{name} is in a room without a floor")


def test_nothing_imports_a_floor_above() -> None:
    found = set()
    for name, targets in edges().items():
        for target in targets & set(modules()):
            above = target.partition(".")[0] == name.partition(".")[0] and None not in (floor(name), floor(target))
            if above and floor(target) > floor(name):  # type: ignore[operator]
                found.add((name, target))
    assert found == LAZY


def test_the_evaluation_imports_nothing_of_the_tuning() -> None:
    found = {(name, t) for name, targets in edges().items() for t in targets
             if name.startswith("reasonx_eval") and t.startswith("reasonx_ft")}  # fmt: skip
    assert found == set()


def test_no_package_imports_benchmarks_or_tests() -> None:
    found = {(n, t) for n, targets in edges().items() for t in targets if t.startswith(("benchmarks", "tests"))}
    assert found == set()


def test_no_circle() -> None:
    """Kahn's algorithm on what is imported when a module is: what is left can't be ordered."""
    graph = {n: {t for t in targets if t in modules() and t != n} for n, targets in edges(top_only=True).items()}
    while ready := [n for n, targets in graph.items() if not targets]:
        for n in ready:
            del graph[n]
        for targets in graph.values():
            targets.difference_update(ready)
    assert sorted(graph) == []


def test_no_click_below_the_command_lines() -> None:
    found = {n for n, targets in edges().items() if ".cli" not in n and {t for t in targets if t.startswith("click")}}
    assert found == set()


def _modules_after(code: str, tmp_path: Path) -> set[str]:
    done = subprocess.run([sys.executable, "-c", code + "\nimport sys; print(*sys.modules, sep='\\n')"],
                          capture_output=True, text=True, check=True, cwd=tmp_path, env={
                              "PYTHONPATH": str(_ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)})  # fmt: skip
    return set(done.stdout.split())


def _run(*arguments: str) -> str:
    return ("from reasonx_eval.cli.main import main\n"
            f"try:\n    main({list(arguments)!r})\n"
            "except SystemExit as done:\n    assert not done.code, done.code")  # fmt: skip


@pytest.mark.parametrize(
    "code",
    [
        'import reasonx_eval\nreasonx_eval.load_model("tiny")',
        _run("run", "--model", "tiny", "--protocol", "depth/scenes-wild", "--limit", "1"),
    ],
    ids=["load_model", "run"],
)
def test_tiny_needs_neither_diffusers_nor_fsdp(code: str, tmp_path: Path) -> None:
    found = _modules_after(code, tmp_path)
    assert "reasonx_eval.models.embedded.tiny" in found
    assert not {m for m in found if m.partition(".")[0] in ("diffusers", "transformers", "accelerate", "matplotlib")}
    assert not {m for m in found if m.startswith("reasonx_") and "fsdp" in m.lower()}


@pytest.mark.parametrize(
    "code",
    [
        "import reasonx_eval, reasonx_ft",
        _run("--help"),
        _run("run", "--help"),
        _run("show", "--help"),
        _run("run", "--help").replace("reasonx_eval.cli", "reasonx_ft.cli").replace("'run'", "'tune'"),
    ],
    ids=["import", "help", "run help", "show help", "tune help"],
)
def test_help_needs_neither_torch_nor_matplotlib(code: str, tmp_path: Path) -> None:
    found = {m.partition(".")[0] for m in _modules_after(code, tmp_path)}
    assert not found & {"torch", "matplotlib", "transformers", "diffusers", "scipy", "skimage"}
