"""Requests to, and replies of, an OpenAI-compatible chat endpoint; a reply that is not as it should be has no value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, Final, Literal, TypeAlias

from reasonx_ft.annotation.questions import Template
from reasonx_ft.judges.answer_text import Unread, read_answer
from reasonx_ft.judges.base import Order

#: how answers are read: `prefix` continues a forced beginning, `word` asks for one word; both from log-probabilities
Reading: TypeAlias = Literal["prefix", "word", "text"]

TOP: Final = 20
_WORDS: Final = 48
#: how far a probability may be open where one candidate is below the least that is listed
_OPEN: Final = 0.02
_REFUSING: Final = frozenset({"content_filter", "safety", "refusal"})


class BadReply(Exception):
    """A reply that is not what the interface says."""


class NoLogProbabilities(BadReply):
    """A reply without them, where they were asked for: words alone would pass for certainty."""


def request(template: Template, picture: str, reading: Reading) -> dict[str, Any]:
    """The body of a request, without the model.

    Parameters
    ----------
    picture : the marked photo as a data URL
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
        body["max_tokens"] = 8 if reading == "word" else _WORDS
    return body if reading == "text" else body | {"logprobs": True, "top_logprobs": TOP}


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
    message = choice["message"]
    if message.get("refusal") or choice.get("finish_reason") in _REFUSING:
        return "refused"
    if reading != "text":
        if not (tokens := _tokens(choice)):
            raise NoLogProbabilities("no log-probabilities")
        return read_tokens(tokens, template, order, first_only=reading == "prefix")
    content = message.get("content")
    if content is None:
        return "garbage"
    if not isinstance(content, str):
        raise BadReply("the message is no text")
    said = read_answer(content, template)
    return said if said == "refused" or said == "garbage" else template.probability(said, 1.0, order)


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
            if said.strip(" \n\t\"'*.:"):
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


def _says(token: str, candidate: str, other: str) -> bool:
    """A token begins (or is) this candidate and not the other."""
    word = token.strip().lower().strip("\"'*.,!")
    return bool(word) and candidate.startswith(word) and not other.startswith(word)


def _choice(reply: Any) -> Mapping[str, Any]:
    choices = reply.get("choices") if isinstance(reply, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        raise BadReply("no chat completion")
    return choice


def _tokens(choice: Mapping[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """Said tokens with the log-probabilities of their alternatives; empty where the server gives none."""
    listed = choice.get("logprobs")
    content = listed.get("content") if isinstance(listed, dict) else None
    if content is None:
        return []
    if not isinstance(content, list) or not all(isinstance(c, dict) for c in content):
        raise BadReply("log-probabilities are no list of tokens")
    found = []
    for entry in content[:_WORDS]:
        top = entry.get("top_logprobs") or []
        if not isinstance(top, list):
            raise BadReply("top_logprobs is no list")
        alternatives: dict[str, float] = {}
        for one in [*top, entry]:
            token, value = (one.get("token"), one.get("logprob")) if isinstance(one, dict) else (None, None)
            if not isinstance(token, str) or isinstance(value, bool) or not isinstance(value, (int, float)):
                raise BadReply("a token without a log-probability")
            if not -1e5 <= value <= 1e-3:  # NaN fails too
                raise BadReply("a log-probability that is none")
            alternatives.setdefault(token, min(float(value), 0.0))
        if sum(map(math.exp, alternatives.values())) > 1.05:
            raise BadReply("probabilities of more than 1 together")
        found.append((str(entry["token"]), alternatives))
    return found
