"""The published judge's interface against a small stand-in with code of its own; that code runs only with leave."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from reasonx_eval.errors import UsageError
from reasonx_eval.models.loading.runtime import Runtime
from reasonx_ft.annotation.markers import Painter
from reasonx_ft.annotation.questions import read_questions
from reasonx_ft.judges.internvl_chat import InternvlChat, cut
from reasonx_ft.judges.mllm import Mllm
from reasonx_ft.types import ORDERS, Photo, Question, photo_digest
from tests.reasonx_ft.judges.tiny_vlm import tokenizer

TRUSTED = Runtime(device="cpu", trust_remote_code=True)
#: says by the mean of its pixels which point is closer: something that its input decides
CODE = '''
import pathlib
import torch
from transformers import PretrainedConfig, PreTrainedModel

pathlib.Path(RAN).write_text("ran")


class Config(PretrainedConfig):
    model_type = "internvl_chat"


class Model(PreTrainedModel):
    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.post_init()

    def chat(self, tokenizer, pixel_values, question, generation_config, history=None, return_history=False):
        with open(HEARD, "a") as heard:
            heard.write(question + "|" + str(tuple(pixel_values.shape)) + "\\n")
        assert pixel_values.dtype == self.weight.dtype
        assert generation_config == {"max_new_tokens": 128, "do_sample": False}
        assert tokenizer.encode("red")
        if "colour" in question:
            return "Yes, similar."
        if "light" in question:
            return "What a nice room!"
        if "camera?" in question and "nearer" not in question:
            return "I am sorry, I cannot see that."
        return "The red point is closer." if self.weight.item() > 0 else "The green point is closer."
'''


def photo() -> Photo:
    image = np.random.default_rng(3).integers(0, 255, (70, 50, 3), dtype=np.uint8)
    return Photo("p", image, photo_digest(image))


PHOTO = photo()


def questions() -> list[Question]:
    return [Question(PHOTO, (100, 100), (300, 200), m, o)
            for o in ORDERS for m in ("depth", "normals", "irradiance", "albedo")]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from transformers import dynamic_module_utils

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    made = tmp_path / "stand-in"
    made.mkdir()
    code = CODE.replace("RAN", repr(str(tmp_path / "ran"))).replace("HEARD", repr(str(tmp_path / "heard")))
    (made / "own_code.py").write_text(code)
    (made / "config.json").write_text(json.dumps({
        "model_type": "internvl_chat", "architectures": ["Model"], "force_image_size": 448,
        "vision_config": {"image_size": 224},
        "auto_map": {"AutoConfig": "own_code.Config", "AutoModel": "own_code.Model"},
    }))  # fmt: skip
    save_file({"weight": torch.ones(1)}, made / "model.safetensors", {"format": "pt"})
    tokenizer(()).save_pretrained(made)
    return made


def test_its_words_are_answers(folder: Path, tmp_path: Path) -> None:
    judge = InternvlChat(folder, runtime=TRUSTED)
    found = judge.ask(questions())
    assert [a.flag for a in found] == ["ok", "refused", "garbage", "ok"] * 2
    assert [found[i].probability for i in (0, 4, 3, 7)] == [1.0, 0.0, 1.0, 1.0]
    assert all(math.isnan(found[i].probability) for i in (1, 2, 5, 6))
    heard = (tmp_path / "heard").read_text().splitlines()
    assert heard[1] == read_questions()["depth"].question + "|(1, 3, 448, 448)"
    assert heard[0] == "<image>"
    assert judge.info.name == "stand-in"
    assert judge.info.options["trust_remote_code"] is True


def test_other_wording_code_and_weights_are_other_judges(folder: Path, tmp_path: Path) -> None:
    wording = tmp_path / "questions.toml"
    wording.write_text('[depth]\nquestion = "Which?"\nprefix = "The"\nanswers = { red = " red", green = " green" }\n')
    first = InternvlChat(folder, runtime=TRUSTED).info.revision
    worded = InternvlChat(folder, runtime=TRUSTED, questions=read_questions(wording))
    assert worded.ask(questions()[:1])[0].probability == 1.0
    assert "Which?" in (tmp_path / "heard").read_text()
    (folder / "own_code.py").write_text((folder / "own_code.py").read_text() + "\n# another\n")
    second = InternvlChat(folder, runtime=TRUSTED).info.revision
    save_file({"weight": -torch.ones(1)}, folder / "model.safetensors", {"format": "pt"})
    changed = InternvlChat(folder, runtime=TRUSTED)
    assert changed.ask(questions()[:1])[0].probability == 0.0
    assert len({first, worded.info.revision, second, changed.info.revision}) == 4


@pytest.mark.parametrize("judge", [InternvlChat, Mllm])
def test_its_code_does_not_run_without_leave(folder: Path, tmp_path: Path, judge: Any) -> None:
    with pytest.raises(UsageError, match="code") as caught:
        judge(folder, runtime=Runtime(device="cpu"))
    assert "--trust-remote-code" in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_the_published_one_is_not_looked_for_without_leave() -> None:
    with pytest.raises(UsageError, match=r"adirik/InternVL2_5-4B-Intrinsic-Judge.*not run"):
        InternvlChat(runtime=Runtime(device="cpu"))


def test_folders_that_are_no_such_judge(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"force_image_size": "big"}))
    with pytest.raises(UsageError, match="InternVL chat checkpoint"):
        InternvlChat(folder, runtime=TRUSTED)
    (folder / "config.json").write_text(json.dumps(config))
    code = (folder / "own_code.py").read_text()
    (folder / "own_code.py").write_text(code.replace("def chat", "def talk"))
    with pytest.raises(UsageError, match="no chat"):
        InternvlChat(folder, runtime=TRUSTED).ask(questions())
    (folder / "own_code.py").write_text(code.replace('"Yes, similar."', "1 / 0"))
    with pytest.raises(UsageError, match="ZeroDivisionError"):
        InternvlChat(folder, runtime=TRUSTED).ask(questions())


@pytest.mark.parametrize(("side", "most", "n"), [(448, 12, 1), (512, 6, 1), (336, 3, 1), (336, 12, 2), (224, 12, 3),
                                                 (224, 1, 1), (224, 8, 2)])  # fmt: skip
def test_tiles(side: int, most: int, n: int) -> None:
    from PIL import Image

    picture = Painter().paint(questions()[0])
    tiles = cut(picture, side, most)
    assert tiles.shape == (n * n + (n > 1), 3, side, side)
    mean, deviation = (np.array(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    back = (tiles * deviation + mean) * 255
    whole = np.asarray(Image.fromarray(picture).resize((side * n, side * n), Image.Resampling.BICUBIC))
    for k in range(n * n):
        r, c = divmod(k, n)
        expected = whole[r * side : (r + 1) * side, c * side : (c + 1) * side].transpose(2, 0, 1)
        assert np.abs(back[k] - expected).max() < 1e-3
