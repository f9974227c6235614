"""``doctor --prepare``: where the official files come from, and unpacking them. Nothing is ever downloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from reasonx_eval.datasets.base import DatasetInfo
from reasonx_eval.doctor.findings import Finding
from reasonx_eval.doctor.manifest import Archive, Manifest, archive_problems, megabytes
from reasonx_eval.doctor.unpack import unpack
from reasonx_eval.errors import DataError


def explain(info: DatasetInfo, manifest: Manifest | None) -> str:
    """The files to fetch, their source and licence, and the layout they must have."""
    lines = [info.title, f"  licence   {info.licence}"]
    if info.homepage:
        lines.append(f"  homepage  {info.homepage}")
    if manifest is not None:
        for archive in manifest.archives:
            lines += _archive_lines(archive)
    for heading, text in (("layout of the folder", manifest.layout if manifest else info.layout),
                          ("notes", manifest.notes if manifest else "")):  # fmt: skip
        if text.strip():
            lines += [f"  {heading}", *(f"    {line}" for line in text.strip().splitlines())]
    if info.options:
        lines += ["  options (--dataset-option KEY=VALUE)", *(f"    {k:<20}{v}" for k, v in info.options.items())]
    if manifest is not None and manifest.archives:
        names = " ".join(f"--archive {a.name}" for a in manifest.archives[:2])
        lines += ["  then", f"    reasonx-eval doctor {info.name} --root DIR --prepare {names}"]
    lines += ["  check", f"    reasonx-eval doctor {info.name} --root DIR"]
    return "\n".join(lines)


def _archive_lines(archive: Archive) -> list[str]:
    size = f"{archive.bytes} bytes" if archive.bytes is not None else archive.size or "size not published"
    lines = [f"  file      {archive.name}  ({size})"]
    if archive.contains:
        lines.append(f"    holds   {archive.contains}")
    lines.append(f"    from    {archive.url or 'see the homepage'}")
    for algorithm in ("sha256", "md5"):
        digest = getattr(archive, algorithm)
        if digest:
            lines.append(f"    {algorithm:<7} {digest}")
    return lines


def prepare(
    archives: Sequence[Path],
    root: Path,
    manifest: Manifest | None,
    *,
    force: bool = False,
    max_bytes: int | None = None,
    progress: Callable[[Path, int], None] | None = None,
) -> list[Finding]:
    """Verify each archive against its published size and digests, then unpack it into `root`.

    Parameters
    ----------
    force, max_bytes : as of `unpack`
    progress : called with the archive and the bytes that were done

    Raises
    ------
    DataError
        An archive whose bytes are not the published ones (nothing of it is unpacked), or as `unpack` raises.
    """
    known = {a.name: a for a in manifest.archives} if manifest is not None else {}
    findings = []
    for path in archives:
        findings.append(_verify(path, known.get(path.name)))
        step = None if progress is None else (lambda n, _, path=path: progress(path, n))
        done = unpack(path, root, force=force, max_bytes=max_bytes, progress=step)
        kept = f", {done.kept} lay there already" if done.kept else ""
        findings.append(Finding("unpack", "ok", f"{path.name}: {done.written} files written{kept} "
                                f"({megabytes(done.bytes)}) into {root}"))  # fmt: skip
    return findings


def _verify(path: Path, known: Archive | None) -> Finding:
    if not path.is_file():
        raise DataError("no such file", where=str(path))
    if known is None:
        return Finding("archive", "warn", f"{path.name} is not an official file by its name: unpacked unverified")
    problems = archive_problems(path, known)
    if problems:
        raise DataError("; ".join(problems), where=str(path), fix=f"fetch it again from {known.url or 'its source'}")
    checked = [k for k in ("bytes", "sha256", "md5") if getattr(known, k) is not None]
    if not checked:
        return Finding("archive", "warn", f"{path.name}: neither size nor digest is published, so nothing to compare")
    return Finding("archive", "ok", f"{path.name}: {' and '.join(checked)} as published")
