"""Templates: what comes with the package, another file, and files that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasonx_eval.errors import UsageError
from reasonx_ft.annotation.questions import MODALITIES, read_questions
from reasonx_ft.types import ORDERS

GOOD = '[depth]\nquestion = "Q"\nprefix = "P"\nanswers = { red = " r", green = " g" }\n'
ALBEDO = '[albedo]\nquestion = "Q"\nprefix = "P"\nanswers = { same = " y", different = " n" }\n'


def test_the_packages_own() -> None:
    questions = read_questions()
    assert questions.modalities == MODALITIES
    assert len({t.digest for t in questions.templates.values()}) == 4
    for template in questions.templates.values():
        assert len(template.digest) == 16
        assert "red" in template.question
        assert "green" in template.question
        assert all(text.startswith(" ") for text in template.answers.values())
    assert read_questions() is read_questions()


def test_both_orders_speak_of_the_first_point() -> None:
    depth, albedo = read_questions()["depth"], read_questions()["albedo"]
    # red is the first point: "red" at .8 says FIRST at .8; red is the second: FIRST at .2
    assert depth.probability("red", 0.8, "red-first") == 0.8
    assert depth.probability("red", 0.8, "green-first") == pytest.approx(0.2)
    assert depth.probability("green", 0.8, "green-first") == 0.8
    assert depth.candidates("red-first") == (" red", " green")
    assert depth.candidates("green-first") == (" green", " red")
    for order in ORDERS:
        assert albedo.probability("same", 0.7, order) == 0.7
        assert albedo.probability("different", 0.7, order) == pytest.approx(0.3)
        assert albedo.candidates(order) == (" yes", " no")
        assert {depth.positive(order), depth.negative(order)} == {"red", "green"}
    with pytest.raises(UsageError, match="unknown answer 'same'"):
        depth.probability("same", 0.5, "red-first")


def test_a_file_replaces_all(tmp_path: Path) -> None:
    path = tmp_path / "q.toml"
    path.write_text(GOOD)
    questions = read_questions(path)
    assert questions.modalities == ("depth",)
    assert questions["depth"].answers == {"red": " r", "green": " g"}
    with pytest.raises(UsageError, match="unknown modality 'albedo'"):
        _ = questions["albedo"]


def test_the_digest_changes_with_every_part_and_with_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "q.toml"
    digests = set()
    changed = [GOOD.replace(old, '"R"') for old in ('"Q"', '"P"', '" r"')]
    for text in (GOOD, GOOD + ALBEDO, *changed):
        path.write_text("# a comment\n" + text)
        digests.add(read_questions(path)["depth"].digest)
    assert len(digests) == 4


@pytest.mark.parametrize(("text", "message"), [
    ("", "no questions in it"),
    ("[depth", "not valid TOML"),
    (GOOD + "[shadow]\n", "shadow: unknown key"),
    (GOOD + "more = 1\n", "depth.more: unknown key"),
    (GOOD.replace("prefix", "prefixx"), "depth.prefix: Field required"),
    (GOOD.replace("green", "blue"), "depth.answers.blue"),
    (GOOD.replace(', green = " g"', ""), "answers must be green and red, not red"),
    (GOOD.replace("red", "same").replace("green", "different"), "answers must be green and red"),
    (ALBEDO.replace("same", "red").replace("different", "green"), "answers must be different and same"),
    (GOOD.replace('" g"', '" r"'), "both answers have the same text"),
    (GOOD.replace('"Q"', '""'), "depth.question"),
])  # fmt: skip
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "q.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_questions(path)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_questions(tmp_path / "none.toml")
    (tmp_path / "q.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not valid TOML"):
        read_questions(tmp_path / "q.toml")
