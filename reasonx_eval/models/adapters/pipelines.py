"""Folders of diffusers pipelines: their parts, checked without importing torch, and their loading."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from reasonx_eval.errors import UsageError
from reasonx_eval.io.seeding import stream_seed
from reasonx_eval.models.loading.checkpoint import WRAPPER, Checkpoint, Weights, find_weights, read_json, tensor_shapes

#: the parts of a pipeline that this program runs, and the names of their weight files
_STEMS: Final = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
#: the other parts, and the file that each must have
_FILES: Final = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}


def class_name(checkpoint: Checkpoint) -> str | None:
    """The class that ``model_index.json`` names; None where it is code of the checkpoint's own.

    Raises
    ------
    UsageError
        No ``model_index.json``, or one that names no class.
    """
    if checkpoint.index is None:
        raise UsageError("no model_index.json: not a diffusers pipeline", where=str(checkpoint.folder))
    named = checkpoint.index.get("_class_name")
    if isinstance(named, str) and named:
        return named
    if isinstance(named, list) and len(named) == 2:
        return None
    raise UsageError("model_index.json names no class (_class_name)", where=str(checkpoint.folder))


def own_code(checkpoint: Checkpoint) -> list[str]:
    """The parts of the pipeline that are Python code of the checkpoint, for example ``unet: my_unet.MyUNet``."""
    own, index = class_name(checkpoint) is None, checkpoint.index or {}
    found = [f"the pipeline: {'.'.join(map(str, index['_class_name']))}"] if own else []
    for part, value in index.items():
        if not part.startswith("_") and _is_component(value) and value[0] not in ("diffusers", "transformers"):
            found.append(f"{part}: {value[0]}.{value[1]}")
    return found


def _is_component(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value)


def refuse_own_code(checkpoint: Checkpoint, *, trust_remote_code: bool) -> None:
    """Refuse a pipeline with Python code of its own, unless that is trusted.

    Raises
    ------
    UsageError
        It has such code; names each part.
    """
    code = own_code(checkpoint)
    if code and not trust_remote_code:
        raise UsageError(f"the checkpoint brings Python code of its own ({'; '.join(code)}), which is not run",
                         where=str(checkpoint.folder), fix="--trust-remote-code, once you have read it")  # fmt: skip


def check_parts(checkpoint: Checkpoint, *, trust_remote_code: bool) -> Mapping[str, Weights]:
    """The weights of each network of a Stable-Diffusion-type pipeline, after a look at every part.

    Raises
    ------
    UsageError
        A part is missing, damaged, pickled, or is code of the checkpoint's own and that is not trusted.
    """
    refuse_own_code(checkpoint, trust_remote_code=trust_remote_code)
    index = checkpoint.index or {}
    for part in (*_STEMS, *_FILES):
        if not _is_component(index.get(part)):
            raise UsageError(f"model_index.json names no {part}", where=str(checkpoint.folder))
        part_config(checkpoint, part, _FILES.get(part, "config.json"))
    found = {part: find_weights(checkpoint.folder / part, stem) for part, stem in _STEMS.items()}
    for part, weights in found.items():
        wrapped = next((name for name in weights.names if re.match(WRAPPER, name)), None)
        if wrapped is not None:
            raise UsageError(f"names of tensors begin as in {wrapped}: saved from a wrapped network (DataParallel or "
                             "torch.compile), which diffusers does not read", where=str(checkpoint.folder / part),
                             fix="save the network inside the wrapper: model.module.save_pretrained(DIR)")  # fmt: skip
    return found


def part_config(checkpoint: Checkpoint, part: str, file: str = "config.json") -> Mapping[str, Any]:
    """The configuration of one part.

    Raises
    ------
    UsageError
        The part or its file is missing, or is not JSON.
    """
    if not (checkpoint.folder / part).is_dir():
        raise UsageError(f"the folder {part} is missing: the checkpoint is incomplete", where=str(checkpoint.folder),
                         fix="copy or download it again")  # fmt: skip
    config = read_json(checkpoint.folder / part / file)
    if config is None:
        raise UsageError(f"{file} is missing: the checkpoint is incomplete", where=str(checkpoint.folder / part))
    return config


def vae_factor(checkpoint: Checkpoint) -> int:
    """Pixels per latent along one side: 8 for Stable Diffusion."""
    widths = part_config(checkpoint, "vae").get("block_out_channels")
    if not isinstance(widths, list) or not widths:
        raise UsageError("config.json has no block_out_channels: not an AutoencoderKL",
                         where=str(checkpoint.folder / "vae"))  # fmt: skip
    return int(2 ** (len(widths) - 1))


def noise_seed(seed: int, sample_id: str) -> int:
    """Seed of the generator that draws a photo's noise: 63 bits of its stream."""
    return stream_seed(seed, sample_id) & (2**63 - 1)


def only_variant(weights: Mapping[str, Weights]) -> str | None:
    """The variant to ask for: half-precision files where there are no others."""
    return next((w.variant for w in weights.values() if w.variant), None)


def check_filled(pipeline: Any, weights: Mapping[str, Weights], folder: Path) -> None:
    """Refuse networks that their files did not fill: diffusers leaves missing tensors at random.

    Shapes are compared, not names, because the libraries rename tensors of older checkpoints.

    Raises
    ------
    UsageError
        A network has tensors that its files have not.
    """
    for part, files in weights.items():
        network = getattr(pipeline, part)
        needed = Counter(tuple(p.shape) for p in network.parameters())
        there = Counter(tuple(s) for path in files.files for s in tensor_shapes(path).values())
        missing = needed - there
        if missing:
            shape = next(iter(missing))
            raise UsageError(f"the weights lack {missing.total()} of the network's tensors, for example one of shape "
                             f"{list(shape)}; they would stay random", where=str(folder / part))  # fmt: skip


def load_failure(error: Exception, folder: Path) -> UsageError:
    """One message for an exception of a library that loaded `folder`."""
    detail = " ".join(str(error).split())[:400] or type(error).__name__
    return UsageError(f"can't be loaded: {detail}", where=str(folder))
