"""Answers of the small judge: the whole command, and one photo in memory."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.speed.conftest import Measure
from benchmarks.speed.memory import Command
from benchmarks.speed.photos import every_question, photo
from benchmarks.speed.scale_data import IIW_SIZE
from reasonx_eval.models.loading.runtime import one_thread, to_tensor
from reasonx_ft.annotation.judgements import Store
from reasonx_ft.annotation.markers import canonical
from reasonx_ft.annotation.pairs import sample_pairs
from reasonx_ft.judges.tiny import TinyJudge, small
from reasonx_ft.judges.tiny_net import JUDGED, SIZE, answers_of_both, look_both_ways
from reasonx_ft.types import ORDERS, Question

PHOTOS = 500
_CORES = 2


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PNG files of IIW's size: smooth, with noise in the last bits, so that they compress as photos do."""
    folder = tmp_path_factory.mktemp("photos")
    for k in range(PHOTOS):
        made = photo(k, IIW_SIZE, noise=6)
        Image.fromarray(made.image).save(folder / made.id)
    return folder


def _command(measure: Measure, photos: Path, out: Path, pairs: int, dtype: str = "float32") -> None:
    command = Command((sys.executable, "-m", "reasonx_ft.cli.main", "annotate", str(photos), "--judge", "tiny",
                       "-O", f"dtype={dtype}", "--pairs", str(pairs), "--out", str(out), "-q"))  # fmt: skip
    answers = PHOTOS * pairs * len(JUDGED) * len(ORDERS)

    def peak() -> float:
        found = command.peak()
        assert len(Store.open(out)) == answers
        return found

    measure("ours", command, form="reasonx-ft annotate, from files to store, start of Python and torch included",
            size=answers, unit="answers", memory=peak, rounds=1,
            setup=lambda: shutil.rmtree(out, ignore_errors=True))  # fmt: skip


def _network(measure: Measure, pairs: int, dtype: str = "float32") -> None:
    """The judge's network alone: each photo and its mirror image once, then its pairs, on as many threads."""
    judge = TinyJudge(dtype=dtype)
    network, eyes = judge.network, judge.eyes
    seen = torch.rand(1, 3, *SIZE)
    points = torch.randint(0, SIZE[0], (1, pairs, 2, 2))

    def one(_: int) -> None:
        with torch.inference_mode():
            answers_of_both(network, look_both_ways(eyes, seen), points)

    def every() -> None:
        with ThreadPoolExecutor(_CORES, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(one, range(PHOTOS)))

    answers = PHOTOS * pairs * len(JUDGED) * len(ORDERS)
    measure("bound", every, form=f"the network alone, {_CORES} threads", size=answers,
            unit="answers", memory="none", rounds=1)  # fmt: skip


@pytest.mark.benchmark(group="annotate, 40 pairs a photo")
class TestDefault:
    def test_ours(self, measure: Measure, photos: Path, tmp_path: Path) -> None:
        _command(measure, photos, tmp_path / "store", 40)

    def test_bound(self, measure: Measure) -> None:
        _network(measure, 40)


@pytest.mark.benchmark(group="annotate, 200 pairs a photo, bfloat16")
class TestFewerBits:
    def test_ours(self, measure: Measure, photos: Path, tmp_path: Path) -> None:
        _command(measure, photos, tmp_path / "store", 200, "bfloat16")

    def test_bound(self, measure: Measure) -> None:
        _network(measure, 200, "bfloat16")


@pytest.mark.benchmark(group="annotate, 200 pairs a photo")
class TestMany:
    def test_ours(self, measure: Measure, photos: Path, tmp_path: Path) -> None:
        _command(measure, photos, tmp_path / "store", 200)

    def test_bound(self, measure: Measure) -> None:
        _network(measure, 200)


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    """All that is asked about one photo with 40 pairs: 320 questions."""
    about = photo(0, IIW_SIZE, noise=6)
    pairs = sample_pairs(canonical(about.image), about.digest, 40, size=IIW_SIZE)
    return every_question(about, pairs).questions()


def _afresh(questions: Sequence[Question]) -> Sequence[Question]:
    """The same questions about a photo that no judge has seen."""
    unseen = replace(questions[0].photo, digest=f"{np.random.default_rng().integers(1 << 62):032x}")
    return [replace(q, photo=unseen) for q in questions]


@pytest.mark.benchmark(group="small judge, 320 questions about one photo")
class TestPhoto:
    def test_ours(self, measure: Measure, questions: list[Question]) -> None:
        judge = TinyJudge(threads=1)
        measure("ours", lambda: judge.ask(_afresh(questions)), form="photo looked at once, all pairs in one pass",
                memory="resident")  # fmt: skip

    def test_peer(self, measure: Measure, questions: list[Question]) -> None:
        judge = TinyJudge(threads=1)

        def one_by_one(asked: Sequence[Question]) -> list[float]:
            return [judge.ask(_afresh([q]))[0].probability for q in asked]

        some = questions[::16]
        assert one_by_one(some) == pytest.approx([a.probability for a in judge.ask(some)], rel=1e-9)
        measure("peer", lambda: one_by_one(questions), form="photo looked at for every question",
                memory="resident", rounds=1)  # fmt: skip

    def test_bound(self, measure: Measure, questions: list[Question]) -> None:
        network = TinyJudge().network
        image = to_tensor(small(questions[0].photo.image), torch.device("cpu"))[None]

        def look() -> None:
            with torch.inference_mode():
                look_both_ways(network, image)

        with one_thread():
            measure("bound", look, form="the network's look at photo and mirror image", memory="none")
