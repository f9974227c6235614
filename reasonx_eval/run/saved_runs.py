"""Finished runs whose predictions were kept, and the data they were scored on: what gallery and sensitivity read.

Everything is checked against the result before it is used: the records, the ids of the split, and for each sample
the digests of ground truth and prediction. A picture or a number never comes from other files than it says.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import DataError, NotComparable, UsageError
from reasonx_eval.io.digests import algorithm_of, array_digest
from reasonx_eval.io.results import Result, load_result, result_path
from reasonx_eval.models.loading.options import parse_options
from reasonx_eval.models.saved.predictions import Saved
from reasonx_eval.protocols.protocol import ANY, Protocol
from reasonx_eval.registry import load_dataset
from reasonx_eval.statistics.runs import Run, load_run
from reasonx_eval.types import Prediction, Record, Sample

#: recorded option -> how it is written on the command line
_FLAGS: Mapping[str, str] = {"datasets": "--dataset", "protocols": "--protocol", "options": "-O",
                             "dataset_options": "--dataset-option"}  # fmt: skip


@dataclass(frozen=True)
class SavedRun:
    """A finished run with its saved predictions.

    folder : the run's folder
    run : the run as it is compared: verified, with its records
    predictions : reads the saved predictions
    """

    folder: Path
    result: Result
    run: Run
    predictions: Saved

    @property
    def protocol(self) -> Protocol:
        """The rules in the result, whether or not this installation knows them."""
        return self.run.protocol

    @cached_property
    def records(self) -> Mapping[str, Record]:
        """Sample id -> record, in the order of the split."""
        return {r.sample_id: r for r in self.run.records}

    @property
    def name(self) -> str:
        return self.result.model.name

    def load(self, sample: Sample) -> Prediction:
        """The prediction of a sample, the very one that was scored.

        Raises
        ------
        SampleError
            No file, or a damaged one.
        DataError
            Another prediction than the record's.
        """
        kind = self.result.model.kind
        prediction = self.predictions.predict([sample], kind, 0)[0]  # type: ignore[arg-type]  # a kind, as stored
        stored = self.records[sample.id].prediction
        found = [array_digest(p, algorithm_of(stored)) for p in (prediction, _halved(prediction))]
        if stored not in found:
            raise DataError("the saved prediction is not the one that was scored: it was replaced or edited",
                            where=f"{self.folder}: sample {sample.id}",
                            fix=rerun_command(self.folder, self.result))  # fmt: skip
        return prediction


def _halved(prediction: Prediction) -> Prediction:
    """The float16 values that a model gave: predictions are saved in at least float32."""
    with np.errstate(over="ignore"):
        return replace(prediction, value=prediction.value.astype(np.float16))


def open_run(path: Path) -> SavedRun:
    """A run by its folder or result.json.

    Raises
    ------
    UsageError
        Its predictions were not saved; gives the command that saves them.
    DataError, NotComparable
        As `paired.load_run`: records that are not those of the result, a result of a newer version.
    """
    run = load_run(path)
    result = load_result(path)
    folder = result_path(path).parent
    if run.protocol.target == "agreement":
        raise UsageError("the depth beside the normals is not saved, so this protocol can't be scored again",
                         where=str(folder))  # fmt: skip
    return SavedRun(folder, result, run, _predictions(folder, result))


def _predictions(folder: Path, result: Result) -> Saved:
    """Those kept in the run's folder, or the folder that `score` read."""
    kept = folder / "predictions"
    if kept.is_dir():
        return Saved(kept)
    source = result.model.source.removeprefix("preds:")
    if source != result.model.source and Path(source).is_dir():
        # the options of the model itself, and its maker's statements, are no rules for reading files
        rules = {k: v for k, v in result.model.options.items() if k not in ("model", "stated_weights_sha256", "seed")}
        return Saved(source, **parse_options(Saved, rules, where=source))
    raise UsageError("its predictions were not saved", where=str(folder), fix=rerun_command(folder, result))


def rerun_command(folder: Path, result: Result) -> str:
    """The command that makes this run again and keeps its predictions."""
    passed = dict(result.provenance.passed)
    if not passed:
        return "run again with --save-predictions --force"
    folder_scored = passed.pop("predictions", None)
    words = ["reasonx-eval", *(["run"] if folder_scored is None else ["score", str(folder_scored)])]
    for name, value in passed.items():
        words += _flag(name, value)
    ref = f"{result.protocol.name}@{result.protocol.version}"
    if len(folder.parts) > 3 and "/".join(folder.parts[-3:-1]) == ref and folder.parts[:-3] != ("results",):
        words += ["--out", str(Path(*folder.parts[:-3]))]
    return shlex.join([*words, "--save-predictions", "--force"])


def _flag(name: str, value: Any) -> list[str]:
    flag = _FLAGS.get(name, "--" + name.replace("_", "-"))
    if isinstance(value, bool):
        return [flag] if value else []
    values = value if isinstance(value, list) else [value]
    return [word for v in values for word in (flag, str(v))]


def open_dataset(
    result: Result, *, dataset: str | None = None, root: Path | None = None, rules: Protocol | None = None
) -> Dataset:
    """The data a result was measured on.

    Parameters
    ----------
    dataset, root : where it is, if not where the run found it
    rules : a protocol whose split and choice of files take the place of the run's

    Raises
    ------
    UsageError
        The result doesn't say which dataset it was (a run that was not made by the command line).
    NotComparable
        The split has other ids than the run's.
    """
    passed = result.provenance.passed
    name = dataset or _dataset_name(result)
    stated = passed.get("root")
    where = root or (Path(stated) if isinstance(stated, str) else None)
    split, options = result.dataset.split, dict(result.dataset.options)
    if rules is not None and rules.dataset != ANY:
        split, options = rules.split, {**options, **rules.dataset_options}
    opened = load_dataset(name, where, split, options)
    same = (split, options) == (result.dataset.split, result.dataset.options)
    if same and opened.ids_digest != result.dataset.ids_sha256:
        raise NotComparable(f"split '{opened.split}' has other samples ({len(opened)}) than the run's "
                            f"({result.dataset.n})", where=opened.name, fix="--root DIR of the run's data")  # fmt: skip
    return opened


def _dataset_name(result: Result) -> str:
    named = result.protocol.rules.get("dataset")
    if isinstance(named, str) and named != ANY:
        return named
    stated = result.provenance.passed.get("datasets")
    if isinstance(stated, str) and "," not in stated:
        return stated
    raise UsageError(f"the result does not say where '{result.dataset.name}' is", where=result.signature,
                     fix="--dataset NAME-or-FOLDER")  # fmt: skip


def load_sample(dataset: Dataset, run: SavedRun, sample_id: str) -> Sample:
    """A sample with the target of the run's protocol, the very one it was scored against.

    Raises
    ------
    SampleError
        It can't be read.
    NotComparable
        Other ground truth than the record's.
    """
    sample = dataset.load(sample_id, {run.protocol.reads})
    target = sample.targets.get(run.protocol.reads)
    stored = run.records[sample_id].data
    if target is None or array_digest(target, algorithm_of(stored)) != stored:
        raise NotComparable("the ground truth is not the one that the run was scored against",
                            where=f"{dataset.name}: {sample_id}", fix="--root DIR of the run's data")  # fmt: skip
    return sample
