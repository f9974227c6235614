"""Published numbers: in our units, tied to protocols that report them, sourced, and not contradictory."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

import pytest

from reasonx_eval.errors import UsageError
from reasonx_eval.protocols.references import parse_references, references

GOOD = """
[[table]]
protocol = "albedo/iiw-luo-linear"
source = "a paper"
table = "Table 1"
status = "printed"
metrics = ["whdr10", "whdr20"]

[table.near]
"albedo/iiw" = "another curve"

[table.rows]
"Net A" = [0.2, 0.1]
"Net B" = [0.3, 0.25]

[table.notes]
"Net B" = "trained on IIW"
"""


def test_a_table_becomes_one_reference_per_number():
    found = parse_references(GOOD, "refs.toml")
    assert len(found) == 2 * 2 * 2
    [b] = [r for r in found if (r.model, r.metric, r.protocol) == ("Net B", "whdr20", "albedo/iiw-luo-linear")]
    assert dataclasses.astuple(b) == (
        "Net B", "albedo/iiw-luo-linear", "whdr20", 0.25, "a paper", "Table 1", "printed", None, "trained on IIW",
    )  # fmt: skip
    near = [r for r in found if r.protocol == "albedo/iiw"]
    assert {r.difference for r in near} == {"another curve"}


def test_a_remark_is_a_note_and_no_difference():
    text = GOOD.replace('status = "printed"', 'status = "printed"\nremark = "float32"')
    notes = {(r.model, r.protocol): (r.difference, r.note) for r in parse_references(text, "refs.toml")}
    assert notes["Net A", "albedo/iiw-luo-linear"] == (None, "float32")
    assert notes["Net B", "albedo/iiw-luo-linear"] == (None, "float32; trained on IIW")
    assert notes["Net B", "albedo/iiw"] == ("another curve", "float32; trained on IIW")


def test_differences_of_near_protocols_add_up():
    text = GOOD.replace('status = "printed"', 'status = "printed"\ndifference = "float32"')
    assert {r.difference for r in parse_references(text, "refs.toml")} == {"float32", "float32; another curve"}


@pytest.mark.parametrize(
    ("old", "new", "say"),
    [
        ('table = "Table 1"', 'tabel = "Table 1"', "tabel"),
        ('source = "a paper"\n', "", "source"),
        ('status = "printed"', 'status = "rumour"', "status"),
        ("[0.2, 0.1]", "[0.2]", "'Net A' has 1 values for 2 metrics"),
        ("[0.2, 0.1]", "[0.2, nan]", "rows"),
        ("[0.2, 0.1]", "[0.2, -0.1]", "rows"),
        ("[0.2, 0.1]", '[0.2, "0.1"]', "rows"),
        ('"Net B" = "trained', '"Net C" = "trained', "Net C"),
        ('"albedo/iiw-luo-linear"', '"albedo/iiw-luo-liner"', "did you mean 'albedo/iiw-luo-linear'"),
        ('"albedo/iiw" =', '"albedo/iwi" =', "albedo/iwi"),
        ('"whdr10", "whdr20"', '"whdr10", "abs_rel"', "does not report 'abs_rel'"),
        ("[table.near]", "[table.near", "not valid TOML"),
    ],
)
def test_a_bad_file_names_the_fault(old, new, say):
    assert GOOD.count(old) == 1
    with pytest.raises(UsageError) as error:
        parse_references(GOOD.replace(old, new), "refs.toml")
    assert say in str(error.value)
    assert "refs.toml" in str(error.value)


def value(protocol: str, model: str, metric: str) -> set[float]:
    return {r.value for r in references(protocol, model) if r.metric == metric}


@pytest.mark.parametrize(
    ("protocol", "model", "metric", "expected"),
    [
        ("albedo/iiw-luo-linear", "CRefNet", "whdr10", 0.128),
        ("albedo/iiw-luo-linear", "IntrinsicDiffusion", "whdr20", 0.133),
        ("albedo/iiw-luo-linear", "Marigold IID Lighting v1.1", "whdr10", 0.167),
        ("albedo/iiw", "PRISM-X", "whdr10", 0.129),
        ("depth/nyuv2", "Marigold v1.0", "abs_rel", 0.055),
        ("depth/eth3d-marigold", "Marigold v1.0", "delta1", 0.960),
        ("depth/eth3d-disparity", "Depth Anything V2-L", "abs_rel", 0.131),
        ("depth/eth3d-marigold", "PRISM-X", "abs_rel", 0.077),
        ("depth/diode", "Lotus-D", "delta1", 0.738),
        ("normals/nyuv2", "DSINE", "mean_deg", 16.4),
        ("normals/nyuv2", "Marigold normals v1.1", "mean_deg", 16.1),
        ("normals/nyuv2", "Marigold normals v1.1", "within_11_25", 0.605),
        ("normals/nyuv2", "DSINE", "within_30", 0.835),
        ("normals/diode-indoor-stablenormal", "StableNormal", "median_deg", 9.460),
    ],
)
def test_some_numbers_by_hand(protocol, model, metric, expected):
    assert value(protocol, model, metric) == {expected}


def test_training_data_and_versions_are_named():
    for model in ("PIE-Net", "CGIntrinsics", "CRefNet"):
        assert all("trained on IIW" in (r.note or "") for r in references(model=model))
    for protocol, words in (("depth/nyuv2", "v2-"), ("depth/eth3d", "disparity"), ("normals/nyuv2", "v1-1")):
        for model in ("Lotus-G", "Lotus-D"):
            found = references(protocol, model)
            assert found
            assert all(words in (r.note or "") for r in found)


def test_values_are_in_our_units():
    for r in references():
        assert r.value < (180 if r.metric.endswith("_deg") else 1), r
        if r.metric.endswith("_deg"):
            assert r.value > 3, r


def test_shares_below_larger_angles_and_wider_thresholds_are_ordered():
    rows = defaultdict(dict)
    for r in references():
        rows[r.protocol, r.model, r.source, r.status][r.metric] = r.value
    for key, row in rows.items():
        if {"whdr10", "whdr20"} <= row.keys():
            assert row["whdr20"] < row["whdr10"], key
        if {"mean_deg", "median_deg"} <= row.keys():
            assert row["median_deg"] < row["mean_deg"], key


def test_no_number_stands_twice():
    keys = [(r.protocol, r.model, r.metric, r.source) for r in references()]
    assert len(set(keys)) == len(keys)


def test_a_copy_says_what_it_copies():
    """Copies of one number agree, unless a note or a difference explains why not."""
    seen = defaultdict(set)
    for r in references():
        seen[r.protocol, r.model, r.metric].add((r.value, r.difference or r.note))
    for key, found in seen.items():
        if len({v for v, _ in found}) > 1:
            assert all(why for _, why in found), key


def test_selection():
    everything = references()
    assert len(everything) > 300
    assert references("depth/nyuv2@1") == references("depth/nyuv2") != []
    assert {r.protocol for r in references("depth/nyuv2")} == {"depth/nyuv2"}
    assert references(model="prism-x") == [r for r in everything if r.model == "PRISM-X"] != []
    assert references("depth/nyuv2", "nobody") == []


def test_neighbouring_protocols_always_say_what_differs():
    for protocol in ("depth/eth3d", "albedo/iiw", "normals/nyuv2-image"):
        found = references(protocol)
        assert found
        assert all(r.difference for r in found)
