"""Tokens of a frozen backbone for every photo of a training set: computed once, and kept.

A pass through the backbone costs several times what a step of the head does, and the backbone never changes. Scenes
that are rendered are rendered again at the size that the backbone sees, so that it sees details and no magnified
pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.models.embedded.dino import Backbone, views
from reasonx_eval.models.loading.runtime import to_tensor
from reasonx_eval.registry import load_dataset

#: photos that go through the backbone in one pass
_BATCH = 8


def tokens_of(
    dataset: Dataset, ids: Sequence[str], backbone: Backbone, tokens: int, progress: Callable[[int, int], None]
) -> NDArray[np.float16]:
    """Tokens of the photos of samples.

    Parameters
    ----------
    tokens : on the long side of a photo

    Returns
    -------
    float16 [N, L, 1 + h * w, C], as `Backbone` gives them
    """
    large = _at_size_of(dataset, ids[0], backbone, tokens)
    found: NDArray[np.float16] | None = None
    for start in range(0, len(ids), _BATCH):
        photos = [views(large.load(i, want=()).image, tokens, backbone.patch)[1] for i in ids[start : start + _BATCH]]
        made = backbone(torch.stack([to_tensor(photo, torch.device("cpu")) for photo in photos])).numpy()
        if found is None:
            found = np.empty((len(ids), *made.shape[1:]), np.float16)
        found[start : start + len(made)] = made
        progress(start + len(made), len(ids))
    assert found is not None  # a data set without samples was refused before
    return found


def _at_size_of(dataset: Dataset, sample_id: str, backbone: Backbone, tokens: int) -> Dataset:
    """The same samples at the size that the backbone sees, where the data set can be asked for one."""
    if "size" not in dataset.info.options:
        return dataset
    height, width = views(dataset.load(sample_id, want=()).image, tokens, backbone.patch)[1].shape[:2]
    return load_dataset(dataset.info.name, split=dataset.split, options={**dataset.options, "size":
    f"{height}x{width}"})
