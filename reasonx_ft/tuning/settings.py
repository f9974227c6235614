"""From a preset, a file and flags to one `TuneConfig`; unknown keys are named with what was probably meant.

A preset is a TOML file in the folder `presets`: tables as in `TuneConfig`, an optional table ``about`` (text, and what
a published recipe leaves unknown), and tables ``[[when]]`` with ``base`` or ``method`` (or both), whose other tables
count for these only (``without`` names tables that are dropped first). A method that is asked for sets the three
weights (its own stays where the preset has no other), then come the tables that name it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from reasonx_eval.errors import UsageError, unknown
from reasonx_eval.io.documents import parse_toml
from reasonx_eval.io.old_names import RETIRED, current_names
from reasonx_eval.io.validation import explain
from reasonx_ft.training.config import config_table
from reasonx_ft.tuning.config import METHODS, TuneConfig, largest

_PRESETS: Final = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class About:
    """text : what a preset is; unknown : what its source leaves open, and what is chosen instead"""

    text: str = ""
    unknown: tuple[str, ...] = ()


def preset_names() -> list[str]:
    """Names that `--preset` takes."""
    return sorted(p.stem for p in _PRESETS.glob("*.toml"))


def read_settings(
    *, preset: str = "default", method: str | None = None, base: str = "", file: Path | None = None,
    flags: Mapping[str, Any] | None = None, begun: TuneConfig | None = None,
) -> TuneConfig:  # fmt: skip
    """The configuration of a run: flags, then the file, then the preset, then the fields' defaults.

    Parameters
    ----------
    preset : see `preset_names`
    method : grpo, ranking or expected gets the weight 1, or its own where the preset has no other, and the others 0;
        None leaves the preset's mixture
    base : name of the model, for what a preset says of it
    file : TOML with tables of `TuneConfig`
    flags : dotted key -> value; text is read as TOML where it is TOML ("0.1", "true", "[1, 2]"), else taken as it is
    begun : configuration of the run that goes on: with the same preset and method, it stands in the preset's place, so
        that a preset which has changed meanwhile changes no run under way

    Raises
    ------
    UsageError
        An unknown preset, method or key (with the nearest match), a wrong type, a value out of range.
    """
    if method is not None and method not in METHODS:
        raise unknown("method", method, METHODS, where="--method")
    values, _ = _preset(preset, method, base)
    where = f"preset {preset}"
    _check_keys(values, TuneConfig, where)
    if file is not None:
        given = todays(config_table(file), str(file))
        _check_keys(given, TuneConfig, str(file))
        values, where = _merged(values, given), str(file)
    if flags:
        given = todays(_nested(flags), "--set")
        _check_keys(given, TuneConfig, "--set")
        values, where = _merged(values, given), "--set" if file is None else f"{file} and --set"
    try:
        config = TuneConfig.model_validate({**values, "preset": preset})
        if begun is None or (begun.preset, begun.method) != (preset, config.method):
            return config
        given = _merged({} if file is None else todays(config_table(file), str(file)), todays(_nested(flags or {}), ""))
        return TuneConfig.model_validate({**config.model_dump(), **_merged(begun.deciding(), given), "preset": preset,
                                          **{k: getattr(config, k) for k in ("guard", "watch", "machine")}})
    except ValidationError as error:
        raise UsageError(explain(error), where=where) from None


def todays(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values of a configuration that may have old names, under today's.

    Raises
    ------
    UsageError
        A key that is gone has another value than the one that is left.
    """
    found = {}
    for key, value in current_names("tuning", dict(values)).items():
        table = isinstance(value, Mapping)
        found[key] = {k: v for k, v in value.items() if not _retired(k, v, where)} if table else value
    return found


def stored_config(values: Mapping[str, Any], where: str) -> TuneConfig:
    """The configuration in a run's file, whichever version wrote it.

    Raises
    ------
    UsageError
        See `todays`.
    """
    found = todays(values, where)
    policy, objective = found.get("policy", {}), found.get("objective", {})
    if "kernel" in policy and "explore" not in policy and largest(objective.get("grpo", 0.0)):
        found["policy"] = {**policy, "explore": "steps"}  # there was no other place, and no key for it
    return TuneConfig.model_validate(found)


def _retired(key: str, value: Any, where: str) -> bool:
    gone = RETIRED["tuning"]
    if key not in gone:
        return False
    if value != gone[key]:
        raise UsageError(f"'{key}' can't be set any more: it is {gone[key]!r}, and here {value!r}", where=where)
    return True


def about(preset: str) -> About:
    """What a preset says of itself."""
    return _preset(preset, None, "")[1]


def parse_value(text: str) -> Any:
    """A value as TOML reads it, or the text itself."""
    try:
        return parse_toml(f"v = {text}", text)["v"]
    except UsageError:
        return text


def _preset(name: str, method: str | None, base: str) -> tuple[dict[str, Any], About]:
    if name not in preset_names():
        raise unknown("preset", name, preset_names(), where="--preset")
    values = config_table(_PRESETS / f"{name}.toml")
    said = values.pop("about", {})
    cases = [(c.pop("method", None), c.pop("base", base), c) for c in values.pop("when", [])]
    for _, _, case in (c for c in cases if c[:2] == (None, base)):
        for table in case.pop("without", []):
            values.pop(table, None)
        values = _merged(values, case)
    if method is not None:
        objective = values.get("objective", {})
        # a table of weights by modality is no number to lay a number on
        values["objective"] = {**objective, **{m: _weight_alone(objective, m) if m == method else 0.0 for m in METHODS}}
        if method != "grpo":
            values["objective"]["kl"] = 0.0
        for _, _, case in (c for c in cases if c[:2] == (method, base)):
            values = _merged(values, case)
    return values, About(said.get("text", ""), tuple(said.get("unknown", ())))


def _weight_alone(objective: Mapping[str, Any], method: str) -> Any:
    """The weight of the one method that is asked for: that of a preset which uses no other, else 1."""
    given: dict[str, Any] = {m: objective.get(m, 0.0) for m in METHODS}
    others = any(largest(w) for m, w in given.items() if m != method)
    return given[method] if largest(given[method]) and not others else 1.0


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `under`, table by table."""
    found = dict(under)
    for key, value in over.items():
        known = found.get(key)
        found[key] = _merged(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return found


def _nested(flags: Mapping[str, Any]) -> dict[str, Any]:
    """``{"objective.kl": "0.1"}`` to ``{"objective": {"kl": 0.1}}``."""
    found: dict[str, Any] = {}
    for dotted, value in flags.items():
        *path, last = dotted.split(".")
        table = found
        for part in path:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise UsageError(f"'{dotted}' is below a value that is set too", where="--set")
        table[last] = parse_value(value) if isinstance(value, str) else value
    return found


def _check_keys(values: Mapping[str, Any], model: type[BaseModel], where: str, path: Sequence[str] = ()) -> None:
    """Refuse unknown keys, with the whole dotted key that was probably meant."""
    for key, value in values.items():
        if key not in model.model_fields:
            dotted = ".".join([*path, key])
            raise unknown("key", dotted, _keys(TuneConfig), where=where)
        inner = model.model_fields[key].annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            if not isinstance(value, Mapping):
                raise UsageError(f"{'.'.join([*path, key])} is a table", where=where,
                                 fix=f"{'.'.join([*path, key])}.{next(iter(inner.model_fields))} = ...")  # fmt: skip
            _check_keys(value, inner, where, [*path, key])


def _keys(model: type[BaseModel], path: Sequence[str] = ()) -> list[str]:
    """All dotted keys."""
    found = []
    for key, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += _keys(inner, [*path, key])
        else:
            found.append(".".join([*path, key]))
    return found
