"""Questions in a vision-language model's own tokens, and answers from its logits or words.

A prompt is chat template, picture, question, forced beginning and the two candidates. There is no padding anywhere:
rows of one forward pass have one length, so that no answer depends on what else is asked. The four questions about a
picture begin alike (chat template, picture); that part is computed once and the rest of each question goes on from its
keys and values. Whether a model allows that is tried on an example when it is loaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from reasonx_eval.errors import UsageError, one_line
from reasonx_ft.annotation.questions import Meaning, Questions, Template
from reasonx_ft.types import CANONICAL

Tensors: TypeAlias = Mapping[str, torch.Tensor]

#: what a processor makes of the text; all else is made of the picture
_OF_TEXT: Final = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids",
                             "cross_attention_mask"})  # fmt: skip
#: (which candidate, how many of its tokens, of how many last positions) -> logits [N, kept, V]
_Run: TypeAlias = Callable[[int, int, int], torch.Tensor]

MAX_NEW_TOKENS: Final = 128
#: how far shared and whole passes may be apart, in nats
_ROUNDING: Final = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.3}


@dataclass(frozen=True)
class Prompt:
    """One template in tokens; every picture has the same size, so these serve all pictures.

    meanings : of the two candidates
    candidates : per candidate what the processor makes of prompt, prefix and candidate, int64 [1, L]
    open : the same of the prompt alone, for free answers
    common : tokens that both candidates begin with; what follows tells them apart
    """

    template: Template
    meanings: tuple[Meaning, Meaning]
    candidates: tuple[Tensors, Tensors]
    open: Tensors
    common: int

    @property
    def ids(self) -> tuple[list[int], list[int]]:
        first, second = (c["input_ids"][0].tolist() for c in self.candidates)
        return first, second

    @property
    def one_token(self) -> bool:
        """Both candidates are told apart by one token: one forward pass reads both."""
        return all(len(ids) == self.common + 1 for ids in self.ids)


class Prompter:
    """Makes a model's inputs of templates and pictures.

    Parameters
    ----------
    processor : of transformers, with a chat template
    questions : the templates
    where : shown in errors
    """

    def __init__(self, processor: Any, questions: Questions, *, where: str) -> None:
        self._processor, self._where = processor, where
        texts = {m: chat_text(processor, t.question, where) for m, t in questions.templates.items()}
        self.prompts = {m: self._prompt(t, texts[m]) for m, t in questions.templates.items()}
        first = next(iter(self.prompts))
        self._any_text, self._expected = texts[first], self.prompts[first].open["input_ids"]

    @property
    def shared(self) -> int:
        """How many first tokens all templates and candidates have in common; each keeps one that is not shared."""
        rows = [ids for p in self.prompts.values() for ids in p.ids]
        return min(_common(rows), *(p.common - 1 for p in self.prompts.values()))

    def picture(self, picture: NDArray[np.uint8]) -> Tensors:
        """A marked photo, uint8 [512, 512, 3], as the model takes it.

        Raises
        ------
        UsageError
            A processor that turns pictures of one size into different numbers of tokens.
        """
        made = self._call(self._any_text, picture)
        if not torch.equal(made["input_ids"], self._expected):
            raise UsageError("its processor gives pictures of one size different numbers of tokens",
                             where=self._where)  # fmt: skip
        return {k: v for k, v in made.items() if k not in _OF_TEXT}

    def _prompt(self, template: Template, text: str) -> Prompt:
        blank = example_picture()
        meanings = tuple(template.answers)
        made = [self._text_part(text + template.prefix + template.answers[m], blank) for m in meanings]
        rows = [m["input_ids"][0].tolist() for m in made]
        common = _common(rows)
        if any(len(row) <= common for row in rows):
            raise UsageError(f"{template.modality}: in this model's tokens one answer is the beginning of the other "
                             f"({' and '.join(repr(a) for a in template.answers.values())})",
                             where=self._where, fix="--questions FILE with other candidates")  # fmt: skip
        return Prompt(template, (meanings[0], meanings[1]), (made[0], made[1]), self._text_part(text, blank), common)

    def _text_part(self, text: str, picture: NDArray[np.uint8]) -> Tensors:
        made = {k: v for k, v in self._call(text, picture).items() if k in _OF_TEXT}
        end, number = self._processor.tokenizer.eos_token, self._processor.tokenizer.eos_token_id
        if end is not None and made["input_ids"][0, -1] == number and not text.endswith(end):
            return {k: v[:, :-1] for k, v in made.items()}  # appended by the tokenizer; no answer goes on after it
        return made

    def _call(self, text: str, picture: NDArray[np.uint8]) -> dict[str, torch.Tensor]:
        from PIL import Image

        start = self._processor.tokenizer.bos_token
        twice = start is not None and text.startswith(start)
        try:
            made = self._processor(text=[text], images=[Image.fromarray(picture)], return_tensors="pt",
                                   **({"add_special_tokens": False} if twice else {}))  # fmt: skip
        except Exception as error:
            raise UsageError(f"its processor failed on a 512 x 512 picture: {one_line(error)}",
                             where=self._where) from None  # fmt: skip
        return {k: v for k, v in made.items() if isinstance(v, torch.Tensor)}


def chat_text(processor: Any, question: str, where: str) -> str:
    """Everything up to where the model's answer begins, as text.

    Raises
    ------
    UsageError
        No chat template, or one that takes no picture before a question.
    """
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    try:
        return str(processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False))
    except Exception as error:
        raise UsageError(f"no usable chat template ({one_line(error)})", where=where,
                         fix="put the model's chat_template.jinja into its folder") from None  # fmt: skip


def example_picture() -> NDArray[np.uint8]:
    """A picture of the size that all have, uint8 [512, 512, 3], smooth and not flat."""
    ramp = np.linspace(0, 255, CANONICAL).astype(np.uint8)
    return np.stack([np.broadcast_to(ramp, (CANONICAL, CANONICAL)), np.broadcast_to(ramp[:, None], (CANONICAL,) * 2),
                     np.full((CANONICAL, CANONICAL), 128, np.uint8)], axis=-1)  # fmt: skip


def _common(rows: Sequence[Sequence[int]]) -> int:
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False)))


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
    return UsageError(f"the model failed on a question: {one_line(error)}", where=where)
