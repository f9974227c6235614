"""Results in the hub's two formats: ``.eval_results/*.yaml`` beside a model, and ``model-index`` in its card.

Both are written by the hub's own library; the signature and the interval travel in the notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reasonx_eval.errors import PartialRun, UsageError
from reasonx_eval.io.results import Value, load_timing
from reasonx_eval.metrics.table import metric_info
from reasonx_eval.report.tables import printable
from reasonx_eval.statistics.runs import Run

#: the hub's names of tasks; it has none for normals, albedo and irradiance
_TASKS = {"depth": "depth-estimation"}


def to_eval_results(
    runs: Sequence[Run], metrics: Sequence[str], *, dataset: str | None, source_url: str | None = None
) -> str:
    """A file for a model repository's folder ``.eval_results``, one entry a metric, as YAML.

    Parameters
    ----------
    runs : of one model
    metrics : which; none takes all that each protocol reports
    dataset : ``owner/name`` of the benchmark dataset on the hub
    source_url : where the evaluation can be read

    Raises
    ------
    UsageError
        No dataset id, runs of several models, or nothing to write.
    PartialRun
        A run that does not have every sample.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    if dataset is None or dataset.count("/") != 1 or not all(dataset.split("/")):
        raise UsageError("the hub's format names a dataset by its id there", fix="--hub-dataset OWNER/NAME")
    _one_model(runs)
    entries = [
        EvalResultEntry(dataset_id=dataset, task_id=f"{run.protocol.name}:{name}", value=value.value, date=_date(run),
                        source_url=source_url, notes=_notes(run, value))
        for run in runs for name, value in _values(run, metrics)
    ]  # fmt: skip
    return _yaml(eval_result_entries_to_yaml(entries))


def to_model_index(runs: Sequence[Run], metrics: Sequence[str], *, dataset: str | None = None) -> str:
    """The head of a model card, README.md, with a model-index.

    Parameters
    ----------
    dataset : id of the dataset on the hub, if it has one; the name here otherwise

    Raises
    ------
    UsageError, PartialRun
        As `to_eval_results`.
    """
    from huggingface_hub.repocard_data import EvalResult, eval_results_to_model_index

    _one_model(runs)
    found = []
    for run in runs:
        for name, value in _values(run, metrics):
            arguments: dict[str, Any] = {"signature": run.signature, "n": value.n}
            if value.ci_low is not None and value.ci_high is not None:
                arguments |= {"ci_low": value.ci_low, "ci_high": value.ci_high, "confidence": 0.95}
            found.append(EvalResult(
                task_type=_TASKS.get(run.protocol.task, "image-to-image"), task_name=run.protocol.task,
                dataset_type=dataset or run.dataset.name, dataset_name=run.dataset.name,
                dataset_config=run.protocol.ref, dataset_split=run.dataset.split,
                metric_type=name, metric_name=metric_info(name).label, metric_value=value.value, metric_args=arguments,
            ))  # fmt: skip
    index = eval_results_to_model_index(runs[0].name, found)
    return f"---\n{_yaml({'model-index': index})}---\n"


def _one_model(runs: Sequence[Run]) -> None:
    names = dict.fromkeys(run.name for run in runs)
    if len(names) != 1:
        raise UsageError(f"the hub's files describe one model, these runs are of {len(names)}: "
                         f"{', '.join(list(names)[:4])}", fix="name the runs of one model")  # fmt: skip
    for run in runs:
        if run.status != "complete":
            raise PartialRun(f"the run is {run.status}: {len(run.scored)} of {run.dataset.n} samples",
                             where=str(run.where), fix="run it on the whole split")  # fmt: skip


def _values(run: Run, metrics: Sequence[str]) -> list[tuple[str, Value]]:
    """Metrics that have a value; an absent one has no form in the hub's files."""
    return [(name, value) for name in metrics or run.protocol.metrics
            if (value := run.aggregate.get(name)) is not None and value.value is not None]  # fmt: skip


def _date(run: Run) -> str | None:
    timing = load_timing(run.where)
    return None if timing is None else timing.finished


def _notes(run: Run, value: Value) -> str:
    ends = "" if value.ci_low is None or value.ci_high is None else (
        f"95% interval [{value.ci_low:.6g}, {value.ci_high:.6g}]; ")  # fmt: skip
    return printable(f"{ends}{run.signature}")


def _yaml(value: Any) -> str:
    from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]  # offered, but not in its __all__

    return str(yaml_dump(value, sort_keys=False, width=1_000_000))
