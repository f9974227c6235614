"""Fine-tuning of a vision-language model as a judge: a LoRA adapter learns to answer questions about marked points.

The preset is what is published of the ReasonX judge: rank 16 on all linear layers of vision tower, projector and
language model, which are frozen themselves; learning rate 4e-5 falling by half a cosine; one epoch; 16 conversations a
step; pictures of 512 x 512, at most 6 tiles. Not published, and our own choice: alpha 32, dropout 0.05, 3 % warm-up,
gradients clipped at length 1. The loss is the cross entropy of the answer's tokens alone.

Conversations go through the model one by one and gradients add up to a step, so nothing is padded, any family of
models works as it is, and memory is that of one conversation. An interrupt, or any N steps, leaves a checkpoint; the
same command goes on from it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.nn import functional

from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.io.files import write_json
from reasonx_eval.io.images import read_rgb
from reasonx_eval.io.seeding import rng, stream_seed
from reasonx_eval.models.loading.runtime import Runtime
from reasonx_eval.run.provenance import collect
from reasonx_ft.judges.mllm_files import check_architecture, find_model, limit_tiles, load_model, load_processor
from reasonx_ft.judges.mllm_readout import chat_text
from reasonx_ft.judges.training.data import read_data
from reasonx_ft.training.config import config_table, validated
from reasonx_ft.training.files import CHECKPOINT, LOG, rise_and_cosine
from reasonx_ft.training.trainer import Progress, Trainer, silent

WEIGHTS: Final = "adapter_model.safetensors"
CARD: Final = "judge.json"
LOG_EVERY: Final = 10
_CLIP: Final = 1.0


class LoraConfig(BaseModel):
    """Everything that decides an adapter; defaults are the published settings (see the module).

    base : folder or hub id of the model
    batch : conversations in a step
    steps : None is `epochs` passes over the data
    save_every : steps between checkpoints
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str
    seed: int = Field(0, ge=0)
    rank: int = Field(16, ge=1)
    alpha: int = Field(32, gt=0)
    dropout: float = Field(0.05, ge=0, lt=1)
    learning_rate: float = Field(4e-5, gt=0, le=1)
    warmup: float = Field(0.03, ge=0, le=1)
    weight_decay: float = Field(0.01, ge=0)
    batch: int = Field(16, ge=1)
    epochs: int = Field(1, ge=1)
    steps: int | None = Field(None, ge=1)
    tiles: int = Field(6, ge=1)
    device: str = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    save_every: int = Field(200, ge=1)


class LoraCard(BaseModel):
    """What an adapter is: the base and its digest, the data, the configuration, and how it went."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal[1] = Field(1, alias="schema")
    base: str
    base_digest: str
    data: dict[str, Any]
    training: dict[str, Any]
    parameters: int
    steps: int
    final_loss: float
    versions: dict[str, str]


def read_lora_config(file: Path | None, flags: Mapping[str, Any]) -> LoraConfig:
    """The configuration of a run: flags, then the file, then the published settings.

    Raises
    ------
    UsageError
        An unknown key (with the nearest match), a value of the wrong type or out of range, a file that can't be read.
    """
    where = "judge-train" if file is None else str(file)
    return validated(LoraConfig, {} if file is None else config_table(file), flags, where)


def train_lora(
    config: LoraConfig, data: Path, out: Path, *, force: bool = False, trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> LoraCard:  # fmt: skip
    """Train, or go on training, an adapter into a folder that `--judge mllm:BASE -O adapter=FOLDER` takes.

    Parameters
    ----------
    data : folder written by judge-data
    out : gets the adapter in peft's format, judge.json, log.jsonl, and checkpoint.pt until it is finished

    Raises
    ------
    UsageError, DataError
        No such model or data, a finished adapter there, a checkpoint of another configuration.
    """
    _claim(out, force=force)
    about, rows = read_data(data)
    runtime = Runtime(config.device, config.dtype, 1, trust_remote_code)
    checkpoint = find_model(config.base, code=trust_remote_code)
    check_architecture(checkpoint, runtime)
    processor = load_processor(checkpoint, runtime)
    limit_tiles(processor, config.tiles)
    talk = Conversations(processor, data, rows, where=checkpoint.source)
    network = _with_adapter(load_model(checkpoint, None, runtime), config)
    weights = nn.ParameterList([p for p in network.parameters() if p.requires_grad])
    optimiser = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=config.weight_decay)
    network.train()
    trainer = Trainer(config, weights, optimiser, out, steps_of(config, len(rows)), LOG_EVERY, config.save_every,
                      progress or silent)  # fmt: skip
    trainer.run(lambda step: _step(config, network, weights, optimiser, talk, step, runtime.torch_device))
    network.eval()
    network.save_pretrained(str(out), safe_serialization=True)
    (out / "README.md").unlink(missing_ok=True)  # peft's empty form
    card = LoraCard(
        schema=1, base=checkpoint.source, base_digest=checkpoint.digest,
        data=about.model_dump(mode="json", by_alias=True), training=config.model_dump(mode="json"),
        parameters=sum(p.numel() for p in network.parameters() if p.requires_grad), steps=steps_of(config, len(rows)),
        final_loss=trainer.last["loss"], versions=_versions(config.seed),
    )  # fmt: skip
    write_json(out / CARD, card.model_dump(mode="json", by_alias=True))
    trainer.finish()
    return card


def _versions(seed: int) -> dict[str, str]:
    found = collect(seed=seed)
    return {"reasonx": found.reasonx, "python": found.python,
            **{k: v for k, v in found.packages.items() if k in ("torch", "transformers")}}  # fmt: skip


def steps_of(config: LoraConfig, rows: int) -> int:
    """Optimiser steps of a training on so many conversations."""
    return config.steps or math.ceil(rows * config.epochs / config.batch)


class Conversations:
    """Rows of training data as a model's inputs.

    Parameters
    ----------
    processor : of transformers, with a chat template
    folder : that the rows' pictures lie in
    """

    def __init__(self, processor: Any, folder: Path, rows: Sequence[Mapping[str, Any]], *, where: str) -> None:
        self._processor, self._folder, self._rows, self._where = processor, folder, rows, where
        self._end = processor.tokenizer.eos_token or ""

    def __len__(self) -> int:
        return len(self._rows)

    def inputs(self, number: int) -> tuple[dict[str, torch.Tensor], int]:
        """What the model takes of one conversation, and how many of its tokens come before the answer.

        Raises
        ------
        DataError
            A row of another form; a picture that can't be read; an answer without tokens.
        """
        row = self._rows[number]
        try:
            asked, answer = (turn["value"] for turn in row["conversations"])
            picture = self._folder / row["image"]
        except (KeyError, TypeError, ValueError):
            raise DataError("not a row with image and conversations", where=f"row {number + 1}") from None
        text = chat_text(self._processor, asked.removeprefix("<image>\n"), self._where)
        image = read_rgb(picture)
        whole, prompt = self._call(text + answer + self._end, image), self._call(text, image)
        ids, known = whole["input_ids"][0], prompt["input_ids"][0]
        same = int((ids[: len(known)] == known[: len(ids)]).long().cumprod(0).sum())
        if same >= len(ids):
            raise DataError("the answer has no tokens of its own", where=str(row.get("id", number)))
        return whole, same

    def _call(self, text: str, image: NDArray[np.uint8]) -> dict[str, torch.Tensor]:
        from PIL import Image

        start = self._processor.tokenizer.bos_token
        twice = {"add_special_tokens": False} if start is not None and text.startswith(start) else {}
        made = self._processor(text=[text], images=[Image.fromarray(image)], return_tensors="pt", **twice)
        return {k: v for k, v in made.items() if isinstance(v, torch.Tensor)}


def answer_loss(network: nn.Module, inputs: Mapping[str, torch.Tensor], before: int) -> torch.Tensor:
    """Mean cross entropy of the tokens from `before` on, each predicted from those in front of it."""
    logits = network(**inputs).logits[0]
    return functional.cross_entropy(logits[before - 1 : -1].float(), inputs["input_ids"][0, before:])


def _step(
    config: LoraConfig, network: Any, weights: nn.ParameterList, optimiser: torch.optim.Optimizer,
    talk: Conversations, step: int, device: torch.device,
) -> dict[str, float]:  # fmt: skip
    """One optimiser step over `batch` conversations; their mean loss, and the learning rate."""
    paced = rate(config, step, steps_of(config, len(talk)))
    for group in optimiser.param_groups:
        group["lr"] = paced
    optimiser.zero_grad()
    total = 0.0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(stream_seed(config.seed, "lora", "dropout", str(step)) % 2**63)
        for k in range(step * config.batch, (step + 1) * config.batch):
            number = int(_order(len(talk), config.seed, k // len(talk))[k % len(talk)])
            inputs, before = talk.inputs(number)
            loss = answer_loss(network, _moved(inputs, device, config.dtype), before) / config.batch
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature
            total += float(loss.detach())
    if not math.isfinite(total):
        raise DataError(f"the loss is {total} at step {step + 1}", where=config.base,
                        fix="--dtype float32 or bfloat16, or a smaller --learning-rate")  # fmt: skip
    nn.utils.clip_grad_norm_(weights, _CLIP)
    optimiser.step()
    return {"loss": total, "learning_rate": paced}


def _moved(inputs: Mapping[str, torch.Tensor], device: torch.device, dtype: str) -> dict[str, torch.Tensor]:
    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
    return {k: v.to(device, kind) if v.is_floating_point() else v.to(device) for k, v in inputs.items()}


def rate(config: LoraConfig, step: int, total: int) -> float:
    """The learning rate of a step: a linear rise over the share `warmup`, then half a cosine down to 0."""
    return config.learning_rate * rise_and_cosine(step, total, config.warmup * total)


def _with_adapter(network: nn.Module, config: LoraConfig) -> Any:
    """The model, frozen, with an adapter that starts as no change; the global random state is left as it was."""
    from peft import LoraConfig as Peft
    from peft import get_peft_model

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft asks the model by a name that transformers is about to drop
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        torch.manual_seed(stream_seed(config.seed, "lora", "weights") % 2**63)
        return get_peft_model(network, Peft(r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout,
                                            target_modules="all-linear", bias="none"))  # fmt: skip


@lru_cache(maxsize=2)
def _order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return rng(seed, "lora", "order", str(epoch)).permutation(n)


def _claim(out: Path, *, force: bool) -> None:
    if force:
        for name in (WEIGHTS, "adapter_config.json", CARD, CHECKPOINT, LOG):
            (out / name).unlink(missing_ok=True)
    elif out.exists() and not out.is_dir():
        raise UsageError("a file, not a folder", where=str(out))
    elif (out / CARD).exists() or (out / WEIGHTS).exists():
        raise UsageError("an adapter is there already", where=str(out), fix="--force, or another --out")
    out.mkdir(parents=True, exist_ok=True)
