"""A judge behind an OpenAI-compatible endpoint: vLLM first, and whatever speaks the same."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import UsageError
from reasonx_eval.io.digests import sha256_text
from reasonx_eval.io.files import canonical_json
from reasonx_ft.annotation.markers import Painter
from reasonx_ft.annotation.questions import Questions, read_questions
from reasonx_ft.judges.base import CANONICAL, Answer, Judge, JudgeInfo, Question
from reasonx_ft.judges.server_answers import (
    BadReply,
    NoLogProbabilities,
    Reading,
    has_log_probabilities,
    read_reply,
    request,
)
from reasonx_ft.judges.server_client import Client, Failed, Refused, parse_address

Logprobs: TypeAlias = Literal["auto", "prefix", "word", "off"]

#: looked at if no other variable is named
KEY_VARIABLE: Final = "REASONX_API_KEY"
_CHAT: Final = "/chat/completions"
_FILTERED: Final = ("content_filter", "content filter", "content management", "safety")


class Server(Judge):
    """Asks a server, many questions at a time; answers come back in the order of the questions.

    With log-probabilities an answer is P(candidate) / (P(candidate) + P(other)) at the token that tells them apart,
    else the reply's words are parsed and the answer is 1 or 0. A refusal, words that can't be read and a question
    without a usable reply after all retries are NaN with their flag. A server that is down, wants another key or has
    no such model ends the call with one error.

    Parameters
    ----------
    url : of the endpoint, with or without ``/v1``
    model : name that the server knows it by; default: the only one it serves
    key_env : environment variable that holds the key; the key itself is shown nowhere
    concurrency : requests under way at a time, at most
    timeout : seconds for one try
    retries : further tries of one question
    logprobs : how answers are read. prefix continues a forced beginning (vLLM's continue_final_message); word asks
        for one word; off parses text; auto tries these in turn on an example, once
    image : png, or jpeg (smaller, and blurs the markers a little)
    extra : JSON object of further fields of each request, such as {"chat_template_kwargs": {"enable_thinking": false}}
    questions : the wording; default: the package's
    name : shown in tables; default: the model's
    seed : of the jitter of waits

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
        image: Literal["png", "jpeg"] = "png",
        extra: str | None = None,
        questions: Questions | None = None,
        name: str | None = None,
        seed: int = 0,
        batch_size: int = 1024,
    ) -> None:
        self._address = parse_address(url)
        if concurrency < 1 or retries < 0 or not timeout > 0:
            raise UsageError("concurrency is at least 1, retries at least 0, timeout above 0", where=self._where)
        self._client = Client(self._address, timeout, retries, _key(key_env, self._where), seed)
        self._model, self._name, self._concurrency = model, name, concurrency
        self._logprobs, self._image, self._extra = logprobs, image, _extra(extra, self._where)
        self._questions = read_questions() if questions is None else questions
        self.batch_size = batch_size
        self._reading: Reading | None = None
        self._answered = False
        self._lock = threading.Lock()
        self._pictures = _Pictures(image, 2 * concurrency)

    @property
    def _where(self) -> str:
        return self._address.shown

    @property
    def info(self) -> JudgeInfo:
        """Asks the server for what it serves, and how, where that was not said.

        Raises
        ------
        UsageError
            The server can't be asked.
        """
        model, reading = self._settled()
        templates = {m: t.digest for m, t in self._questions.templates.items()}
        decides = {"model": model, "server": self._where, "reading": reading, "image": self._image,
                   "extra": self._extra, "questions": templates}  # fmt: skip
        options = {"server": self._where, "model": model, "reading": reading, "image": self._image}
        return JudgeInfo(self._name or model, sha256_text(canonical_json(decides))[:32], options=options,
                         notes=("what the server runs is known by its name only",))  # fmt: skip

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        for question in questions:
            self._questions[question.modality]
        if not questions:
            return []
        self._settled()
        self._client.resume()
        about: dict[tuple[Any, ...], list[int]] = {}
        for i, q in enumerate(questions):
            about.setdefault(_picture_key(q), []).append(i)
        # the questions about one picture follow each other: a server keeps what it computed of its last pictures
        order = [i for members in about.values() for i in members]
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="judge")
        try:
            futures = {i: pool.submit(self._one, questions[i]) for i in order}
            done, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
            for future in done:
                if (error := future.exception()) is not None:
                    raise error
            return [futures[i].result() for i in range(len(questions))]
        finally:
            self._client.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            self._client.close()

    def close(self) -> None:
        self._client.close()

    def _one(self, question: Question) -> Answer:
        template, reading = self._questions[question.modality], self._settled()[1]
        stream = f"{question.photo.digest} {question.first} {question.second} {question.order} {question.modality}"
        start = time.perf_counter()

        def none(flag: Literal["refused", "garbage", "failed"]) -> Answer:
            return Answer(math.nan, flag, time.perf_counter() - start)

        try:
            reply = self._post(request(template, self._pictures.url(question), reading), stream)
            said = read_reply(reply, template, question.order, reading)
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
        return none(said) if isinstance(said, str) else Answer(said, "ok", time.perf_counter() - start)

    def _post(self, body: dict[str, Any], stream: str) -> Any:
        return self._client.post(_CHAT, {"model": self._model, **body, **self._extra}, stream=stream)

    def _settled(self) -> tuple[str, Reading]:
        """Name of the model and how answers are read, found out on first use."""
        with self._lock:
            if self._model is None or self._reading is None:
                fixed: dict[str, Reading] = {"prefix": "prefix", "word": "word", "off": "text"}
                self._client.resume()
                try:
                    self._model = self._model or self._only_model()
                    self._reading = fixed.get(self._logprobs) or self._best_reading()
                finally:
                    self._client.close()
            return self._model, self._reading

    def _only_model(self) -> str:
        try:
            reply = self._client.get("/models")
        except (Failed, Refused) as error:
            raise UsageError(f"it can't say which models it serves: {error}", where=self._where,
                             fix="-O model=NAME") from None  # fmt: skip
        listed = reply.get("data") if isinstance(reply, dict) else None
        names = [str(m["id"]) for m in listed or [] if isinstance(m, dict) and "id" in m]
        if len(names) != 1:
            shown = f"it serves {', '.join(sorted(names)[:10])}" if names else "it names no model"
            raise UsageError(shown, where=self._where, fix="-O model=NAME")
        return names[0]

    def _best_reading(self) -> Reading:
        """The best way that the server can answer an example in."""
        template = next(iter(self._questions.templates.values()))
        picture = _data_url(np.full((CANONICAL, CANONICAL, 3), 128, np.uint8), self._image)
        last = ""
        readings: tuple[Reading, ...] = ("prefix", "word", "text")
        for reading in readings:
            try:
                reply = self._post(request(template, picture, reading), f"example {reading}")
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


class _Pictures:
    """Marked photos as data URLs; the last few are kept for the other questions about them."""

    def __init__(self, form: str, most: int) -> None:
        self._form, self._most = form, most
        self._kept: OrderedDict[tuple[Any, ...], str] = OrderedDict()
        self._painter = Painter()
        self._lock = threading.Lock()

    def url(self, question: Question) -> str:
        key = _picture_key(question)
        with self._lock:
            if key in self._kept:
                return self._kept[key]
            picture = self._painter.paint(question)
        made = _data_url(picture, self._form)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return made


def _picture_key(question: Question) -> tuple[Any, ...]:
    return question.photo.digest, question.first, question.second, question.order


def _data_url(picture: NDArray[np.uint8], form: str) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    how: dict[str, Any] = {"quality": 95, "subsampling": 0} if form == "jpeg" else {"compress_level": 1}
    Image.fromarray(picture).save(buffer, form, **how)
    return f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode()}"


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
    except ValueError:
        value = None
    if not isinstance(value, dict) or {"messages", "model"} & value.keys():
        raise UsageError("extra is a JSON object without messages and model", where=where)
    return value
