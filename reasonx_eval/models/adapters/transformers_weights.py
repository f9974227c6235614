"""Loads the network of a transformers folder, wholly or not at all: no code from files, no head left at random."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from reasonx_eval.errors import UsageError, one_line
from reasonx_eval.models.loading.checkpoint import WRAPPER, Checkpoint, tensor_shapes, weight_files
from reasonx_eval.models.loading.runtime import aligned, quiet

_SAFE: Final = "model.safetensors"
_PICKLED: Final = "pytorch_model.bin"
# Parameters that no prediction reads, and that published checkpoints (Intel/dpt-large) therefore lack: the first
# fusion layer has nothing to add, masks are for training, and batch norm counts batches for training only.
_UNREAD: Final = re.compile(
    r"(^|\.)fusion_stage\.layers\.0\.residual_layer1\.|(^|\.)mask_token$|\.num_batches_tracked$"
)
# tensors that are no parameters: statistics of batch norm, tables that follow from the sizes
_STATISTICS: Final = re.compile(r"\.(num_batches_tracked|running_mean|running_var|relative_position_index)$")
_SHOWN: Final = 4


def load_network(checkpoint: Checkpoint, auto_class: Any, *, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    """The network of a folder in evaluation mode, on the CPU.

    Parameters
    ----------
    auto_class : a class of transformers with from_pretrained
    dtype : the type of its parameters

    Raises
    ------
    UsageError
        No weights, files of another format than their names say, a pickle that holds more than tensors, or weights that
        don't fill the network.
    """
    folder = checkpoint.folder
    safe = check_weights(folder, checkpoint.source)

    def load(**more: Any) -> Any:
        return auto_class.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=safe, weights_only=True, dtype=dtype,
            trust_remote_code=trust_remote_code, output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            **more,
        )  # fmt: skip

    with quiet("transformers"):
        try:
            network, info = load()
            if any(re.match(WRAPPER, str(key)) for key in info.get("unexpected_keys", ())):
                network, info = load(key_mapping={WRAPPER: ""})  # saved from a wrapped network
        except Exception as error:
            raise _failure(error, folder, safe, checkpoint.source) from None
    refuse_incomplete(info, checkpoint.source)
    return aligned(network).eval()


def check_weights(folder: Path, source: str) -> bool:
    """True for safetensors, False for a pickled checkpoint; each safetensors file's header is read.

    Raises
    ------
    UsageError
        There are no weights, a part is missing, or a file is not safetensors.
    """
    for name, safe in ((_SAFE, True), (_PICKLED, False)):
        files = weight_files(folder, name, f"{name}.index.json")
        for file in files if safe else ():
            tensor_shapes(file)
        if files:
            return safe
    others = sorted(p.name for p in folder.iterdir() if p.suffix in (".pt", ".pth", ".ckpt", ".bin", ".safetensors"))
    there = f"; it has {', '.join(others[:_SHOWN])}, which are no transformers checkpoint" if others else ""
    raise UsageError(f"no weights: neither {_SAFE} nor {_PICKLED}{there}", where=source,
                     fix="the -hf version of the checkpoint, or save_pretrained")  # fmt: skip


def count_parameters(checkpoint: Checkpoint) -> int | None:
    """Parameters of a safetensors checkpoint, from the headers of its files; None for a pickled one.

    Raises
    ------
    UsageError
        As `check_weights`.
    """
    if not check_weights(checkpoint.folder, checkpoint.source):
        return None
    files = weight_files(checkpoint.folder, _SAFE, f"{_SAFE}.index.json")
    shapes = [t for file in files for t in tensor_shapes(file).items()]
    return sum(math.prod(shape) for name, shape in shapes if not _STATISTICS.search(name))


def refuse_incomplete(info: Mapping[str, Any], source: str) -> None:
    """Raise UsageError if a network was not filled by its checkpoint; the library would leave the rest at random."""
    mismatched = sorted(_mismatch(k) for k in info.get("mismatched_keys", ()))
    if mismatched or info.get("error_msgs"):
        raise UsageError(f"the weights don't fit config.json ({_listed(mismatched) or info['error_msgs'][0]})",
                         where=source)  # fmt: skip
    missing = sorted(str(k) for k in info.get("missing_keys", ()) if not _UNREAD.search(str(k)))
    if missing:
        raise UsageError(f"the weights lack {len(missing)} of the network's tensors ({_listed(missing)}), which would "
                         "stay random: is it a backbone without a depth head?", where=source)  # fmt: skip


def _mismatch(entry: Any) -> str:
    if not isinstance(entry, tuple):
        return str(entry)
    name, in_file, in_network = entry
    return f"{name} is {list(in_file)}, the network's is {list(in_network)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _failure(error: Exception, folder: Path, safe: bool, source: str) -> UsageError:
    text = one_line(error)
    if not safe and ("weights_only" in text or "nsafe" in text or "pickle" in text.lower()):
        return UsageError("a pickle that holds more than tensors, or no pickle at all; it was not run",
                          where=str(folder / _PICKLED), fix=f"a checkpoint with {_SAFE}")  # fmt: skip
    return UsageError(f"transformers can't load it: {text}", where=source)
