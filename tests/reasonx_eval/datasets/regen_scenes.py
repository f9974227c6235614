"""Rewrite tests/golden/scenes.json: ``python -m tests.reasonx_eval.datasets.regen_scenes``, from the repository's root.

Only a deliberate change of the scenes may change it; it makes other data sets, so every result on them is void.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from reasonx_eval.datasets.scenes.dataset import ScenesBroad, ScenesSynthetic, ScenesWild, _Scenes
from reasonx_eval.io.files import write_json
from reasonx_eval.types import DepthTarget, JudgementTarget, MapTarget, NormalTarget, PairTarget, Sample

GOLDEN = Path(__file__).parents[2] / "golden" / "scenes.json"
CASES: tuple[tuple[type[_Scenes], str, int, str], ...] = (
    (ScenesSynthetic, "test", 0, "96x128"), (ScenesSynthetic, "train", 3999, "96x128"),
    (ScenesWild, "test", 0, "96x128"), (ScenesWild, "test", 17, "96x128"), (ScenesWild, "val", 5, "50x75"),
    (ScenesBroad, "test", 3, "96x128"), (ScenesBroad, "train", 7999, "96x128"), (ScenesBroad, "val", 1, "120x160"),
)  # fmt: skip


def arrays(sample: Sample) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a sample whose bytes are promised."""
    found: dict[str, np.ndarray[Any, Any]] = {"image": sample.image}
    for name, target in sample.targets.items():
        if isinstance(target, DepthTarget):
            assert target.intrinsics is not None
            found |= {name: target.depth, "intrinsics": target.intrinsics}
        elif isinstance(target, NormalTarget):
            found[name] = target.normal
        elif isinstance(target, MapTarget):
            found[name] = target.value
        elif isinstance(target, JudgementTarget):
            found |= {"judgements.points": target.points, "judgements.pairs": target.pairs,
                      "judgements.darker": target.darker, "judgements.weight": target.weight}  # fmt: skip
        elif isinstance(target, PairTarget):
            found |= {"pairs.points": target.points, "pairs.pairs": target.pairs}
            found |= {f"pairs.{m}": r for m, r in target.relation.items()}
    return found


def digests(sample: Sample) -> dict[str, str]:
    """sha256 of the little-endian bytes of each array."""
    return {
        name: hashlib.sha256(np.ascontiguousarray(a, dtype=a.dtype.newbyteorder("<")).tobytes()).hexdigest()
        for name, a in sorted(arrays(sample).items())
    }


def current() -> dict[str, dict[str, str]]:
    """Digests of all cases as the code renders them now."""
    found = {}
    for kind, split, index, size in CASES:
        dataset = kind(None, split, {"size": size})
        sample_id = dataset.ids[index]
        found[f"{sample_id} {size}"] = digests(dataset.load(sample_id))
    return found


if __name__ == "__main__":
    write_json(GOLDEN, current())
