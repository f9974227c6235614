"""Checks of the samples' numbers: units, valid pixels, normals, ranges, judgements."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reasonx_eval.datasets.base import DatasetInfo
from reasonx_eval.doctor.findings import Finding, Status, some
from reasonx_eval.doctor.gather import GUESSED_FOV, TOLERANCE_8BIT, TOLERANCE_FLOAT, Gathered
from reasonx_eval.scoring.readings import DEPTH_FACTORS
from reasonx_eval.types import NORMAL_FRAMES

#: samples with a smaller share of valid pixels are named
FEW_VALID = 0.05
#: no indoor or street scene has a median depth beyond this, metres; millimetres and centimetres do
FAR_MEDIAN = 100.0
NEAR_MEDIAN = 0.02
#: unreadable samples that get a line of their own
MAX_NAMED = 20


def check_samples(found: Gathered, n: int) -> Iterator[Finding]:
    """Every sample that can't be read, by name."""
    for sample_id, error in list(found.errors.items())[:MAX_NAMED]:
        where = f"{error.where}: " if error.where else ""
        yield Finding("samples", "fail", f"{sample_id}: {where}{error.what}", error.fix)
    if len(found.errors) > MAX_NAMED:
        yield Finding("samples", "fail", f"{len(found.errors) - MAX_NAMED} more can't be read: "
                      f"{some(list(found.errors)[MAX_NAMED:])}")  # fmt: skip
    if not found.errors:
        targets = [t for t in found.facts if t != "image"]
        yield Finding("samples", "ok", f"{n} opened, all readable: photo, {', '.join(targets) or 'no target'}")


def check_values(found: Gathered, info: DatasetInfo) -> Iterator[Finding]:
    """All checks of the values, by what `info` knows of the data set."""
    yield from _image(found)
    yield from _sizes(found)
    yield from _units(found, info)
    yield from _valid(found)
    yield from _normals(found)
    yield from _ranges(found)
    yield from _judgements(found)


def _image(found: Gathered) -> Iterator[Finding]:
    top = found.column("image", "max")
    if not top:
        return
    low = found.column("image", "min")
    flat = [i for i in top if top[i] == low[i]]
    dark = [i for i, v in top.items() if v <= 1 and i not in flat]
    if flat:
        yield Finding("photo", "fail", f"{len(flat)} of one single colour: {some(flat)}: a failed conversion?")
    if dark:
        yield Finding("photo", "fail", f"{len(dark)} with no value above 1 of 255: {some(dark)}: values of 0 to 1 "
                      "saved as 8 bit?")  # fmt: skip
    if not flat and not dark:
        bright = float(np.median(list(found.column("image", "bright").values())))
        dim = bright < 40
        guess = ": very dark; not exposed, or linear values saved without encoding?" if dim else ""
        yield Finding("photo", "warn" if dim else "ok",
                      f"8 bit, 99 % of the values up to {bright:.0f} of 255{guess}")  # fmt: skip


def _sizes(found: Gathered) -> Iterator[Finding]:
    compared = 0
    for target in sorted(found.facts):
        same = found.column(target, "same_size")
        compared += len(same)
        other = [i for i, v in same.items() if not v]
        if other:
            yield Finding("size", "fail", f"{target} and photo differ in size: {some(other)}")
    if compared and not any(v == 0 for t in found.facts for v in found.column(t, "same_size").values()):
        yield Finding("size", "ok", "maps and photos have the same size")


def _units(found: Gathered, info: DatasetInfo) -> Iterator[Finding]:
    medians = found.column("depth", "median")
    if not medians:
        return
    bad = [i for i, v in found.column("depth", "not_positive").items() if v > 0]
    if bad:
        yield Finding("units", "fail", f"depth called valid is zero, negative or not finite: {some(bad)}")
    median = float(np.median(list(medians.values())))
    largest = max(found.column("depth", "max").values())
    fix = "a scale of 0.001: [depth] scale in dataset.toml, or --dataset-option depth_scale=0.001"
    if median > FAR_MEDIAN:
        guess = "millimetres" if median > 200 else "centimetres"
        yield Finding("units", "fail", f"median depth is {median:.0f}: {guess}? metres are expected",
                      fix if guess == "millimetres" else None)  # fmt: skip
    elif median < NEAR_MEDIAN:
        yield Finding("units", "fail", f"median depth is {median:.2g} m: scaled down twice?")
    elif largest <= 1.0:
        yield Finding("units", "warn", f"no depth beyond {largest:.3g}: normalised to 0..1 instead of metres?")
    elif (info.farthest_m is not None and largest > 1.05 * info.farthest_m) or _unusual(median, info):
        limit = "" if info.farthest_m is None else f", and {info.name} ends at {info.farthest_m:g} m"
        factor, why = _factor(median, largest, info)
        hint = f": divided by {factor:g} it would fit ({why})" if factor else ": another unit?"
        yield Finding("units", "fail" if largest > (info.farthest_m or np.inf) else "warn",
                      f"median depth {median:.2f} m, largest {largest:.1f} m{limit}{hint}",
                      "the official files, or a copy in their units; reasonx-eval info " + info.name)  # fmt: skip
    else:
        yield Finding("units", "ok", f"median depth {median:.2f} m, largest {largest:.1f} m")


def _unusual(median: float, info: DatasetInfo) -> bool:
    return info.usual_m is not None and not 0.4 < median / info.usual_m < 2.5


def _factor(median: float, largest: float, info: DatasetInfo) -> tuple[float | None, str]:
    """The known factor that brings depth nearest to the usual one, or at least within the sensor's range."""
    fits = [f for f in DEPTH_FACTORS if largest / f <= (info.farthest_m or np.inf)]
    if info.usual_m is not None:
        fits = [f for f in fits if 0.8 < median / f / info.usual_m < 1.25]
        best = min(fits, key=lambda f: abs(np.log(median / f / float(info.usual_m or 1))), default=None)
    else:
        best = min((f for f in fits if f > 1), default=None)
    return (None, "") if best is None else (best, DEPTH_FACTORS[best])


def _valid(found: Gathered) -> Iterator[Finding]:
    for target in ("depth", "normals", "albedo", "irradiance"):
        share = found.column(target, "valid")
        if not share:
            continue
        none = [i for i, v in share.items() if v == 0]
        few = [i for i, v in share.items() if 0 < v < FEW_VALID]
        mean = 100 * float(np.mean(list(share.values())))
        if none:
            yield Finding("valid", "fail", f"{target}: no valid pixel in {len(none)} of {len(share)} samples, so "
                          f"that no prediction can be scored there: {some(none)}")  # fmt: skip
        if few:
            yield Finding("valid", "warn", f"{target}: {len(few)} samples have less than {FEW_VALID:.0%} valid pixels: "
                          f"{some(few)}")  # fmt: skip
        if not none and not few:
            yield Finding("valid", "ok", f"{target}: {mean:.1f} % of pixels valid, "
                          f"least {100 * min(share.values()):.1f} %")  # fmt: skip


def _normals(found: Gathered) -> Iterator[Finding]:
    unit = found.column("normals", "unit")
    if not unit:
        return
    yield _lengths(found, float(np.mean(list(unit.values()))))
    yield _facing(found)
    up, down = (float(np.mean(list(found.column("normals", k).values()) or [0.0])) for k in ("floor_up", "floor_down"))
    if down > 0.1 and down > 4 * up:
        yield Finding("normals", "warn", f"in the lowest third of the photos {100 * down:.0f} % of the normals point "
                      f"down and {100 * up:.0f} % up: is y flipped?",
                      "the frame opengl has y up, opencv y down")  # fmt: skip


def _lengths(found: Gathered, share: float) -> Finding:
    eight_bit = all(found.column("normals", "eight_bit").values())
    tolerance = TOLERANCE_8BIT if eight_bit else TOLERANCE_FLOAT
    length = float(np.median(list(found.column("normals", "length").values())))
    text = f"{100 * share:.1f} % of unit length within {tolerance:g}, median length {length:.3f}"
    if abs(length - 1.0) > 0.05:
        return Finding("normals", "fail", f"{text}: another encoding than was assumed?")
    if share < 0.9:
        return Finding("normals", "warn", f"{text}: resized without normalising again?")
    return Finding("normals", "ok", text)


def _facing(found: Gathered) -> Finding:
    share = _mean(found, "facing")
    guessed = any(found.column("normals", "guessed_rays").values())
    how = f" (view rays of a guessed {GUESSED_FOV:.0f} degree camera)" if guessed else ""
    text = f"{100 * share:.1f} % face the camera{how}"
    if share > 0.99:
        return Finding("normals", "ok", text)
    best, form = _best_form(found)
    likely = best > 0.9 and best > share + 0.05
    hint = f": {form} it would be {100 * best:.1f} %" if likely else ""
    status: Status = "fail" if share < 0.5 else "warn"
    frame = next((f for f in NORMAL_FRAMES if likely and form.startswith(f"read in the frame {f} ")), None)
    fix = f"[normals] frame in dataset.toml, or --dataset-option normals_frame={frame}" if frame else None
    return Finding("normals", status, text + hint, fix)


def _best_form(found: Gathered) -> tuple[float, str]:
    """How many normals face the camera in the form that makes them face it most, and the form.

    Forms whose z has the same sign can have the same share; the mean of n . view is lowest for the right one, because
    walls on the left face right and walls on the right face left. Of nearly equal ones the likeliest is first.
    """
    rows = [row for row in found.facts["normals"].values() if row["valid"]]
    forms = [k.removeprefix("cosine ") for k in rows[0] if k.startswith("cosine ") and all(k in row for row in rows)]
    if not forms:
        return 0.0, ""
    cosines = [_mean(found, f"cosine {f}") for f in forms]
    form = next(f for f, c in zip(forms, cosines, strict=True) if c < min(cosines) + 0.01)
    return _mean(found, f"facing {form}"), form


def _mean(found: Gathered, name: str) -> float:
    return float(np.mean(list(found.column("normals", name).values())))


def _ranges(found: Gathered) -> Iterator[Finding]:
    for target in ("albedo", "irradiance"):
        top = found.column(target, "max")
        if not top:
            continue
        below = [i for i, v in found.column(target, "negative").items() if v > 0]
        above = [i for i, v in found.column(target, "above_one").items() if v > 0]
        if below:
            yield Finding("range", "fail", f"{target} is negative or not finite in {some(below)}")
        if target == "albedo" and above:
            much = max(top.values()) > 2
            yield Finding("range", "fail" if much else "warn",
                          f"albedo above 1 (largest {max(top.values()):.3g}) in {some(above)}"
                          + (": divided by 255 instead of 65535, or not albedo?" if much else ""))  # fmt: skip
        if not below and not (target == "albedo" and above):
            yield Finding("range", "ok", f"{target} within 0..{max(top.values()):.3g}")
        if max(top.values()) <= 0:
            yield Finding("range", "fail", f"{target} is 0 everywhere")


def _judgements(found: Gathered) -> Iterator[Finding]:
    counts = found.column("judgements", "judgements")
    if not counts:
        return
    wrong = {"bad_points": "points outside [0, 1)", "bad_rows": "judgements of points that don't exist",
             "bad_labels": "labels other than 1, 2 and E", "bad_weights": "weights that are not positive"}  # fmt: skip
    clean = True
    for key, text in wrong.items():
        bad = [i for i, v in found.column("judgements", key).items() if v]
        if bad:
            clean = False
            yield Finding("judgements", "fail", f"{text}: {some(bad)}")
    none = [i for i, v in counts.items() if v == 0]
    if none:
        yield Finding("judgements", "warn", f"{len(none)} without a judgement that counts: {some(none)}")
    if clean:
        yield Finding("judgements", "ok", f"{int(sum(counts.values()))} judgements, points in [0, 1), labels 1, 2, E")
