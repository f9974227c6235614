"""Requests to, and replies of, an OpenAI-compatible chat endpoint; a reply that is not as it should be has no value."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, Final, Literal, TypeAlias

from reasonx_ft.annotation.questions import Template
from reasonx_ft.judges.answer_text import Unread, certain, final_text, read_answer
from reasonx_ft.types import Order

#: how answers are read: `prefix` continues a forced beginning, `word` asks for one word; both from log-probabilities
Reading: TypeAlias = Literal["prefix", "word", "text"]

#: alternatives to a token that are asked for
TOP: Final = 20
#: tokens of an answer in free words
WORDS: Final = 256
_ONE_WORD: Final = 8
#: how far a probability may be open where one candidate is below the least that is listed
_OPEN: Final = 0.02
_REFUSING: Final = frozenset({"content_filter", "safety", "refusal"})
_CUT: Final = frozenset({"length", "max_tokens", "max_length", "max_new_tokens", "max_output_tokens", "model_length"})
_FINISHED: Final = frozenset({"stop", "end_turn", "eos", "eos_token", "stop_sequence", "end_of_turn", "complete",
                              "completed", "done"})  # fmt: skip


class BadReply(Exception):
    """A reply that is not what the interface says."""


class NoLogProbabilities(BadReply):
    """A reply without them, where they were asked for: words alone would pass for certainty."""


def request(
    template: Template, picture: str, reading: Reading, *, top: int = TOP, words: int = WORDS
) -> dict[str, Any]:
    """The body of a request, without the model.

    Parameters
    ----------
    picture : the marked photo as a data URL
    top : alternatives to each token that are asked for
    words : tokens of an answer in free words, at most
    """
    text = template.question
    if reading == "word":
        first, second = (a.strip() for a in template.answers.values())
        text = f"{text} Answer with one word only: {first} or {second}."
    content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": text}]
    body: dict[str, Any] = {"messages": [{"role": "user", "content": content}], "temperature": 0}
    if reading == "prefix":
        body["messages"].append({"role": "assistant", "content": beginning(template)})
        body |= {"add_generation_prompt": False, "continue_final_message": True, "max_tokens": 1}
    else:
        body["max_tokens"] = _ONE_WORD if reading == "word" else words
    return body if reading == "text" else body | {"logprobs": True, "top_logprobs": top}


def fewer(says: str, top: int) -> int | None:
    """How many log-probabilities to ask for instead of `top`, after a refusal; None if it is about something else."""
    if "logprob" not in says.lower() or top <= 2:
        return None
    named = [n for n in map(int, re.findall(r"\b\d{1,3}\b", says)) if 2 <= n < top]
    return max(named, default=top // 2)


def beginning(template: Template) -> str:
    """The forced beginning, with the words that both candidates begin with."""
    return template.prefix + _shared(template)


def _shared(template: Template) -> str:
    """Whole words that both candidates begin with."""
    first, second = template.answers.values()
    common = first[: sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))]
    return common[: common.rfind(" ")] if " " in common[1:] else ""


def read_reply(reply: Any, template: Template, order: Order, reading: Reading) -> float | Unread:
    """The probability of FIRST (or SAME), or why there is none.

    Raises
    ------
    BadReply
        Not a chat completion, or one without log-probabilities where `reading` needs them.
    """
    choice = _choice(reply)
    message, ended = choice["message"], _ended(choice)
    if message.get("refusal") or ended in _REFUSING:
        return "refused"
    if reading == "text":
        return "unfinished" if ended in _CUT else certain(read_answer(_content(message), template), template, order)
    if not (tokens := _tokens(choice)):
        raise NoLogProbabilities("no log-probabilities")
    if _thinks(message):
        return "unfinished"  # the tokens are those of its thoughts
    if reading == "word":
        # a first word counts if nothing but this word was said: else it may have been the beginning of thoughts
        content = _content(message)
        alone = final_text(content) == content and _letters("".join(t for t, _ in tokens)) == _letters(content)
        if ended in _CUT or not alone:
            return "unfinished"
        said = certain(read_answer(content, template), template, order)
        if isinstance(said, str):
            return said
    return read_tokens(tokens, template, order, first_only=reading == "prefix")


def has_log_probabilities(reply: Any) -> bool:
    """Whether a reply lists alternatives to its first token.

    Raises
    ------
    BadReply
        Not a chat completion.
    """
    return any(len(alternatives) > 1 for _, alternatives in _tokens(_choice(reply)))


def read_tokens(
    tokens: Sequence[tuple[str, Mapping[str, float]]], template: Template, order: Order, *, first_only: bool
) -> float | Unread:
    """The probability of FIRST (or SAME) from the first token that tells the candidates apart.

    Parameters
    ----------
    tokens : said ones, each with the log-probabilities of what might have been said
    first_only : only the very first token counts, after a forced beginning
    """
    first, second = (c.removeprefix(_shared(template)).strip().lower() for c in template.candidates(order))
    for said, alternatives in tokens[:1] if first_only else tokens:
        if not first_only and not _says(said, first, second) and not _says(said, second, first):
            if _word(said).strip("*:"):
                return "garbage"  # some other word: what follows is no one-word answer
            continue
        mine, other = (sum(math.exp(v) for t, v in alternatives.items() if _says(t, a, b))
                       for a, b in ((first, second), (second, first)))  # fmt: skip
        listed = [math.exp(v) for v in alternatives.values()]
        return _share(mine, other, min(*listed, max(1.0 - sum(listed), 0.0)))
    return "garbage"


def _share(mine: float, other: float, least: float) -> float | Unread:
    """mine / (mine + other), where one that is not listed lies somewhere between 0 and `least`."""
    if mine > 0 and other > 0:
        return mine / (mine + other)
    listed = mine + other
    if listed <= 0 or least / (listed + least) > _OPEN:
        return "garbage"
    towards = (1 + listed / (listed + least)) / 2
    return towards if mine > 0 else 1 - towards


def _word(token: str) -> str:
    """A token without the marks that tokenizers put for a space, and without punctuation."""
    return token.replace("\u2581", " ").replace("\u0120", " ").strip().lower().strip("\"'*.,!")


def _says(token: str, candidate: str, other: str) -> bool:
    """A token begins (or is) this candidate and not the other."""
    word = _word(token)
    return bool(word) and candidate.startswith(word) and not other.startswith(word)


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+|\u0120|\u010a", "", re.sub(r"<[^<>]*>", "", text)).lower()


def _choice(reply: Any) -> Mapping[str, Any]:
    choices = reply.get("choices") if isinstance(reply, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        raise BadReply("no chat completion")
    return choice


def _ended(choice: Mapping[str, Any]) -> str | None:
    """Why the reply ended; None where a server doesn't say."""
    reason = choice.get("finish_reason")
    if reason is None:
        return None
    if not isinstance(reason, str) or reason.lower() not in _REFUSING | _CUT | _FINISHED:
        raise BadReply("a finish_reason that is not that of an answer")
    return reason.lower()


def _thinks(message: Mapping[str, Any]) -> bool:
    return any(message.get(name) for name in ("reasoning_content", "reasoning", "thinking"))


def _content(message: Mapping[str, Any]) -> str:
    """The text of a message; of one in parts, the parts that are text (others are thoughts)."""
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        content = "".join(str(part.get("text", "")) for part in content if part.get("type") in ("text", "output_text"))
    if content is None:
        return ""
    if not isinstance(content, str):
        raise BadReply("the message is no text")
    return content


def _tokens(choice: Mapping[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """Said tokens with the log-probabilities of their alternatives; empty where the server gives none."""
    found = []
    for said, entries in _listed(choice.get("logprobs"))[:WORDS]:
        alternatives: dict[str, float] = {}
        for token, value in entries:
            if not isinstance(token, str) or isinstance(value, bool) or not isinstance(value, (int, float)):
                raise BadReply("a token without a log-probability")
            if value != -math.inf and not -1e5 <= value <= 1e-3:  # NaN fails too
                raise BadReply("a log-probability that is none")
            alternatives.setdefault(token, min(float(value), 0.0))
        if sum(map(math.exp, alternatives.values())) > 1.05:
            raise BadReply("probabilities of more than 1 together")
        found.append((str(said), alternatives))
    return found


def _listed(listed: Any) -> list[tuple[Any, list[tuple[Any, Any]]]]:
    """Tokens and the alternatives beside them, in the chat interface's form or as parallel lists, as before it."""
    if isinstance(listed, dict) and listed.get("content") is None and isinstance(listed.get("tokens"), list):
        columns = [listed.get(name) for name in ("tokens", "token_logprobs", "top_logprobs")]
        if not all(isinstance(c, list) for c in columns):
            raise BadReply("log-probabilities are no lists of tokens")
        return [(token, [*_pairs(top), (token, value)]) for token, value, top in zip(*columns, strict=False)]
    content = listed.get("content") if isinstance(listed, dict) else listed
    if content is None:
        return []
    if not isinstance(content, list) or not all(isinstance(c, dict) for c in content):
        raise BadReply("log-probabilities are no list of tokens")
    return [(one.get("token"), [*_pairs(one.get("top_logprobs")), (one.get("token"), one.get("logprob"))])
            for one in content]  # fmt: skip


def _pairs(top: Any) -> list[tuple[Any, Any]]:
    if isinstance(top, dict):
        return list(top.items())
    if top is None or (isinstance(top, list) and all(isinstance(t, dict) for t in top)):
        return [(t.get("token"), t.get("logprob")) for t in top or []]
    raise BadReply("top_logprobs is no list")
