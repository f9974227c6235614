"""Answers from a vision-language model's logits: the two candidates after the forced beginning, or free words.

There is no padding anywhere: rows of one forward pass have one length, so that no answer depends on what else is asked.
The four questions about a picture begin alike (chat template, picture); that part is computed once and the rest of each
question goes on from its keys and values. Whether a model allows that is tried on an example when it is loaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import torch

from reasonx_eval.errors import UsageError
from reasonx_ft.judges.mllm_prompts import Prompt, Tensors

#: (which candidate, how many of its tokens, of how many last positions) -> logits [N, kept, V]
_Run: TypeAlias = Callable[[int, int, int], torch.Tensor]

MAX_NEW_TOKENS: Final = 128
#: how far shared and whole passes may be apart, in nats
_ROUNDING: Final = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.3}


class Readout:
    """Reads a network.

    Parameters
    ----------
    network : of transformers, on `device`
    shared : first tokens that all prompts have in common; 0 computes every question whole
    where : shown in errors
    """

    def __init__(self, network: Any, device: torch.device, dtype: torch.dtype, shared: int, *, where: str) -> None:
        self._network, self._device, self._dtype = network, device, dtype
        self._shared, self._where = shared, where
        base = network.get_base_model() if hasattr(network, "get_base_model") else network
        self._keeps = "logits_to_keep" in inspect.signature(base.forward).parameters

    @property
    def shared(self) -> int:
        return self._shared

    @torch.inference_mode()
    def settle(self, prompts: Sequence[Prompt], picture: Tensors) -> None:
        """Stop sharing if a model fails at it or then says something else about an example."""
        whole = torch.tensor([self._whole(p, [picture]) for p in prompts])
        if self._shared < 1:
            return
        try:
            parts = torch.tensor(self._continued(prompts, [picture]))[:, 0]
            apart = (parts - whole[:, 0]).abs().max().item()
        except torch.OutOfMemoryError:
            raise
        except Exception:
            apart = float("inf")
        if not apart <= _ROUNDING[self._dtype]:
            self._shared = 0

    @torch.inference_mode()
    def differences(self, prompts: Sequence[Prompt], pictures: Sequence[Tensors]) -> list[list[float]]:
        """log P(first candidate) - log P(second), [prompts][pictures]; NaN where logits are not finite."""
        try:
            if self._shared:
                return self._continued(prompts, pictures)
            return [self._whole(p, pictures) for p in prompts]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise _failure(error, self._where) from error

    @torch.inference_mode()
    def words(self, prompt: Prompt, pictures: Sequence[Tensors], tokenizer: Any) -> list[str | None]:
        """Greedy free answers; None for one that has not ended within MAX_NEW_TOKENS."""
        known = self._network.generation_config
        end = tokenizer.eos_token_id if known.eos_token_id is None else known.eos_token_id
        pad = tokenizer.pad_token_id if known.pad_token_id is None else known.pad_token_id
        if pad is None:
            pad = end[0] if isinstance(end, list) else end
        # the checkpoint's own settings (temperature, penalties) would be mixed into a configuration that is only given
        self._network.generation_config = plain = type(known)(
            do_sample=False, num_beams=1, max_new_tokens=MAX_NEW_TOKENS, eos_token_id=end, pad_token_id=pad
        )
        length = prompt.open["input_ids"].shape[1]
        try:
            made = self._network.generate(**self._rows(prompt.open, length, len(pictures)), **self._joined(pictures),
                                          generation_config=plain)  # fmt: skip
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise _failure(error, self._where) from error
        said = made[:, length:]
        ended = torch.isin(said, torch.as_tensor(end, device=said.device)).any(dim=1).tolist()
        texts = tokenizer.batch_decode(said, skip_special_tokens=True)
        return [text if done else None for text, done in zip(texts, ended, strict=True)]

    def _whole(self, prompt: Prompt, pictures: Sequence[Tensors]) -> list[float]:
        images = self._joined(pictures)

        def run(candidate: int, length: int, kept: int) -> torch.Tensor:
            text = self._rows(prompt.candidates[candidate], length, len(pictures))
            logits: torch.Tensor = self._forward({**text, **images}, kept, use_cache=False).logits
            return logits[:, -kept:]

        return _difference(prompt, run)

    def _continued(self, prompts: Sequence[Prompt], pictures: Sequence[Tensors]) -> list[list[float]]:
        first = self._rows(prompts[0].candidates[0], self._shared, len(pictures))
        kept = self._forward({**first, **self._joined(pictures)}, 1, use_cache=True).past_key_values
        return [_difference(p, self._from(kept, p, len(pictures))) for p in prompts]

    def _from(self, cache: Any, prompt: Prompt, n: int) -> _Run:
        def run(candidate: int, length: int, kept: int) -> torch.Tensor:
            ids = prompt.candidates[candidate]["input_ids"][:, self._shared : length].expand(n, -1).to(self._device)
            # no mask: nothing is padded, and the model counts positions from what the cache holds
            output = self._forward({"input_ids": ids}, kept, use_cache=True, past_key_values=cache)
            cache.crop(-ids.shape[1])
            logits: torch.Tensor = output.logits
            return logits[:, -kept:]

        return run

    def _forward(self, inputs: Tensors, kept: int, **how: Any) -> Any:
        return self._network(**inputs, **how, **({"logits_to_keep": kept} if self._keeps else {}))

    def _rows(self, text: Tensors, length: int, n: int) -> dict[str, torch.Tensor]:
        return {k: v[:, :length].repeat(n, *(1,) * (v.ndim - 1)).to(self._device) for k, v in text.items()}

    def _joined(self, pictures: Sequence[Tensors]) -> dict[str, torch.Tensor]:
        joined = {k: torch.cat([p[k] for p in pictures]).to(self._device) for k in pictures[0]}
        return {k: v.to(self._dtype) if v.is_floating_point() else v for k, v in joined.items()}


def _difference(prompt: Prompt, run: _Run) -> list[float]:
    """Sum of the log-probabilities of each candidate's own tokens, first minus second."""
    first, second = prompt.ids
    common = prompt.common
    if prompt.one_token:
        last = torch.log_softmax(run(0, common, 1)[:, -1].double(), dim=-1)
        totals = [last[:, first[-1]], last[:, second[-1]]]
    else:
        totals = []
        for candidate, ids in enumerate((first, second)):
            own = torch.tensor(ids[common:])
            logits = run(candidate, len(ids) - 1, len(own))
            chances = torch.log_softmax(logits.double(), dim=-1)
            totals.append(chances.gather(-1, own.to(logits.device).expand(len(logits), -1)[..., None]).sum((1, 2)))
    return [float(d) for d in totals[0] - totals[1]]


def _failure(error: Exception, where: str) -> UsageError:
    detail = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    return UsageError(f"the model failed on a question: {detail}", where=where)
