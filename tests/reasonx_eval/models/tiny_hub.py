"""Tiny networks with random weights, saved by the libraries themselves as the hub holds them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

SHA = "0123456789abcdef0123456789abcdef01234567"


def as_hub_cache(folder: Path, cache: Path, hub_id: str) -> Path:
    """A copy of `folder` where huggingface_hub's cache keeps `hub_id`; gives the snapshot."""
    repo = cache / f"models--{hub_id.replace('/', '--')}"
    snapshot = repo / "snapshots" / SHA
    shutil.copytree(folder, snapshot)
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(SHA)
    return snapshot


def moved(path: Path, shift: int) -> None:
    """The same tensors, `shift` bytes behind a multiple of 64 in their file."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + length].rstrip()
    header += b" " * ((shift - 8 - len(header)) % 64)
    path.write_bytes(len(header).to_bytes(8, "little") + header + raw[8 + length :])


def _dinov2(patch: int = 14, image: int = 56, **more: Any) -> Any:
    from transformers import Dinov2Config

    return Dinov2Config(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=image, patch_size=patch,
                        **more)  # fmt: skip


def depth_anything(**config: Any) -> Any:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    backbone = _dinov2(out_features=[f"stage{i}" for i in (1, 2, 3, 4)], reshape_hidden_states=False)
    return DepthAnythingForDepthEstimation(
        DepthAnythingConfig(backbone_config=backbone, reassemble_hidden_size=16, neck_hidden_sizes=[8, 8, 8, 8],
                            fusion_hidden_size=8, head_hidden_size=8, **config)
    )  # fmt: skip


def prompt_depth_anything(**config: Any) -> Any:
    from transformers import PromptDepthAnythingConfig, PromptDepthAnythingForDepthEstimation

    backbone = _dinov2(out_features=[f"stage{i}" for i in (1, 2, 3, 4)], reshape_hidden_states=False)
    return PromptDepthAnythingForDepthEstimation(
        PromptDepthAnythingConfig(backbone_config=backbone, reassemble_hidden_size=16, neck_hidden_sizes=[8, 8, 8, 8],
                                  fusion_hidden_size=8, head_hidden_size=8, depth_estimation_type="metric", **config)
    )  # fmt: skip


def dpt(**config: Any) -> Any:
    from transformers import DPTConfig, DPTForDepthEstimation

    return DPTForDepthEstimation(
        DPTConfig(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=64,
                  patch_size=16, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8],
                  fusion_hidden_size=8, **config)
    )  # fmt: skip


def dpt_dinov2(**config: Any) -> Any:
    from transformers import DPTConfig, DPTForDepthEstimation

    backbone = _dinov2(out_features=[f"stage{i}" for i in (1, 2, 3, 4)], reshape_hidden_states=False)
    return DPTForDepthEstimation(
        DPTConfig(backbone_config=backbone, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, **config)
    )  # fmt: skip


def glpn(**config: Any) -> Any:
    from transformers import GLPNConfig, GLPNForDepthEstimation

    return GLPNForDepthEstimation(
        GLPNConfig(hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 2],
                   mlp_ratios=[2, 2, 2, 2], decoder_hidden_size=8, **config)
    )  # fmt: skip


def zoedepth(**config: Any) -> Any:
    from transformers import BeitConfig, ZoeDepthConfig, ZoeDepthForDepthEstimation

    backbone = BeitConfig(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32,
                          image_size=64, patch_size=16, out_features=[f"stage{i}" for i in (1, 2, 3, 4)],
                          reshape_hidden_states=False, use_relative_position_bias=True)  # fmt: skip
    return ZoeDepthForDepthEstimation(
        ZoeDepthConfig(backbone_config=backbone, backbone_hidden_size=16, neck_hidden_sizes=[8, 8, 8, 8],
                       fusion_hidden_size=8, bottleneck_features=8, num_relative_features=8, bin_embedding_dim=8,
                       num_attractors=[4, 2, 2, 1], **config)
    )  # fmt: skip


def depth_pro(**config: Any) -> Any:
    from transformers import DepthProConfig, DepthProForDepthEstimation

    part = {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
            "patch_size": 4, "image_size": 16}  # fmt: skip
    return DepthProForDepthEstimation(
        DepthProConfig(patch_size=16, intermediate_hook_ids=[2, 0], intermediate_feature_dims=[8, 8],
                       scaled_images_feature_dims=[8, 8, 8], fusion_hidden_size=8, image_model_config=dict(part),
                       patch_model_config=dict(part), fov_model_config=dict(part), **({"use_fov_model": True} | config))
    )  # fmt: skip


def chmv2(**config: Any) -> Any:
    from transformers import CHMv2Config, CHMv2ForDepthEstimation

    backbone = {"model_type": "dinov3_vit", "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2,
                "num_hidden_layers": 4, "num_register_tokens": 2, "image_size": 64, "out_indices": [1, 2, 3, 4],
                "reshape_hidden_states": True, "apply_layernorm": True, "return_class_token": True}  # fmt: skip
    return CHMv2ForDepthEstimation(
        CHMv2Config(backbone_config=backbone, post_process_channels=[8, 8, 8, 8], fusion_hidden_size=8,
                    head_hidden_size=8, number_output_channels=8, **config)
    )  # fmt: skip


def tipsv2_dpt(**config: Any) -> Any:
    from transformers import Tipsv2DptConfig, Tipsv2DptForDepthEstimation

    backbone = {"model_type": "tipsv2_vision_model", "hidden_size": 16, "intermediate_size": 32,
                "num_attention_heads": 2, "num_hidden_layers": 4, "image_size": 56, "out_indices": [1, 2, 3, 4],
                "apply_layernorm": True, "reshape_hidden_states": False}  # fmt: skip
    return Tipsv2DptForDepthEstimation(
        Tipsv2DptConfig(backbone_config=backbone, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
                        num_depth_bins=8, **config)
    )  # fmt: skip


#: what the published checkpoints' preprocessor_config.json say, with smaller sides
PREPROCESSORS: Mapping[str, Mapping[str, Any]] = {
    "depth_anything": {
        "image_processor_type": "DPTImageProcessor", "do_resize": True, "size": {"height": 70, "width": 70},
        "keep_aspect_ratio": True, "ensure_multiple_of": 14, "resample": 3, "do_rescale": True,
        "rescale_factor": 0.00392156862745098, "do_normalize": True, "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225], "do_pad": False, "size_divisor": None,
    },
    "dpt": {
        "image_processor_type": "DPTImageProcessor", "do_resize": True, "size": {"height": 64, "width": 64},
        "keep_aspect_ratio": False, "ensure_multiple_of": 1, "resample": 2, "do_rescale": True,
        "rescale_factor": 0.00392156862745098, "do_normalize": True, "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
    "dpt_dinov2": {
        "image_processor_type": "DPTImageProcessor", "do_resize": False, "do_rescale": False, "do_normalize": True,
        "do_pad": True, "size_divisor": 14, "image_mean": [123.675, 116.28, 103.53],
        "image_std": [58.395, 57.12, 57.375],
    },
    "glpn": {
        "image_processor_type": "GLPNImageProcessor", "do_resize": True, "do_rescale": True, "resample": 2,
        "size_divisor": 32,
    },
    "zoedepth": {
        "image_processor_type": "ZoeDepthImageProcessor", "do_pad": True, "do_resize": True, "do_rescale": True,
        "do_normalize": True, "ensure_multiple_of": 32, "keep_aspect_ratio": True, "resample": 2,
        "rescale_factor": 0.00392156862745098, "size": {"height": 64, "width": 96}, "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
    "depth_pro": {
        "image_processor_type": "DepthProImageProcessor", "do_resize": True, "do_rescale": True, "do_normalize": True,
        "size": {"height": 64, "width": 64}, "resample": 2, "rescale_factor": 0.00392156862745098,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    },
    "chmv2": {"image_processor_type": "CHMv2ImageProcessor", "do_resize": False, "do_pad": True, "size_divisor": 16},
    "tipsv2_dpt": {"image_processor_type": "Tipsv2DptImageProcessor", "size": {"height": 56, "width": 56}},
}  # fmt: skip
BUILDERS: Mapping[str, Callable[..., Any]] = {
    "depth_anything": depth_anything, "dpt": dpt, "dpt_dinov2": dpt_dinov2, "glpn": glpn, "zoedepth": zoedepth,
    "depth_pro": depth_pro, "chmv2": chmv2, "tipsv2_dpt": tipsv2_dpt,
}  # fmt: skip


def save_depth(folder: Path, family: str, *, seed: int = 0, pickled: bool = False, **config: Any) -> Path:
    """A tiny network of `family` with its image processor's settings, as save_pretrained writes it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = BUILDERS[family](**config)
        for parameter in network.parameters():
            # the library's own start gives maps that are flat to 1e-3: no test of anything
            parameter.data += (0.05 if family == "depth_pro" else 0.2) * torch.randn_like(parameter)
    if family == "depth_pro":
        network.head.layers[-2].bias.data.fill_(1.0)  # inverse depth > 0
        if network.fov_model is not None:
            network.fov_model.head.layers[-1].weight.data.mul_(0.01)
            network.fov_model.head.layers[-1].bias.data.fill_(50.0)  # degrees
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSORS[family]))
    if pickled:
        torch.save(network.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    return folder
