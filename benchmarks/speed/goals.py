"""What is aimed at, as data: one line a goal, checked by the report against the run it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: peer, library: their time / ours; bound: our time / the bound's; against: our time / its, in turns;
#: seconds: our time; memory: MiB above the inputs; growth: slope of log time over log size (1: linear);
#: rate: size a second
Quantity = Literal["peer", "library", "bound", "against", "seconds", "memory", "growth",
                   "rate"]  # fmt: skip


@dataclass(frozen=True)
class Goal:
    """One goal of a group.

    group : as its tests name it
    quantity : what is compared
    at_least, at_most : exactly one of them
    size : which size of a sweep; None takes the largest
    """

    group: str
    quantity: Quantity
    at_least: float | None = None
    at_most: float | None = None
    size: float | None = None


GOALS: tuple[Goal, ...] = (
    Goal("WHDR, one image, 1,000 judgements", "peer", at_least=200),
    Goal("WHDR, corpus from files", "against", at_most=1.15),
    Goal("depth: affine fit and all metrics, 480x640", "peer", at_least=10),
    Goal("depth: affine fit and all metrics, 4032x6048", "peer", at_least=30),
    Goal("depth: affine fit and all metrics, 4032x6048", "memory", at_most=10),
    Goal("normals: all statistics of one image, 480x640", "peer", at_least=14),
    Goal("normals: pooled over images", "peer", at_least=15, size=60),
    Goal("normals: pooled over images", "growth", at_most=1.15),
    Goal("bootstrap: 8 metrics, 1,000 images, 10,000 resamples", "against", at_most=1.0),
    Goal("command: --help", "seconds", at_most=0.15),
    Goal("import reasonx_eval", "seconds", at_most=0.3),
    Goal("ETH3D: raw depth and mask, 4032x6048", "against", at_most=2.0),
    Goal("JPEG photo, 24 megapixels", "bound", at_most=1.2),
    Goal("NYUv2 .mat, 8 images with their depth, a chunk an image", "against", at_most=1.2),
    Goal("NYUv2 .mat, 8 images with their depth, chunks across 8 images", "against", at_most=1.2),
    Goal("NYUv2 .mat, 8 images with their depth, contiguous", "against", at_most=1.2),
    Goal("tar of 3,000 members: 500 of them by name", "peer", at_least=5),
    Goal("evaluation end to end: 100 NYU-sized samples", "against", at_most=1.15),
    Goal("evaluation end to end: 10 ETH3D-sized samples", "against", at_most=1.15),
    Goal("GRPO step of tiny", "against", at_most=1.5),
    Goal("GRPO step of tiny-flow", "against", at_most=1.5),
    Goal("scale: run of IIW-sized images", "growth", at_most=1.2),
    Goal("scale: run of NYU-sized images", "growth", at_most=1.2),
    Goal("scale: merge of 4 shards", "growth", at_most=1.2),
    Goal("scale: compare two runs", "growth", at_most=1.2),
    Goal("scale: leaderboard of 12 protocols", "growth", at_most=1.2),
    Goal("scale: store, write", "growth", at_most=1.2),
    Goal("scale: store, open", "growth", at_most=1.2),
    Goal("scale: store, statistics", "growth", at_most=1.2),
    Goal("scale: store, table for training", "growth", at_most=1.2),
    Goal("scale: store, merge", "growth", at_most=1.2),
    Goal("load: run of tiny samples", "growth", at_most=1.1),
    Goal("load: store, merge", "memory", at_most=381),  # 400 MB
    *(Goal(f"server judge, 50 ms, concurrency {n}, {trouble}% trouble", "against", at_most=1 / 0.9)
      for n in (16, 32) for trouble in (0, 15)),
    Goal("GRPO step of tiny-flow over photos", "growth", at_most=1.1),
    Goal("GRPO step of tiny-flow over samples of a photo", "growth", at_most=1.1),
    Goal("GRPO step of tiny over photos", "growth", at_most=1.1),
    Goal("GRPO step of tiny over pairs of a photo", "growth", at_most=1.1),
    Goal("annotate, 40 pairs a photo", "rate", at_least=50_000),
    Goal("annotate, 200 pairs a photo, bfloat16", "rate", at_least=50_000),
    Goal("annotate, 200 pairs a photo", "rate", at_least=50_000),
)

#: group -> file of its plot (time over size), beside the report
PLOTS: dict[str, str] = {
    "GRPO step of tiny-flow over photos": "step_over_photos.svg",
    "GRPO step of tiny-flow over samples of a photo": "step_over_samples.svg",
    "GRPO step of tiny over photos": "tiny_step_over_photos.svg",
    "GRPO step of tiny over pairs of a photo": "step_over_pairs.svg",
    "normals: pooled over images": "pooled_normals.svg",
}

#: group -> where its limit lies, shown with its table
LIMITS: dict[str, str] = {
    "normals: all statistics of one image, 480x640":
        "The peer form works in float32 on all cores, ours in float64 on one, because a run has other images for the "
        "other cores. Two square roots and a quotient in float64 a pixel keep one core's divider busy for about half "
        "of our time.",
    "evaluation end to end: 10 ETH3D-sized samples":
        "Beside decoding, no run can leave out SHA-256 of the 97 MB prediction that a record is bound to, the mask and "
        "the metrics: the second bound.",
    "NYUv2 .mat, 8 images with their depth, contiguous":
        "MATLAB's axes have to be turned, which is a second pass over what was read: the second bound is such a pass "
        "that turns nothing. A memory map would save it, but a file that is cut off meanwhile would then end the "
        "process.",
    "annotate, 40 pairs a photo":
        "The network's look at a photo costs the same for 40 pairs as for 200, so its own rate is the limit here.",
    "scenes: 10 of wild, 96x128":
        "At this size calls of numpy are the limit: a scene makes some thousands of them on rows of a few hundred "
        "rays. Every picture has the same bytes on every machine, so sums are in a fixed order and no library of "
        "linear algebra is used.",
}
