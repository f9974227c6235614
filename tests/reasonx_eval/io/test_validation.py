"""What is said of a document that does not fit."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from reasonx_eval.errors import NotComparable
from reasonx_eval.io.validation import explain, refuse_newer


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    crop: str = "none"
    rows: list[int] = []

    @field_validator("crop")
    @classmethod
    def _known(cls, value: str) -> str:
        if value != "none":
            raise ValueError(f"no crop is called '{value}'")
        return value


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    depth: Inner = Inner()
    seed: int = Field(0, ge=0)


@pytest.mark.parametrize(("document", "most", "expected"), [
    ({"depth": {"crop": "eigen"}}, None, "depth.crop: no crop is called 'eigen'"),
    ({"depth": {"rows": [1, "x"]}}, None,
     "depth.rows.1: Input should be a valid integer, unable to parse string as an integer"),
    ({"depth": {"crops": 1}}, None, "depth.crops: unknown key; did you mean 'crop'? Known: crop, rows"),
    ({"zzz": 1}, None, "zzz: unknown key"),
    ({"seed": -1, "zzz": 1}, None, "seed: Input should be greater than or equal to 0; zzz: unknown key"),
    ({"seed": -1, "zzz": 1}, 1, "seed: Input should be greater than or equal to 0"),
    ([], None, "file: Input should be a valid dictionary or instance of Outer"),
])  # fmt: skip
def test_each_error_with_its_place(document: object, most: int | None, expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(document)
    assert explain(caught.value, most=most, tables={("depth",): Inner}) == expected


@pytest.mark.parametrize("document", [{"schema": 3}, {"schema": 2}, {"schema": "99"}, {}, [], None, "schema"])
def test_only_a_higher_number_is_newer(document: object) -> None:
    refuse_newer(document, 3, "x.json")
    with pytest.raises(NotComparable, match=r"x\.json: schema 4 is newer than this program reads \(3\)"):
        refuse_newer({"schema": 4}, 3, "x.json")
