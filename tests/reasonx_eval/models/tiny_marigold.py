"""Random pipelines of a few thousand parameters, built and saved by diffusers and transformers themselves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    LCMScheduler,
    MarigoldDepthPipeline,
    MarigoldIntrinsicsPipeline,
    MarigoldNormalsPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LIGHTING: Mapping[str, Any] = {
    "target_names": ["albedo", "shading", "residual"],
    "albedo": {"prediction_space": "linear", "up_to_scale": False},
    "shading": {"prediction_space": "linear", "up_to_scale": True},
    "residual": {"prediction_space": "linear", "up_to_scale": True},
}
APPEARANCE: Mapping[str, Any] = {
    "target_names": ["albedo", "material"],
    "albedo": {"prediction_space": "srgb"},
    "material": {"prediction_space": "stack", "sub_target_names": ["roughness", "metallicity", None]},
    "roughness": {"prediction_space": "linear", "up_to_scale": False},
    "metallicity": {"prediction_space": "linear", "up_to_scale": False},
}


def parts(folder: Path, *, n_targets: int = 1, lcm: bool = False, blocks: int = 2, seed: int = 0) -> dict[str, Any]:
    """The five components of a pipeline; 2 ** (blocks - 1) pixels are one latent."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        in_channels=4 * (n_targets + 1), out_channels=4 * n_targets, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16, attention_head_dim=4, norm_num_groups=4, sample_size=16, use_linear_projection=True,
    )  # fmt: skip
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8,) * blocks, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * blocks, up_block_types=("UpDecoderBlock2D",) * blocks,
        norm_num_groups=4, sample_size=32,
    )  # fmt: skip
    text_encoder = CLIPTextModel(CLIPTextConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=20, bos_token_id=298, eos_token_id=299, pad_token_id=299,
    ))  # fmt: skip
    schedule = {
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
        "prediction_type": "v_prediction", "set_alpha_to_one": False, "steps_offset": 1,
        "timestep_spacing": "trailing", "rescale_betas_zero_snr": True,
    }  # fmt: skip
    scheduler = LCMScheduler(**schedule) if lcm else DDIMScheduler(**schedule)
    return {"unet": unet.eval(), "vae": vae.eval(), "scheduler": scheduler, "text_encoder": text_encoder.eval(),
            "tokenizer": tokenizer(folder)}  # fmt: skip


def tokenizer(folder: Path) -> CLIPTokenizer:
    """Bytes, bytes that end a word, and two marks: no merges."""
    files = folder / "tiny-tokenizer"
    files.mkdir(parents=True, exist_ok=True)
    letters = [chr(c) for c in range(33, 127)]
    words = [*letters, *(c + "</w>" for c in letters)]
    vocabulary = {w: i for i, w in enumerate(words)} | {"<|startoftext|>": 298, "<|endoftext|>": 299}
    (files / "vocab.json").write_text(json.dumps(vocabulary))
    (files / "merges.txt").write_text("#version: 0.2\n")
    (files / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer",
                                                             "model_max_length": 20}))  # fmt: skip
    return CLIPTokenizer.from_pretrained(str(files))


def depth(folder: Path, **changes: Any) -> Path:
    """A depth pipeline in `folder`."""
    built = {k: changes.pop(k) for k in ("lcm", "blocks", "seed") if k in changes}
    options = {"prediction_type": "depth", "scale_invariant": True, "shift_invariant": True,
               "default_denoising_steps": 2, "default_processing_resolution": 32, **changes}  # fmt: skip
    return _saved(MarigoldDepthPipeline(**parts(folder.parent, **built), **options), folder)


def normals(folder: Path, **changes: Any) -> Path:
    """A pipeline of normals in `folder`."""
    built = {k: changes.pop(k) for k in ("lcm", "blocks", "seed") if k in changes}
    options = {"prediction_type": "normals", "use_full_z_range": True, "default_denoising_steps": 2,
               "default_processing_resolution": 32, **changes}  # fmt: skip
    return _saved(MarigoldNormalsPipeline(**parts(folder.parent, **built), **options), folder)


def intrinsics(folder: Path, properties: Mapping[str, Any] = LIGHTING, **changes: Any) -> Path:
    """An intrinsic decomposition in `folder`."""
    built = {k: changes.pop(k) for k in ("lcm", "blocks", "seed") if k in changes}
    names: Sequence[str] = properties["target_names"]
    options = {"prediction_type": "intrinsics", "target_properties": dict(properties), "default_denoising_steps": 2,
               "default_processing_resolution": 32, **changes}  # fmt: skip
    made = MarigoldIntrinsicsPipeline(**parts(folder.parent, n_targets=len(names), **built), **options)
    return _saved(made, folder)


def _saved(pipeline: Any, folder: Path) -> Path:
    pipeline.save_pretrained(str(folder), safe_serialization=True)
    return folder


def in_cache(cache: Path, hub_id: str, folder: Path) -> Path:
    """Put a folder into a local hub cache, as a download would have left it."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return snapshot


def edit_index(folder: Path, drop: Sequence[str] = (), **values: Any) -> None:
    """Change model_index.json as a user or an older version may have left it."""
    path = folder / "model_index.json"
    index = {k: v for k, v in json.loads(path.read_text()).items() if k not in drop}
    path.write_text(json.dumps(index | values))
