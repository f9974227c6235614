"""Records that an earlier process left in a run's folder, used again only if they would come out the same today.

Whatever decides a record is compared before the record is used again: the request (run.json), the ground truth and
the photos (read and hashed anew), and the prediction of one sample where the model is a user's own code, of which no
digest covers everything. Anything that can't be compared is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import DataError, NotComparable
from reasonx_eval.io import results
from reasonx_eval.io.digests import algorithm_of, array_digest, comparable_digests, file_digest
from reasonx_eval.io.documents import read_json
from reasonx_eval.io.files import safe_name, write_json
from reasonx_eval.io.records import read_photos, read_records, write_records
from reasonx_eval.io.results import RunSpec
from reasonx_eval.models.base import Model
from reasonx_eval.run.folder import empty
from reasonx_eval.run.prefetch import in_order, worker_pool
from reasonx_eval.run.stages import Job, Loaded, Predicted, load, predict
from reasonx_eval.types import Progress, Record

#: of a run's folder: path -> digest of the files that a user's code reads
FILES: Final = "files.json"
_ANEW: Final = "--force to score anew, or another --out"


@dataclass(frozen=True)
class Reuse:
    """Records that an earlier process left and that still hold.

    job : with the digests' algorithm of these records
    said : a sentence on the comparison, for the user; empty where nothing is used again
    """

    job: Job
    records: list[Record]
    said: str = ""


def take_over(
    out: Path, spec: RunSpec, job: Job, ids: Sequence[str], *, force: bool, retry_failed: bool, keep_pixels: bool,
    workers: int, progress: Progress | None,
) -> Reuse:  # fmt: skip
    """The records to go on from; run.json is written where there was none.

    Samples whose predictions or per-pixel errors are asked for and were not kept are scored again.

    Raises
    ------
    NotComparable
        The folder holds a run with another model, protocol, dataset, selection or seed (names each difference), or the
        data or the model changed since.
    """
    records, digest_compared = _asked_the_same(out, spec, force)
    folders = [f for f, wanted in ((job.predictions, True), (job.pixels, keep_pixels)) if wanted and f is not None]
    kept = [r for r in records if not (retry_failed and r.error is not None) and _has_files(r, folders)]
    if job.pixels is not None and len(kept) < len(ids):  # pooling needs those of all samples
        kept = [r for r in kept if _has_files(r, [job.pixels])]
    scored = [r for r in kept if r.data is not None and r.error is None]
    said = ""
    if scored:
        _check_files(out)
        job = replace(job, algorithm=algorithm_of(scored[0].data))
        again = scored if not digest_compared else [] if job.model.fully_described else scored[:1]
        said = f"{_when(out)}: {_compare(job, scored, again, read_photos(out), workers, progress)}"
    if kept != records:
        write_records(out / "records.jsonl", kept)
    return Reuse(job, kept, said)


def _asked_the_same(out: Path, spec: RunSpec, force: bool) -> tuple[list[Record], bool]:
    """The records of the folder, if it was asked for the same, and whether the weights' digest could be compared.

    A run without one scored sample is no obstacle.
    """
    if force:
        empty(out)
    records = read_records(out / "records.jsonl", repair=True)
    if (out / "run.json").is_file():
        stored = results.load_spec(out)
        compared = comparable_digests(stored.model.weights_sha256, spec.model.weights_sha256)
        if not compared:  # a version that hashed weights otherwise: predictions are compared instead
            model = stored.model.model_copy(update={"weights_sha256": spec.model.weights_sha256})
            stored = stored.model_copy(update={"model": model})
        different = results.spec_difference(stored, spec)
        if not different:
            return records, compared
        if any(r.error is None and r.undefined is None for r in records):
            raise NotComparable("the folder holds another run: " + "; ".join(different[:6]), where=str(out),
                                fix="--force to replace it, or another --out")  # fmt: skip
        empty(out)
    elif records:
        raise NotComparable("there are records, and no run.json that says of which run", where=str(out), fix=_ANEW)
    results.save(out / "run.json", spec)
    return [], True


def _has_files(record: Record, folders: Sequence[Path]) -> bool:
    """Whether a sample has its file in every folder."""
    if record.error is not None or record.undefined is not None:
        return True
    return all((folder / f"{safe_name(record.sample_id)}.npy").is_file() for folder in folders)


def _when(out: Path) -> str:
    with suppress(DataError):
        timing = results.load_timing(out)
        if timing is not None and (out / "result.json").is_file():
            return f"finished on {timing.finished[:16].replace('T', ' ')}"
    return "begun earlier"


def _compare(
    job: Job, records: Sequence[Record], again: Sequence[Record], photos: Mapping[str, str], workers: int,
    progress: Progress | None,
) -> str:  # fmt: skip
    """Hold records against today's data, and those in `again` against today's predictions; gives a sentence on it.

    Raises
    ------
    NotComparable
        The first sample that differs, and how many do.
    """
    if _rendered(job.dataset):
        said = "its scenes are made by this version of the package, so nothing was read anew"
    else:
        _check_inputs(job, records, photos, workers, progress)
        unknown = sum(r.sample_id not in photos for r in records) if job.model.needs_image else len(records)
        same = "ground truth is" if unknown == len(records) else "ground truth and photos are"
        said = f"{same} the same for its {len(records)} scored samples"
        if job.model.needs_image and unknown:
            said += f" ({unknown} photos were not compared: an older version kept no digest of them)"
    for record in again:
        _check_model(job, record)
    if again:
        said += f"; the model predicts the same for {again[0].sample_id if len(again) == 1 else 'all of them'}"
    return said


def _rendered(dataset: Dataset) -> bool:
    return not dataset.info.needs_root and type(dataset).__module__.startswith("reasonx_eval.")


def _check_inputs(
    job: Job, records: Sequence[Record], photos: Mapping[str, str], workers: int, progress: Progress | None
) -> None:
    other: list[str] = []
    with worker_pool(workers) as pool:
        read: Callable[[str], str | None] = partial(_difference, job, {r.sample_id: r for r in records}, photos)
        for done, found in enumerate(in_order(pool, read, [r.sample_id for r in records], ahead=workers), 1):
            if found is not None:
                other.append(found)
            if progress is not None:
                progress(done, len(records), len(other))
    if other:
        raise NotComparable(f"the data changed since the run: {other[0]}" +
                            (f" (and {len(other) - 1} more samples)" if len(other) > 1 else ""),
                            where=job.dataset.name, fix=_ANEW)  # fmt: skip


def _difference(job: Job, records: Mapping[str, Record], photos: Mapping[str, str], sample_id: str) -> str | None:
    """The difference between a record's inputs and the data as they are now; None where nothing does."""
    record, now = records[sample_id], load(job, sample_id)
    if not isinstance(now, Loaded):
        return f"sample {sample_id} can't be read any more ({now.record.error or now.record.undefined})"
    if now.data != record.data:
        return f"sample {sample_id} has other ground truth"
    if now.photo is not None and photos.get(sample_id, now.photo) != now.photo:
        return f"sample {sample_id} has another photo"
    return None


def keep_files(out: Path, model: Model) -> None:
    """Write which files a user's code reads and their digests, for the next command on this folder."""
    found = model.files()
    if found:
        write_json(out / FILES, dict(found))


def _check_files(out: Path) -> None:
    """Hold the files that a user's code read against their digests."""
    path = out / FILES
    for name, digest in (read_json(path) if path.is_file() else {}).items():
        if not Path(name).is_file() or file_digest(Path(name)) != digest:
            raise NotComparable("the model reads this file, and it changed since the run", where=name, fix=_ANEW)


def _check_model(job: Job, record: Record) -> None:
    """Predict one sample again: a user's code may read weights that no digest covers."""
    job.model.load()
    (found,) = predict(job, [load(job, record.sample_id)])
    now = array_digest(found.prediction, job.algorithm) if isinstance(found, Predicted) else found.record.error
    if now != record.prediction:
        raise NotComparable(f"its prediction of {record.sample_id} is another than in the run: its code or weights "
                            "changed, or it gives other numbers at every call", where=job.model.info.name,
                            fix=_ANEW)  # fmt: skip
