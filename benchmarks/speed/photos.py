"""Photos that no camera took, and all that can be asked about pairs of their points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reasonx_eval.io.seeding import rng
from reasonx_ft.annotation.questions import MODALITIES
from reasonx_ft.types import ORDERS, Order, Photo, QuestionBatch, photo_digest


def photo(k: int, size: tuple[int, int], *, noise: int = 0) -> Photo:
    """Photo number k of (height, width): smooth, with noise of up to so many steps, which files of photos hold too."""
    draw = rng(0, "photo", str(k))
    coarse = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    image = np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC))
    if noise:
        rough = image.astype(np.int64) + draw.integers(-noise, noise + 1, image.shape)
        image = np.clip(rough, 0, 255).astype(np.uint8)
    return Photo(f"{k:04d}.png", image, photo_digest(image))


def every_question(about: Photo, pairs: NDArray[np.int16], orders: tuple[Order, ...] = ORDERS) -> QuestionBatch:
    """Pair by pair, order by order, the questions of all modalities.

    Parameters
    ----------
    pairs : int16 [P, 2, 2], canonical
    """
    pair, order, modality = np.meshgrid(np.arange(len(pairs)), [ORDERS.index(o) for o in orders],
                                        np.arange(len(MODALITIES)), indexing="ij")  # fmt: skip
    return QuestionBatch(about, pairs, MODALITIES, pair.ravel().astype(np.int32), modality.ravel().astype(np.int8),
                 order.ravel().astype(np.int8))  # fmt: skip
