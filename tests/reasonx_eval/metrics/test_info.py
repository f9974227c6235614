"""The metric table covers every metric there is, and says what a perfect prediction scores."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reasonx_eval.errors import UsageError
from reasonx_eval.metrics import depth, normals
from reasonx_eval.metrics import table as info
from reasonx_eval.metrics.table import metric_info, whdr_name
from reasonx_eval.types import Alignment


def test_every_metric_is_known():
    others = ["si_mse", "lmse", "psnr", "ssim", "map_rmse", "agreement",
              "consistency_deg", "consistency_rmse"]  # fmt: skip
    assert sorted([*depth.METRICS, *normals.METRICS, *others]) == sorted(info.METRICS)


def test_perfect_is_the_better_bound():
    for name, entry in info.METRICS.items():
        assert metric_info(name) is entry
        assert entry.name == name
        assert entry.perfect == entry.bounds[1 if entry.higher_is_better else 0]
        assert entry.label
        assert entry.description


def test_perfect_predictions_score_the_perfect_value():
    target, valid = np.full((12, 12), 2.0), np.ones((12, 12), bool)
    found = depth.depth_metrics(pred=target, target=target, valid=valid, names=tuple(depth.METRICS),
                                alignment=Alignment("none", "depth", 1.0, 0.0, 144))  # fmt: skip
    vectors = np.full((12, 12, 3), 0.5)
    found |= normals.normal_metrics(pred=vectors, target=vectors, valid=valid)
    assert found == {name: metric_info(name).perfect for name in found}


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
