"""From a run folder to a reviewed file: verified, columns taken from the records, a few pictures drawn."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar

from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.io.digests import sha256_file
from reasonx_eval.io.records import read_records
from reasonx_eval.io.results import Result, load_result, load_timing
from reasonx_eval.leaderboard.judge_results import FILE as JUDGE_FILE
from reasonx_eval.leaderboard.judge_results import JudgeResult, load_judge_result
from reasonx_eval.leaderboard.submissions import (
    SUBMISSION_SCHEMA,
    JudgeSubmission,
    Picture,
    Samples,
    Submission,
    check_samples,
    judge_path,
    read_submission,
    sealed,
    submission_path,
    write_submission,
)
from reasonx_eval.metrics.table import metric_info
from reasonx_eval.run.saved_runs import SavedRun, load_sample, open_dataset, open_run
from reasonx_eval.run.verify import verify_run

#: datasets whose pictures may be published: those this package renders; photos of others have licences of their own
_OWN: Final = "scenes-"


#: the folders of an absolute path, on any system; not the slashes of an address, of a name or of a sample's id
_FOLDERS: Final = re.compile(r"(?<![\w./:~])(?:~?/|[A-Za-z]:\\)(?:[^\s/\\:]+[/\\])+(?=[^\s/\\])")

ResultT = TypeVar("ResultT", Result, JudgeResult)


@dataclass(frozen=True)
class Submitted:
    """One file that was written.

    pictures : how many; why_none : the reason where there are none
    """

    path: Path
    pictures: int
    why_none: str | None = None


@dataclass(frozen=True)
class _Run:
    folder: Path
    submission: Submission

    @cached_property
    def saved(self) -> SavedRun | None:
        """The run with its predictions; None where they were not kept."""
        return open_run(self.folder) if (self.folder / "predictions").is_dir() else None


def submit(runs: Sequence[Path], to: Path, *, force: bool = False, pictures: bool = True) -> list[Submitted]:
    """Write a reviewed file for each run, all or none: every run is verified before the first file is written.

    Parameters
    ----------
    runs : folders of `run`, `score` or `merge`, or of `reasonx-ft judge-eval`
    to : folder of reviewed files
    force : replace a file that is already there
    pictures : draw the best and worst images, and those that changed most from the base, where predictions were
        saved and the dataset's pictures may be published

    Raises
    ------
    DataError
        A run's records are not those of its result.
    UsageError
        No runs, a folder without a result, two runs that would be one file, or a file is there already.
    """
    if not runs:
        raise UsageError("name the runs to add", fix="reasonx-eval leaderboard add results/PROTOCOL@V/MODEL")
    judges = {to / judge_path(one): one for one in (_judge(r) for r in runs if (r / JUDGE_FILE).is_file())}
    read = [_read(r) for r in runs if not (r / JUDGE_FILE).is_file()]
    paths = [to / submission_path(run.submission) for run in read]
    targets = [*judges, *paths]
    if len(set(targets)) != len(read) + sum((r / JUDGE_FILE).is_file() for r in runs):
        raise UsageError("two of the runs are of one model under one protocol", where=str(to))
    there = [p for p in targets if p.exists()]
    if there and not force:
        raise UsageError("there already", where=", ".join(map(str, there[:3])), fix="--force to replace it")
    # drawn before anything is written: a missing prediction must not leave half of the runs added
    pictured = [_pictures(run, read, to, targets) if pictures else ([], "not asked for") for run in read]
    added = []
    for path, run, (drawn, why) in zip(paths, read, pictured, strict=True):
        write_submission(path, sealed(run.submission.model_copy(update={"pictures": drawn})))
        added.append(Submitted(path, len(drawn), why))
    for path, judge in judges.items():
        write_submission(path, sealed(judge))
        added.append(Submitted(path, 0, "a judge has none"))
    return added


def _read(run: Path) -> _Run:
    if not run.is_dir():
        raise UsageError("not a run folder: the records are needed beside the result", where=str(run))
    result = load_result(run)
    verify_run(result, run)
    records = read_records(run / "records.jsonl")
    scored = [r for r in records if r.error is None and r.undefined is None]
    groups = [r.group for r in scored if r.group is not None]
    pooled = result.protocol.rules.get("pool") == "pixel"
    sums = sorted({name for r in scored for name in r.stats}) if pooled else []
    samples = Samples(
        ids=[r.sample_id for r in scored],
        groups=groups if len(groups) == len(scored) and groups else None,
        values={name: [r.metrics.get(name) for r in scored] for name in result.aggregate},
        sums={name: [r.stats[name] for r in scored] for name in sums},
    )
    public = without_folders(result)
    submission = Submission(schema=SUBMISSION_SCHEMA, digest="", result=public, timing=load_timing(run),
                            samples=samples)  # fmt: skip
    check_samples(submission, str(run))
    return _Run(run, submission)


def _judge(run: Path) -> JudgeSubmission:
    result = load_judge_result(run)
    records = run / "records.jsonl"
    if not records.is_file() or sha256_file(records) != result.records_sha256:
        raise DataError("the records are not those of the judge's result", where=str(records),
                        fix="reasonx-ft judge-eval, again")  # fmt: skip
    return JudgeSubmission(schema=SUBMISSION_SCHEMA, digest="", result=without_folders(result))


def without_folders(result: ResultT) -> ResultT:
    """The same result with the folders of absolute paths taken off: names of users and machines are nobody's business.

    ``/home/ann/nets/net.onnx`` becomes ``net.onnx``, in messages of failed samples too; addresses stay.
    """
    return type(result).model_validate(_stripped(result.model_dump(mode="json", by_alias=True)))


def _stripped(value: Any) -> Any:
    if isinstance(value, str):
        return _FOLDERS.sub("", value)
    if isinstance(value, dict):
        return {k: _stripped(v) for k, v in value.items()}
    return [_stripped(v) for v in value] if isinstance(value, list) else value


def _pictures(
    run: _Run, others: Sequence[_Run], to: Path, replaced: Collection[Path]
) -> tuple[list[Picture], str | None]:
    result = run.submission.result
    if not result.dataset.name.startswith(_OWN):
        return [], f"pictures of {result.dataset.name} are not this package's to publish"
    if result.protocol.rules.get("target") == "agreement":
        return [], "the depth beside the normals is not saved"
    if run.saved is None:
        return [], "the run has no saved predictions (--save-predictions)"
    metric = next(iter(result.aggregate))
    if metric not in run.submission.samples.values or len(run.submission.samples.ids) < 2:
        return [], "fewer than two images have a value"
    base = _base(run, others, to, replaced)
    return [_picture(run, base, others, metric, *choice) for choice in _chosen(run.submission, base, metric)], None


def _base(run: _Run, others: Sequence[_Run], to: Path, replaced: Collection[Path]) -> Submission | None:
    """The reviewed result of the model that this one was tuned from: among the runs, or added before and kept."""
    ref, model = run.submission.result.protocol, run.submission.result.model
    if model.base is None:
        return None
    folder = to / f"{ref.name}@{ref.version}"
    before = (read_submission(p) for p in sorted(folder.glob("*.json")) if p not in replaced)
    for one in chain((o.submission for o in others), (b for b in before if isinstance(b, Submission))):
        same = one.result.protocol.digest == ref.digest and one.result.data_sha256 == run.submission.result.data_sha256
        if same and model.base in (one.result.model.name, one.result.model.source):
            return one
    return None


def _chosen(submission: Submission, base: Submission | None, metric: str) -> list[tuple[str, str]]:
    """(why, sample id) of the images to show; ties go to the first of the split."""
    sign = 1.0 if metric_info(metric).higher_is_better else -1.0
    values = {i: sign * v for i, v in zip(submission.samples.ids, submission.samples.values[metric], strict=True)
              if v is not None}  # fmt: skip
    if not values:
        return []
    chosen = [("best", max(values, key=values.__getitem__)), ("worst", min(values, key=values.__getitem__))]
    if base is None:
        return chosen
    before = {i: sign * v for i, v in zip(base.samples.ids, base.samples.values[metric], strict=True) if v is not None}
    change = {i: values[i] - before[i] for i in values if i in before}
    if change:
        up, down = max(change, key=change.__getitem__), min(change, key=change.__getitem__)
        chosen += [("better", up)] * (change[up] > 0) + [("worse", down)] * (change[down] < 0)
    return chosen


def _picture(
    run: _Run, base: Submission | None, others: Sequence[_Run], metric: str, why: str, sample_id: str
) -> Picture:  # fmt: skip
    from reasonx_eval.leaderboard.thumbnails import Shown, draw_strip

    assert run.saved is not None
    result = run.saved.result
    task, dataset = str(result.protocol.rules["task"]), open_dataset(result, dataset=result.dataset.name)
    sample = load_sample(dataset, run.saved, sample_id)
    if task not in sample.targets:  # judged pairs were scored; the map is shown
        sample = dataset.load(sample_id, {task})
    shown = []
    with_base = [o for o in others if base is not None and o.submission is base and why in ("better", "worse")]
    for saved in (one.saved for one in [*with_base, run]):
        if saved is not None:
            prediction = saved.load(sample)
            shown.append(Shown(saved.name, prediction.value, prediction.kind, saved.records[sample_id].alignment))
    strip = draw_strip(sample, shown)

    def value_of(submission: Submission) -> float | None:
        return dict(zip(submission.samples.ids, submission.samples.values[metric], strict=True)).get(sample_id)

    value = value_of(run.submission)
    assert value is not None
    return Picture(sample_id=sample_id, why=why, metric=metric, value=value,
                   base_value=None if base is None else value_of(base), panels=list(strip.panels), webp=strip.webp,
                   width=strip.width, height=strip.height)  # fmt: skip
