"""Logits into calibrated probabilities: a factor for each modality, found on held-out pairs, put into the weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from reasonx_eval.errors import UsageError
from reasonx_eval.metrics.points import pixels
from reasonx_eval.registry import load_dataset
from reasonx_eval.types import FIRST, LEFT_OUT, SAME, PairTarget
from reasonx_ft.judges.tiny_net import JUDGED, SIZE, JudgeNet, answers_of_both, look_both_ways
from reasonx_ft.judges.training.config import Source

_STEPS = 60


def calibrate(network: JudgeNet, source: Source) -> dict[str, dict[str, float]]:
    """Fit, and put into the network's last layer, a factor on each modality's logits, and a shift for albedo.

    A shift would break the antisymmetry of the others. Answers change sides only where albedo's shift moves them.

    Returns
    -------
    modality -> factor (and shift)

    Raises
    ------
    UsageError
        The split has no pairs.
    """
    logits, truth = pair_logits(network, source)
    found: dict[str, dict[str, float]] = {}
    with torch.no_grad():
        last = network.pair[3]
        assert isinstance(last, nn.Linear)
        for k, modality in enumerate(JUDGED):
            decided = ~np.isnan(truth[:, k])
            if not decided.any():
                raise UsageError(f"no pair that is decided about {modality}", where=f"{source.dataset}/{source.split}")
            factor, shift = fit(logits[decided, k], truth[decided, k], shifted=modality == "albedo")
            # a pair's logit is a sum or difference of two outputs
            last.weight[k] *= factor
            last.bias[k] = last.bias[k] * factor + shift / 2
            found[modality] = {"factor": factor} | ({"shift": shift} if modality == "albedo" else {})
    return found


def fit(logits: NDArray[np.float64], truth: NDArray[np.float64], *, shifted: bool) -> tuple[float, float]:
    """Factor > 0 and shift (0 unless `shifted`) that make the logits [n] most likely for truths [n] of 0 or 1.

    Newton's method on the logistic likelihood; a very weak prior keeps separable answers finite.
    """
    columns = np.stack([logits, np.ones_like(logits)], axis=1)[:, : 2 if shifted else 1]
    prior = np.array([1.0, 0.0])[: columns.shape[1]]
    weight = prior.copy()
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(columns @ weight, -30, 30)))
        slope = columns.T @ (p - truth) + 1e-3 * (weight - prior)
        curve = (columns * (p * (1 - p))[:, None]).T @ columns + 1e-3 * np.eye(len(weight))
        step = np.linalg.solve(curve, slope)
        # no factor below a tenth of the last: a first step from far away may overshoot
        weight = np.concatenate([[max(weight[0] - step[0], weight[0] / 10)], weight[1:] - step[1:]])
    return float(weight[0]), float(weight[1]) if shifted else 0.0


def pair_logits(network: JudgeNet, source: Source) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logits [n, 4] of all pairs of a split, and what is true: 1 for FIRST or SAME, 0, or NaN where a pair is left out.

    Raises
    ------
    UsageError
        The split has no pairs.
    """
    dataset = load_dataset(source.dataset, split=source.split)
    if "pairs" not in dataset.targets:
        raise UsageError("no point pairs with known answers in it", where=f"{source.dataset}/{source.split}")
    training = network.training
    network.eval()
    logits, truth = [], []
    with torch.inference_mode():
        for sample_id in list(dataset.ids)[: source.scenes]:
            sample = dataset.load(sample_id, ("pairs",))
            target = sample.targets["pairs"]
            assert isinstance(target, PairTarget)
            rows, columns = pixels(points=target.points, height=SIZE[0], width=SIZE[1])
            points = torch.from_numpy(np.stack([columns, rows], axis=-1)[target.pairs])
            photo = torch.from_numpy(sample.image).permute(2, 0, 1)[None].float() / 255
            logits.append(answers_of_both(network, look_both_ways(network, photo), points[None])[0].double().numpy())
            truth.append(truths(target.relation))
    network.train(training)
    return np.concatenate(logits), np.concatenate(truth)


def truths(relation: Mapping[str, NDArray[np.int8]]) -> NDArray[np.float64]:
    """1 where the first is closer, faces more, has more light, or both are the same; 0; NaN where left out; [J, 4]."""
    return np.stack([np.where(relation[m] == LEFT_OUT, np.nan, relation[m] == (SAME if m == "albedo" else FIRST))
                     for m in JUDGED], axis=-1)  # fmt: skip
