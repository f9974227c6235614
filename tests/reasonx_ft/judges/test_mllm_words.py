"""The parser of free answers: plain ones are read, all others are none."""

from __future__ import annotations

import pytest

from reasonx_ft.annotation.questions import Template, read_questions
from reasonx_ft.judges.answer_text import read_answer

DEPTH, ALBEDO = read_questions()["depth"], read_questions()["albedo"]


@pytest.mark.parametrize(("text", "meaning"), [
    ("red", "red"),
    (" Green.", "green"),
    ("The red point is closer", "red"),
    ("The red point is closer to the camera.", "red"),
    ("**The green point** is closer than the red point.", "green"),
    ("The point nearer to the camera is the red", "red"),
    ("Red is closer than green", "red"),
    ("No, the green circle is nearer.", "green"),
    ("The red point is closer, and the green point is farther away.", "red"),
    ("The red point is closer to the camera. It is not the green one.", "red"),
    ("<think>Is it the green point? It is closer.</think>The red point is closer.", "red"),
    ("The point marked in green receives more light.", "green"),
    ("The green point faces the camera more.", "green"),
    ("Answer: green", "green"),
])  # fmt: skip
def test_colours(text: str, meaning: str) -> None:
    assert read_answer(text, DEPTH) == meaning


@pytest.mark.parametrize("text", [
    "", "   ", "no idea", "closer", "Yes.", "red or green", "red green", "red/green", "Both points are equally far.",
    "The red point is farther.", "The red point is not closer.", "Neither the red nor the green point.",
    "The red point is closer. The green point is closer.", "I don't know whether the red point is closer.",
    "It is hard to tell, the red point maybe.", "There is a red car parked in front of the house", "reddish",
    "\ufffd red",
    "blue", "The red point is closer than the red point", "0", "{}", "redred",
])  # fmt: skip
def test_colours_that_are_garbage(text: str) -> None:
    assert read_answer(text, DEPTH) == "garbage"


@pytest.mark.parametrize("thoughts", [
    "<think>{}</think>", "{}</think>", "<THINK>{}</Think>\n", "<thinking>{}</thinking>",
    "<think>a</think><think>{}</think>", "<reasoning>{}</reasoning>", "<|channel>thought\n{}<channel|>",
    "[THINK]{}[/THINK]", "\u25c1think\u25b7{}\u25c1/think\u25b7",
    "<|begin_of_thought|>{}<|end_of_thought|><|begin_of_solution|>", "<seed:think>{}</seed:think>",
    "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>",
    "analysisWell, {} assistantfinal", "<scratch>{}</scratch>", "<thought>{}</thought><answer>",
])  # fmt: skip
def test_only_the_final_answer_counts(thoughts: str) -> None:
    said = thoughts.format("The red point is closer. Yes, the same.")
    assert read_answer(said + "Green", DEPTH) == "green"
    assert read_answer(said + "No.", ALBEDO) == "different"
    # what is cut off within its thoughts has no answer, whatever they say
    opened, _, _ = thoughts.partition("{}")
    if opened and "scratch" not in opened:
        assert read_answer(f"{opened}The red point is closer", DEPTH) == "unfinished"
    assert read_answer(said, DEPTH) == "garbage"


@pytest.mark.parametrize("form", [
    "{}", "**{}**", "\\boxed{{{}}}", "$\\boxed{{\\text{{{}}}}}$", '{{"answer": "{}"}}',
    '```json\n{{"answer": "{}"}}\n```', "<answer>{}</answer>", "Final answer: {}.",
    "The answer is **{}**.", "<|begin_of_box|>{}<|end_of_box|>", "{}<|im_end|>",
])  # fmt: skip
def test_forms_of_an_answer(form: str) -> None:
    assert read_answer(form.format("Green"), DEPTH) == "green"
    assert read_answer(form.format("no"), ALBEDO) == "different"


@pytest.mark.parametrize("text", ["<abc>" * 100_000, "</think" * 100_000, "<think>" * 100_000, "red " * 500_000])
def test_long_texts_are_no_answers(text: str) -> None:
    assert read_answer(text, DEPTH) in ("garbage", "unfinished")


@pytest.mark.parametrize("text", [
    "I'm sorry, but I can't help with that.", "I cannot determine whether the red point is closer.",
    "As an AI, I do not see pictures.", "I am unable to see the green point", "I\u2019m not able to answer; red.",
])  # fmt: skip
@pytest.mark.parametrize("template", [DEPTH, ALBEDO])
def test_refusals(text: str, template: Template) -> None:
    assert read_answer(text, template) == "refused"


@pytest.mark.parametrize(("text", "meaning"), [
    ("yes", "same"),
    ("No.", "different"),
    ("Answer: yes", "same"),
    ("Yes, they have a similar base colour.", "same"),
    ("No, different base colours", "different"),
    ("No, they are not the same.", "different"),
    ("The base colours are the same.", "same"),
    ("Both points differ in colour", "different"),
    ("They are not similar", "different"),
    ("YES!", "same"),
])  # fmt: skip
def test_sameness(text: str, meaning: str) -> None:
    assert read_answer(text, ALBEDO) == meaning


@pytest.mark.parametrize("text", [
    "", "yes and no", "no idea", "Yes, they are different.", "No, they are the same.", "red", "yesterday", "nothing",
    "Maybe the same.", "not sure",
])  # fmt: skip
def test_sameness_that_is_garbage(text: str) -> None:
    assert read_answer(text, ALBEDO) == "garbage"


def test_candidates_of_another_wording() -> None:
    letters = Template("depth", "A or B?", "Answer:", {"red": " A", "green": " B"})
    assert [read_answer(t, letters) for t in ("a", "B.", "Answer: B", "C")] == ["red", "green", "green", "garbage"]
