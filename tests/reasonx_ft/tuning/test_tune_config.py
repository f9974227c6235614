"""Configuration of a tuning: presets, files, flags, and every way to get them wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasonx_eval.errors import UsageError
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_ft.grpo.rewards import AlbedoThreshold
from reasonx_ft.tuning.config import Optimiser, TuneConfig
from reasonx_ft.tuning.settings import about, parse_value, preset_names, read_settings, stored_config


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("base", ["tiny", "tiny-flow", "owner/name"])
@pytest.mark.parametrize("method", ["grpo", "ranking", "expected", None])
def test_oracle_35_every_preset_is_valid_and_round_trips(preset: str, base: str, method: str | None) -> None:
    config = read_settings(preset=preset, base=base, method=method)
    assert TuneConfig.model_validate_json(config.model_dump_json()) == config
    assert config.preset == preset
    if method is not None:
        assert config.method == method


def test_oracle_35_an_unknown_key_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown key 'objective.klm'; did you mean 'objective.kl'\?"):
        read_settings(flags={"objective.klm": "0.1"})
    with pytest.raises(UsageError, match="unknown key 'objektive'"):
        read_settings(flags={"objektive.kl": "0.1"})
    file = tmp_path / "my.toml"
    file.write_text("[data]\nbatch_sizes = 4\n")
    with pytest.raises(UsageError, match=r"my.toml: unknown key 'data.batch_sizes'; did you mean 'data.batch_size'\?"):
        read_settings(file=file)


@pytest.mark.parametrize(("key", "value", "said"), [
    ("objective.num_generations", "1", "objective.num_generations: Input should be greater than or equal to 2"),
    ("objective.num_generations", "many", "objective.num_generations"),
    ("optimiser.learning_rate", "0", "greater than 0"),
    ("data.modalities_per_step", "some", "'all' or 'one'"),
    ("objective", "3", "objective is a table"),
    ("guard.flatness", "[2, 3]", "range around 1"),
    ("objective.grpo", "0", "one of grpo, ranking, expected needs a weight"),
])  # fmt: skip
def test_bad_values_are_refused(key: str, value: str, said: str) -> None:
    flags = {key: value} | ({"objective.kl": "0"} if key == "objective.grpo" else {})
    with pytest.raises(UsageError, match=said):
        read_settings(flags=flags)


def test_kl_needs_samples_and_pair_credit_needs_no_scale() -> None:
    with pytest.raises(UsageError, match="kl is measured on grpo's samples"):
        read_settings(method="ranking", flags={"objective.kl": "0.1"})
    with pytest.raises(UsageError, match="credit by pairs needs scale_rewards none"):
        read_settings(flags={"objective.credit": "pairs", "objective.scale_rewards": "group"})


def test_flags_go_over_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('seed = 5\n[objective]\nkl = 0.5\nnum_generations = 3\n[policy]\nsigma = { depth = 0.3 }\n')
    config = read_settings(preset="paper", file=file, flags={"objective.kl": "0.25", "policy.noise": "pixel"})
    assert (config.seed, config.objective.num_generations, config.objective.kl) == (5, 3, 0.25)
    assert config.optimiser.learning_rate == 1e-5
    assert config.policy["sigma"] == {"depth": 0.3}
    assert config.policy["noise"] == "pixel"
    assert config.policy["noise_level"] == 0.7


def test_a_method_keeps_its_weights_where_the_preset_has_no_other() -> None:
    whole, alone = read_settings(base="tiny-flow"), read_settings(base="tiny-flow", method="ranking")
    assert alone == whole
    assert alone.objective.ranking != 1.0
    for method in ("grpo", "expected"):
        other = read_settings(base="tiny-flow", method=method)
        assert other.objective.ranking == 0.0
        assert other.method == method
    assert read_settings(method="ranking").objective.ranking == 1.0


def test_the_published_recipe() -> None:
    """ReasonX, CVPR 2026: what its text says, and that the rest is said to be unknown."""
    for base in ("owner/prism", "tiny-flow"):
        c = read_settings(preset="paper", base=base)
        assert (c.objective.num_generations, c.data.pairs) == (8, 40)
        assert (c.optimiser.epochs, c.optimiser.learning_rate) == (3.0, 1e-5)
        assert (c.policy["kernel"], c.policy["noise_level"], c.policy["steps"]) == ("flow-sde", 0.7, 15)
        assert (c.objective.reward, c.objective.scale_rewards, c.data.modalities_per_step) == ("hard", "group", "one")
        assert c.optimiser.max_grad_norm == 1.0
        assert c.method == "grpo"
        assert c.objective.kl > 0
    said = " ".join(about("paper").unknown)
    for what in ("clip range", "weight of the KL", "last step", "adapters", "photos of a step", "Marigold"):
        assert what in said


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match=r"unknown preset 'papr'; did you mean 'paper'\?"):
        read_settings(preset="papr")
    with pytest.raises(UsageError, match=r"unknown method 'gpro'; did you mean 'grpo'\?"):
        read_settings(method="gpro")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_settings(file=tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[data\n")
    with pytest.raises(UsageError, match="not valid TOML"):
        read_settings(file=tmp_path / "bad.toml")


def test_values_are_toml_where_they_are() -> None:
    assert parse_value("0.5") == 0.5
    assert parse_value("[1, 2]") == [1, 2]
    assert parse_value("true") is True
    assert parse_value("{ depth = 0.1 }") == {"depth": 0.1}
    assert parse_value("flow-sde") == "flow-sde"


def test_only_what_decides_the_weights_binds_a_checkpoint() -> None:
    config = read_settings()
    changed = read_settings(flags={"watch.check_every": "7", "machine.microbatch": "2", "guard.patience": "9"})
    assert config.deciding() == changed.deciding()
    assert config.deciding() != read_settings(flags={"objective.kl": "0.3"}).deciding()
    assert "optimiser" in json.dumps(config.deciding())


def test_defaults_need_no_preset() -> None:
    assert TuneConfig().optimiser == Optimiser()


@pytest.mark.parametrize("base", ["tiny", "tiny-flow"])
def test_the_default_watches_one_metric_of_every_task_on_scenes_that_are_not_trained_on(base: str) -> None:
    config = read_settings(base=base)
    protocols = [get_protocol(c.protocol) for c in config.guard.unrewarded_metrics]
    assert sorted(p.task for p in protocols) == ["albedo", "depth", "irradiance", "normals"]
    for unrewarded_metric, protocol in zip(config.guard.unrewarded_metrics, protocols, strict=True):
        assert unrewarded_metric.metric in protocol.metrics
        assert unrewarded_metric.dataset == "scenes-synthetic/val" != config.objective.rehearsal_data
    assert config.guard.flatness == (0.2, 4.0), "the rest of the table stays"
    for other in (read_settings(base="pipeline"), read_settings(base=base, preset="paper"),
                  read_settings(base=base, preset="diffusion"),
                  read_settings(base=base, flags={"guard.unrewarded_metrics": "[]"})):  # fmt: skip
        assert other.guard.unrewarded_metrics == ()


def test_old_names_and_keys_that_are_gone(tmp_path: Path) -> None:
    """A file of an earlier version, flags as well; a key that is gone may have the one value that is left."""
    file = tmp_path / "old.toml"
    file.write_text("""
[data]
images = 3
at_once = "one"
mirror = false
min_distance = 0.0
[objective]
group = 5
inner = 2
scale = "none"
tie = 0.0
same_space = "log"
[optimiser]
clip = 0.5
warmup = 7
schedule = "cosine"
betas = [0.9, 0.999]
[guard]
away = 0.2
canaries = [{ dataset = "rooms", protocol = "depth/generic", metric = "abs_rel" }]
[machine]
micro = 2
""")
    config = read_settings(file=file, flags={"objective.same_distance": "0.3", "policy.level": "0.4"})
    assert (config.data.batch_size, config.data.modalities_per_step, config.data.flip) == (3, "one", False)
    assert (config.objective.num_generations, config.objective.num_iterations) == (5, 2)
    assert (config.objective.scale_rewards, config.objective.threshold) == ("none", AlbedoThreshold(0.3, "log"))
    assert (config.optimiser.max_grad_norm, config.optimiser.warmup_steps) == (0.5, 7)
    assert config.guard.normals_away == 0.2
    assert config.guard.unrewarded_metrics[0].dataset == "rooms"
    assert config.machine.microbatch == 2
    assert config.policy["noise_level"] == 0.4
    file.write_text("[objective]\ntie = 0.5\n")
    with pytest.raises(UsageError, match=r"old.toml: 'tie' can't be set any more: it is 0.0, and here 0.5"):
        read_settings(file=file)


def test_runs_from_before_there_was_another_place_explored_in_the_steps() -> None:
    stored = {"policy": {"kernel": "flow-sde", "level": 0.7, "steps": 2}, "objective": {"grpo": 1.0}}
    assert stored_config(stored, "run.json").policy == {
        "kernel": "flow-sde", "noise_level": 0.7, "steps": 2, "explore": "steps",
    }  # fmt: skip
    sampling_nothing = {**stored, "objective": {"grpo": 0.0, "ranking": 1.0}}
    assert "explore" not in stored_config(sampling_nothing, "run.json").policy


def test_a_run_under_way_keeps_the_preset_that_it_began_with() -> None:
    begun = read_settings(base="tiny", flags={"optimiser.max_grad_norm": "0.125", "seed": "4"})
    now = read_settings(base="tiny", begun=begun, flags={"watch.keep": "5"})
    assert now.deciding() == begun.deciding()
    assert now.watch.keep == 5
    changed = read_settings(base="tiny", begun=begun, flags={"objective.rehearsal": "1.5"})
    assert changed.objective.rehearsal == 1.5, "what is asked for counts, and is refused later"
    assert changed.optimiser.max_grad_norm == 0.125
    for other in ({"preset": "paper"}, {"method": "grpo"}):
        fresh = read_settings(base="tiny", begun=begun, **other)  # type: ignore[arg-type]
        assert fresh == read_settings(base="tiny", **other)  # type: ignore[arg-type]
