"""The protocols in the package: locked, well-named, runnable on registered datasets, one default per task."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from reasonx_eval import __version__
from reasonx_eval.errors import UsageError
from reasonx_eval.metrics.align import to_space
from reasonx_eval.metrics.table import metric_info
from reasonx_eval.protocols import lock as protocol_lock
from reasonx_eval.protocols.protocol import align_space, all_protocols, get_protocol, metric_names
from reasonx_eval.registry import DATASETS
from reasonx_eval.types import TASKS

PROTOCOLS = list(all_protocols().values())
REFS = [p.ref for p in PROTOCOLS]
GENERIC = ("flat", "folder", "mit-intrinsic")


def info(dataset: str):
    return DATASETS.load(dataset).info


def test_rules_are_what_their_version_says():
    assert protocol_lock.problems(protocol_lock.current(), protocol_lock.locked()) == []


def test_a_rule_changed_under_its_version_is_found():
    now = protocol_lock.current()
    then = {**now, "depth/nyuv2@1": "0" * 64}
    [message] = protocol_lock.problems(now, then)
    assert "depth/nyuv2@1" in message
    assert "raise its version" in message
    assert "python -m reasonx_eval.protocols.lock" in message
    del then["depth/nyuv2@1"]
    [message] = protocol_lock.problems(now, then)
    assert "not in digests.json" in message


def test_the_lock_adds_and_keeps_but_never_replaces(tmp_path):
    path = tmp_path / "digests.json"
    added = protocol_lock.update(path)
    assert [name for name in added if not name.startswith("splits/")] == sorted(REFS)
    record = json.loads(path.read_text())
    assert record == protocol_lock.current()
    del record["depth/nyuv2@1"]
    path.write_text(json.dumps({**record, "depth/gone@1": "1" * 64}))
    assert protocol_lock.update(path) == ["depth/nyuv2@1"]
    assert protocol_lock.locked(path)["depth/gone@1"] == "1" * 64
    path.write_text(before := json.dumps({**record, "depth/eth3d@1": "2" * 64}))
    with pytest.raises(UsageError, match="rules of depth/eth3d@1 changed"):
        protocol_lock.update(path)
    assert path.read_text() == before
    path.write_text(before := json.dumps({**record, "splits/iiw_test": "2" * 64}))
    with pytest.raises(UsageError, match="the ids of splits/iiw_test changed"):
        protocol_lock.update(path)
    assert path.read_text() == before


@pytest.mark.parametrize("p", PROTOCOLS, ids=REFS)
def test_the_file_can_be_found_by_its_name_and_explains_itself(p):
    folder = protocol_lock.LOCK.parent
    assert (folder / f"{p.name}.toml").is_file() or (folder / f"{p.ref}.toml").is_file()
    assert p.name.partition("/")[0] == ("ordinal" if p.target == "pairs" else p.task)
    assert len(p.notes.split()) >= 8
    assert p.title
    assert set(p.metrics) <= set(metric_names(p.target, p.whdr))


def test_every_metric_a_protocol_may_name_is_explained():
    for target in ("depth", "normals", "albedo", "irradiance", "pairs", "agreement"):
        assert metric_names(target)
        assert all(target in metric_info(name).targets for name in metric_names(target))
    for p in PROTOCOLS:
        assert {metric_info(m).name for m in p.metrics} == set(p.metrics)


@pytest.mark.parametrize("p", PROTOCOLS, ids=REFS)
def test_neighbours_named_in_the_notes_exist(p):
    names = {q.name for q in PROTOCOLS}
    for word in p.notes.replace(";", " ").replace(",", " ").replace("(", " ").replace(")", " ").split():
        name = word.rstrip(".:")
        if name.partition("/")[0] in ("depth", "normals", "albedo", "irradiance", "ordinal") and "/" in name:
            assert name in names
        if name.startswith("-") and name[1:2].isalpha():
            assert any(q.startswith(f"{p.task}/") and q.endswith(name) for q in names), name


@pytest.mark.parametrize("p", [p for p in PROTOCOLS if p.dataset != "any"], ids=lambda p: p.ref)
def test_the_dataset_has_what_the_protocol_needs(p):
    has = info(p.dataset)
    assert p.reads in has.targets
    assert p.split in has.splits
    assert p.n == has.splits[p.split]
    assert set(p.dataset_options) <= set(has.options)


@pytest.mark.parametrize("p", [p for p in PROTOCOLS if p.dataset == "any"], ids=lambda p: p.ref)
def test_a_generic_protocol_fits_the_datasets_it_is_default_for(p):
    assert p.n is None
    for dataset in p.default_for:
        assert dataset in GENERIC
        assert p.target in info(dataset).targets
        assert p.split in info(dataset).splits


def test_one_default_per_dataset_and_task():
    count = Counter((d, p.task) for p in PROTOCOLS for d in p.default_for)
    assert {k for k, n in count.items() if n > 1} == set()


def test_every_dataset_has_a_default_for_every_task_it_can_judge():
    task_of = {"judgements": "albedo", "pairs": None}
    have = {(d, p.task) for p in PROTOCOLS for d in p.default_for}
    for dataset in DATASETS:
        for target in info(dataset).targets:
            task = task_of.get(target, target)
            if task is not None:
                assert (dataset, task) in have
    assert {t for _, t in have} == set(TASKS)


def test_defaults_are_of_the_dataset_they_serve():
    for p in PROTOCOLS:
        for dataset in p.default_for:
            assert p.dataset in (dataset, "any")
            assert p.compat is None, "a compatibility protocol is nobody's default"


def test_signatures_and_digests_are_unique():
    signatures = [p.signature(kind=k, n=p.n or 1) for p in PROTOCOLS for k in p.accepts]
    assert len(set(signatures)) == len(signatures)
    assert len({p.digest for p in PROTOCOLS}) == len(PROTOCOLS)


@pytest.mark.parametrize("ref", [p.ref for p in PROTOCOLS if p.depth])
def test_every_accepted_depth_can_be_aligned(ref: str) -> None:
    protocol = get_protocol(ref)
    assert protocol.depth is not None
    for kind in protocol.accepts:
        to_space(pred=np.ones((2, 2)), kind=kind, space=align_space(protocol.depth.align, kind))


@pytest.mark.parametrize(
    ("name", "kind", "rules"),
    [
        ("depth/nyuv2", "depth_affine",
         "n:654|acc:depth_affine|align:affine.depth|crop:eigen|range:0.001-10m|resize:pred->gt|pool:image"),
        ("depth/nyuv2", "disparity_affine",
         "n:654|acc:disparity_affine|align:affine.disparity|crop:eigen|range:0.001-10m|resize:pred->gt|pool:image"),
        ("depth/nyuv2-disparity", "depth_scale",
         "n:654|acc:depth_scale|align:affine.disparity|crop:eigen|range:0.001-10m|resize:pred->gt|pool:image"),
        ("depth/nyuv2-median", "depth_scale",
         "n:654|acc:depth_scale|align:median.depth|crop:eigen|range:0.001-10m|clip:none|resize:pred->gt|pool:image"),
        ("depth/nyuv2-metric", "depth_metric",
         "n:654|acc:depth_metric|align:none|crop:eigen|range:0.001-10m|resize:pred->gt|pool:image"),
        ("depth/eth3d", "depth_affine",
         "n:454|acc:depth_affine|align:affine.depth|crop:none|range:1e-05-infm|resize:pred->gt|pool:image"),
        ("depth/eth3d-marigold", "depth_affine",
         "n:454|acc:depth_affine|align:affine.depth.width-nearest-1024|crop:none|range:1e-05-infm|resize:pred->gt"
         "|pool:image"),
        ("depth/diode", "disparity_affine",
         "n:771|acc:disparity_affine|align:affine.disparity|crop:none|range:mask|clip:0.6-350m|resize:pred->gt"
         "|pool:image"),
        ("depth/diode-devkit", "depth_metric",
         "n:771|acc:depth_metric|align:none|crop:none|range:mask|clip:none|resize:pred->gt|pool:image"),
        ("normals/nyuv2", "normal", "n:654|acc:normal|norm:0|resize:pred->gt|pool:pixel"),
        ("normals/nyuv2-marigold", "normal", "n:654|acc:normal|norm:0|resize:pred->gt|round:4|pool:image"),
        ("normals/diode-indoor-stablenormal", "normal", "n:325|acc:normal|norm:0.5-1.5|resize:pred->gt|pool:pixel"),
        ("albedo/iiw", "albedo_linear",
         "n:1046|acc:albedo_linear|split:test|delta:0.1,0.2|space:linear.srgb|resize:none|pool:image"),
        ("albedo/iiw-luo-linear", "albedo_srgb",
         "n:1046|acc:albedo_srgb|split:test|delta:0.1,0.2|space:linear.gamma2.2|resize:none|pool:image"),
        ("albedo/iiw-cgi@1", "albedo_linear",
         "n:1046|acc:albedo_linear|split:test|delta:0.1|space:gamma.gamma2.2|resize:pred->image|pool:image"),
        ("albedo/iiw-cgi@2", "albedo_linear",
         "n:1046|acc:albedo_linear|split:test|delta:0.1|space:gamma.gamma2.2|resize:pred->image.mirror|absent:zero"
         "|pool:image"),
        ("albedo/iiw-irn@1", "albedo_srgb",
         "n:1046|acc:albedo_srgb|split:test|delta:0.1|space:stored|resize:none|rescale:half-one|pool:image"),
        ("albedo/iiw-irn@2", "albedo_srgb",
         "n:1046|acc:albedo_srgb|split:test|delta:0.1|space:stored|resize:pred->image.exchanged|rescale:half-one"
         "|pool:image"),
        ("albedo/scenes-wild", "albedo_linear",
         "n:200|acc:albedo_linear|space:srgb.srgb|scale:lsq|clip:0-1|lmse:grosse|resize:pred->gt|pool:image"),
        ("irradiance/scenes-synthetic", "irradiance",
         "n:100|acc:irradiance|space:linear.srgb|scale:lsq|exposure:p90|clip:0-1|lmse:grosse|resize:pred->gt"
         "|pool:image"),
        ("ordinal/scenes-broad-depth", "disparity_affine",
         "n:100|acc:disparity_affine|modality:depth|margin:0.02|pool:image"),
        ("ordinal/scenes-broad-albedo", "albedo_srgb",
         "n:100|acc:albedo_srgb|modality:albedo|same:0.05|pool:image"),
    ],
)  # fmt: skip
def test_signature(name, kind, rules):
    p = get_protocol(name)
    assert p.signature(kind=kind, n=p.n or 1) == f"{name if '@' in name else f'{name}@1'}|{rules}|reasonx:{__version__}"


def test_published_rules_by_the_number():
    nyu, eth, diode = (get_protocol(f"depth/{n}").depth for n in ("nyuv2", "eth3d", "diode"))
    assert nyu is not None
    assert eth is not None
    assert diode is not None
    assert (nyu.range_m, nyu.clip_m, nyu.crop) == ((0.001, 10.0), (0.001, 10.0), "eigen")
    assert (eth.range_m, eth.clip_m, eth.align.subsample) == ((1e-5, float("inf")), (1e-5, float("inf")), "all")
    assert (diode.range_m, diode.clip_m, diode.crop) == (None, (0.6, 350.0), "none")
    options = {n: dict(get_protocol(n).dataset_options) for n in (
        "depth/nyuv2", "depth/nyuv2-filled", "depth/nyuv2-metric", "depth/diode", "depth/diode-devkit")}  # fmt: skip
    assert options == {
        "depth/nyuv2": {"depth": "raw"}, "depth/nyuv2-filled": {"depth": "filled"},
        "depth/nyuv2-metric": {"depth": "raw"}, "depth/diode": {"mask": "file"},
        "depth/diode-devkit": {"mask": "positive"},
    }  # fmt: skip


def test_only_metric_depth_goes_unaligned_and_only_known_scale_goes_unshifted():
    for p in PROTOCOLS:
        if p.depth and p.depth.align.mode == "none":
            assert p.accepts == ("depth_metric",)
        if p.depth and p.depth.align.mode in ("median", "scale"):
            assert set(p.accepts) == {"depth_metric", "depth_scale"}
