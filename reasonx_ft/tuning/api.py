"""`reasonx_ft.tune`: what the command of the same name calls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reasonx_ft.tuning import train
from reasonx_ft.tuning.checkpoint import RUN, claim_run, read_run
from reasonx_ft.tuning.config import TuneConfig
from reasonx_ft.tuning.data import Progress
from reasonx_ft.tuning.settings import read_settings
from reasonx_ft.tuning.state import Sources
from reasonx_ft.tuning.train import TrainResult


def tune(
    base: str | Path, *, photos: str | Path, judgements: str | Path, out: str | Path, preset: str = "default",
    method: str | None = None, config: str | Path | TuneConfig | None = None,
    settings: Mapping[str, Any] | None = None, name: str | None = None, root: str | Path | None = None,
    dataset_options: Mapping[str, Any] | None = None, stop_after: int | None = None, force: bool = False,
    progress: Progress | None = None,
) -> TrainResult:  # fmt: skip
    """Make a predictor better on photos that nobody labelled, by a judge's stored answers.

    The same call goes on after an interrupt, to the same weights.

    Parameters
    ----------
    base : tiny, tiny-flow, a tuned checkpoint, or a folder or hub id of a depth network or a Marigold pipeline
    photos : folder of the photos that were judged, or ``dataset:NAME[/SPLIT]``; root, dataset_options : of the dataset
    judgements : the store that `annotate` wrote
    out : folder of the run; gets log.jsonl, checkpoints/ and, at the end, model/, which ``reasonx-eval run`` takes
    preset : default; diffusion, for Marigold-type pipelines; paper, the published recipe
    method : grpo, ranking or expected alone; default: the preset's mixture
    config : TOML with any key of the configuration, or the whole configuration, which then alone counts
    settings : single keys, e.g. ``{"objective.kl": 0.05, "optimiser.steps": 200}``
    name : of the tuned model, in tables
    stop_after : save after that many steps and stop
    force : start anew: replace what is in the folder
    progress : called often, with (stage, done, total)

    Raises
    ------
    UsageError
        An unknown name or key, a value out of range, a finished run in the folder, nothing judged.
    DataError
        A checkpoint that can't be read.
    PartialRun
        Interrupted; a checkpoint was saved.

    Examples
    --------
    >>> import tempfile
    >>> from reasonx_ft import annotate
    >>> quick = {"optimiser.steps": 1, "objective.rehearsal": 0, "guard.unrewarded_metrics": [], "watch.export": "last",
    ...          "data.limit": 3, "data.held_out": 0.4}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     summary = annotate("dataset:scenes-wild/train", "tiny", folder + "/answers", limit=3, pairs=10)
    ...     result = tune("tiny", photos="dataset:scenes-wild/train", judgements=folder + "/answers",
    ...                   out=folder + "/run", method="grpo", settings=quick)
    >>> result.card.name, result.step
    ('tiny-grpo', 1)
    """
    claim_run(Path(out), force=force)
    if not isinstance(config, TuneConfig):
        begun = read_run(Path(out)).config if (Path(out) / RUN).is_file() else None
        config = read_settings(preset=preset, method=method, base=str(base), flags=settings, begun=begun,
                               file=None if config is None else Path(config))  # fmt: skip
    sources = Sources(str(base), str(photos), Path(judgements), None if root is None else Path(root),
                      dict(dataset_options or {}))  # fmt: skip
    return train.tune(sources, config, Path(out), name=name, stop_after=stop_after, progress=progress)
