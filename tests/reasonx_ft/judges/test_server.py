"""The server judge against a real server on this machine: questions, answers, order, and what stops it."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from reasonx_eval.errors import UsageError
from reasonx_ft.annotation.markers import Painter
from reasonx_ft.annotation.questions import read_questions
from reasonx_ft.judges import server, server_client
from reasonx_ft.judges.server import KEY_VARIABLE, Server
from reasonx_ft.types import Answer, QuestionBatch
from tests.reasonx_ft.judges.fake_server import (
    MODALITIES,
    PHOTO,
    Reply,
    chance,
    completion,
    first_point,
    modality_of,
    picture_of,
    questions,
    red,
    says_red,
    serving,
    values,
)  # fmt: skip

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_client, "FIRST_WAIT", 0.01)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def test_forced_beginning_and_log_probabilities() -> None:
    with serving(says_red) as (url, seen):
        found = Server(url).ask(asked := questions(1))
    assert values(found) == pytest.approx([first_point(q, 0.8) for q in asked])
    assert {a.flag for a in found} == {"ok"}
    body = seen.bodies[-1]
    template = read_questions()[modality_of(body)]
    assert body["messages"][1] == {"role": "assistant", "content": template.prefix}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert (body["max_tokens"], body["temperature"], body["logprobs"], body["top_logprobs"]) == (1, 0, True, 20)
    assert body["model"] == "judge-7b"
    assert set(seen.paths) == {"/v1/models", "/v1/chat/completions"}


@pytest.mark.parametrize("image", ["png", "jpeg"])
def test_the_picture_is_the_marked_one(image: Any) -> None:
    with serving(says_red) as (url, seen):
        Server(url, logprobs="prefix", image=image).ask([questions(1)[0]])
    expected, got = Painter().paint(questions(1)[0]), picture_of(seen.bodies[0])
    assert got.shape == (512, 512, 3)
    assert np.abs(got.astype(int) - expected).mean() <= (0 if image == "png" else 12)


def test_answers_keep_the_order_of_questions() -> None:
    def late_first(body: dict[str, Any], number: int) -> Reply:
        p = chance(picture_of(body), modality_of(body))
        return Reply(completion(" red", [(" red", red(p))]), delay=0.1 * (1 - p))

    asked = questions(2)
    with serving(late_first) as (url, _):
        found = Server(url, concurrency=8, image="png").ask(asked)
        mixed = Server(url, concurrency=3, image="png").ask(asked[::-1])
    assert values(mixed)[::-1] == values(found)
    expected = [first_point(q, chance(Painter().paint(q), q.modality)) for q in asked]
    assert values(found) == pytest.approx(expected, abs=1e-9)
    assert len(set(values(found))) > 10


@pytest.mark.parametrize("most", [1, 5])
def test_concurrency_is_bounded_and_used(most: int) -> None:
    together = threading.Barrier(most)

    def meet(body: dict[str, Any], number: int) -> Reply:
        together.wait(timeout=60)  # nobody gets a reply before so many are there
        return says_red(body, number)

    with serving(meet) as (url, seen):
        found = Server(url, model="m", logprobs="prefix", concurrency=most).ask(questions(5))
    assert seen.most_at_once == most
    assert {a.flag for a in found} == {"ok"}


@pytest.mark.parametrize("trouble", [
    Reply({"error": "later"}, 429), Reply({}, 429, {"Retry-After": "0"}), Reply({}, 429, {"Retry-After": "soon"}),
    Reply({}, 500), Reply(b"<html>bad gateway</html>", 502), Reply({}, 503), Reply({}, 504), Reply(drop=True),
    Reply(completion(" red"), cut=9), Reply(b'{"choices": ['), Reply(b"\xff\xfe\x00"), Reply(b""),
    Reply(b"[" * 100_000), Reply(b"x" * (3 << 20)), Reply({}, 200, {"Content-Length": "1000"}, cut=0),
    Reply(completion(" red"), delay=2.0), Reply(completion(" red"), drip=0.1),
], ids=lambda r: f"{r.status}-{r.cut}-{r.drop}-{r.delay}-{r.drip}-{dict(r.headers)}-{str(r.body)[:12]}")  # fmt: skip
def test_trouble_that_passes_is_retried(trouble: Reply) -> None:
    struck: set[str] = set()
    lock = threading.Lock()

    def once(body: dict[str, Any], number: int) -> Reply:
        key = json.dumps(body)
        with lock:
            first = key not in struck
            struck.add(key)
        return trouble if first else says_red(body, number)

    with serving(once) as (url, seen):
        slow = bool(trouble.delay or trouble.drip or "Content-Length" in trouble.headers)
        found = Server(url, logprobs="prefix", model="m", timeout=0.5 if slow else 60).ask(asked := questions(1)[:2])
    assert values(found) == pytest.approx([first_point(q, 0.8) for q in asked])
    # a busy machine may be slow with good replies too
    assert len(seen.bodies) == 4 or (slow and len(seen.bodies) > 4)


def test_retry_after_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    asleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asleep(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(server_client, "FIRST_WAIT", 0.5)
    monkeypatch.setattr(server_client.random, "uniform", lambda low, high: high)

    def busy(body: dict[str, Any], number: int) -> Reply:
        late = ["7", "Wed, 21 Oct 2099 07:28:00 GMT", "-3", "nan", "1e9", "x"]
        return Reply({}, 429, {"Retry-After": late[number]}) if number < len(late) else Reply({"fine": 1})

    async def ask(url: str) -> Any:
        async with server_client.Client(server_client.parse_address(url), 5.0, 6) as client:
            return await client.post("/chat/completions", {})

    with serving(busy) as (url, _):
        assert asyncio.run(ask(url)) == {"fine": 1}
    assert waits == [7, 300, 2, 4, 300, 16]  # 300: as long as is ever waited; else twice the wait before


def test_questions_that_stay_in_trouble_are_nan() -> None:
    def albedo_fails(body: dict[str, Any], number: int) -> Reply:
        return Reply({}, 500) if modality_of(body) == "albedo" else says_red(body, number)

    with serving(albedo_fails) as (url, seen):
        found = Server(url, model="m", logprobs="prefix", retries=2).ask(asked := questions(1))
    for q, a in zip(asked, found, strict=True):
        assert (a.flag == "failed") is math.isnan(a.probability) is (q.modality == "albedo")
    assert sum(modality_of(b) == "albedo" for b in seen.bodies) == 2 * 3


def stops(answer: Callable[[dict[str, Any], int], Reply], match: str, **how: Any) -> tuple[str, int]:
    """The one error of a call, and how many requests it took."""
    with serving(answer) as (url, seen):
        with pytest.raises(UsageError, match=match) as caught:
            Server(url, **({"model": "m", "logprobs": "prefix"} | how)).ask(questions(6))
        return str(caught.value), len(seen.bodies)


@pytest.mark.parametrize(("status", "says"), [
    (401, "it wants a key"), (403, "it wants a key"), (404, "no such path or model"), (307, "redirects"),
    (400, "declines the request"),
])  # fmt: skip
def test_what_the_user_must_mend_stops_the_call(status: int, says: str) -> None:
    def broken(body: dict[str, Any], number: int) -> Reply:
        return Reply({"error": {"message": "the model m does not exist"}}, status, {"Location": "http://127.0.0.1:1/"})

    _, asked = stops(broken, says, concurrency=4)
    assert asked <= 8  # not one error a question


def test_a_server_that_is_down() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    for how in ({}, {"model": "m"}, {"model": "m", "logprobs": "prefix"}):
        with pytest.raises(UsageError, match="no server there") as caught:
            Server(f"http://127.0.0.1:{port}", **how).ask(questions(1))
        assert str(port) in str(caught.value)


def test_a_server_that_goes_down_in_between() -> None:
    with serving(says_red) as (url, _):
        judge = Server(url, model="m", logprobs="prefix", retries=2)
        judge.ask(questions(1))
    with pytest.raises(UsageError, match="no server there"):
        judge.ask(questions(1))


def test_a_server_that_comes_back() -> None:
    with serving(says_red) as (url, _):
        judge = Server(url, model="m", logprobs="prefix", retries=8)
        judge.ask(questions(1))
    done: list[Answer] = []
    thread = threading.Thread(target=lambda: done.extend(judge.ask(questions(1))))
    thread.start()
    with serving(says_red, port=int(url.rpartition(":")[2])):
        thread.join()
    assert {a.flag for a in done} == {"ok"}


def test_no_log_probabilities_where_they_were_insisted_on() -> None:
    error, _ = stops(lambda body, n: Reply(completion(" red")), "no log-probabilities")
    assert "logprobs=off" in error


@pytest.mark.parametrize("models", [(), ("a", "b"), Reply({}, 500), Reply(b"{"), Reply([1]), Reply({"data": [3]})])
def test_which_model(models: Any) -> None:
    with serving(says_red, models=models) as (url, _):
        with pytest.raises(UsageError, match=r"-O model=NAME"):
            Server(url).ask(questions(1))
        assert Server(url, model="b").ask(questions(1)[:1])[0].flag == "ok"


def test_half_a_character_is_no_name_of_a_model() -> None:
    with serving(says_red, models=("m\ud800",)) as (url, _):
        with pytest.raises(UsageError, match="no text"):
            Server(url).ask(questions(1))
        with pytest.raises(UsageError, match="no text"):
            Server(url, model="m\udcff")


def test_the_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_KEY", KEY)

    def echoes(body: dict[str, Any], number: int) -> Reply:
        return Reply({"error": {"message": f"Incorrect API key provided: {KEY}"}}, echoes.status)  # type: ignore[attr-defined]

    for status in (401, 404, 400, 503):
        echoes.status = status  # type: ignore[attr-defined]
        with serving(echoes) as (url, seen):
            judge = Server(url, model="m", key_env="TEAM_KEY", retries=0)
            with pytest.raises(UsageError) as caught:
                judge.ask(questions(1))
        assert seen.headers[0]["Authorization"] == f"Bearer {KEY}"
        chain = [str(caught.value), repr(caught.value), repr(caught.value.__cause__), repr(judge), repr(judge._client)]
        assert not any(KEY in text for text in chain)
    with serving(says_red) as (url, _):
        with_key, without = Server(url, key_env="TEAM_KEY").info, Server(url).info
    assert KEY not in repr(with_key)
    assert with_key.revision == without.revision


def test_keys_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(UsageError, match="NO_SUCH_KEY is not set"):
        Server("http://127.0.0.1:1", key_env="NO_SUCH_KEY")
    monkeypatch.setenv("BAD_KEY", "a\nX-Evil: 1")
    with pytest.raises(UsageError, match="characters") as caught:
        Server("http://127.0.0.1:1", key_env="BAD_KEY")
    assert "Evil" not in str(caught.value)


@pytest.mark.parametrize(("url", "shown"), [
    ("http://host:8000", "http://host:8000/v1"), ("host:8000/v1/", "http://host:8000/v1"),
    ("https://host/v1/chat/completions", "https://host/v1"),
    ("https://host/a/openai?api-version=1", "https://host/a/openai"),
    ("http://[::1]:80/v1", "http://[::1]/v1"),
])  # fmt: skip
def test_addresses(url: str, shown: str) -> None:
    assert server_client.parse_address(url).shown == shown


@pytest.mark.parametrize("url", ["", "ftp://host", "http://", "http://me:secret@host/v1", "http://host:port",
                                 "http://[::1"])  # fmt: skip
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        server_client.parse_address(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("how", [{"concurrency": 0}, {"retries": -1}, {"timeout": 0.0}, {"timeout": math.nan},
                                 {"extra": "{"}, {"extra": "[]"}, {"extra": '{"model": "x"}'}])  # fmt: skip
def test_options_out_of_range(how: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Server("http://127.0.0.1:1", **how)


def test_extra_fields_and_revision() -> None:
    with serving(says_red) as (url, seen):
        plain = Server(url).info
        judge = Server(url, extra='{"chat_template_kwargs": {"enable_thinking": false}}')
        judge.ask(questions(1)[:1])
        others = [judge.info, Server(url, image="png").info, Server(url, model="other").info,
                  Server(url, logprobs="off").info]  # fmt: skip
    sent = [b["chat_template_kwargs"] for b in seen.bodies if "chat_template_kwargs" in b]
    assert sent == [{"enable_thinking": False}] * 2  # the example and the question
    assert len({plain.revision, *(i.revision for i in others)}) == 5
    assert plain.name == "judge-7b"


def test_no_questions_ask_nobody() -> None:
    assert Server("http://127.0.0.1:1").ask([]) == []


def test_each_picture_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = server._data_url
    monkeypatch.setattr(server, "_data_url", lambda *a: made.append(url := real(*a)) or url)
    with serving(says_red) as (url, seen):
        Server(url, model="m", logprobs="prefix", concurrency=16).ask(questions(10))
    assert len(seen.bodies) == 80
    assert len(made) == len(set(made)) == 20  # two colour orders of ten pairs


def batch_of(asked: int) -> QuestionBatch:
    """Questions about one photo, four to a picture."""
    row = np.arange(asked)
    pairs = np.stack([np.stack([40 + 2 * row, 50 + row], -1), np.stack([200 + row, 300 - row], -1)], 1)
    return QuestionBatch(PHOTO, pairs.astype(np.int16), MODALITIES, (row // 4).astype(np.int32),
                         (row % 4).astype(np.int8), np.zeros(asked, np.int8))  # fmt: skip


def test_calls_overlap_and_come_back_in_order() -> None:
    slow = threading.Event()

    def first_waits(body: dict[str, Any], number: int) -> Reply:
        if number == 0:
            assert slow.wait(60)  # until a question of the last call was asked
        elif number >= 12:
            slow.set()
        return Reply(completion(" red", [(" red", red(chance(picture_of(body), modality_of(body))))]))

    calls = [[batch_of(16).part(slice(start, start + 4))] for start in (0, 4, 8, 12)]
    with serving(first_waits) as (url, _):
        found = list(Server(url, model="m", logprobs="prefix", concurrency=4, image="png").answers(calls))
    assert [batches for batches, _ in found] == calls
    asked = batch_of(16).questions()
    expected = [first_point(q, chance(Painter().paint(q), q.modality)) for q in asked]
    np.testing.assert_allclose(np.concatenate([a.probability for _, a in found]), expected, atol=1e-9)


def test_nothing_is_asked_after_the_answers_are_no_longer_wanted() -> None:
    with serving(says_red) as (url, seen):
        answers = Server(url, model="m", logprobs="prefix", concurrency=2).answers([[batch_of(4)]] * 1000)
        next(iter(answers))
        answers.close()  # type: ignore[attr-defined]
        n = len(seen.bodies)
        time.sleep(0.2)
        assert n == len(seen.bodies) < 100


def test_a_key_that_is_repeated_in_any_form_is_redacted() -> None:
    key = "sk+very/secret==0123"
    client = server_client.Client(server_client.parse_address("http://host?sig=0123456789"), 1.0, 0, key=key)
    for shown in (key, f"Bearer {key}", quote(key, safe=""), base64.b64encode(key.encode()).decode(), "0123456789"):
        assert re.fullmatch(r"wrong \\x1b\[2J (Bearer )?\*\*\*=* end", client.clean(f"wrong \x1b[2J {shown}\r\n end"))
