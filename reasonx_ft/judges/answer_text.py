"""From a judge's free words to one of the two meanings of a question, or to why there is none.

Only the final answer counts, not the thoughts that a model writes before it, and only if it is
said plainly. An answer that names both points without comparing them, denies one without naming
the other, or contradicts itself is garbage: a wrong reading would be worse than none.
"""

from __future__ import annotations

import math
import re
from typing import Final, Literal, TypeAlias

from reasonx_ft.annotation.questions import Meaning, Template
from reasonx_ft.types import Answer, Order

#: why words have no meaning; unfinished: they end within the thoughts, or were cut off
Unread: TypeAlias = Literal["refused", "garbage", "unfinished"]

_NAME: Final = r"(?:[a-z]+[:_-])?(?:think(?:ing)?|thoughts?|reason(?:ing)?|analysis|reflect(?:ion)?|scratchpad|cot)"
_FLAGS: Final = re.DOTALL | re.IGNORECASE
#: how templates mark thoughts: <think>, [THINK], ◁think▷, <|begin_of_thought|>, <|channel>thought, channels of gpt-oss
_OPENED: Final = re.compile(
    rf"[<\[◁]\|?(?:begin_of_)?{_NAME}\|?[>\]▷]|<\|channel\|?>\s*(?:{_NAME}|commentary)\b|\Aanalysis(?=[A-Z])", _FLAGS
)
_CLOSED: Final = re.compile(
    rf".*(?:[<\[◁]\|?(?:/|end_of_){_NAME}\|?[>\]▷]|<channel\|>|<\|channel\|>\s*final\s*<\|message\|>"
    r"|\A(?-i:analysis[A-Z].*)assistantfinal)", _FLAGS
)
#: some other named part before the answer, and what an answer is wrapped in
_PART: Final = re.compile(r"<(?!(?:final_?)?answer\b|final\b|output\b|response\b)([a-z_]{3,})>.*?</\1>", _FLAGS)
_WRAPPED: Final = re.compile(r"<\|[^<>|]*\|>|</?[a-z_]+>|\\(?:boxed|text|mathrm)\b|```(?:[a-z]+\b)?|[{}$]",
                              re.IGNORECASE)  # fmt: skip
_LABEL: Final = re.compile(r"^\s*\W*(?:the )?(?:final )?(?:answer|result)\W*\s*(?:is\b)?\s*:?\s*", re.IGNORECASE)
_REFUSAL: Final = re.compile(
    r"\bsorry\b|\bas an ai\b|\bi(?: am|'m) (?:unable|not able)\b|\bunable to\b|\bi (?:can't|cannot|can not|won't)\b"
)
_UNSURE: Final = re.compile(
    r"\bno (?:idea|clue|way to)\b|\b(?:don't|do not) know\b|\bnot (?:sure|certain|clear|possible)\b|\bunclear\b"
    r"|\b(?:can't|cannot|can not|hard to|difficult to|impossible to) (?:be )?"
    r"(?:tell|say|see|determine|judge|decide|determined)\b|\byes (?:and|or) no\b|\bmaybe\b|\bperhaps\b|\bdepends\b"
)
_CLAUSE: Final = re.compile(r"[.,;:!?\n]+|\b(?:and|but|while|whereas|because|since)\b")
_NEGATED: Final = re.compile(r"\b(?:not|no|never|neither|nor|without|cannot)\b|n't\b")
#: says which point has less of what is asked
_OPPOSITE: Final = re.compile(
    r"\b(?:farther|further|farthest|furthest|far|distant|behind|less|least|fewer|darker|darkest|dimmer|away|lower"
    r"|shadow|shadowed|shade|shaded|worse)\b"
)
_UNDECIDED: Final = re.compile(r"\b(?:same|equal|equally|both|either|or|similar|similarly|identical)\b")
#: what a clause about a marked point, and not about a red car, has in it
_ABOUT_POINTS: Final = re.compile(
    r"\b(?:points?|circles?|mark\w*|dots?|ring|one|closer|closest|nearer|nearest|more|most|brighter|brightest|camera"
    r"|facing|faces?|receives?|light|illuminated|lit|turned|towards?)\b"
)
_SAME: Final = re.compile(r"\b(?:same|similar|identical|equal|alike|match(?:es|ing)?)\b")
_DIFFERENT: Final = re.compile(r"\b(?:different|differs?|dissimilar|distinct|unlike)\b")
_SHORT: Final = 3
#: characters; what is longer is no answer to a question about two points
_LONGEST: Final = 4000


def read_answer(text: str, template: Template) -> Meaning | Unread:
    """What an answer in free words means.

    Parameters
    ----------
    text : the answer, with or without thoughts before it and the template's prefix

    Returns
    -------
    A meaning of the template; ``refused`` where the judge says that it can't or won't answer; ``unfinished`` where it
    ends within its thoughts; else ``garbage``.

    Examples
    --------
    >>> from reasonx_ft.annotation.questions import read_questions
    >>> read_answer("Red? No.</think> **Green**", read_questions()["depth"])
    'green'
    >>> read_answer("<think>The red one seems", read_questions()["depth"])
    'unfinished'
    """
    if "\ufffd" in text:
        return "garbage"  # half characters: no words
    final = final_text(text)
    if final is None:
        return "unfinished"
    words = _plain(_LABEL.sub("", _WRAPPED.sub(" ", final), count=1))
    for meaning, candidate in template.answers.items():
        if words.strip(" .!") in (_plain(candidate).strip(" .!"), _plain(template.prefix + candidate).strip(" .!")):
            return meaning
    if _REFUSAL.search(words):
        return "refused"
    if _UNSURE.search(words):
        return "garbage"
    found = _sameness(words) if template.modality == "albedo" else _colours(words)
    return found.pop() if len(found) == 1 else "garbage"


def certain(said: Meaning | Unread, template: Template, order: Order) -> float | Unread:
    """The probability of FIRST (or SAME) that words stand for: 1 or 0; or why there is none."""
    if said == "refused" or said == "garbage" or said == "unfinished":
        return said
    return template.probability(said, 1.0, order)


def read(said: float | Unread | Literal["failed"], seconds: float) -> Answer:
    """An answer of what was read: a probability (NaN is a failure), or why there is none."""
    if isinstance(said, str) or not math.isfinite(said):
        flag = said if isinstance(said, str) else "failed"
        return Answer(math.nan, "garbage" if flag == "unfinished" else flag, seconds)
    return Answer(said, "ok", seconds)


def final_text(text: str) -> str | None:
    """What is said after the thoughts; None where they don't end.

    A mark that closes thoughts counts without one that opens them, which a template may have put into the question.
    """
    closed = _CLOSED.match(text)
    said = text[closed.end() :] if closed else text
    if _OPENED.search(said):
        return None
    return _PART.sub(" ", said) if len(said) <= _LONGEST else ""


def _plain(text: str) -> str:
    """Lower case, straight apostrophes, no mark-up, single spaces."""
    text = text.lower().replace("\u2019", "'")
    return " ".join(re.sub(r"[*_`\"#()\[\]]", " ", text).split())


def _colours(words: str) -> set[Meaning]:
    """The colours that clauses decide for."""
    return {c for clause in _CLAUSE.split(words) if (c := _colour_of(clause)) is not None}


def _colour_of(clause: str) -> Meaning | None:
    named = re.findall(r"\b(red|green)\b", clause)
    if not named or _NEGATED.search(clause) or _OPPOSITE.search(clause) or _UNDECIDED.search(clause):
        return None
    if len(clause.split()) > _SHORT and not _ABOUT_POINTS.search(clause):
        return None
    before, than, after = clause.partition(" than ")
    subject = set(re.findall(r"\b(red|green)\b", before))
    if len(subject) != 1 or (than and subject & set(re.findall(r"\b(red|green)\b", after))):
        return None
    return "red" if "red" in subject else "green"


def _sameness(words: str) -> set[Meaning]:
    """Same and different, as the first word and the clauses say it."""
    found: set[Meaning] = set()
    if first := re.match(r"(?:answer ?: ?)?(yes|no)\b", words):
        found.add("same" if first[1] == "yes" else "different")
    for clause in _CLAUSE.split(words):
        denied = bool(_NEGATED.search(re.sub(r"^\s*(?:no|yes)\b", "", clause)))
        if _SAME.search(clause) and not _DIFFERENT.search(clause):
            found.add("different" if denied else "same")
        elif _DIFFERENT.search(clause) and not _SAME.search(clause):
            found.add("same" if denied else "different")
    return found
