"""The learning curve of the small judge: the same training on fewer scenes, so that only their number differs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from reasonx_eval.errors import UsageError
from reasonx_eval.models.embedded.card import write_card
from reasonx_ft.judges.evaluation.report import write_curve
from reasonx_ft.judges.tiny_files import WEIGHTS, CurvePoint, JudgeCard, read_card
from reasonx_ft.judges.training.config import JudgeConfig
from reasonx_ft.judges.training.tiny import Progress, train_tiny
from reasonx_ft.training.files import check_same, claim

PICTURE: Final = "curve.png"


def parse_numbers(text: str) -> tuple[int, ...]:
    """ "500,2000" to (500, 2000).

    Raises
    ------
    UsageError
        Anything but positive numbers, each once.
    """
    parts = [p.strip() for p in text.split(",")]
    if not all(p.isascii() and p.isdigit() and int(p) > 0 for p in parts) or len(set(parts)) < len(parts):
        raise UsageError(f"'{text}' is no list of numbers of scenes", where="--curve", fix="--curve 500,2000,8000")
    return tuple(int(p) for p in parts)


def train_curve(
    config: JudgeConfig, scenes: Sequence[int], out: Path, *, workers: int = 2, force: bool = False,
    progress: Progress | None = None,
) -> JudgeCard:  # fmt: skip
    """Train once for each number of scenes of the first source alone, all else alike; the scores go on a card.

    Parameters
    ----------
    out : folder with the finished weights whose card gets the curve, and a picture of it, curve.png; the trainings go
        to OUT/curve-N, and a point whose training is there already is not trained again
    force : train every point again, and replace a curve with other points

    Returns
    -------
    The card with its curve.

    Raises
    ------
    UsageError
        No finished weights in the folder; or their card has a curve with points that this one would lose.
    """
    weights = out / WEIGHTS.name
    card = read_card(weights)
    lost = [str(point.scenes) for point in card.curve if point.scenes not in scenes]
    if lost and not force:
        raise UsageError(f"the curve on the card has points that are not asked for: {', '.join(lost)} scenes",
                         where=str(out), fix="name them too, or --force to replace the curve")  # fmt: skip
    curve = []
    for n in scenes:
        source = config.sources[0].model_copy(update={"scenes": n})
        folder = out / f"curve-{n}"
        made = folder / WEIGHTS.name
        each = config.model_copy(update={"sources": (source,)})
        if force:
            claim(folder, WEIGHTS.stem, force=True)
        if not made.is_file():
            train_tiny(each, folder, workers=workers, progress=progress)
        point = read_card(made)
        check_same(point.training, each.model_dump(mode="json"), made)
        curve.append(CurvePoint(scenes=point.data[0].n, steps=point.training["steps"], scores=point.scores))
    card = card.model_copy(update={"curve": curve})
    write_card(weights, card)
    write_curve(curve, out / PICTURE)
    return card
