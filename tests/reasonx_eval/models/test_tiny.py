"""The embedded models: what ships, what they predict, and that nothing but photo, seed and options decides it."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.io.color import srgb8_table
from reasonx_eval.io.digests import sha256_file
from reasonx_eval.io.results import load_result
from reasonx_eval.models.embedded.card import WEIGHTS, TinyCard, load_network, read_card, write_model
from reasonx_eval.models.embedded.tiny import Tiny, TinyFlow, working_image, working_size
from reasonx_eval.models.embedded.tiny_net import TinyNet
from reasonx_eval.models.loading.load import load_model
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.registry import load_dataset
from reasonx_eval.scoring import score_sample
from reasonx_eval.types import Sample

NAMES = ("tiny", "tiny-flow")
KINDS = ("depth_metric", "disparity_affine", "normal", "albedo_linear", "irradiance")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    dataset = load_dataset("scenes-synthetic", split="val")
    return [dataset.load(i) for i in list(dataset.ids)[:8]]


@pytest.fixture(params=NAMES, scope="module")
def model(request: pytest.FixtureRequest) -> Any:
    return load_model(request.param)


def card(name: str) -> TinyCard:
    return read_card(WEIGHTS / f"{name}.safetensors")


def values(model: Any, samples: list[Sample], kind: str, seed: int = 0) -> list[Any]:
    predictions = model.predict(samples, kind, seed)
    assert [p.kind for p in predictions] == [kind] * len(samples)
    return [p.value for p in predictions]


# what ships


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_small_half_precision_and_nothing_else(name: str) -> None:
    raw = (WEIGHTS / f"{name}.safetensors").read_bytes()
    assert len(raw) <= 2_500_000
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    assert {entry["dtype"] for entry in header.values()} == {"F16"}
    assert sum(int(np.prod(e["shape"])) for e in header.values()) == card(name).parameters


@pytest.mark.parametrize("name", NAMES)
def test_card_says_where_the_weights_come_from(name: str) -> None:
    known = card(name)
    assert known.weights_sha256 == sha256_file(WEIGHTS / f"{name}.safetensors")
    assert known.licence == "Apache-2.0"
    assert known.base is None
    train = load_dataset("scenes-synthetic", split="train")
    assert [(d.dataset, d.split, d.n, d.ids_sha256) for d in known.data] == [
        ("scenes-synthetic", "train", 4000, train.ids_digest)
    ]
    assert {"seed", "steps", "images", "learning_rate"} <= set(known.training)
    assert {"torch", "numpy", "python", "reasonx"} <= set(known.versions)
    assert known.parameters == sum(p.numel() for p in load_network(WEIGHTS / f"{name}.safetensors", known).parameters())


@pytest.mark.parametrize("name", NAMES)
def test_the_default_configuration_is_the_one_that_made_them(name: str) -> None:
    from reasonx_ft.training.config import PretrainConfig, read_config

    # a field that came later has its default: what was done without it
    assert PretrainConfig.model_validate(card(name).training) == read_config(name, None, {})


@pytest.mark.parametrize("name", NAMES)
def test_card_has_scores_on_both_domains(name: str) -> None:
    known = {s.protocol: s for s in card(name).scores}
    model = load_model(name)
    for domain in ("scenes-synthetic", "scenes-wild"):
        for short in ("depth/{}@1", "normals/{}@1", "albedo/{}@1", "albedo/{}-whdr@1", "irradiance/{}@1"):
            protocol = get_protocol(short.format(domain))
            score = known[protocol.ref]
            assert score.n == protocol.n
            assert set(score.metrics) == set(protocol.metrics)
            kind = model.kind_for(protocol.task, protocol.accepts)
            assert score.signature.startswith(f"{protocol.ref}|n:{protocol.n}|acc:{kind}|")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "protocol"), [("tiny", "albedo/scenes-synthetic-whdr"), ("tiny-flow", "depth/scenes-synthetic")]
)
def test_scores_of_the_card_are_what_the_command_gives(name: str, protocol: str, tmp_path: Path) -> None:
    assert run_cli(cli, ["run", "--model", name, "--protocol", protocol, "--out", str(tmp_path), "--quiet"]) == 0
    result = load_result(tmp_path / f"{protocol}@1" / name)
    score = next(s for s in card(name).scores if s.protocol == f"{protocol}@1")
    assert result.signature == score.signature
    for metric, value in result.aggregate.items():
        assert value.value == pytest.approx(score.metrics[metric], rel=2e-3)  # other machines round otherwise


# what they predict


@pytest.mark.parametrize(
    ("protocol", "metric", "baseline", "share"),
    [
        ("depth/scenes-synthetic", "abs_rel", "plane-depth", 0.5),
        ("normals/scenes-synthetic", "mean_deg", "mean-normal", 0.5),
        ("albedo/scenes-synthetic-whdr", "whdr10", "image-as-albedo", 0.8),
        ("albedo/scenes-synthetic-whdr", "whdr10", "retinex", 0.8),
        ("irradiance/scenes-synthetic", "si_mse", "retinex", 0.5),
    ],
)
def test_far_better_than_baselines_at_home(model: Any, samples: list[Sample], protocol: str, metric: str,
                                           baseline: str, share: float) -> None:  # fmt: skip
    rules = get_protocol(protocol)

    def mean(predictor: Any) -> float:
        predictions = predictor.predict(samples, predictor.kind_for(rules.task, rules.accepts), 0)
        return float(np.mean([score_sample(sample=s, prediction=p, protocol=rules).metrics[metric]
                              for s, p in zip(samples, predictions, strict=True)]))  # fmt: skip

    assert mean(model) < share * mean(load_model(baseline))


def test_depth_is_in_metres_and_disparity_its_inverse(model: Any, samples: list[Sample]) -> None:
    depth = values(model, samples, "depth_metric")
    for metres, sample in zip(depth, samples, strict=True):
        assert metres.shape == (96, 128)
        assert 0.8 < np.median(metres / sample.targets["depth"].depth) < 1.25
    for kind in ("depth_scale", "depth_affine"):
        np.testing.assert_array_equal(values(model, samples[:1], kind)[0], depth[0])
    np.testing.assert_allclose(values(model, samples[:1], "disparity_affine")[0], 1 / depth[0], rtol=1e-6)


def test_normals_are_unit_vectors_in_our_frame(model: Any, samples: list[Sample]) -> None:
    for normal, sample in zip(values(model, samples, "normal"), samples, strict=True):
        np.testing.assert_allclose(np.linalg.norm(normal, axis=-1), 1.0, atol=1e-5)
        truth = sample.targets["normals"].normal
        for axis in range(3):
            # a wrong sign or a swapped axis would make it negative or small
            assert np.corrcoef(normal[..., axis].ravel(), truth[..., axis].ravel())[0, 1] > 0.6
        assert np.median(normal[-8:, :, 1]) < -0.7  # the floor at the bottom looks up: y is down


def test_albedo_and_irradiance_are_linear(model: Any, samples: list[Sample]) -> None:
    albedo, light = (values(model, samples, k) for k in ("albedo_linear", "irradiance"))
    levels = []
    for a, e, sample in zip(albedo, light, samples, strict=True):
        assert a.shape == e.shape == (96, 128, 3)
        assert min(a.min(), e.min()) > 0
        linear = srgb8_table()[sample.image]
        open_ = (sample.image > 8) & (sample.image < 250)
        # an encoded albedo would make it 1.5 and more
        assert 0.8 < np.median((a * e)[open_] / linear[open_]) < 1.25
        levels.append([np.median(np.log(a / sample.targets["albedo"].value)),
                       np.median(np.log(e / sample.targets["irradiance"].value))])  # fmt: skip
    # one photo leaves the level of its paint open, several do not; encoding would move the mean by 0.4
    assert np.abs(np.mean(levels, axis=0)).max() < 0.15


# what decides a prediction


@pytest.mark.parametrize("kind", KINDS)
def test_batch_order_and_repetition_change_no_bit(model: Any, samples: list[Sample], kind: str) -> None:
    whole = values(model, samples[:4], kind, seed=3)
    alone = [values(model, [s], kind, seed=3)[0] for s in samples[:4]]
    back = values(model, samples[3::-1], kind, seed=3)[::-1]
    for a, b, c in zip(whole, alone, back, strict=True):
        assert a.dtype == np.float32
        assert a.tobytes() == b.tobytes() == c.tobytes()


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_threads_change_no_bit(model: Any, samples: list[Sample], two_threads: None) -> None:
    many = values(model, samples[:1], "albedo_linear")[0]
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert many.tobytes() == values(model, samples[:1], "albedo_linear")[0].tobytes()


def test_shards_and_resume_change_no_digest(tmp_path: Path) -> None:
    base = ["run", "--model", "tiny-flow", "--dataset", "scenes-wild", "--task", "albedo", "--quiet"]

    def digests(name: str, *extra: str) -> dict[str, str]:
        assert run_cli(cli, [*base, "--out", str(tmp_path / name), *extra]) == 0
        found = {}
        for path in (tmp_path / name).rglob("records.jsonl"):
            for line in path.read_text().splitlines():
                record = json.loads(line)
                found[record["sample_id"]] = record["prediction"]
        return found

    ids = [f"wild/test/{k:05d}" for k in (0, 7, 50, 199)]
    whole = digests("whole", "--samples", ",".join(ids))
    assert list(whole) == ids
    assert digests("late", "--samples", ids[2]) == {ids[2]: whole[ids[2]]}
    shards = digests("a", "--samples", ",".join(ids), "--shard", "1/2") | digests("b", "--samples", ",".join(ids),
                                                                                  "--shard", "2/2")  # fmt: skip
    assert shards == whole


def test_the_feed_forward_network_has_no_seed(samples: list[Sample]) -> None:
    model = load_model("tiny")
    np.testing.assert_array_equal(*(values(model, samples[:1], "normal", seed=k)[0] for k in (0, 1)))


def test_noise_is_keyed_by_seed_and_sample(samples: list[Sample]) -> None:
    model = load_model("tiny-flow")
    first = values(model, samples[:1], "normal")[0]
    other_seed = values(model, samples[:1], "normal", seed=1)[0]
    other_id = values(model, [Sample("other", samples[0].image)], "normal")[0]
    assert not np.array_equal(first, other_seed)
    assert not np.array_equal(first, other_id)


def test_an_ensemble_is_the_mean_of_its_members(samples: list[Sample]) -> None:
    image = torch.from_numpy(samples[0].image.transpose(2, 0, 1).copy()).float()[None] / 255
    with torch.inference_mode():
        one, three = (TinyFlow(ensemble=n)._code(image, "irradiance", "x", 0) for n in (1, 3))
        several = TinyFlow(ensemble=8)._code(image, "irradiance", "x", 1)
        eight = TinyFlow(ensemble=8)._code(image, "irradiance", "x", 2)
        other = TinyFlow()._code(image, "irradiance", "x", 1)
    assert float((one - three).abs().max()) > 0
    # noise of a mean of eight is smaller than that of one
    assert float((several - eight).square().mean()) < float((one - other).square().mean())


def test_steps_change_the_map_but_not_much(samples: list[Sample]) -> None:
    one, four = (values(load_model("tiny-flow", options={"steps": n}), samples[:1], "depth_metric")[0] for n in "14")
    assert 0 < np.abs(np.log(one / four)).mean() < 0.1


# any photo


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((96, 128), (96, 128)),
        ((480, 640), (96, 128)),
        ((4032, 6048), (88, 128)),
        ((640, 480), (128, 96)),
        ((1, 1), (128, 128)),
        ((7, 5), (128, 88)),
        ((97, 131), (96, 128)),
        ((3, 3000), (16, 128)),
    ],
)
def test_working_size(size: tuple[int, int], seen: tuple[int, int]) -> None:
    assert working_size(*size) == seen


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (97, 131), (3, 3000), (480, 640)])
def test_any_size_of_photo(model: Any, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for kind in KINDS:
        value = values(model, [Sample("any", image)], kind)[0]
        assert value.shape[:2] == working_size(*size)
        assert np.isfinite(value).all()


@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_photos(model: Any, level: int) -> None:
    for kind in KINDS:
        value = values(model, [Sample("flat", np.full((30, 40, 3), level, np.uint8))], kind)[0]
        assert np.isfinite(value).all()
        assert kind == "normal" or value.min() > 0


def test_large_photos_are_averaged_down() -> None:
    # alternate columns of black and white: picking pixels would keep them
    stripes = np.zeros((960, 1280, 3), np.uint8)
    stripes[:, ::2] = 255
    seen = working_image(stripes)[:, 2:-2]
    assert seen.min() > 110
    assert seen.max() < 145


# wrong files and options


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tiny-flow", {"steps": "0"}, "steps is 0; needs 1 to 1000"),
        ("tiny-flow", {"ensemble": "-1"}, "ensemble is -1"),
        ("tiny-flow", {"step": "2"}, "unknown option 'step'; did you mean 'steps'"),
        ("tiny", {"steps": "2"}, "unknown option 'steps'"),
        ("tiny", {"device": "gpu"}, "unknown device 'gpu'"),
        ("tiny", {"weights": "none.safetensors"}, "none.safetensors: no such file"),
    ],
)
def test_wrong_options(name: str, options: dict[str, str], message: str, samples: list[Sample]) -> None:
    with pytest.raises(UsageError, match=message):
        load_model(name, options=options).predict(samples[:1], "normal", 0)


def test_a_kind_that_it_does_not_have(samples: list[Sample]) -> None:
    with pytest.raises(UsageError, match="unknown kind 'albedo_srgb'; did you mean 'albedo_linear'"):
        load_model("tiny").predict(samples[:1], "albedo_srgb", 0)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The shipped feed-forward weights with their card, in a folder of their own."""
    for suffix in (".safetensors", ".json"):
        (tmp_path / f"mine{suffix}").write_bytes((WEIGHTS / f"tiny{suffix}").read_bytes())
    return tmp_path / "mine.safetensors"


def describe(path: Path, **changes: Any) -> None:
    """Make the card beside a file fit its bytes, and change it."""
    known = json.loads((WEIGHTS / "tiny.json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**known, "weights_sha256": sha256_file(path), **changes}))


def test_weights_of_ones_own(copy: Path, samples: list[Sample]) -> None:
    model = load_model("tiny", options={"weights": str(copy)})
    assert (model.info.name, model.info.source) == ("mine", str(copy))
    assert model.info.trained_on == ("scenes-synthetic/train (4000)",)
    np.testing.assert_array_equal(values(model, samples[:1], "normal")[0],
                                  values(load_model("tiny"), samples[:1], "normal")[0])  # fmt: skip


def test_weights_without_card(copy: Path) -> None:
    copy.with_suffix(".json").unlink()
    with pytest.raises(UsageError, match=r"no card mine\.json beside it"):
        _ = Tiny(weights=copy).info


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 2}'])
def test_a_card_that_is_none(copy: Path, text: str) -> None:
    copy.with_suffix(".json").write_text(text)
    with pytest.raises(UsageError, match="not a card of these networks"):
        _ = Tiny(weights=copy).info


def test_damaged_weights(copy: Path) -> None:
    raw = bytearray(copy.read_bytes())
    raw[-1] ^= 1
    copy.write_bytes(raw)
    with pytest.raises(DataError, match="not the weights that its card describes"):
        _ = Tiny(weights=copy).info


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path(os.environ["EVIL"]),))


@pytest.mark.parametrize("content", [b"", b"a text file", None])
def test_no_safetensors_and_no_code_is_run(copy: Path, content: bytes | None, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("EVIL", str(tmp_path / "trap"))
    copy.write_bytes(pickle.dumps(_Evil()) if content is None else content)
    describe(copy)
    with pytest.raises(DataError, match="not a safetensors file"):
        _ = Tiny(weights=copy).network
    assert not (tmp_path / "trap").exists()


def test_weights_of_another_network(copy: Path) -> None:
    describe(copy, network={"widths": [8, 16, 32, 64]})
    with pytest.raises(DataError, match="weights of another network"):
        _ = Tiny(weights=copy).network
    with pytest.raises(UsageError, match=r"weights of tiny\n  try: --model tiny"):
        _ = TinyFlow(weights=copy).info


def test_written_weights_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = TinyNet()
    path = write_model(tmp_path, card("tiny").model_copy(update={"scores": []}), net)
    loaded = load_network(path, read_card(path)).state_dict()
    for name, tensor in net.state_dict().items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], tensor.half().float())


def test_pickles_without_its_network(model: Any, samples: list[Sample]) -> None:
    here = values(model, samples[:1], "normal")[0]
    raw = pickle.dumps(model)
    assert len(raw) < 100_000
    np.testing.assert_array_equal(values(pickle.loads(raw), samples[:1], "normal")[0], here)


def test_listing_loads_no_torch() -> None:
    import subprocess
    import sys

    code = ("import sys\nfrom reasonx_eval.models.loading.load import load_model\n"
            "for n in ('tiny', 'tiny-flow'):\n m = load_model(n); m.info; m.kinds\n"
            "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n")  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_names_of_a_wrapped_network_are_read(tmp_path: Path, prefix: str) -> None:
    copy = tmp_path / "tiny.safetensors"
    save_file({prefix + k: v for k, v in load_file(WEIGHTS / "tiny.safetensors").items()}, copy)
    describe(copy)
    for ours, shipped in zip(Tiny(weights=copy).network.parameters(), Tiny().network.parameters(), strict=True):
        assert torch.equal(ours, shipped)
