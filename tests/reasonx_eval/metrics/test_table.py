"""The metric table covers every metric there is, and says what a perfect prediction scores."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reasonx_eval.errors import UsageError
from reasonx_eval.metrics import normals
from reasonx_eval.metrics import table as info
from reasonx_eval.metrics.depth_sums import NAMES
from reasonx_eval.metrics.table import metric_info, whdr_name
from reasonx_eval.types import FIRST, SAME, JudgementTarget


def test_every_metric_is_known():
    others = ["si_mse", "lmse", "psnr", "ssim", "map_rmse", "agreement", "consistency_deg", "consistency_rmse"]
    assert sorted([*NAMES, *normals.NAMES, *others]) == sorted(info.METRICS)


def test_perfect_is_the_better_bound():
    for name, entry in info.METRICS.items():
        assert metric_info(name) is entry
        assert entry.name == name
        assert entry.perfect == entry.bounds[1 if entry.higher_is_better else 0]
        assert entry.label
        assert entry.description


@pytest.mark.parametrize("name", [*NAMES, *normals.NAMES, "si_mse", "lmse", "psnr", "ssim", "map_rmse"])
def test_perfect_predictions_score_the_perfect_value(name):
    entry = metric_info(name)
    truth = np.random.default_rng(0).uniform(0.2, 0.9, (24, 24, 3))
    truth = truth[..., 0] if entry.targets == ("depth",) else truth
    assert entry.function(truth, truth) == pytest.approx(entry.perfect, abs=entry.rounding)
    batch = np.stack([truth, truth])
    if truth.ndim == 3 or entry.targets == ("depth",):
        np.testing.assert_array_equal(entry.function(batch, batch), [entry.function(truth, truth)] * 2)


def test_functions_of_whdr_have_their_threshold_and_judgements():
    points, pairs = np.array([[0.25, 0.5], [0.75, 0.5]]), np.array([[0, 1], [0, 1]])
    judged = JudgementTarget(points, pairs, np.array([FIRST, SAME], np.int8), np.array([3.0, 1.0]))
    pred = np.array([[0.5, 0.5 * 1.15]])
    expected = {"whdr10": 0.25, "whdr20": 0.75, "whdr20_eq": 0.0, "whdr10_ineq": 0.0}
    assert {name: metric_info(name).function(pred, judged) for name in expected} == expected


def test_range_as_text():
    assert metric_info("abs_rel").range == "[0, inf)"
    assert metric_info("delta1").range == "[0, 1]"
    assert metric_info("psnr").range == "(-inf, inf)"


@pytest.mark.parametrize(
    ("name", "label"),
    [("whdr10", "WHDR 10%"), ("whdr20_eq", "WHDR 20% eq"), ("whdr12_5_ineq", "WHDR 12.5% ineq")],
)
def test_whdr_is_a_rule(name, label):
    entry = metric_info(name)
    assert (entry.name, entry.label) == (name, label)
    assert not entry.higher_is_better
    assert entry.bounds == (0, 1)


def test_whdr_names_of_thresholds():
    assert [whdr_name(d) for d in (0.1, 0.2, 0.07, 0.125, 0.29)] == ["whdr10", "whdr20", "whdr7", "whdr12_5", "whdr29"]
    assert whdr_name(0.1, "eq") == "whdr10_eq"
    for delta in (0.1, 0.125):
        assert metric_info(whdr_name(delta, "ineq")).name == whdr_name(delta, "ineq")


@pytest.mark.parametrize("name", ["absrel", "whdr", "whdr10_all", "whdr1000", "delta4", ""])
def test_unknown_names_are_errors_with_the_nearest(name):
    with pytest.raises(UsageError, match="unknown metric"):
        metric_info(name)


def test_infinite_bounds_only_where_meant():
    unlimited = {n for n, m in info.METRICS.items() if m.higher_is_better and math.isinf(m.perfect)}
    assert unlimited == {"psnr"}
