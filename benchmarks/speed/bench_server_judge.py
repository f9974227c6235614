"""Questions a second of a judge behind a server that takes 50 ms for each, beside the ideal: concurrency / latency."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from benchmarks.speed.conftest import Measure
from benchmarks.speed.photos import every_question, photo
from reasonx_ft.annotation.markers import canonical
from reasonx_ft.annotation.pairs import sample_pairs
from reasonx_ft.judges.server import Server
from reasonx_ft.types import AnswerBatch, QuestionBatch

_LATENCY = 0.05
_PHOTOS, _PAIRS = 16, 40


@contextmanager
def endpoint(trouble: float) -> Iterator[str]:
    """The address of a server in another process."""
    line = [sys.executable, "-m", "benchmarks.speed.judge_server", str(_LATENCY), str(trouble)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def calls() -> list[list[QuestionBatch]]:
    """All questions about some photos, 80 pictures each, in calls as annotate makes them."""
    found = []
    for k in range(_PHOTOS):
        about = photo(k, (480, 640), noise=6)
        batch = every_question(about, sample_pairs(canonical(about.image), about.digest, _PAIRS))
        found += [[batch.part(slice(start, start + 32))] for start in range(0, len(batch), 32)]
    return found


def ask(url: str, concurrency: int, image: str, calls: list[list[QuestionBatch]]) -> AnswerBatch:
    judge = Server(url, model="m", logprobs="prefix", concurrency=concurrency, image=image, retries=12)  # type: ignore[arg-type]
    parts = [answers for _, answers in judge.answers(calls)]
    return AnswerBatch(*(np.concatenate([getattr(p, c) for p in parts]) for c in ("probability", "flag", "seconds")))


def counts(url: str) -> dict[str, int]:
    found: dict[str, int] = json.load(urllib.request.urlopen(f"{url}/counts"))
    return found


@pytest.mark.parametrize("image", ["png", "jpeg"])
@pytest.mark.parametrize("concurrency", [16, 32])
@pytest.mark.parametrize("trouble", [0.0, 0.15], ids=["sound", "trouble"])
def test_rate(
    measure: Measure, benchmark: object, calls: list[list[QuestionBatch]], concurrency: int, image: str, trouble: float
) -> None:
    n = sum(len(batch) for call in calls for batch in call)
    # what is answered with trouble takes another try each time
    ideal = n / (1 - trouble) * _LATENCY / concurrency
    benchmark.group = f"server judge, {_LATENCY * 1e3:.0f} ms, concurrency {concurrency}, {trouble:.0%} trouble"  # type: ignore[attr-defined]
    with endpoint(0.0) as url:
        expected = ask(url, concurrency, image, calls)
    with endpoint(trouble) as url:
        found = ask(url, concurrency, image, calls)
        # nothing lost, nothing doubled, nothing changed
        assert counts(url)["answered"] == counts(url)["different"] == n
        assert not found.flag.any()
        np.testing.assert_array_equal(found.probability, expected.probability)
    with endpoint(trouble) as url:
        measure("ours", lambda: ask(url, concurrency, image, calls), form=f"reasonx-ft's server judge, {image}",
                against=lambda: time.sleep(ideal), against_form="the ideal: every slot waits for a reply at all times",
                size=n, unit="questions", memory="none", rounds=1)  # fmt: skip
