"""Fields that stored files had under other names: the one table that whatever reads such a file looks into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: kind of file -> old name of a field -> today's name
OLD_NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    "tuning": {
        "images": "batch_size", "at_once": "modalities_per_step", "mirror": "flip", "group": "num_generations",
        "inner": "num_iterations", "scale": "scale_rewards", "floor": "std_floor", "same_distance": "albedo_threshold",
        "same_space": "albedo_space", "rehearsal_images": "rehearsal_batch_size", "clip": "max_grad_norm",
        "warmup": "warmup_steps", "micro": "microbatch", "level": "noise_level", "away": "normals_away",
        "canaries": "unrewarded_metrics",
    },
}  # fmt: skip
#: kind of file -> key that is gone -> the one value that it may still have, which is what happens now
RETIRED: Final[Mapping[str, Mapping[str, Any]]] = {
    "tuning": {
        "min_distance": 0.0, "tie": 0.0, "correction": False, "schedule": "cosine", "betas": [0.9, 0.999],
        "tensorboard": False, "cell": 8, "shared_start": False, "step_weighting": "none",
    },
}  # fmt: skip


def current_names(kind: str, document: Any) -> Any:
    """A document with today's names of its fields, at any depth; one that has no old name is given back as it is.

    Examples
    --------
    >>> current_names("result", {"status": "complete"})
    {'status': 'complete'}
    """
    names = OLD_NAMES.get(kind)
    return _renamed(document, names) if names else document


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(inner, names) for key, inner in value.items()}
    return [_renamed(inner, names) for inner in value] if isinstance(value, list) else value
