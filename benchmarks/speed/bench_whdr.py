"""WHDR: one map against judgements in memory, and a data set from files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from benchmarks.speed import peers
from benchmarks.speed.arrays import Floats, judgement_document, judgement_target, photo
from benchmarks.speed.conftest import Measure, Role
from reasonx_eval.datasets.iiw import IIW, read_judgements
from reasonx_eval.datasets.splits import split_lines
from reasonx_eval.io import color
from reasonx_eval.io.images import read_rgb
from reasonx_eval.metrics.judgements import CompiledJudgements, compile_judgements, disagreement, lightness, whdr
from reasonx_eval.models.saved.predictions import Saved
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.run.loop import score_samples
from reasonx_eval.run.stages import Job, SampleOutcome

HEIGHT, WIDTH = 341, 512
#: judgements of one photo in the corpus: what the data set has on average
CORPUS_JUDGEMENTS, CORPUS_POINTS, CORPUS_IMAGES = 170, 100, 12


def group_of(count: int) -> str:
    return f"WHDR, one image, {count:,} judgements"


@cache
def reflectance() -> Floats:
    """Linear, float64 [H, W, 3]."""
    return color.srgb8_table()[photo(HEIGHT, WIDTH)]


@cache
def compiled(count: int) -> CompiledJudgements:
    document = judgement_document(count)
    found = compile_judgements(target=judgement_target(document), height=HEIGHT, width=WIDTH)
    expected = peers.whdr_loop(reflectance(), document)
    assert whdr(reflectance(), found) == pytest.approx(expected, rel=1e-9, abs=0)
    return found


def gather_and_compare(judgements: CompiledJudgements, limit: float = 1.1) -> float:
    """Nothing but the arithmetic of the rate: no channel is checked, no part reported."""
    light = reflectance()[judgements.rows, judgements.cols].sum(axis=1)
    first, second = light[judgements.pairs[:, 0]], light[judgements.pairs[:, 1]]
    answer = (second > limit * first) + 2 * (first > limit * second)
    return float(judgements.weight[answer != judgements.darker].sum())


class OneImage:
    """The same four forms at each number of judgements."""

    count: int

    def test_ours(self, measure: Measure) -> None:
        judgements = compiled(self.count)
        measure("ours", lambda: whdr(reflectance(), judgements), form="compiled once, gathered",
                rounds=200)  # fmt: skip

    def test_ours_from_target(self, measure: Measure) -> None:
        target = judgement_target(judgement_document(self.count))
        measure("library", lambda: whdr(reflectance(), target),
                form="ours, judgements compiled in the call")  # fmt: skip

    def test_peer(self, measure: Measure) -> None:
        compiled(self.count)
        document = judgement_document(self.count)
        measure("peer", lambda: peers.whdr_loop(reflectance(), document), form="judgement by judgement (Bell)")

    def test_bound(self, measure: Measure) -> None:
        judgements = compiled(self.count)
        measure("bound", lambda: gather_and_compare(judgements), form="gather and compare", rounds=200)


@pytest.mark.benchmark(group=group_of(1_000))
class TestThousand(OneImage):
    count = 1_000


@pytest.mark.benchmark(group=group_of(100))
class TestHundred(OneImage):
    count = 100


corpus = pytest.mark.benchmark(group="WHDR, corpus from files")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path]]:
    """Predicted albedo as 8-bit PNG and judgements as JSON, of several photos."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("corpus")
    found = []
    for k in range(CORPUS_IMAGES):
        png, judgements = folder / f"{k}.png", folder / f"{k}.json"
        Image.fromarray(photo(HEIGHT, WIDTH, seed=k)).save(png)
        judgements.write_text(json.dumps(judgement_document(CORPUS_JUDGEMENTS, seed=k, points=CORPUS_POINTS)))
        found.append((png, judgements))
    return found


def ours_corpus(files: Sequence[tuple[Path, Path]]) -> float:
    table = color.srgb8_table()
    total = 0.0
    for png, judgements in files:
        image = read_rgb(png)
        points = compile_judgements(target=read_judgements(judgements), height=image.shape[0], width=image.shape[1])
        light = lightness(reflectance=image, judgements=points, decode=table.take)
        total += disagreement(light=light, judgements=points)["whdr"]
    return total / len(files)


def peer_corpus(files: Sequence[tuple[Path, Path]]) -> float:
    from PIL import Image

    total = 0.0
    for png, judgements in files:
        image = np.asarray(Image.open(png).convert("RGB"))
        document = json.loads(judgements.read_text())
        total += peers.whdr_loop(peers.srgb_to_linear_masks(image), document)
    return total / len(files)


def decoding(files: Sequence[tuple[Path, Path]]) -> None:
    """The quickest decoder of these files alone, without reading a judgement."""
    for png, _ in files:
        read_rgb(png)


@corpus
def test_corpus_ours(measure: Measure, files: list[tuple[Path, Path]]) -> None:
    assert ours_corpus(files) == pytest.approx(peer_corpus(files), rel=1e-9, abs=0)
    measure("ours", lambda: ours_corpus(files), form="decode, read judgements, gather", memory="resident",
            against=lambda: decoding(files), against_form="decoding alone")  # fmt: skip


@corpus
def test_corpus_peer(measure: Measure, files: list[tuple[Path, Path]]) -> None:
    measure("peer", lambda: peer_corpus(files), form="Pillow, whole map to linear, judgement by judgement (Bell)",
            memory="resident")  # fmt: skip


@corpus
def test_corpus_bound(measure: Measure, files: list[tuple[Path, Path]]) -> None:
    measure("bound", lambda: decoding(files), form="decoding alone", memory="resident")


@corpus
def test_corpus_pillow(measure: Measure, files: list[tuple[Path, Path]]) -> None:
    def pillow() -> None:
        from PIL import Image

        for png, _ in files:
            np.asarray(Image.open(png))

    measure("library", pillow, form="decoding alone, by Pillow", memory="resident")


evaluation = pytest.mark.benchmark(group="WHDR, the evaluation of saved predictions")


@pytest.fixture(scope="module")
def job(files: list[tuple[Path, Path]], tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The same files as a data set and a folder of predictions, as `reasonx-eval score` reads them."""
    data, predictions = (tmp_path_factory.mktemp(name) for name in ("iiw", "predictions"))
    for sample_id, (png, judgements) in zip(split_lines("iiw_test"), files, strict=False):
        (data / f"{sample_id}.json").symlink_to(judgements)
        (predictions / f"{sample_id}.png").symlink_to(png)
    return Job(model=Saved(predictions, kind="albedo_srgb"), kind="albedo_srgb", dataset=IIW(data, "test"),
               protocol=get_protocol("albedo/iiw@1"), seed=0)  # fmt: skip


def evaluate(job: Job, ids: Sequence[str], workers: int) -> list[SampleOutcome]:
    with TemporaryDirectory() as folder:
        return list(score_samples(job, ids, Path(folder), workers))


@evaluation
@pytest.mark.parametrize(("role", "workers"), [("ours", 2), ("library", 1)])
def test_evaluation(measure: Measure, files: list[tuple[Path, Path]], job: Job, role: Role, workers: int) -> None:
    ids = job.dataset.ids[: len(files)]
    records = [outcome.record for outcome in evaluate(job, ids, workers)]
    assert not any(r.error for r in records)
    mean = sum(r.metrics["whdr10"] or 0.0 for r in records) / len(records)
    assert mean == pytest.approx(peer_corpus(files), rel=1e-9, abs=0)
    with ThreadPoolExecutor(workers) as pool:
        measure(role, lambda: evaluate(job, ids, workers),
                form=f"ours, workers: {workers}; digests and records included", memory="resident",
                against=lambda: list(pool.map(read_rgb, (png for png, _ in files))),
                against_form="decoding alone with as many threads")  # fmt: skip


@evaluation
def test_evaluation_peer(measure: Measure, files: list[tuple[Path, Path]]) -> None:
    measure("peer", lambda: peer_corpus(files), form="Pillow, whole map to linear, judgement by judgement (Bell)",
            memory="resident")  # fmt: skip


@evaluation
def test_evaluation_bound(measure: Measure, files: list[tuple[Path, Path]]) -> None:
    measure("bound", lambda: decoding(files), form="decoding alone, one thread", memory="resident")
