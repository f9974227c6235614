"""A judge's figures for people: a table on stdout, and two pictures."""

from __future__ import annotations

from pathlib import Path

from reasonx_eval.io.results import Value
from reasonx_eval.leaderboard.judge_results import JudgeResult, ModalityResult
from reasonx_eval.report.tables import print_table, printable


def print_judge(result: JudgeResult) -> None:
    """Signature, one row a modality, and what is missing."""
    judge = result.judge
    print(printable(result.signature))
    trained = f", trained on {', '.join(judge.trained_on)}" if judge.trained_on else ""
    reading = f", read from {judge.reading}" if judge.reading else ""
    print(printable(f"judge {judge.name} ({judge.revision}){reading}{trained}"))
    columns = ["question", "pairs", "accuracy", "balanced", "orders agree", "calibration error"]
    if result.base is not None:
        columns += ["base right", "disagreements", "right on them"]
    rows = [_row(name, one, with_base=result.base is not None) for name, one in result.modalities.items()]
    print_table(columns, rows, right=range(1, len(columns)))
    bands = list(next(iter(result.modalities.values())).by_band) if result.modalities else []
    print("by distance" + (" (albedo: balanced)" if "albedo" in result.modalities else ""))
    near_far = [[m, *(_share(one.by_band[b]) for b in bands)] for m, one in result.modalities.items()]
    print_table(["question", *bands], near_far, right=range(1, len(bands) + 1))
    _print_missing(result)


def _row(name: str, one: ModalityResult, *, with_base: bool) -> list[str]:
    error = "-" if one.calibration_error is None else f"{one.calibration_error:.3f}"
    row = [name, f"{one.n_answered:,}", _share(one.accuracy), _share(one.balanced), _share(one.consistency), error]
    if with_base:
        differ = one.disagreements
        row += ["-"] * 3 if differ is None else [_share(differ.base_accuracy), f"{differ.right.n:,}",
                                                 _share(differ.right)]  # fmt: skip
    return row


def _share(value: Value | None) -> str:
    if value is None or value.value is None:
        return "-"
    if value.ci_low is None or value.ci_high is None:
        return f"{value.value:.3f}"
    return f"{value.value:.3f} [{value.ci_low:.3f}, {value.ci_high:.3f}]"


def _print_missing(result: JudgeResult) -> None:
    for warning in result.warnings:
        print(printable(f"warning: {warning}"))
    for name, one in result.modalities.items():
        lost = one.n_asked - one.n_answered
        if lost:
            said = ", ".join(f"{n} {flag}" for flag, n in sorted(one.flags.items()) if flag != "ok")
            print(f"{name}: {lost:,} of {one.n_asked:,} pairs have no answer and don't count ({said})")
    for reason in list(result.failed.values())[:5]:
        print(printable(f"failed: {reason}"))
    if result.failed:
        print(f"{len(result.failed)} of {len(result.failed) + result.n_scored} photos failed")


def write_plots(result: JudgeResult, folder: Path) -> list[Path]:
    """calibration.png and bands.png; the paths."""
    from matplotlib.figure import Figure

    title = f"{printable(result.judge.name)}, {result.dataset.name} {result.dataset.split}, n = {result.n_scored}"
    curve = Figure(figsize=(5, 5), layout="constrained")
    axes = curve.add_subplot()
    axes.plot([0.5, 1], [0.5, 1], color="0.7", linewidth=1, label="calibrated")
    for name, one in result.modalities.items():
        if one.bins:
            axes.plot([b.confidence for b in one.bins], [b.right for b in one.bins], marker="o", markersize=4,
                      label=f"{name} ({one.calibration_error:.3f})")  # fmt: skip
    axes.set(xlabel="confidence of an answer", ylabel="share right", xlim=(0.5, 1), ylim=(0, 1.02))
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=8, title="expected calibration error", title_fontsize=8)
    bands = Figure(figsize=(6, 4), layout="constrained")
    axes = bands.add_subplot()
    for name, one in result.modalities.items():
        _plot_bands(axes, name, one)
    axes.set(xlabel="distance of the points", ylabel="share right (albedo: balanced)", ylim=(0.45, 1.01))
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=8)
    paths = []
    for figure, name in ((curve, "calibration.png"), (bands, "bands.png")):
        paths.append(folder / name)
        figure.savefig(paths[-1], dpi=120)
    return paths


def _plot_bands(axes, name: str, one: ModalityResult) -> None:  # type: ignore[no-untyped-def]  # matplotlib has no types
    drawn = [(band, v) for band, v in one.by_band.items() if v.value is not None]
    low = [v.value - (v.value if v.ci_low is None else v.ci_low) for _, v in drawn if v.value is not None]
    high = [(v.value if v.ci_high is None else v.ci_high) - v.value for _, v in drawn if v.value is not None]
    axes.errorbar([band for band, _ in drawn], [v.value for _, v in drawn],
                  yerr=[[max(x, 0.0) for x in low], [max(x, 0.0) for x in high]], marker="o", markersize=4,
                  capsize=3, label=name)  # fmt: skip
