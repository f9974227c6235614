"""The whole way on what ships with the package: photos without labels, a judge, tuning, and an honest comparison.

`tiny` knows clean synthetic rooms. Wild scenes (other cameras, textures, lights) are rendered for their pictures alone;
the small judge, which never saw one of them either, answers questions about pairs of points; tuning follows its
answers; and base and tuned network are evaluated on wild scenes that neither tuning nor judge has seen, and on the
domain that may be forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from reasonx_eval.errors import UsageError
from reasonx_eval.io.results import run_folder
from reasonx_eval.io.selection import Selection
from reasonx_eval.leaderboard.generate import PAGE, generate, write
from reasonx_eval.leaderboard.submit import submit
from reasonx_eval.models.embedded.tuned import CARD_NAME
from reasonx_eval.models.loading.load import load_model
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.registry import load_dataset
from reasonx_eval.run.loop import RunOptions, run
from reasonx_eval.statistics.comparison import Comparison, compare_folders
from reasonx_ft.judges.api import annotate
from reasonx_ft.tuning.checkpoint import MODEL, read_run
from reasonx_ft.tuning.data import Progress
from reasonx_ft.tuning.settings import read_settings
from reasonx_ft.tuning.state import Sources
from reasonx_ft.tuning.train import tune

BASE: Final = "tiny"
PHOTOS: Final = "dataset:scenes-wild/train"
JUDGE: Final = "tiny"
#: protocols of the domain that is tuned for, and of the one that the base comes from
PROTOCOLS: Final = tuple(p.format(domain) for domain in ("scenes-wild", "scenes-synthetic")
                         for p in ("albedo/{}-whdr", "depth/{}", "normals/{}", "irradiance/{}"))  # fmt: skip
#: folders that a demo makes
PARTS: Final = ("judgements", "tuning", "results", "leaderboard")


@dataclass(frozen=True)
class Size:
    """How much is done.

    photos, pairs : that are annotated, and pairs of points of each
    steps : of tuning; settings : anything else of its configuration
    scenes : that are evaluated of each domain; None is all
    """

    photos: int = 400
    pairs: int = 240
    steps: int = 300
    scenes: int | None = None
    settings: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Demo:
    """What came out: comparisons of the tuned network with its base, by protocol; folder of the model; the page."""

    comparisons: Sequence[Comparison]
    model: Path
    page: Path


def run_demo(out: Path, size: Size, *, seed: int = 0, progress: Progress | None = None) -> Demo:
    """Do all of it into a folder; what is there already is not done again.

    Raises
    ------
    UsageError
        The folder holds the demo of another size or seed.
    """
    say = progress or (lambda _stage, _done, _total: None)
    _annotate(out / "judgements", size, say)
    model = _tune(out, size, seed, progress)
    runs = []
    for k, (name, part) in enumerate(((BASE, "base"), (str(model), "tuned"))):
        say("evaluate", k, 2)
        runs.append(_evaluate(name, out / "results" / part, size.scenes))
    say("evaluate", 2, 2)
    comparisons, _ = compare_folders([out / "results/base", out / "results/tuned"])
    reviewed = out / "leaderboard/results"
    submit([run for part in runs for run in part], reviewed, force=True, pictures=False)
    write(generate(reviewed, reviewed.parent))
    return Demo(comparisons, model, reviewed.parent / PAGE)


def _annotate(store: Path, size: Size, say: Progress) -> None:
    """Ask about photos; the datasets' maps stay unread."""
    annotate(PHOTOS, JUDGE, store, limit=size.photos, pairs=size.pairs,
             progress=lambda done, total, _failed: say("annotate", done, total))  # fmt: skip


def _tune(out: Path, size: Size, seed: int, progress: Progress | None) -> Path:
    config = read_settings(base=BASE, method="grpo", flags={
        "seed": seed, "data.limit": size.photos, "optimiser.steps": size.steps, **dict(size.settings),
    })  # fmt: skip
    folder = out / "tuning"
    if not (folder / MODEL / CARD_NAME).exists():
        return tune(Sources(BASE, PHOTOS, out / "judgements"), config, folder, progress=progress).folder
    if read_run(folder).config.deciding() != config.deciding():
        raise UsageError("it holds a demo of another size or seed", where=str(out), fix="another --out, or --force")
    return folder / MODEL


def _evaluate(name: str, out: Path, scenes: int | None) -> list[Path]:
    """Run folders of a model under all protocols; finished runs are kept."""
    model = load_model(name)
    found = []
    try:
        for protocol in map(get_protocol, PROTOCOLS):
            found.append(run_folder(out, protocol.ref, model.info.name, None))
            dataset = load_dataset(protocol.dataset)
            run(model, dataset, protocol, found[-1], RunOptions(selection=Selection(limit=scenes)))
    finally:
        model.close()
    return found
