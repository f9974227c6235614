"""Replies of a server as answers: log-probabilities, words, thoughts, refusals and nonsense."""

from __future__ import annotations

import math
from typing import Any

import pytest

from reasonx_ft.judges.server import Server
from tests.reasonx_ft.judges.fake_server import (
    Reply,
    completion,
    first_point,
    modality_of,
    questions,
    red,
    says_red,
    serving,
    values,
)  # fmt: skip


@pytest.mark.parametrize("body", [
    None, 1, "x", [], {}, {"choices": None}, {"choices": []}, {"choices": [None]}, {"choices": ["x"]},
    {"choices": [{}]}, {"choices": [{"message": []}]}, {"choices": {"0": 1}},
    {"choices": [{"message": {"content": " red"}, "logprobs": {"content": {"a": 1}}}]},
    {"choices": [{"message": {"content": " red"}, "logprobs": {"content": [1]}}]},
    {"choices": [{"message": {"content": " red"}, "logprobs": {"content": [{"token": " red"}]}}]},
    {"choices": [{"message": {"content": " red"}, "logprobs": {"content": [{"token": 1, "logprob": 0}]}}]},
    *({"choices": [{"message": {"content": " red"}, "logprobs": {"content": [
        {"token": " red", "logprob": bad, "top_logprobs": [{"token": " green", "logprob": -1}]}]}}]}
      for bad in (float("nan"), float("inf"), 1.0, True, "0", None, 1e300, -1e300)),
    {"choices": [{"message": {"content": " red"}, "logprobs": {"content": [
        {"token": " red", "logprob": 0.0, "top_logprobs": [{"token": " green", "logprob": 0.0}]}]}}]},
    {"choices": [{"message": {"content": " red"}, "logprobs": {"content": [
        {"token": " red", "logprob": -1, "top_logprobs": "all"}]}}]},
    {"choices": [{"message": {"content": " red"}, "logprobs": None}]},
    *(completion(" red", [(" red", {" red": 0.8, " green": 0.1})], finish=bad)
      for bad in ({}, [], 3, True, "error", "tool_calls")),
    {"choices": [{"message": {"content": " red"}, "logprobs": {"tokens": [" red"]}}]},
    {"choices": [{"message": {"content": " red"}, "logprobs": {"tokens": 1, "token_logprobs": {}, "top_logprobs": 0}}]},
    {"choices": [{"message": {"content": " red"}, "logprobs": {
        "tokens": [[]], "token_logprobs": ["x"], "top_logprobs": [{" red": "y"}]}}]},
])  # fmt: skip
def test_hostile_json_is_no_answer(body: Any) -> None:
    def hostile(asked: dict[str, Any], number: int) -> Reply:
        return says_red(asked, number) if modality_of(asked) == "depth" else Reply(body)

    with serving(hostile) as (url, _):
        judge = Server(url, model="m")
        found = judge.ask(asked := questions(1))
    for q, a in zip(asked, found, strict=True):
        assert a.flag == ("ok" if q.modality == "depth" else "failed")


@pytest.mark.parametrize("message", [
    completion(None, refusal="I won't"), completion(None, [(" red", red(0.8))], refusal="no"),
    {"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]},
])  # fmt: skip
def test_refusals(message: Any) -> None:
    with serving(lambda body, n: Reply(message)) as (url, _):
        found = Server(url, model="m", logprobs="prefix").ask(questions(1))
    assert {a.flag for a in found} == {"refused"}
    assert all(math.isnan(a.probability) for a in found)


def test_a_filtered_question_is_refused() -> None:
    says = {"error": {"message": "The response was filtered by the content filter", "code": "content_filter"}}
    with serving(lambda body, n: Reply(says, 400)) as (url, _):
        assert {a.flag for a in Server(url, model="m", logprobs="prefix").ask(questions(1))} == {"refused"}


def test_words_where_there_are_no_log_probabilities() -> None:
    said = {"depth": "The red point is closer.", "normals": "I cannot answer.", "irradiance": "no idea",
            "albedo": "No."}  # fmt: skip
    with serving(lambda body, n: Reply(completion(said[modality_of(body)]))) as (url, seen):
        judge = Server(url)
        found = judge.ask(questions(1))
        assert judge.info.options["reading"] == "text"
    assert [a.flag for a in found] == ["ok", "refused", "garbage", "ok"] * 2
    assert [found[i].probability for i in (0, 4, 3, 7)] == [1.0, 0.0, 0.0, 0.0]
    assert "logprobs" not in seen.bodies[-1]


def test_one_word_where_a_beginning_can_not_be_forced() -> None:
    def strict(body: dict[str, Any], number: int) -> Reply:
        if "continue_final_message" in body:
            return Reply({"error": {"message": "Unrecognized request argument: continue_final_message"}}, 400)
        among = {"Red": 0.6, "Green": 0.2, "Yes": 0.05, "No": 0.1}
        return Reply(completion("Red.", [("\n", {"\n": 0.9, "Red": 0.05}), ("Red", among), (".", {".": 0.9})]))

    with serving(strict) as (url, seen):
        judge = Server(url)
        found = judge.ask(asked := questions(1))
        assert judge.info.options["reading"] == "word"
    text = seen.bodies[-1]["messages"][0]["content"][1]["text"]
    assert "one word" in text
    for q, a in zip(asked, found, strict=True):
        if q.modality == "albedo":
            assert a.flag == "garbage"  # it said a colour
        else:
            assert a.probability == pytest.approx(first_point(q, 0.75))


def test_a_server_that_ignores_the_beginning_is_noticed() -> None:
    def ignores(body: dict[str, Any], number: int) -> Reply:
        if body["max_tokens"] == 1:
            return Reply(completion("Looking", [("Looking", {"Looking": 0.9, "At": 0.05})]))
        return Reply(completion("red", [("red", {"red": 0.6, "green": 0.2})]))

    with serving(ignores) as (url, _):
        assert Server(url).info.options["reading"] == "word"


@pytest.mark.parametrize(("among", "expected"), [
    ({" red": 0.6, " green": 0.2}, 0.75),
    ({"Red": 0.3, " red": 0.3, " green": 0.2}, 0.75),
    ({" r": 0.6, " gre": 0.2}, 0.75),
    ({" red": 0.95, " blue": 0.04, " x": 0.001}, 1 - 0.5 * 0.001 / 0.951),
    ({" green": 0.95, " blue": 0.04, " x": 0.001}, 0.5 * 0.001 / 0.951),
    ({" red": 0.99}, 1 - 0.5 * 0.01),
    ({" red": 0.5, " blue": 0.3}, None),
    ({" blue": 0.9, " x": 0.05}, None),
    ({"": 0.5, " ": 0.4}, None),
    ({" redder": 0.9, " greener": 0.05}, None),
])  # fmt: skip
def test_probabilities_of_tokens(among: dict[str, float], expected: float | None) -> None:
    with serving(lambda body, n: Reply(completion("x", [(max(among, key=among.__getitem__), among)]))) as (url, _):
        found = Server(url, model="m", logprobs="prefix").ask([questions(1)[0]])[0]
    if expected is None:
        assert (found.flag, math.isnan(found.probability)) == ("garbage", True)
    else:
        assert found.probability == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("says", "allowed"), [
    ("Requested sample logprobs of 20, which is greater than max allowed: 5", 5),
    ("top_logprobs must be between 0 and 8", 8),
    ("'top_logprobs': input should be less than or equal to 3", 3),
    ("too many logprobs", 5),
])  # fmt: skip
@pytest.mark.parametrize("logprobs", ["auto", "prefix"])
def test_fewer_log_probabilities_where_a_server_refuses_twenty(says: str, allowed: int, logprobs: Any) -> None:
    def limited(body: dict[str, Any], number: int) -> Reply:
        if body["top_logprobs"] > allowed:
            return Reply({"message": says, "code": 400}, 400)
        return says_red(body, number)

    with serving(limited) as (url, seen):
        judge = Server(url, logprobs=logprobs)
        found = judge.ask(asked := questions(1))
        assert judge.info.options["reading"] == "prefix"
        assert judge.info.reading == "log-probabilities"
        assert judge.info.options["top_logprobs"] == allowed == seen.bodies[-1]["top_logprobs"]
    assert values(found) == pytest.approx([first_point(q, 0.8) for q in asked])


FORMS = [
    {"content": [{"token": "\u2581red", "logprob": -0.2, "top_logprobs": [{"token": "\u2581green", "logprob": -1.8}]}]},
    {"content": [{"token": "\u0120red", "logprob": -0.2, "top_logprobs": {"\u0120green": -1.8}}]},
    [{"token": " red", "logprob": -0.2, "top_logprobs": [{"token": " green", "logprob": -1.8}]}],
    {"tokens": [" red"], "token_logprobs": [-0.2], "top_logprobs": [{" red": -0.2, " green": -1.8}]},
    {"content": None, "tokens": [" red"], "token_logprobs": [-0.2], "top_logprobs": [{" green": -1.8}]},
]


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_of_log_probabilities_are_read(form: Any) -> None:
    reply = completion(" red")
    reply["choices"][0]["logprobs"] = form
    with serving(lambda body, n: Reply(reply)) as (url, _):
        judge = Server(url, model="m")
        [found] = judge.ask(questions(1)[:1])
        assert judge.info.options["reading"] == "prefix"
    assert found.probability == pytest.approx(1 / (1 + math.exp(-1.6)))


THOUGHTS = "Red is closer, red receives more light. Yes, the same. Wait"


@pytest.mark.parametrize("reply", [
    completion(THOUGHTS, finish="length"), completion(f"<think>{THOUGHTS}", finish="length"),
    completion(f"<think>{THOUGHTS}"), completion(None, finish="length", reasoning_content=THOUGHTS),
    completion(None, reasoning_content=THOUGHTS), completion("", reasoning=THOUGHTS),
    completion("red", finish="length"),
    completion([{"type": "thinking", "thinking": "red"}, {"type": "reasoning", "text": "red"}]),
    # a first token of thoughts with log-probabilities
    completion("Red is", [("Red", {"Red": 0.6, "Green": 0.3}), (" is", {" is": 1.0})], finish="length"),
    completion("Green", [("Red", {"Red": 0.6, "Green": 0.3}), (" is", {" is": 1.0})], finish="length"),
])  # fmt: skip
@pytest.mark.parametrize("logprobs", ["auto", "off"])
def test_thoughts_are_no_answers(reply: Any, logprobs: Any) -> None:
    # as of a server that knows no forced beginning
    def thinks(body: dict[str, Any], number: int) -> Reply:
        return Reply({"error": "unknown"}, 400) if "continue_final_message" in body else Reply(reply)

    with serving(thinks) as (url, _):
        judge = Server(url, model="m", logprobs=logprobs)
        found = judge.ask(questions(1))
    assert {a.flag for a in found} == {"garbage"}
    assert sum(judge.problems().values()) == len(found)


@pytest.mark.parametrize("message", [
    completion(f"<think>{THOUGHTS}</think>\n\nGreen."), completion(f"{THOUGHTS}</think>green"),
    completion("Green", reasoning_content=THOUGHTS), completion([{"type": "text", "text": "Green"}]),
    completion([{"type": "thinking", "thinking": "red"}, {"type": "text", "text": "Green"}]),
    # the tokens are those of the thoughts
    completion("Green", [("Red", {"Red": 0.6, "Green": 0.3}), (" is", {" is": 1.0})], reasoning_content="Red is"),
    completion("Red</think>Green", [("Red", {"Red": 0.6, "Green": 0.3}), ("</think>", {"</think>": 1.0}),
                                    ("Green", {"Green": 0.9, "Red": 0.1})]),
])  # fmt: skip
def test_the_final_answer_after_thoughts_counts(message: Any) -> None:
    def thinks(body: dict[str, Any], number: int) -> Reply:
        return Reply({"error": "unknown"}, 400) if "continue_final_message" in body else Reply(message)

    with serving(thinks) as (url, _):
        judge = Server(url, model="m")
        [found] = judge.ask(questions(1)[:1])
        assert judge.info.reading == "words"
    assert found.probability == 0.0
