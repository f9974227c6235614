"""Do a study: collect answers, train ceilings, tune every cell, evaluate everything on both domains, sum up.

Each part looks for what is there already, so the same command goes on after an interrupt, and with more seeds does only
the new ones. Cells are independent of each other and of how many run at once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.study.collect import Collector, Progress
from benchmarks.study.design import BASES, JUDGES, METHODS, TRAIN, Cell, cells
from benchmarks.study.evaluation import evaluate
from benchmarks.study.report import markdown, plot
from benchmarks.study.settings import StudySettings
from benchmarks.study.summary import StudyRow, figures
from reasonx_eval import __version__
from reasonx_eval.errors import UsageError
from reasonx_eval.io.files import write_json, write_text
from reasonx_ft.training.interrupts import worker_pool

SETTINGS = "settings.json"

#: seed, protocol name -> run folder, and seconds where they are known
Finished: TypeAlias = tuple[int, dict[str, Path], float | None]


@dataclass(frozen=True)
class _Task:
    """One process's work: tune a cell, or train a ceiling (no cell), and evaluate it."""

    settings: StudySettings
    out: Path
    base: str
    seed: int
    cell: Cell | None = None
    photos: Path | None = None
    store: Path | None = None

    @property
    def name(self) -> str:
        return self.cell.name if self.cell else f"{self.base}-labels-s{self.seed}"


def run_study(
    settings: StudySettings, out: Path, *, workers: int = 2, progress: Progress | None = None
) -> list[StudyRow]:
    """Everything, into a folder.

    Parameters
    ----------
    out : gets photos, judgements, cells/NAME, study.json, study.md and study.png
    workers : processes, each with one thread of arithmetic

    Raises
    ------
    UsageError
        A folder with a study of other settings (seeds, bases, methods and judges may be added).
    """
    say = progress or (lambda _what, _done, _total: None)
    _same_settings(settings, out)
    chosen = cells(settings.bases, settings.methods, settings.judges, settings.seeds)
    photos, stores = _collected(settings, out, chosen, say)
    tasks = [_Task(settings, out, base, seed) for base in settings.bases for seed in settings.seeds]
    tasks += [_Task(settings, out, c.base, c.seed, c, photos, stores[c.judge, c.seed]) for c in chosen]
    _do_all(tasks, workers, say)
    rows = _rows(settings, out)
    _write(settings, out, rows)
    return rows


def _collected(
    settings: StudySettings, out: Path, chosen: Sequence[Cell], say: Progress
) -> tuple[Path, dict[tuple[str, int], Path]]:
    """Folder of photos, and of the answers of each judge and seed; the scenes in memory are gone afterwards."""
    collector = Collector(settings.photos, settings.pairs, out, say)
    asked = dict.fromkeys((c.judge, c.seed) for c in chosen)
    return collector.photos(), {(judge, seed): collector.answers(judge, seed) for judge, seed in asked}


def _same_settings(settings: StudySettings, out: Path) -> None:
    """Refuse to mix two studies in one folder."""
    path = out / SETTINGS
    free = {"bases", "methods", "judges", "seeds"}
    ours = settings.model_dump(mode="json", exclude=free)
    if path.is_file():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        differ = sorted(k for k in ours if theirs.get(k) != ours[k])
        if differ:
            said = ", ".join(f"{k} {theirs.get(k)} (now {ours[k]})" for k in differ)
            raise UsageError(f"a study with other settings: {said}", where=str(out), fix="another --out")
    write_json(path, ours)


def _do_all(tasks: Iterable[_Task], workers: int, say: Progress) -> None:
    waiting = [t for t in tasks if not (_cell_folder(t.out, t.name) / "done.json").is_file()]
    if workers == 1:
        for k, task in enumerate(waiting):
            _do(task)
            say("cells", k + 1, len(waiting))
        return
    with worker_pool(workers) as pool:
        coming = [pool.submit(_do, task) for task in waiting]
        try:
            for k, future in enumerate(as_completed(coming)):
                future.result()
                say("cells", k + 1, len(waiting))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _do(task: _Task) -> None:
    """Tune or train, evaluate; done.json, with the seconds, is written last."""
    folder = _cell_folder(task.out, task.name)
    # of a cell that was interrupted only a part would be timed
    fresh = not folder.exists()
    clock = time.process_time()
    model = _tuned(task, folder) if task.cell else _supervised(task, folder)
    seconds = time.process_time() - clock
    runs = evaluate(*model, folder / "results", limit=task.settings.limit)
    write_json(folder / "done.json", {
        "cpu_seconds": round(seconds, 1) if fresh else None,
        "runs": {k: v.relative_to(folder).as_posix() for k, v in runs.items()},
    })  # fmt: skip


def _tuned(task: _Task, folder: Path) -> tuple[str, dict[str, Any]]:
    from reasonx_ft.tuning.settings import read_settings
    from reasonx_ft.tuning.state import Sources
    from reasonx_ft.tuning.train import tune

    cell = task.cell
    assert cell is not None
    assert task.photos is not None
    assert task.store is not None
    # to the end and without guardrails: a run that is stopped and falls back to its base would show no effect at all
    fixed = {"seed": cell.seed, "machine.threads": 1, "machine.device": "cpu", "watch.export": "last",
             "watch.check_every": 0, "guard.flatness": (0.0, 1e9), "guard.agreement_drop": 1.0,
             "guard.normals_away": 1.0, "guard.unrewarded_metrics": (),
             "optimiser.steps": task.settings.steps_of(cell.base, cell.method)}  # fmt: skip
    method = None if cell.method == "default" else cell.method
    config = read_settings(method=method, base=cell.base, flags={**fixed, **task.settings.sets})
    outcome = tune(Sources(cell.base, str(task.photos), task.store), config, folder / "tune", name=cell.name)
    return str(outcome.folder), {}


def _supervised(task: _Task, folder: Path) -> tuple[str, dict[str, Any]]:
    """The ceiling: the same base goes on with every label of as many scenes."""
    from reasonx_ft.pretraining.pretrain import pretrain
    from reasonx_ft.training.config import read_config

    settings = task.settings
    config = read_config(task.base, None, {
        "start": "shipped", "dataset": TRAIN[0], "split": TRAIN[1], "scenes": settings.photos,
        "steps": settings.steps_of(task.base, "labels"), "learning_rate": settings.ceiling_rate, "seed": task.seed,
        "threads": 1, "check_every": 0, "test_scenes": 0, "warmup": 20, "bfloat16": True,
    })  # fmt: skip
    weights = folder / f"{task.base}.safetensors"
    if not weights.is_file():
        pretrain(config, folder, workers=1)
    return task.base, {"weights": weights}


def _rows(settings: StudySettings, out: Path) -> list[StudyRow]:
    """All that is finished in the folder, whichever call did it."""
    found = []
    for base in BASES:
        ceilings = _finished(out, f"{base}-labels")
        if not ceilings:
            continue
        before = evaluate(base, {}, out / "bases", limit=settings.limit)
        best = [runs for _, runs, _ in ceilings]
        found.append(_row(base, "supervised", "labels", ceilings, before, best))
        for method in METHODS:
            for judge in JUDGES:
                if done := _finished(out, f"{base}-{method}-{judge}"):
                    found.append(_row(base, method, judge, done, before, best))
    return found


def _row(
    base: str, method: str, judge: str, done: list[Finished], before: Mapping[str, Path],
    best: list[dict[str, Path]],
) -> StudyRow:  # fmt: skip
    seconds = [s for _, _, s in done if s is not None]
    return StudyRow.model_validate({
        "base": base, "method": method, "judge": judge, "seeds": [seed for seed, _, _ in done],
        "seconds": round(sum(seconds) / len(seconds), 1) if seconds else None,
        "figures": figures(before, [runs for _, runs, _ in done], best),
    })  # fmt: skip


def _finished(out: Path, name: str) -> list[Finished]:
    """Cells of all seeds, in their order."""
    found = []
    for path in (out / "cells").glob(f"{name}-s*/done.json"):
        folder, timestep = path.parent, json.loads(path.read_text(encoding="utf-8"))
        runs = {k: folder / v for k, v in timestep["runs"].items()}
        found.append((int(folder.name.rpartition("-s")[2]), runs, timestep["cpu_seconds"]))
    return sorted(found, key=lambda cell: cell[0])


def _cell_folder(out: Path, name: str) -> Path:
    return out / "cells" / name


def _write(settings: StudySettings, out: Path, rows: list[StudyRow]) -> None:
    write_json(out / "study.json", {
        "schema": 1, "reasonx": __version__, "settings": settings.model_dump(mode="json"),
        "rows": [r.model_dump(mode="json") for r in rows],
    })  # fmt: skip
    write_text(out / "study.md", markdown(rows))
    plot(rows, out / "study.png")
