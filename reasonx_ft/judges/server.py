"""A judge behind an OpenAI-compatible endpoint: vLLM first, and whatever speaks the same."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeAlias

import imagecodecs
import numpy as np
from anyio.from_thread import BlockingPortal, start_blocking_portal
from numpy.typing import NDArray

from reasonx_eval.errors import UsageError
from reasonx_eval.io.digests import sha256_text
from reasonx_eval.io.files import canonical_json
from reasonx_ft.annotation.markers import Painter
from reasonx_ft.annotation.questions import Questions, Template, read_questions
from reasonx_ft.judges.answer_text import Unread, read
from reasonx_ft.judges.server_answers import (
    TOP,
    WORDS,
    BadReply,
    NoLogProbabilities,
    Reading,
    fewer,
    has_log_probabilities,
    read_reply,
    request,
)
from reasonx_ft.judges.server_client import Client, Failed, Refused, parse_address
from reasonx_ft.types import CANONICAL, Answer, AnswerBatch, Judge, JudgeInfo, Question, QuestionBatch

Logprobs: TypeAlias = Literal["auto", "prefix", "word", "off"]

#: looked at if no other variable is named
KEY_VARIABLE: Final = "REASONX_API_KEY"
_CHAT: Final = "/chat/completions"
_FILTERED: Final = ("content_filter", "content filter", "content management", "safety")
_READINGS: Final[Mapping[Logprobs, tuple[Reading, ...]]] = {
    "auto": ("prefix", "word", "text"), "prefix": ("prefix",), "word": ("word",), "off": ("text",),
}  # fmt: skip
#: why a question has no answer, and the setting that mends it
_PROBLEMS: Final[Mapping[str, str]] = {
    "unfinished": "the reply ends before a final answer, as of a model that thinks aloud; try: -O max_tokens=4096, or "
                  """-O extra='{"chat_template_kwargs": {"enable_thinking": false}}'""",
    "garbage": "the reply can't be read as an answer; try: -O logprobs=prefix or word, or --questions FILE with "
               "another wording",
    "refused": "the model or a filter declines to answer",
    "failed": "no usable reply after all retries; try: -O retries=10 -O timeout=600 --retry-failed",
}  # fmt: skip


class Server(Judge):
    """Asks a server, many questions at a time; answers come back in the order of the questions.

    With log-probabilities an answer is P(candidate) / (P(candidate) + P(other)) at the token that tells them apart,
    else the final answer's words are parsed and the answer is 1 or 0. A refusal, words that can't be read, a reply
    that ends before its final answer and a question without a usable reply after all retries are NaN with their flag.
    A server that is down, wants another key or has no such model ends the call with one error.

    Parameters
    ----------
    url : of the endpoint, with or without ``/v1``
    model : name that the server knows it by; default: the only one it serves
    key_env : environment variable that holds the key; the key itself is shown nowhere
    concurrency : requests under way at a time, at most
    timeout : seconds for one try, from connecting to the last byte of the reply
    retries : further tries of one question
    logprobs : how answers are read. prefix continues a forced beginning (vLLM's continue_final_message); word asks
        for one word; off parses text; auto tries these in turn on an example, once
    max_tokens : of a reply in words; a model that thinks aloud needs thousands
    image : jpeg (quality 95 with colours at full size: a fifth of the time and a quarter of the bytes), or png (exact);
        a judge that sees nothing but the picture named the same point for both in 99 % of 1,440 questions
    extra : JSON object of further fields of each request, such as {"chat_template_kwargs": {"enable_thinking": false}}
    questions : the wording; default: the package's
    name : shown in tables; default: the model's

    Raises
    ------
    UsageError
        Not an address, a named variable that is not set, or an option out of range.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        key_env: str | None = None,
        concurrency: int = 32,
        timeout: float = 120.0,
        retries: int = 5,
        logprobs: Logprobs = "auto",
        max_tokens: int = WORDS,
        image: Literal["png", "jpeg"] = "jpeg",
        extra: str | None = None,
        questions: Questions | None = None,
        name: str | None = None,
        batch_size: int = 32,
    ) -> None:
        address = parse_address(url)
        self._where = address.shown
        if concurrency < 1 or retries < 0 or not timeout > 0 or max_tokens < 1:
            raise UsageError("concurrency and max_tokens are at least 1, retries at least 0, timeout above 0",
                             where=self._where)  # fmt: skip
        self._client = Client(address, timeout, retries, concurrency=concurrency, key=_key(key_env, self._where))
        self._model = None if model is None else _sendable(model, self._where)
        self._name, self._concurrency = name, concurrency
        self._logprobs, self._max_tokens = logprobs, max_tokens
        self._image, self._extra = image, _extra(extra, self._where)
        self._questions = read_questions() if questions is None else questions
        self.batch_size = batch_size
        self._reading: Reading | None = None
        self._top = TOP
        self._answered = False
        self._problems: Counter[str] = Counter()
        self._painter = Painter()

    @property
    def info(self) -> JudgeInfo:
        """Asks the server for what it serves, and how, where that was not said.

        Raises
        ------
        UsageError
            The server can't be asked.
        """
        model, reading = self._settled()
        shown = self._client.clean(model)
        options: dict[str, Any] = {"server": self._where, "model": shown, "reading": reading, "image": self._image}
        decides: dict[str, Any] = {**options, "extra": self._extra,
                   "questions": {m: t.digest for m, t in self._questions.templates.items()}}  # fmt: skip
        if reading == "text":
            options["max_tokens"] = decides["max_tokens"] = self._max_tokens
        elif self._top != TOP:
            options["top_logprobs"] = self._top
        return JudgeInfo(self._name or shown, sha256_text(canonical_json(decides))[:32], options=options,
                         notes=("the model is known by the name that the server gives it",),
                         reading="words" if reading == "text" else "log-probabilities")  # fmt: skip

    def problems(self) -> Mapping[str, int]:
        return {_PROBLEMS[reason]: n for reason, n in self._problems.most_common()}

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        for question in questions:
            self._questions[question.modality]
        return next(self._window([questions])) if questions else []

    def answers(
        self, calls: Iterable[Sequence[QuestionBatch]]
    ) -> Iterator[tuple[Sequence[QuestionBatch], AnswerBatch]]:
        """All calls with their answers; a question that waits for another try holds up no request of a later call."""
        taken: deque[Sequence[QuestionBatch]] = deque()

        def questions() -> Iterator[Sequence[Question]]:
            for batches in calls:
                taken.append(batches)
                yield [question for batch in batches for question in batch.questions()]

        for answers in self._window(questions()):
            yield taken.popleft(), AnswerBatch.of(answers)

    def _window(self, calls: Iterable[Sequence[Question]]) -> Iterator[list[Answer]]:
        """Answers of each call, in order, with so many questions under way or waiting that no slot is ever empty."""
        self._settled()
        room = threading.Semaphore(4 * self._concurrency)
        with self._running() as portal:
            waiting: deque[Any] = deque()
            for questions in calls:
                waiting.append(portal.start_task_soon(self._call, questions, room))
                for _ in questions:
                    room.acquire()
                while waiting and waiting[0].done():
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    @contextmanager
    def _running(self) -> Iterator[BlockingPortal]:
        """An event loop in a thread of its own, with open connections; what is under way at an error is cancelled."""
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(self._client):
            yield portal

    async def _call(self, questions: Sequence[Question], room: threading.Semaphore) -> list[Answer]:
        """Answers to some questions; those about one picture are asked together, and it is encoded once."""
        about: dict[tuple[Any, ...], list[int]] = {}
        for i, q in enumerate(questions):
            about.setdefault((q.photo.digest, q.first, q.second, q.order), []).append(i)
        found: dict[int, Answer] = {}

        async def ask(i: int, picture: str) -> None:
            found[i] = await self._one(questions[i], picture)
            room.release()

        async def show(members: list[int]) -> None:
            picture = await asyncio.to_thread(self._encoded, questions[members[0]])
            async with asyncio.TaskGroup() as group:
                for i in members:
                    group.create_task(ask(i, picture))

        try:
            async with asyncio.TaskGroup() as group:
                for members in about.values():
                    group.create_task(show(members))
        except BaseExceptionGroup as several:
            raise _first(several) from None
        finally:
            if len(found) < len(questions):
                room.release(len(questions) - len(found))
        return [found[i] for i in range(len(questions))]

    def _encoded(self, question: Question) -> str:
        return _data_url(self._painter.paint(question), self._image)

    async def _one(self, question: Question, picture: str) -> Answer:
        template, (_, reading) = self._questions[question.modality], self._settled()
        start = time.perf_counter()

        def none(reason: Unread | Literal["failed"]) -> Answer:
            self._problems[reason] += 1
            return read(reason, time.perf_counter() - start)

        try:
            said = read_reply(await self._reply(template, picture, reading), template, question.order, reading)
        except (Failed, BadReply) as problem:
            if isinstance(problem, NoLogProbabilities) and not self._answered:
                raise UsageError("it gives no log-probabilities", where=self._where,
                                 fix="-O logprobs=off reads its words") from None  # fmt: skip
            return none("failed")
        except Refused as problem:
            if any(word in problem.says.lower() for word in _FILTERED):
                return none("refused")
            if not self._answered:
                raise UsageError(f"it declines the request (HTTP {problem.status}): {problem.says}",
                                 where=self._where) from None  # fmt: skip
            return none("failed")
        self._answered = True
        return none(said) if isinstance(said, str) else read(said, time.perf_counter() - start)

    async def _reply(self, template: Template, picture: str, reading: Reading) -> Any:
        """The reply to one question; a server that allows fewer log-probabilities is asked for as many as it allows."""
        while True:
            top = self._top
            body = request(template, picture, reading, top=top, words=self._max_tokens)
            try:
                return await self._client.post(_CHAT, {"model": self._model, **body, **self._extra})
            except Refused as problem:
                allowed = None if reading == "text" else fewer(problem.says, top)
                if allowed is None:
                    raise
                self._top = min(self._top, allowed)

    def _settled(self) -> tuple[str, Reading]:
        """Name of the model and how answers are read, found out on first use."""
        readings = _READINGS[self._logprobs]
        if len(readings) == 1:
            self._reading = readings[0]
        if self._model is not None and self._reading is not None:
            return self._model, self._reading
        with self._running() as portal:
            found = portal.call(self._settle, readings)
        return found

    async def _settle(self, readings: Sequence[Reading]) -> tuple[str, Reading]:
        self._model = self._model or await self._only_model()
        self._reading = self._reading or await self._best_reading(readings)
        return self._model, self._reading

    async def _only_model(self) -> str:
        try:
            reply = await self._client.get("/models")
        except (Failed, Refused) as error:
            raise UsageError(f"it can't say which models it serves: {error}", where=self._where,
                             fix="-O model=NAME") from None  # fmt: skip
        listed = reply.get("data") if isinstance(reply, dict) else None
        models = [m.get("id") for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []
        names = [m for m in models if isinstance(m, str)]
        if len(names) != 1:
            some = ", ".join(sorted(map(self._client.clean, names))[:10])
            raise UsageError(f"it serves {some}" if names else "it names no model", where=self._where,
                             fix="-O model=NAME")  # fmt: skip
        return _sendable(names[0], self._where)

    async def _best_reading(self, readings: Sequence[Reading]) -> Reading:
        """The best way that the server can answer an example in."""
        template = next(iter(self._questions.templates.values()))
        picture = _data_url(np.full((CANONICAL, CANONICAL, 3), 128, np.uint8), self._image)
        last = ""
        for reading in readings:
            try:
                reply = await self._reply(template, picture, reading)
                # a server that doesn't know the forced beginning starts another sentence, and lists neither candidate
                if reading == "text" or (
                    has_log_probabilities(reply)
                    and not isinstance(read_reply(reply, template, "red-first", reading), str)
                ):
                    self._answered = True
                    return reading
            except (Refused, BadReply) as error:
                last = str(error)
            except Failed as error:
                raise UsageError(f"no usable reply to an example: {error}", where=self._where) from None
        raise UsageError(f"it answers no question with a picture ({last})", where=self._where,
                         fix="a model that takes pictures: -O model=NAME")  # fmt: skip


def _data_url(picture: NDArray[np.uint8], form: str) -> str:
    if form == "jpeg":
        data = imagecodecs.jpeg8_encode(picture, level=95, subsampling="444")
    else:
        # strategy 2: Huffman codes alone, filter 16: the neighbour's difference; a third of the time for a seventh more
        data = imagecodecs.png_encode(picture, level=1, strategy=2, filter=16)
    return f"data:image/{form};base64,{base64.b64encode(data).decode()}"


def _first(several: BaseExceptionGroup[BaseException]) -> BaseException:
    first = several.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _sendable(model: str, where: str) -> str:
    try:
        model.encode()
    except UnicodeEncodeError:
        raise UsageError("the name of the model is no text (half a character)", where=where,
                         fix="-O model=NAME") from None  # fmt: skip
    return model


def _key(variable: str | None, where: str) -> str | None:
    found = os.environ.get(variable or KEY_VARIABLE, "").strip()
    if variable is not None and not found:
        raise UsageError(f"the environment variable {variable} is not set", where=where, fix=f"export {variable}=...")
    if not found.isascii() or not found.isprintable():
        raise UsageError(f"the key in {variable or KEY_VARIABLE} has characters that no key has", where=where)
    return found or None


def _extra(text: str | None, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
        canonical_json(value)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or {"messages", "model"} & value.keys():
        raise UsageError("extra is a JSON object without messages and model", where=where)
    return value
