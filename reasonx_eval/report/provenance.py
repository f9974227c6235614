"""The part of a result that says where it comes from, for `show`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reasonx_eval.io.digests import algorithm_of
from reasonx_eval.io.results import Result, load_timing
from reasonx_eval.report.tables import printable


def print_provenance(result: Result, folder: Path) -> None:
    for label, text in _lines(result, folder):
        print(f"{label:<10} {printable(text)}")
    print()


def _lines(result: Result, folder: Path) -> list[tuple[str, str]]:
    model, p = result.model, result.provenance
    state = "" if p.commit is None else f" @ {p.commit[:9]} ({'dirty' if p.dirty else 'clean'})"
    lines = [
        ("model", f"{model.name} from {model.source}, gives {model.kind}"),
        ("weights", _digest(model.weights_sha256)),
        ("protocol", f"{result.protocol.name}@{result.protocol.version}, rules sha256 {result.protocol.digest[:16]}"),
        ("data", f"{result.dataset.name} {result.dataset.split}, {result.dataset.n} ids "
                 f"{result.dataset.ids_sha256[:16]}, ground truth {result.data_sha256[:16]}"),
        ("software", f"reasonx {p.reasonx}{state}, python {p.python}, "
                     + ", ".join(f"{k} {v}" for k, v in p.packages.items())),
        ("hardware", f"{p.hardware.cpu}, {p.hardware.cores} cores, {p.hardware.memory_gib} GiB, {p.hardware.system}"),
        ("seed", str(p.seed)),
        ("passed", _options(p.passed)),
        ("defaulted", _options(p.defaulted)),
    ]  # fmt: skip
    extra = [("base", model.base), ("reward", model.reward), ("trained on", ", ".join(model.trained_on)),
             ("licence", model.licence), ("options", _options(model.options))]  # fmt: skip
    lines[2:2] = [(label, text) for label, text in extra if text]
    timing = load_timing(folder)
    if timing is not None:
        each = timing.predict_seconds_per_image
        speed = "" if each is None else f", {each:.3g} s an image in the model"
        lines.append(("time", f"{timing.started}, {timing.wall_seconds:.1f} s{speed}"))
    return lines


def _options(options: Mapping[str, object]) -> str:
    return ", ".join(f"{k}={v}" for k, v in options.items())


def _digest(stored: str | None) -> str:
    """A stored digest with its algorithm."""
    if stored is None:
        return "none"
    return f"{algorithm_of(stored)} {stored.removeprefix('blake3:')}"
