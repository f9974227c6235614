"""The protocol schema: what it accepts, what it refuses and how it says so, signatures and digests."""

from __future__ import annotations

import json
import math

import pytest

from reasonx_eval.errors import UsageError
from reasonx_eval.protocols import protocol as module
from reasonx_eval.protocols.protocol import (
    AlignSpec,
    align_space,
    get_protocol,
    metric_names,
    parse_protocol,
)

DEPTH = """
name = "depth/mine"
version = 1
title = "Mine"
task = "depth"
target = "depth"
dataset = "any"
split = "all"
accepts = ["depth_affine", "disparity_affine"]
metrics = ["abs_rel", "delta1"]

[depth]
range_m = [0.001, 10.0]
crop = "eigen"
clip_m = [0.001, 10.0]

[depth.align]
mode = "affine"
"""

NORMALS = """
name = "normals/mine"
version = 3
title = "Mine"
task = "normals"
target = "normals"
dataset = "any"
split = "all"
accepts = ["normal"]
metrics = ["mean_deg"]
pool = "pixel"

[normals]
min_norm = 0.5
max_norm = 1.5
"""

WHDR = """
name = "albedo/mine"
version = 1
title = "Mine"
task = "albedo"
target = "judgements"
dataset = "any"
split = "all"
accepts = ["albedo_linear"]
metrics = ["whdr10", "whdr12_5", "whdr10_eq"]

[whdr]
deltas = [0.1, 0.125]
"""


def changed(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} is not once in the example"
    return text.replace(old, new)


def refused(text: str) -> str:
    with pytest.raises(UsageError) as error:
        parse_protocol(text, "mine.toml")
    assert error.value.where == "mine.toml"
    return error.value.what


def test_a_minimal_file_gets_documented_defaults():
    p = parse_protocol(DEPTH, "mine.toml")
    assert p.ref == "depth/mine@1"
    assert p.depth is not None
    assert p.depth.range_m == (0.001, 10.0)
    assert (p.depth.align.space, p.depth.align.subsample, p.depth.align.disparity_floor) == ("own", "all", 1e-3)
    assert (p.depth.floor_m, p.depth.resize, p.pool, p.n) == (1e-6, "bilinear", "image", None)


@pytest.mark.parametrize(
    ("text", "old", "new", "say"),
    [
        (DEPTH, 'crop = "eigen"', 'crops = "eigen"', ["depth.crops", "unknown key", "did you mean 'crop'"]),
        (DEPTH, 'split = "all"', 'split = "all"\nspit = "x"', ["spit", "unknown key", "did you mean 'split'"]),
        (DEPTH, 'mode = "affine"', 'mode = "affine"\nsubsamples = "all"', ["depth.align.subsamples", "'subsample'"]),
        (DEPTH, 'mode = "affine"', 'mode = "afine"', ["depth.align.mode", "'affine'"]),
        (DEPTH, 'mode = "affine"', "", ["depth.align.mode", "required"]),
        (DEPTH, "version = 1", 'version = "1"', ["version", "integer"]),
        (DEPTH, "version = 1", "version = 0", ["version"]),
        (DEPTH, "version = 1", "version = 1\nn = true", ["n:", "integer"]),
        (DEPTH, "range_m = [0.001, 10.0]", "range_m = [-1.0, 10.0]", ["depth.range_m", "-1.0"]),
        (DEPTH, "range_m = [0.001, 10.0]", "range_m = [10.0, 0.001]", ["depth.range_m", "min < max"]),
        (DEPTH, "range_m = [0.001, 10.0]", "range_m = [nan, 10.0]", ["depth.range_m"]),
        (DEPTH, "range_m = [0.001, 10.0]", "range_m = [0.001]", ["depth.range_m"]),
        (DEPTH, "range_m = [0.001, 10.0]", 'range_m = ["0.001", 10.0]', ["depth.range_m.0", "number"]),
        (DEPTH, "clip_m = [0.001, 10.0]", "clip_m = [5.0, 5.0]", ["depth.clip_m", "min < max"]),
        (DEPTH, '"abs_rel", "delta1"', '"abs_rel", "detla1"', ["detla1", "did you mean 'delta1'"]),
        (DEPTH, '"abs_rel", "delta1"', '"abs_rel", "whdr10"', ["whdr10", "target 'depth'"]),
        (DEPTH, '"abs_rel", "delta1"', '"abs_rel", "abs_rel"', ["twice"]),
        (DEPTH, '["abs_rel", "delta1"]', "[]", ["metrics"]),
        (DEPTH, '"depth_affine", "disparity_affine"', '"depth_affine", "normal"', ["normal", "task 'depth'"]),
        (DEPTH, '"depth_affine", "disparity_affine"', '"depth_afine"', ["accepts.0"]),
        (DEPTH, 'name = "depth/mine"', 'name = "Depth mine"', ["name"]),
        (DEPTH, 'target = "depth"', 'target = "albedo"', ["[map]", "depth"]),
        (DEPTH, "version = 1", 'version = 1\npool = "pixel"', ["pool", "normals only"]),
        (NORMALS, "min_norm = 0.5", "min_norm = -0.5", ["normals.min_norm"]),
        (NORMALS, "min_norm = 0.5", "round_per_image = 4", ["round_per_image", "pixel"]),
        (WHDR, "deltas = [0.1, 0.125]", "deltas = [0.125]", ["whdr10", "whdr12_5"]),
        (WHDR, "deltas = [0.1, 0.125]", "deltas = [0.1, 0.125, 12.0]", ["whdr.deltas.2"]),
        (WHDR, "deltas = [0.1, 0.125]", "deltas = []", ["whdr.deltas"]),
        (WHDR, "[whdr]", "[whdr", ["not valid TOML"]),
    ],
)
def test_a_bad_file_names_the_fault(text, old, new, say):
    message = refused(changed(text, old, new))
    for part in say:
        assert part in message


def test_every_fault_is_named_at_once():
    message = refused(changed(changed(DEPTH, "version = 1", 'version = "1"'), 'crop = "eigen"', 'crop = "egen"'))
    assert "version" in message
    assert "depth.crop" in message


def test_two_tables_are_one_too_many():
    message = refused(DEPTH + "\n[normals]\nmin_norm = 0.0\n")
    assert "'depth', 'normals'" in message


@pytest.mark.parametrize(
    ("target", "some"),
    [
        ("depth", "silog"),
        ("normals", "within_11_25"),
        ("albedo", "si_mse"),
        ("irradiance", "psnr"),
        ("pairs", "agreement"),
    ],
)
def test_metric_names_per_target(target, some):
    assert some in metric_names(target)


def test_whdr_metric_names_follow_the_thresholds():
    p = parse_protocol(WHDR, "mine.toml")
    ten, more = ("whdr10", "whdr10_eq", "whdr10_ineq"), ("whdr12_5", "whdr12_5_eq", "whdr12_5_ineq")
    assert metric_names(p.target, p.whdr) == ten + more


def test_own_space_follows_the_kind():
    own = AlignSpec(mode="affine", disparity_floor=1e-3)
    assert align_space(own, "disparity_affine") == "disparity"
    assert {align_space(own, k) for k in ("depth_metric", "depth_scale", "depth_affine")} == {"depth"}
    assert align_space(AlignSpec(mode="affine", space="disparity", disparity_floor=1e-3), "depth_affine") == "disparity"


def test_the_signature_states_rules_kind_and_counts(monkeypatch):
    monkeypatch.setattr(module, "__version__", "9.9.9")
    p = parse_protocol(DEPTH, "mine.toml")
    rules = "crop:eigen|range:0.001-10m|resize:pred->gt|pool:image|reasonx:9.9.9"
    full = p.signature(kind="depth_affine", n=5, data="flat")
    assert full == f"depth/mine@1|data:flat|n:5|acc:depth_affine|align:affine.depth|{rules}"
    part = p.signature(kind="disparity_affine", n=3, n_total=5)
    assert part == f"depth/mine@1|n:3/5|acc:disparity_affine|align:affine.disparity|{rules}"
    n = parse_protocol(NORMALS, "mine.toml").signature(kind="normal", n=2)
    assert n == "normals/mine@3|n:2|acc:normal|norm:0.5-1.5|resize:pred->gt|pool:pixel|reasonx:9.9.9"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version = 1", "version = 2"),
        ('split = "all"', 'split = "test"'),
        ('dataset = "any"', 'dataset = "any"\ndataset_options = { depth = "raw" }'),
        ('crop = "eigen"', 'crop = "none"'),
        ("range_m = [0.001, 10.0]", "range_m = [0.001, 80.0]"),
        ("clip_m = [0.001, 10.0]", ""),
        ('mode = "affine"', 'mode = "scale"'),
        ('mode = "affine"', 'mode = "affine"\nspace = "disparity"'),
        ('mode = "affine"', 'mode = "affine"\ndisparity_floor = 0.01'),
        ('"abs_rel", "delta1"', '"abs_rel"'),
        ('["depth_affine", "disparity_affine"]', '["depth_affine"]'),
    ],
)
def test_every_rule_is_in_the_digest(old, new):
    assert parse_protocol(changed(DEPTH, old, new), "a").digest != parse_protocol(DEPTH, "b").digest


def test_prose_is_not_in_the_digest():
    other = 'title = "Other"\nnotes = "x"\nsources = ["y"]\ncompat = "z"\ndefault_for = ["flat"]'
    prose = changed(DEPTH, 'title = "Mine"', other)
    assert parse_protocol(prose, "a").digest == parse_protocol(DEPTH, "b").digest


def test_rules_are_json_even_with_an_open_range():
    p = parse_protocol(changed(DEPTH, "range_m = [0.001, 10.0]", "range_m = [0.001, inf]"), "mine.toml")
    assert p.depth is not None
    assert p.depth.range_m == (0.001, math.inf)
    assert json.loads(json.dumps(p.rules, allow_nan=False))["depth"]["range_m"] == [0.001, "inf"]


def test_lookup_by_name_version_and_mistake():
    assert get_protocol("depth/nyuv2").ref == get_protocol("depth/nyuv2@1").ref == "depth/nyuv2@1"
    with pytest.raises(UsageError, match="did you mean 'depth/nyuv2'"):
        get_protocol("depth/nyu2")
    with pytest.raises(UsageError, match="depth/nyuv2@7"):
        get_protocol("depth/nyuv2@7")


def test_the_newest_version_wins(monkeypatch):
    old = parse_protocol(DEPTH, "a")
    new = parse_protocol(changed(DEPTH, "version = 1", "version = 10"), "b")
    mid = parse_protocol(changed(DEPTH, "version = 1", "version = 9"), "c")
    monkeypatch.setattr(module, "all_protocols", lambda: {p.ref: p for p in (mid, new, old)})
    assert get_protocol("depth/mine").version == 10
    assert get_protocol("depth/mine@1").version == 1
