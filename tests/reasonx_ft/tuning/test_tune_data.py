"""Which photos, pairs and answers a step sees."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from reasonx_eval.errors import UsageError
from reasonx_ft.annotation.judgements import Store
from reasonx_ft.annotation.photos import open_photos
from reasonx_ft.tuning.batches import BatchSampler, label_histogram
from reasonx_ft.tuning.config import Data
from reasonx_ft.tuning.data import PhotoSet, held_out, locate, read_answers
from reasonx_ft.types import ORDERS, Answer, Photo, Question
from tests.reasonx_ft.tuning.tune_data import photo, write_answers, write_photos

NAN = float("nan")
PREDICTED = ("depth", "normals")
POINTS = ((40, 50), (300, 50)), ((40, 300), (200, 420)), ((100, 100), (400, 400)), ((60, 80), (90, 120))


class Same:
    """Sees photos as they are."""

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        return height, width


def ask(p: Photo, pair: int, p_first: float, *, modality: str = "depth", order: int = 0, flag: str = "ok",
        ) -> tuple[Question, Answer]:  # fmt: skip
    first, second = POINTS[pair]
    return Question(p, first, second, modality, ORDERS[order]), Answer(p_first, flag)  # type: ignore[arg-type]


def answers(folder: Path, data: Data | None = None, predicted: tuple[str, ...] = PREDICTED):  # type: ignore[no-untyped-def]
    return read_answers(Store.open(folder), data or Data(), predicted, "net")


def photo_set(tmp_path: Path, photos: list[Photo], tables: dict, **how: int) -> PhotoSet:  # type: ignore[type-arg]
    write_photos(tmp_path / "photos", photos)
    return PhotoSet(open_photos(str(tmp_path / "photos")), Same(), tables, budget=how.get("budget", 1 << 30))


# answers


def test_nan_contested_and_contradictory_answers_are_left_out_and_counted(tmp_path: Path) -> None:
    p = photo(0)
    write_answers(tmp_path / "s", [
        ask(p, 0, 0.9), ask(p, 0, 0.8, order=1),  # consistent: mean 0.85
        ask(p, 1, 0.9), ask(p, 1, 0.2, order=1),  # the two colour orders contradict each other
        ask(p, 2, NAN, flag="refused"), ask(p, 2, 0.7, order=1),  # one answer is enough
        ask(p, 3, 0.9),
    ])  # fmt: skip
    write_answers(tmp_path / "s", [ask(p, 3, 0.1)])  # another shard says something else about the same question
    found = answers(tmp_path / "s")
    points, probability = found.tables["depth"].of(p.digest)
    assert sorted(probability.tolist()) == pytest.approx([0.7, 0.85])
    excluded = found.excluded["depth"]
    assert (excluded.unanswered, excluded.contested, excluded.contradictory) == (1, 1, 1)
    assert str(excluded) == "1 unanswered, 1 contested, 1 contradictory"
    assert points.shape == (2, 2, 2)


def test_unsure_pairs_are_left_out_where_asked(tmp_path: Path) -> None:
    p = photo(0)
    write_answers(tmp_path / "s", [ask(p, 0, 0.95), ask(p, 1, 0.55), ask(p, 3, 0.9)])
    assert answers(tmp_path / "s", Data(min_confidence=0.5)).excluded["depth"].unsure == 1


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    write_answers(tmp_path / "s", [ask(photo(0), 0, NAN, flag="failed"), ask(photo(0), 1, 0.5)])
    with pytest.raises(UsageError, match=r"none of 1 pairs about depth can be used: 1 unanswered, 1 unsure"):
        answers(tmp_path / "s", Data(min_confidence=0.1))


def test_modalities_that_do_not_fit(tmp_path: Path) -> None:
    write_answers(tmp_path / "s", [ask(photo(0), 0, 0.9), ask(photo(0), 0, 0.9, modality="albedo")])
    found = answers(tmp_path / "s")
    assert (list(found.tables), found.unpredicted) == (["depth"], ("albedo",))
    with pytest.raises(UsageError, match="net does not predict albedo; it predicts depth, normals"):
        answers(tmp_path / "s", Data(modalities=("albedo",)))
    with pytest.raises(UsageError, match="unknown judged modality 'normals'"):
        answers(tmp_path / "s", Data(modalities=("normals",)))
    with pytest.raises(UsageError, match="the store judges albedo, depth; net predicts normals: nothing to tune"):
        answers(tmp_path / "s", predicted=("normals",))


def test_the_digest_sees_answers_not_shards(tmp_path: Path) -> None:
    rows = [ask(photo(0), 0, 0.9), ask(photo(1), 1, 0.3)]
    write_answers(tmp_path / "one", rows)
    for row in rows:
        write_answers(tmp_path / "two", [row])
    write_answers(tmp_path / "other", [rows[0], ask(photo(1), 1, 0.4)])
    digests = [answers(tmp_path / n).digest for n in ("one", "two", "other")]
    assert digests[0] == digests[1] != digests[2]


# photos


def test_photos_without_judgements_repeated_and_damaged_ones(tmp_path: Path) -> None:
    photos = [photo(k) for k in range(3)]
    write_answers(tmp_path / "s", [ask(photos[0], 0, 0.9)])
    write_photos(tmp_path / "photos", [Photo("again.png", photos[0].image, photos[0].digest)])
    (tmp_path / "photos/broken.png").write_bytes(b"no picture")
    found = photo_set(tmp_path, photos, answers(tmp_path / "s").tables)
    assert [e.name for e in found.entries] == ["0.png"]
    left = found.left_out
    assert (left.unjudged, left.repeated, list(left.unreadable)) == (["1.png", "2.png"], 1, ["broken.png"])


def test_no_photo_with_a_judgement_is_an_error(tmp_path: Path) -> None:
    write_answers(tmp_path / "s", [ask(photo(5), 0, 0.9)])
    with pytest.raises(UsageError, match="none of 2 photos can be used: 2 have no judgement"):
        photo_set(tmp_path, [photo(0), photo(1)], answers(tmp_path / "s").tables)


def test_pairs_on_one_pixel_are_dropped() -> None:
    points = np.array([[[0, 0], [7, 7]], [[0, 0], [300, 7]]], dtype=np.int16)  # 8x8 map: 64 canonical pixels a pixel
    pairs, dropped = locate(points, np.array([0.9, 0.2], np.float32), (8, 8))
    assert (len(pairs), dropped) == (1, 1)
    assert pairs.place.tolist() == [[0, 4]]


def test_images_are_the_same_from_memory_and_from_files(tmp_path: Path) -> None:
    photos = [photo(k) for k in range(4)]
    write_answers(tmp_path / "s", [ask(p, 0, 0.9) for p in photos])
    tables = answers(tmp_path / "s").tables
    kept, read = photo_set(tmp_path, photos, tables), photo_set(tmp_path, photos, tables, budget=24 * 32 * 3)
    data = Data(batch_size=3, held_out=0)
    for step in range(3):
        a, b = (BatchSampler(p, data, ["depth"], seed=1, steps=5).at(step).images for p in (kept, read))
        assert torch.equal(a, b)
    kept.close()
    read.close()


# batches


@pytest.fixture
def mixed(tmp_path: Path) -> PhotoSet:
    """Ten photos of two sizes, four pairs each of depth, two of normals on the even ones."""
    photos = [photo(k, *((24, 32) if k < 7 else (32, 24))) for k in range(10)]
    rows = [ask(p, pair, 0.1 + 0.1 * pair) for p in photos for pair in range(4)]
    rows += [ask(p, pair, 0.97, modality="normals") for p in photos[::2] for pair in range(2)]
    write_answers(tmp_path / "s", rows)
    return photo_set(tmp_path, photos, answers(tmp_path / "s").tables)


def test_a_batch_depends_on_seed_and_step_alone(mixed: PhotoSet) -> None:
    data = Data(batch_size=2, pairs=3, held_out=0)
    batches = BatchSampler(mixed, data, PREDICTED, seed=3, steps=9)
    forward = [batches.at(k) for k in range(9)]
    for step in (5, 2):
        again = BatchSampler(mixed, data, PREDICTED, seed=3, steps=9).at(step)
        assert torch.equal(forward[step].images, again.images)
        assert forward[step].seeds == again.seeds
        for m in PREDICTED:
            assert torch.equal(forward[step].judged[m].rows, again.judged[m].rows)
            assert torch.equal(forward[step].judged[m].probability, again.judged[m].probability)
    assert forward[0].seeds != BatchSampler(mixed, data, PREDICTED, seed=4, steps=9).at(0).seeds


def test_processes_share_the_photos_of_one_process(mixed: PhotoSet) -> None:
    data = Data(batch_size=4, pairs=3, held_out=0)
    for step in range(6):
        whole = BatchSampler(mixed, data, PREDICTED, seed=0, steps=6).at(step)
        parts = [BatchSampler(mixed, data, PREDICTED, seed=0, steps=6, rank=r, world=2).at(step) for r in range(2)]
        for rank, part in enumerate(parts):
            assert torch.equal(part.images, whole.images[rank::2])
            assert part.seeds == whole.seeds[rank::2]
            for m in PREDICTED:
                assert torch.equal(part.judged[m].cols, whole.judged[m].cols[rank::2])
                assert torch.equal(part.judged[m].weight, whole.judged[m].weight[rank::2])
    with pytest.raises(UsageError, match=r"data\.batch_size 4 can't be shared evenly among 3 processes"):
        BatchSampler(mixed, data, PREDICTED, seed=0, steps=1, world=3)


def test_every_photo_of_a_size_once_a_pass_and_sizes_by_their_number(mixed: PhotoSet) -> None:
    batches = BatchSampler(mixed, Data(batch_size=1, flip=False, held_out=0), ["depth"], seed=0, steps=300)
    seen: dict[tuple[int, ...], list[bytes]] = {}
    for step in range(300):
        image = batches.at(step).images[0]
        seen.setdefault(tuple(image.shape), []).append(image.numpy().tobytes())
    wide = seen[3, 24, 32]
    assert 0.6 < len(wide) / 300 < 0.8  # 7 of 10
    for start in range(0, len(wide) - 7, 7):
        assert len(set(wide[start : start + 7])) == 7
    assert wide[:7] != wide[7:14]


def test_photos_without_a_modality_weigh_nothing_in_it(mixed: PhotoSet) -> None:
    batches = BatchSampler(mixed, Data(batch_size=5, pairs=3, held_out=0), PREDICTED, seed=0, steps=40)
    weights = torch.cat([batches.at(k).judged["normals"].weight for k in range(40)])
    assert set(weights.sum(1).tolist()) == {0.0, 2.0}  # two of three pairs are there, or none
    assert batches.at(0).judged["depth"].weight.min() == 1


def test_one_modality_at_a_time_and_all_of_them_come_up(mixed: PhotoSet) -> None:
    data = Data(batch_size=1, modalities_per_step="one", held_out=0)
    batches = BatchSampler(mixed, data, PREDICTED, seed=0, steps=30)
    drawn = [list(batches.at(k).judged) for k in range(30)]
    assert all(len(d) == 1 for d in drawn)
    assert {d[0] for d in drawn} == set(PREDICTED)


def test_oracle_32_mirrored_photos_have_mirrored_pairs(mixed: PhotoSet) -> None:
    """A pair keeps its pixels' colours, whichever way the photo is turned."""
    plain = BatchSampler(mixed, Data(batch_size=2, pairs=4, flip=False, held_out=0), ["depth"], seed=0, steps=20)
    turned = BatchSampler(mixed, Data(batch_size=2, pairs=4, flip=True, held_out=0), ["depth"], seed=0, steps=20)
    mirrored = 0
    for step in range(20):
        a, b = plain.at(step), turned.at(step)
        assert torch.equal(a.judged["depth"].at_points(a.images), b.judged["depth"].at_points(b.images))
        assert torch.equal(a.judged["depth"].probability, b.judged["depth"].probability)
        for k in range(2):
            if not torch.equal(a.images[k], b.images[k]):
                mirrored += 1
                assert torch.equal(a.images[k].flip(-1), b.images[k])
    assert 8 <= mirrored <= 32


def test_pairs_change_from_step_to_step(mixed: PhotoSet) -> None:
    batches = BatchSampler(mixed, Data(batch_size=1, pairs=2, flip=False, held_out=0), ["depth"], seed=0, steps=60)
    drawn: dict[bytes, set[tuple[float, ...]]] = {}
    for step in range(60):
        batch = batches.at(step)
        pairs = tuple(batch.judged["depth"].probability[0].tolist())
        drawn.setdefault(batch.images.numpy().tobytes(), set()).add(pairs)
    assert sum(len(d) > 1 for d in drawn.values()) >= 8


def test_held_out_photos_are_never_trained_on(mixed: PhotoSet) -> None:
    share = 0.4
    batches = BatchSampler(mixed, Data(batch_size=2, flip=False, held_out=share), PREDICTED, seed=0, steps=60)
    out = {k for k, kept in enumerate(held_out([e.digest for e in mixed.entries], share)) if kept}
    assert set(batches.held_out) == out
    assert 0 < len(out) < 10
    trained = {i.numpy().tobytes() for k in range(60) for i in batches.at(k).images}
    checked = {i.numpy().tobytes() for _, batch in batches.checks(10, 3) for i in batch.images}
    assert (len(trained), len(checked)) == (10 - len(out), len(out))
    assert not trained & checked
    n = sum(int(batch.judged["depth"].weight.sum()) for _, batch in batches.checks(10, 3))
    assert n == 4 * len(out)  # all pairs, not a draw


def test_the_share_held_out_is_the_share_of_photos() -> None:
    digests = [photo(k, 2, 2).digest for k in range(2000)]
    few, more = held_out(digests, 0.1), held_out(digests, 0.3)
    assert math.isclose(sum(few) / 2000, 0.1, abs_tol=0.03)
    assert all(b for a, b in zip(few, more, strict=True) if a)


def test_at_least_one_photo_is_held_out_and_one_is_trained_on() -> None:
    digests = [photo(k, 2, 2).digest for k in range(3)]
    for share in (1e-6, 0.1):
        found = held_out(digests, share)
        assert sum(found) >= 1
        assert found == held_out(digests[::-1], share)[::-1], "whatever the order"
    assert held_out(digests, 0.0) == [False] * 3
    with pytest.raises(UsageError, match="all 1 photos with judgements are held out"):
        held_out(digests[:1], 0.1)


def test_the_labels_histogram(mixed: PhotoSet) -> None:
    found = label_histogram(mixed, PREDICTED, bins=5)
    assert sum(found["depth"]) == 40
    assert found["normals"] == [0, 0, 0, 0, 10]
