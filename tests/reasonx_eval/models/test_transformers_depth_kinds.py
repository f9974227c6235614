"""Kinds from config.json, the catalogue, and resize rules by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasonx_eval.errors import UsageError
from reasonx_eval.models.adapters.depth_kinds import CLASSES, DEPTH_KINDS, class_name, decide_kind, meaning_of
from reasonx_eval.models.adapters.depth_processors import Processing, network_input, read_processing, target_size
from reasonx_eval.models.adapters.transformers_depth import TransformersDepth
from reasonx_eval.models.loading.catalogue import catalogue, entry_of
from reasonx_eval.models.loading.checkpoint import Checkpoint
from reasonx_eval.models.loading.runtime import Runtime
from tests.reasonx_eval.models.tiny_hub import BUILDERS, SHA, save_depth

DA = {"model_type": "depth_anything", "architectures": ["DepthAnythingForDepthEstimation"]}
DPT = {"model_type": "dpt", "architectures": ["DPTForDepthEstimation"]}
PRO = {"model_type": "depth_pro", "architectures": ["DepthProForDepthEstimation"]}


def told(checkpoint: Checkpoint) -> tuple[str | None, str | None]:
    """Kind and class that a checkpoint's configuration and the catalogue tell."""
    config = checkpoint.config or {}
    return meaning_of(config, entry_of(checkpoint.hub_id)).kind, class_name(config)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (DA, "disparity_affine"),
        (DA | {"depth_estimation_type": "relative"}, "disparity_affine"),
        (DA | {"depth_estimation_type": "metric", "max_depth": 20}, "depth_metric"),
        (DPT, "disparity_affine"),
        (DPT | {"backbone_config": None}, "disparity_affine"),
        (DPT | {"backbone_config": {"model_type": "bit"}, "is_hybrid": True}, "disparity_affine"),
        (DPT | {"backbone_config": {"model_type": "beit"}}, "disparity_affine"),
        (DPT | {"backbone_config": {"model_type": "swinv2"}}, "disparity_affine"),
        (DPT | {"backbone_config": {"model_type": "dinov2"}}, None),
        (DPT | {"backbone_config": {"model_type": "convnext"}}, None),
        ({"model_type": "glpn", "architectures": ["GLPNForDepthEstimation"]}, "depth_metric"),
        ({"model_type": "zoedepth", "architectures": ["ZoeDepthForDepthEstimation"]}, "depth_metric"),
        (PRO | {"use_fov_model": True}, "depth_metric"),
        (PRO, "depth_scale"),
        ({"model_type": "tipsv2_dpt", "architectures": ["Tipsv2DptForDensePrediction"]}, "depth_metric"),
        ({"model_type": "chmv2", "architectures": ["CHMv2ForDepthEstimation"]}, None),
        ({"model_type": "unheard_of", "architectures": ["UnheardOfForDepthEstimation"]}, None),
    ],
)
def test_kind_from_the_configuration(tmp_path: Path, config: dict[str, Any], kind: str | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = told(Checkpoint(tmp_path, str(tmp_path)))
    assert found[0] == kind
    assert found[1] == CLASSES.get(config["model_type"], "UnheardOfForDepthEstimation")


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "dpt", "architectures": ["DPTForSemanticSegmentation"]},
        {"model_type": "vit"},
        {"architectures": "DPTForDepthEstimation"},
        {},
    ],
)
def test_other_networks_are_none(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert class_name(Checkpoint(tmp_path, str(tmp_path)).config or {}) is None


def test_a_folder_without_configuration_is_no_depth_network(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no config\.json of a depth network"):
        TransformersDepth(Checkpoint(tmp_path, str(tmp_path)), runtime=Runtime())


@pytest.mark.parametrize("family", BUILDERS)
def test_what_the_library_saves_tells_its_class(tmp_path: Path, family: str) -> None:
    """Defaults are not written by save_pretrained: what is absent must mean the default."""
    found = told(Checkpoint(save_depth(tmp_path, family), "x"))
    assert found[1] == CLASSES[json.loads((tmp_path / "config.json").read_text())["model_type"]]
    expected = {"depth_anything": "disparity_affine", "dpt": "disparity_affine", "dpt_dinov2": None, "chmv2": None}
    assert found[0] == expected.get(family, "depth_metric")


def test_the_table_is_the_librarys() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES as NAMES

    assert dict(NAMES) == dict(CLASSES)


def test_asked_kinds() -> None:
    assert decide_kind(DPT, "x", None) == "disparity_affine"
    assert decide_kind(DPT, "x", "depth_metric") == "depth_metric"  # only the family's convention stood against it
    open_ended = DPT | {"backbone_config": {"model_type": "dinov2"}}
    assert decide_kind(open_ended, "x", "depth_affine") == "depth_affine"
    with pytest.raises(UsageError, match="does not tell the kind") as caught:
        decide_kind(open_ended, "x", None)
    assert all(kind in str(caught.value) for kind in DEPTH_KINDS)
    with pytest.raises(UsageError, match=r"config.json says disparity_affine: depth_estimation_type is relative"):
        decide_kind(DA, "x", "depth_metric")
    with pytest.raises(UsageError, match="a depth network gives one of"):
        decide_kind(open_ended, "x", "normal")


def test_published_heads_on_dinov2_are_metric(tmp_path: Path) -> None:
    """By hub id only: a folder may be called anything."""
    (tmp_path / "config.json").write_text(json.dumps(DPT | {"backbone_config": {"model_type": "dinov2"}}))
    for source, kind in (("facebook/dpt-dinov2-small-nyu", "depth_metric"), ("dpt-dinov2-small-nyu", None),
                         ("facebook/dpt-dinov2-small-nyu@main", "depth_metric")):  # fmt: skip
        assert told(Checkpoint(tmp_path, source, SHA))[0] == kind


def test_catalogue_agrees_with_the_rules() -> None:
    listed = [
        n for n in catalogue().values() if str(n.adapter).endswith("adapters.transformers_depth:TransformersDepth")
    ]
    assert len(listed) >= 20
    for named in listed:
        assert named.task == ["depth"]
        assert len(named.kind) == 1
        metric = any(word in named.name for word in ("metric", "zoe", "glpn", "pro", "dinov2"))
        assert named.kind[0] == ("depth_metric" if metric else "disparity_affine")
        assert ("nyuv2" in named.trained_on) == ("nyu" in named.name)
    assert meaning_of(DA, catalogue()["dpt-dinov2-base-nyu"]).kind == "disparity_affine"  # the configuration goes first


def test_the_kind_is_told_without_torch() -> None:
    script = ("import sys\nfrom reasonx_eval.models.adapters.depth_kinds import class_name, decide_kind\n"
              f"print((decide_kind({DA}, 'x', None), class_name({DA})), "
              "[m for m in ('torch', 'transformers') if m in sys.modules])")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "('disparity_affine', 'DepthAnythingForDepthEstimation') []"


def spec(**settings: Any) -> Processing:
    return Processing(**({"family": "dpt", "size": (518, 518)} | settings))


@pytest.mark.parametrize(
    ("photo", "settings", "expected"),
    [
        # Depth Anything: 518 / 480 is nearer to 1 than 518 / 640: 518 x 690.7, and 690.7 / 14 = 49.3
        ((480, 640), {"keep_aspect_ratio": True, "ensure_multiple_of": 14}, (518, 686)),
        ((640, 480), {"keep_aspect_ratio": True, "ensure_multiple_of": 14}, (686, 518)),
        ((4032, 6048), {"keep_aspect_ratio": True, "ensure_multiple_of": 14}, (518, 770)),  # 777 = 55.5 steps: to even
        ((1, 1), {"keep_aspect_ratio": True, "ensure_multiple_of": 14}, (518, 518)),
        # DPT: a square, whatever the photo
        ((480, 640), {"size": (384, 384)}, (384, 384)),
        # GLPN: down to multiples of 32, never to nothing
        ((480, 640), {"family": "glpn", "size_divisor": 32}, (480, 640)),
        ((375, 1242), {"family": "glpn", "size_divisor": 32}, (352, 1216)),
        ((7, 5), {"family": "glpn", "size_divisor": 32}, (32, 32)),
        # ZoeDepth: 384 / 480 = 512 / 640, both sides in steps of 32
        ((480, 640), {"family": "zoedepth", "size": (384, 512), "keep_aspect_ratio": True, "ensure_multiple_of": 32},
         (384, 512)),
        ((375, 1242), {"family": "zoedepth", "size": (384, 512), "keep_aspect_ratio": True, "ensure_multiple_of": 32},
         (384, 1280)),
        ((480, 640), {"family": "depth_pro", "size": (1536, 1536)}, (1536, 1536)),
    ],
)  # fmt: skip
def test_resize_rules(photo: tuple[int, int], settings: dict[str, Any], expected: tuple[int, int]) -> None:
    assert target_size(*photo, spec(**settings)) == expected


def test_normalising_by_hand() -> None:
    image = np.array([[[0, 51, 255]]], dtype=np.uint8)
    settings = spec(do_resize=False, do_normalize=True, image_mean=(0.5, 0.1, 0), image_std=(0.5, 0.5, 2))
    np.testing.assert_allclose(network_input(image, settings).ravel(), [-1, 0.2, 0.5], atol=1e-7)
    # without the division by 255, as for DINOv2's heads
    settings = spec(do_resize=False, do_rescale=False, do_normalize=True, image_mean=(1, 1, 5), image_std=(1, 5, 10))
    np.testing.assert_allclose(network_input(image, settings).ravel(), [-1, 10, 25], atol=1e-6)
    # centred, the odd pixel after
    settings = spec(do_resize=False, do_rescale=False, do_pad=True, size_divisor=4)
    assert network_input(image, settings)[2].tolist() == [[0] * 4, [0, 255, 0, 0], [0] * 4, [0] * 4]


def test_files_of_older_versions(tmp_path: Path) -> None:
    """Intel/dpt-large and vinvino02/glpn-* name a feature extractor and give one number for a size."""
    old = {"do_normalize": True, "do_resize": True, "feature_extractor_type": "DPTFeatureExtractor", "resample": 2,
           "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "size": 384, "keep_aspect_ratio": False,
           "ensure_multiple_of": 32}  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    found = read_processing(tmp_path, "dpt")
    assert (found.family, found.size, found.do_rescale, found.do_pad) == ("dpt", (384, 384), True, False)
    old = {"do_rescale": True, "do_resize": True, "feature_extractor_type": "GLPNFeatureExtractor", "resample": 2,
           "size_divisor": 32}  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    found = read_processing(tmp_path, "glpn")
    assert (found.family, found.size_divisor, found.do_normalize) == ("glpn", 32, False)
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "DPTImageProcessorFast"}')
    assert read_processing(tmp_path, "depth_anything").resample == 3
    (tmp_path / "preprocessor_config.json").write_text("{}")
    assert read_processing(tmp_path, "zoedepth").size == (384, 512)
    with pytest.raises(UsageError, match="names no image processor"):
        read_processing(tmp_path, "new_net")


def test_defaults_are_the_librarys() -> None:
    """An empty configuration file means what the classes mean."""
    from transformers import DPTImageProcessorPil, GLPNImageProcessorPil, ZoeDepthImageProcessorPil

    from reasonx_eval.models.adapters import depth_processors

    for family, cls in (("dpt", DPTImageProcessorPil), ("glpn", GLPNImageProcessorPil),
                        ("zoedepth", ZoeDepthImageProcessorPil)):  # fmt: skip
        theirs, mine = cls(), Processing(family=family, **depth_processors._DEFAULTS[family])
        for name in ("do_resize", "do_rescale", "rescale_factor", "do_normalize", "do_pad", "keep_aspect_ratio",
                     "ensure_multiple_of", "size_divisor"):  # fmt: skip
            their = getattr(theirs, name, None)
            if their is not None:
                assert getattr(mine, name) == their, (family, name)
        assert mine.resample == int(theirs.resample)
        if family != "glpn":
            assert mine.size == (theirs.size["height"], theirs.size["width"])
            assert list(mine.image_mean) == list(theirs.image_mean)
