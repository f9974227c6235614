"""Questions as a vision-language model's own tokens: chat template, picture, question, forced beginning, candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from reasonx_eval.errors import UsageError
from reasonx_ft.annotation.questions import Meaning, Questions, Template
from reasonx_ft.judges.base import CANONICAL

Tensors: TypeAlias = Mapping[str, torch.Tensor]

#: what a processor makes of the text; all else is made of the picture
_OF_TEXT: Final = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids",
                             "cross_attention_mask"})  # fmt: skip


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
            detail = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            raise UsageError(f"its processor failed on a 512 x 512 picture: {detail}", where=self._where) from None
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
        detail = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
        raise UsageError(f"no usable chat template ({detail})", where=where,
                         fix="put the model's chat_template.jinja into its folder") from None  # fmt: skip


def example_picture() -> NDArray[np.uint8]:
    """A picture of the size that all have, uint8 [512, 512, 3], smooth and not flat."""
    ramp = np.linspace(0, 255, CANONICAL).astype(np.uint8)
    return np.stack([np.broadcast_to(ramp, (CANONICAL, CANONICAL)), np.broadcast_to(ramp[:, None], (CANONICAL,) * 2),
                     np.full((CANONICAL, CANONICAL), 128, np.uint8)], axis=-1)  # fmt: skip


def _common(rows: Sequence[Sequence[int]]) -> int:
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False)))
