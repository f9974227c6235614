"""Vision-language judges: probabilities against the library's own forward passes, company, adapters, refusals."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reasonx_eval.errors import UsageError
from reasonx_eval.models.loading.runtime import Runtime
from reasonx_ft.annotation.markers import Painter
from reasonx_ft.annotation.questions import read_questions
from reasonx_ft.judges.mllm import Mllm
from reasonx_ft.judges.mllm_readout import Readout
from reasonx_ft.types import ORDERS, Answer, Photo, Question, photo_digest
from tests.reasonx_eval.models.tiny_hub import SHA, as_hub_cache
from tests.reasonx_ft.judges.tiny_vlm import FAMILIES, save_vlm

MODALITIES = ("depth", "normals", "irradiance", "albedo")
CPU = Runtime(device="cpu")
ONE_QUESTION = '[depth]\nquestion = "Which?"\nprefix = "The"\nanswers = { red = " red", green = " green" }\n'
#: makes a single tile of a picture, said to the library in its own words
ONE_TILE = {"internvl": {"crop_to_patches": False},
            "smolvlm": {"do_image_splitting": False, "size": {"longest_edge": 64}}}  # fmt: skip


def photo(seed: int = 0, shape: tuple[int, int] = (90, 130)) -> Photo:
    image = np.random.default_rng(seed).integers(0, 255, (*shape, 3), dtype=np.uint8)
    return Photo(f"photo{seed}", image, photo_digest(image))


def questions(pairs: int = 2, photos: int = 1) -> list[Question]:
    return [Question(photo(s), (60 + 90 * k, 70), (300, 400 - 50 * k), m, o)
            for s in range(photos) for k in range(pairs) for o in ORDERS for m in MODALITIES]  # fmt: skip


def values(answers: Sequence[Answer]) -> list[float]:
    return [a.probability for a in answers]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("vlm")
    found = {family: save_vlm(base / family, family) for family in FAMILIES}
    # neither word is a token of its own here
    return found | {"many": save_vlm(base / "many", "llava", words="Which point is the marked one in? Yes, no.")}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def library(folder: Path, family: str) -> tuple[Any, Any]:
    """Model and processor as a reader of the library's manual would make them."""
    import transformers

    names = {"qwen2_5_vl": "Qwen2_5_VL", "smolvlm": "Idefics3", "internvl": "InternVL", "llava": "Llava"}
    cls: Any = getattr(transformers, names[family] + "Processor")
    images = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    about = {k: v for k, v in json.loads((folder / "processor_config.json").read_text()).items()
             if k != "processor_class"}  # fmt: skip

    class Bare(cls):  # type: ignore[misc]
        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            return None

    video = {"video_processor": None} if "video_processor" in cls.get_attributes() else {}
    template = (folder / "chat_template.jinja").read_text()
    processor = Bare(image_processor=images, tokenizer=tokens, chat_template=template, **video, **about)
    return transformers.AutoModelForImageTextToText.from_pretrained(folder).eval(), processor


def log_probability(model: Any, processor: Any, picture: Any, head: str, tail: str, more: dict[str, Any]) -> float:
    """log P(tail | picture, head), token by token, each with a whole pass of its own."""
    from PIL import Image

    def inputs(text: str) -> Any:
        return processor(text=[text], images=[Image.fromarray(picture)], return_tensors="pt", **more)

    whole = inputs(head + tail)
    ids, start = whole["input_ids"][0], inputs(head)["input_ids"].shape[1]
    total = 0.0
    for position in range(start, len(ids)):
        cut = {k: v[:, :position] if k in ("input_ids", "attention_mask", "mm_token_type_ids") else v
               for k, v in whole.items()}  # fmt: skip
        with torch.no_grad():
            logits = model(**cut).logits[0, -1]
        total += float(torch.log_softmax(logits.double(), -1)[ids[position]])
    return total


def expected(folder: Path, family: str, asked: Sequence[Question]) -> list[float]:
    model, processor = library(folder, family)
    found = []
    for q in asked:
        template = read_questions()[q.modality]
        turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": template.question}]}
        head = processor.apply_chat_template([turn], add_generation_prompt=True) + template.prefix
        yes, no = template.candidates(q.order)
        picture = Painter().paint(q)
        a, b = (math.exp(log_probability(model, processor, picture, head, c, ONE_TILE.get(family, {})))
                for c in (yes, no))  # fmt: skip
        found.append(a / (a + b))
    return found


@pytest.mark.parametrize("family", list(FAMILIES))
def test_probability_is_the_librarys(folders: dict[str, Path], family: str) -> None:
    asked = questions(pairs=1)
    found = Mllm(folders[family], runtime=CPU).ask(asked)
    assert values(found) == pytest.approx(expected(folders[family], family, asked), abs=1e-5)
    assert {a.flag for a in found} == {"ok"}
    assert np.ptp(values(found)) > 0.1  # a judge that says the same to all would pass by chance


@pytest.mark.parametrize("share", [True, False])
def test_candidates_of_several_tokens(folders: dict[str, Path], share: bool) -> None:
    judge = Mllm(folders["many"], runtime=CPU, share=share)
    asked = questions(pairs=1)
    found = judge.ask(asked)
    _, prompter, readout = judge._ready()
    assert not any(p.one_token for m, p in prompter.prompts.items() if m != "albedo")
    assert bool(readout.shared) is share
    assert values(found) == pytest.approx(expected(folders["many"], "llava", asked), abs=1e-5)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_answers_do_not_depend_on_company(folders: dict[str, Path], family: str) -> None:
    asked = questions(photos=2)
    judge = Mllm(folders[family], runtime=CPU)
    together = values(judge.ask(asked))
    assert values(Mllm(folders[family], runtime=CPU, batch_size=3).ask(asked)) == together
    order = np.random.default_rng(1).permutation(len(asked))
    mixed = values(judge.ask([asked[i] for i in order]))
    assert [mixed[list(order).index(i)] for i in range(len(asked))] == together
    assert [judge.ask([q])[0].probability for q in asked[:6]] == together[:6]
    assert values(judge.ask(asked[:3] + asked[:3])) == together[:3] * 2


@pytest.mark.parametrize("family", list(FAMILIES))
def test_sharing_and_batches_change_only_rounding(folders: dict[str, Path], family: str) -> None:
    asked = questions()
    judge = Mllm(folders[family], runtime=CPU)
    _, prompter, readout = judge._ready()
    assert readout.shared > 10  # the picture's tokens are among them
    assert values(judge.ask(asked)) == pytest.approx(
        values(Mllm(folders[family], runtime=CPU, share=False).ask(asked)), abs=1e-6
    )
    pictures = [prompter.picture(Painter().paint(q)) for q in asked[::4]]
    prompts = list(prompter.prompts.values())
    alone = [readout.differences(prompts, [p]) for p in pictures]
    joint = readout.differences(prompts, pictures)
    assert np.array(joint) == pytest.approx(np.array(alone)[:, :, 0].T, abs=1e-4)  # as an accelerator batches


def test_a_model_that_can_not_go_on_is_asked_whole(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = values(Mllm(folders["llava"], runtime=CPU, share=False).ask(questions(1)))
    for broken in (lambda *a: 1 / 0, lambda self, prompts, pictures: [[9.0]] * len(prompts)):
        monkeypatch.setattr(Readout, "_continued", broken)
        judge = Mllm(folders["llava"], runtime=CPU)
        assert values(judge.ask(questions(1))) == whole
        assert judge._ready()[2].shared == 0


def test_colours_are_mapped_to_points(folders: dict[str, Path]) -> None:
    judge = Mllm(folders["llava"], runtime=CPU)
    network, prompter, _ = judge._ready()
    says = {" red": 30.0, " yes": 20.0}
    tokens = judge._processor.tokenizer

    def plant(module: Any, inputs: Any, output: Any) -> Any:
        for word, height in says.items():
            ids = tokens.encode(word, add_special_tokens=False)
            output[..., ids[-1]] = height
        return output

    hook = network.get_output_embeddings().register_forward_hook(plant)
    assert all(p.one_token for p in prompter.prompts.values())
    asked = questions(1)
    found = {(q.modality, q.order): a.probability for q, a in zip(asked, judge.ask(asked), strict=True)}
    hook.remove()
    for modality in ("depth", "normals", "irradiance"):
        assert found[modality, "red-first"] > 1 - 1e-6
        assert 0 <= found[modality, "green-first"] < 1e-6
    assert found["albedo", "red-first"] > 0.99
    assert found["albedo", "green-first"] > 0.99


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_are_no_answer(folders: dict[str, Path], bad: float) -> None:
    judge = Mllm(folders["smolvlm"], runtime=CPU)
    ids = judge._processor.tokenizer.encode(" red", add_special_tokens=False)
    judge.load()

    def plant(module: Any, inputs: Any, output: Any) -> Any:
        output[..., ids[-1]] = bad
        return output

    judge._ready()[0].get_output_embeddings().register_forward_hook(plant)
    found = judge.ask(questions(1)[:1])[0]
    assert math.isnan(found.probability)
    assert found.flag == "failed"


def test_words_are_the_librarys_greedy_ones(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    heard: list[str | None] = []
    real = Readout.words

    def listen(*args: Any) -> list[str | None]:
        heard.extend(said := real(*args))
        return said

    monkeypatch.setattr(Readout, "words", listen)
    question = questions(1)[0]
    judge = Mllm(folders["qwen2_5_vl"], runtime=CPU, readout="text")
    [unfinished] = judge.ask([question])
    assert (heard, unfinished.flag) == ([None], "garbage")  # it says anything, and doesn't stop
    model, processor = library(folders["qwen2_5_vl"], "qwen2_5_vl")
    turn = [{"type": "image"}, {"type": "text", "text": read_questions()["depth"].question}]
    text = processor.apply_chat_template([{"role": "user", "content": turn}], add_generation_prompt=True)
    inputs = processor(text=[text], images=[Image.fromarray(Painter().paint(question))], return_tensors="pt")
    made = model.generate(**inputs, do_sample=False, max_new_tokens=32)[:, inputs["input_ids"].shape[1] :]
    end = made[0, 20]  # a model that stops here
    judge._ready()[0].generation_config.eos_token_id = int(end)
    judge.ask([question])
    stops = made[:, : made[0].tolist().index(int(end)) + 1]
    assert heard[1:] == processor.tokenizer.batch_decode(stops, skip_special_tokens=True)


def test_words_become_answers(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"depth": "The red point is closer.", "normals": "I cannot answer that.", "irradiance": "no idea",
            "albedo": "No, they differ."}  # fmt: skip
    monkeypatch.setattr(Readout, "words", lambda self, prompt, pictures, tokenizer:
                        [said[prompt.template.modality]] * len(pictures))  # fmt: skip
    found = Mllm(folders["llava"], runtime=CPU, readout="text").ask(questions(1))
    assert [a.flag for a in found] == ["ok", "refused", "garbage", "ok"] * 2
    assert [found[i].probability for i in (0, 4, 3, 7)] == [1.0, 0.0, 0.0, 0.0]
    assert all(math.isnan(found[i].probability) for i in (1, 2, 5, 6))


def test_half_precision(folders: dict[str, Path]) -> None:
    full = Mllm(folders["internvl"], runtime=CPU)
    half = Mllm(folders["internvl"], runtime=Runtime(device="cpu", dtype="bfloat16"))
    assert values(half.ask(questions(1))) == pytest.approx(values(full.ask(questions(1))), abs=0.1)
    assert half.info.revision != full.info.revision


def test_tiles_are_limited(folders: dict[str, Path]) -> None:
    def tiles(family: str, most: int) -> int:
        judge = Mllm(folders[family], runtime=CPU, max_tiles=most)
        pixels = judge._ready()[1].picture(Painter().paint(questions(1)[0]))["pixel_values"]
        return int(pixels.shape[0] if family == "internvl" else pixels.shape[1])

    assert [tiles("internvl", n) for n in (1, 4)] == [1, 5]  # four and the whole
    assert [tiles("smolvlm", n) for n in (1, 4, 5)] == [1, 5, 5]
    assert (Mllm(folders["internvl"], runtime=CPU, max_tiles=4).info.revision
            != Mllm(folders["internvl"], runtime=CPU).info.revision)  # fmt: skip


def test_hub_cache_and_folder_are_one_judge(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    as_hub_cache(folders["smolvlm"], tmp_path, "team/small-vlm")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for spec in ("team/small-vlm", f"team/small-vlm@{SHA}"):
        judge = Mllm(spec, runtime=CPU)
        assert judge.info.name == "small-vlm"
        assert judge.info.revision == Mllm(folders["smolvlm"], runtime=CPU).info.revision
    assert values(judge.ask(questions(1))) == values(Mllm(folders["smolvlm"], runtime=CPU).ask(questions(1)))


def test_what_changes_an_answer_changes_the_revision(folders: dict[str, Path], tmp_path: Path) -> None:
    def revision(folder: Path, **how: Any) -> str:
        return Mllm(folder, runtime=CPU, **how).info.revision

    base = revision(folders["llava"])
    assert base == revision(shutil.copytree(folders["llava"], tmp_path / "elsewhere"), batch_size=8)
    template = tmp_path / "elsewhere" / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "judge"))
    wording = tmp_path / "questions.toml"
    wording.write_text(ONE_QUESTION)
    others = [revision(tmp_path / "elsewhere"), revision(folders["llava"], readout="text"),
              revision(folders["llava"], questions=read_questions(wording)),
              revision(save_vlm(tmp_path / "seed", "llava", seed=1))]  # fmt: skip
    assert len({base, *others}) == 5


def adapter_for(folder: Path, out: Path, *, seed: int = 0) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    network: Any = AutoModelForImageTextToText.from_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft uses an old name of transformers
            tuned: Any = get_peft_model(network, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0, 0.5)
    tuned.save_pretrained(out)
    return out


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_adapter(folders: dict[str, Path], tmp_path: Path, family: str) -> None:
    adapter = adapter_for(folders[family], tmp_path / "lora")
    base, tuned = Mllm(folders[family], runtime=CPU), Mllm(folders[family], adapter=adapter, runtime=CPU)
    assert tuned.info.name == f"{family}+lora"
    assert tuned.info.revision != base.info.revision
    before, after = values(base.ask(questions(1))), values(tuned.ask(questions(1)))
    assert np.abs(np.subtract(before, after)).max() > 0.01
    # an independent way: weights with the adapter's product added
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    network: Any = AutoModelForImageTextToText.from_pretrained(folders[family])
    merged = shutil.copytree(folders[family], tmp_path / "merged")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        joined: Any = PeftModel.from_pretrained(network, str(adapter))
    joined.merge_and_unload().save_pretrained(merged)
    assert after == pytest.approx(values(Mllm(merged, runtime=CPU).ask(questions(1))), abs=1e-5)
    assert tuned._ready()[2].shared > 0


def test_adapters_that_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_for(folders["llava"], tmp_path / "lora")
    with pytest.raises(UsageError, match="not a LoRA adapter"):
        Mllm(folders["llava"], adapter=folders["llava"], runtime=CPU)
    for change in ("lacks", "has more"):
        with pytest.raises(UsageError, match="doesn't fit"):
            Mllm(folders["llava"], adapter=_changed(adapter, tmp_path / change), runtime=CPU).load()
    with pytest.raises(UsageError, match="doesn't fit"):
        Mllm(folders["smolvlm"], adapter=adapter, runtime=CPU).load()
    weights = adapter / "adapter_model.safetensors"
    torch.save({}, adapter / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(UsageError, match="pickled weights are not read"):
        Mllm(folders["llava"], adapter=adapter, runtime=CPU)


def _changed(adapter: Path, out: Path) -> Path:
    """The adapter with a tensor less, which peft would leave at its start, or with one more, which it would drop."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(adapter, out)
    tensors = load_file(out / "adapter_model.safetensors")
    name = min(tensors)
    if out.name == "lacks":
        tensors.pop(name)
    else:
        tensors[name.replace("layers.0", "layers.7")] = tensors[name].clone()
    save_file(tensors, out / "adapter_model.safetensors")
    return out


def test_code_of_a_checkpoint_does_not_run(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["llava"], tmp_path / "own")
    ran = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w').write('x')\nclass C: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own_kind", "auto_map": {"AutoConfig": "evil.C", "AutoModelForImageTextToText": "evil.C"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="auto_map") as caught:
        Mllm(folder, runtime=CPU).ask(questions(1))
    assert "--trust-remote-code" in str(caught.value)
    assert not ran.exists()


@pytest.mark.parametrize(("spoil", "says"), [
    (lambda f: (f / "chat_template.jinja").unlink(), "chat template"),
    (lambda f: (f / "chat_template.jinja").write_text("{{ raise_exception('no pictures') }}"), "chat template"),
    (lambda f: (f / "preprocessor_config.json").unlink(), "processor"),
    (lambda f: (f / "tokenizer.json").unlink(), "processor"),
    (lambda f: (f / "model.safetensors").unlink(), "no weights"),
    (lambda f: (f / "model.safetensors").write_bytes(b"\x08" * 40), "safetensors"),
    (lambda f: (f / "config.json").unlink(), "config.json"),
    (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "no image-text-to-text model"),
    (lambda f: (f / "chat_template.jinja").write_text("{{ messages[0]['content'][1]['text'] }}"), "processor failed"),
])  # fmt: skip
def test_folders_that_are_refused(folders: dict[str, Path], tmp_path: Path, spoil: Any, says: str) -> None:
    spoil(folder := shutil.copytree(folders["smolvlm"], tmp_path / "spoilt"))
    with pytest.raises(UsageError, match=says):
        Mllm(folder, runtime=CPU).ask(questions(1))


def test_pickled_weights_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["llava"], tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match="pickled"):
        Mllm(folder, runtime=CPU)


def test_candidates_that_begin_alike_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    wording = tmp_path / "questions.toml"
    wording.write_text(ONE_QUESTION.replace('" green"', '" red point"'))
    with pytest.raises(UsageError, match="beginning of the other"):
        Mllm(folders["llava"], runtime=CPU, questions=read_questions(wording)).ask(questions(1)[:1])


def test_a_modality_without_wording(folders: dict[str, Path], tmp_path: Path) -> None:
    wording = tmp_path / "questions.toml"
    wording.write_text(ONE_QUESTION)
    judge = Mllm(folders["llava"], runtime=CPU, questions=read_questions(wording))
    asked = questions(1)
    assert len(judge.ask([q for q in asked if q.modality == "depth"])) == 2
    with pytest.raises(UsageError, match="unknown modality 'normals'"):
        judge.ask(asked)


def test_no_questions_and_close(folders: dict[str, Path]) -> None:
    judge = Mllm(folders["llava"], runtime=CPU)
    assert judge.ask([]) == []
    before = values(judge.ask(questions(1)))
    judge.close()
    assert values(judge.ask(questions(1))) == before
