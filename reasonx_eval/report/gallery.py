"""Worst, best and most changed samples of one run or two, picture by picture, from saved predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import SampleError, UsageError, unknown
from reasonx_eval.metrics.table import metric_info
from reasonx_eval.report.figures import plain
from reasonx_eval.report.gallery_panels import panels
from reasonx_eval.report.pictures import Panel, draw_rows, error_limit
from reasonx_eval.run.saved_runs import SavedRun, load_sample
from reasonx_eval.statistics.join import Joined, join
from reasonx_eval.types import Record

#: called after every sample with (done, total, left out)
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Choice:
    """Which samples to show.

    metric : orders the samples; None takes the first of the protocol
    worst, best : how many of each end, by the last run's values
    changed : order two runs by the change from the first to the second: worst is what got worst
    samples : these instead, in this order
    """

    metric: str | None = None
    worst: int = 8
    best: int = 4
    changed: bool = False
    samples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One sample of a gallery.

    why : "worst 1", "best 2", or "" where the sample was asked for
    numbers : metric -> value of each run, as its record holds it; None where it is undefined
    """

    sample_id: str
    why: str
    numbers: dict[str, tuple[float | None, ...]]
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Gallery:
    """What a page or sheet shows.

    limit : the end of the one error scale, in `unit`; unit is "" where there are no error maps
    notes : samples left out, and why
    """

    runs: tuple[SavedRun, ...]
    metric: str
    order: str
    entries: tuple[Entry, ...]
    limit: float
    unit: str
    notes: tuple[str, ...]


def build(
    runs: Sequence[SavedRun], dataset: Dataset, choice: Choice | None = None, progress: Progress | None = None
) -> Gallery:
    """Read and draw the chosen samples.

    Parameters
    ----------
    runs : one, or two under the same rules on the same data
    dataset : the data they were scored on

    Raises
    ------
    UsageError
        An unknown metric or sample, more than two runs, or nothing to show.
    NotComparable
        Runs under other rules or on other data.
    DataError
        No sample in common; ground truth or predictions that are not those that were scored.
    """
    choice = choice or Choice()
    if not 1 <= len(runs) <= 2:
        raise UsageError(f"a gallery shows one run or two, not {len(runs)}", fix="reasonx-eval gallery RUN_A RUN_B")
    if choice.changed and len(runs) == 1:
        raise UsageError("--changed compares two runs", fix="reasonx-eval gallery RUN_A RUN_B --changed")
    joined = join([run.run for run in runs])
    metric = _metric(runs[0], choice.metric)
    chosen, notes = choose(joined, metric, choice)
    entries = []
    for done, (sample_id, why) in enumerate(chosen, 1):
        try:
            sample = load_sample(dataset, runs[0], sample_id)
            shown = tuple(panels(sample, runs, metric))
            entries.append(Entry(sample_id, why, _numbers(runs, sample_id), shown))
        except SampleError as error:
            notes.append(f"{sample_id} is left out: {' '.join(str(error).split())}")
        if progress:
            progress(done, len(chosen), done - len(entries))
    if not entries:
        raise UsageError("no sample can be shown: " + "; ".join(notes[:3]), where=str(runs[0].folder))
    every = [panel for entry in entries for panel in entry.panels]
    unit = next((p.unit for p in every if p.style == "error"), "")
    return Gallery(tuple(runs), metric, _order(runs, metric, choice), tuple(entries), error_limit(every), unit,
                   tuple(notes))  # fmt: skip


def _metric(run: SavedRun, name: str | None) -> str:
    known = run.protocol.metrics
    if name is None:
        return known[0]
    if name not in known:
        raise unknown("metric", name, known, where=run.protocol.ref)
    return name


def choose(joined: Joined, metric: str, choice: Choice) -> tuple[list[tuple[str, str]], list[str]]:
    """The samples to show as (id, why), worst first, and notes on samples that can't be shown.

    Raises
    ------
    UsageError
        A sample that was not scored in every run.
    """
    notes = _missing(joined)
    if choice.samples:
        strange = [i for i in choice.samples if i not in set(joined.ids)]
        if strange:
            raise UsageError(f"not scored in every run: {', '.join(strange[:3])}; samples are {joined.ids[0]}, ...")
        return [(i, "") for i in choice.samples], notes
    badness = {i: _badness([records[k] for records in joined.records], metric, choice.changed)
               for k, i in enumerate(joined.ids)}  # fmt: skip
    ordered = sorted(((-bad, i) for i, bad in badness.items() if bad is not None))
    if len(ordered) < len(joined.ids):
        notes.append(f"{len(joined.ids) - len(ordered)} samples have no {metric}")
    worst = [i for _, i in ordered[: choice.worst]]
    best = [i for _, i in reversed(ordered[choice.worst :])][: choice.best]
    chosen = [(i, f"worst {k}") for k, i in enumerate(worst, 1)]
    return chosen + [(i, f"best {k}") for k, i in enumerate(best, 1)], notes


def _missing(joined: Joined) -> list[str]:
    """One line a run on samples that it has no score for."""
    notes = []
    for run, missing in zip(joined.runs, joined.missing, strict=True):
        gone = {**missing, **{r.sample_id: f"failed: {r.error}" for r in run.records if r.error is not None}}
        if gone:
            sample, why = next(iter(gone.items()))
            notes.append(f"{len(gone)} samples have no score in {run.name}, the first: {sample}: {why}")
    return notes


def _badness(records: Sequence[Record], metric: str, changed: bool) -> float | None:
    """Higher is worse: of the last run, or of the change from the first to the last."""
    values = [record.metrics.get(metric) for record in records]
    last, first = values[-1], values[0]
    if last is None or (changed and first is None):
        return None
    value = last - (first or 0.0) if changed else last
    return -value if metric_info(metric).higher_is_better else value


def _order(runs: Sequence[SavedRun], metric: str, choice: Choice) -> str:
    label = metric_info(metric).label
    if choice.samples:
        return "the samples that were asked for"
    if choice.changed:
        return f"by the change of {label} from A to B: worst is what got worst"
    return f"by {label}" + (" of B" if len(runs) == 2 else "")


def _numbers(runs: Sequence[SavedRun], sample_id: str) -> dict[str, tuple[float | None, ...]]:
    return {name: tuple(run.records[sample_id].metrics.get(name) for run in runs) for name in runs[0].protocol.metrics}


def write_png(path: Path, gallery: Gallery) -> None:
    """The gallery as one picture: a row a sample, all errors on one scale, the signatures above."""
    rows = []
    for entry in gallery.entries:
        row = [replace(p, caption=plain(t)) for p, t in zip(entry.panels, caption(gallery, entry), strict=True)]
        # one colour bar of each kind: the ground truth's and the last error's
        rows.append([replace(p, unit="") if k in range(2, len(row) - 1) else p for k, p in enumerate(row)])
    names = [f"{letter} {run.name}".strip() for letter, run in zip(letters(gallery), gallery.runs, strict=True)]
    lines = [*names, *dict.fromkeys(run.result.signature for run in gallery.runs)]
    draw_rows(path, rows, title="\n".join(map(plain, lines)), shared_errors=True)


def letters(gallery: Gallery) -> list[str]:
    """What the runs are called: A and B, or nothing where there is one."""
    return ["A", "B"] if len(gallery.runs) == 2 else [""]


def caption(gallery: Gallery, entry: Entry) -> list[str]:
    """What stands below each panel of an entry: the id, and each run's number below its error."""
    info, n = metric_info(gallery.metric), len(gallery.runs)
    values = [show_number(v, info.unit) for v in entry.numbers[gallery.metric]]
    texts = [entry.sample_id, *[panel.caption for panel in entry.panels[1 : 2 + n]]]
    for panel, value in zip(entry.panels[2 + n :], values, strict=True):
        texts.append(f"{info.label} {value}" + (f", {panel.caption}" if panel.caption else ""))
    return texts


def show_number(value: float | None, unit: str = "") -> str:
    """Four significant digits with the unit, or a dash where a record has no value."""
    return "-" if value is None else f"{value:.4g} {unit}".rstrip()
