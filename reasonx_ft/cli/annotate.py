"""reasonx-ft annotate: collect a judge's answers about photos."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from reasonx_ft.annotation.annotate import Summary

_READINGS = {"log-probabilities": "log-probabilities of both answers",
             "words": "words: an answer is 1 or 0, without degrees between"}  # fmt: skip


@click.command("annotate")
@click.argument("images")
@click.option("--judge", "spec", required=True, metavar="JUDGE",
              help="The judge to ask: oracle, tiny, mllm:FOLDER or mllm:OWNER/NAME, server:URL, reasonx, or "
                   "FILE.py:Class.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the judgement store.")
@click.option("-O", "--option", "options", multiple=True, metavar="KEY=VALUE",
              help="Set an option of the judge; may be repeated.")
@click.option("--pairs", type=int, default=40, show_default=True, help="Number of point pairs in each photo.")
@click.option("--modalities", metavar="NAME[,NAME]", default="depth,normals,irradiance,albedo", show_default=True,
              help="Modalities that the questions are about.")
@click.option("--orders", type=click.Choice(["both", "red-first", "random"]), default="both", show_default=True,
              help="Ask each question with both colour orders of the markers, or with one.")
@click.option("--sampler", type=click.Choice(["stratified", "bands"]), default="stratified", show_default=True,
              help="Method that chooses the pairs; bands is the published one.")
@click.option("--questions", type=click.Path(path_type=Path),
              help="Take the wording of the questions from this TOML file.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed that the pairs are drawn with.")
@click.option("--root", type=click.Path(path_type=Path), help="For dataset:NAME: folder of the dataset's files.")
@click.option("--dataset-option", "dataset_options", multiple=True, metavar="KEY=VALUE",
              help="For dataset:NAME: set an option of the dataset; may be repeated.")
@click.option("--limit", type=int, help="Ask about N photos only, spread evenly.")
@click.option("--shard", metavar="I/N",
              help="Ask about every N-th photo from the I-th; all shards may write to one store.")
@click.option("--batch-size", type=int, help="Number of questions in one call of the judge.  [default: the judge's]")
@click.option("--device", help="Device of a judge's network: auto, cpu, cuda, cuda:1, mps.")
@click.option("--dtype", help="Number type of a judge's network: float32, bfloat16, float16.")
@click.option("--trust-remote-code", is_flag=True, help="Allow Python code that comes with a checkpoint to run.")
@click.option("--retry-failed", is_flag=True, help="Ask the questions again that the store has without a probability.")
@click.option("--flush-seconds", type=click.FloatRange(min=0), default=20.0, show_default=True,
              help="Longest time that an answer waits for its shard; a kill loses no more than these seconds.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True,
              help="Number of threads that read photos.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")  # fmt: skip
def command(images: str, spec: str, out: Path, options: tuple[str, ...], root: Path | None,
            dataset_options: tuple[str, ...], limit: int | None, shard: str | None, modalities: str, as_json: bool,
            quiet: bool, **how: Any) -> int:  # fmt: skip
    """Ask a judge about pairs of points of every photo, and keep the answers.

    IMAGES is a folder (png and jpg, in it and below), one file, or dataset:NAME[/SPLIT]. The same command goes on where
    an earlier one stopped: what is in the store is never asked again.

    \b
    reasonx-ft annotate photos --judge mllm:Qwen/Qwen2.5-VL-3B-Instruct --out judgements
    reasonx-ft annotate dataset:scenes-wild/train --judge oracle --limit 100 --out judgements
    """
    from reasonx_eval.cli.common import parse_options, prints_to_stderr, progress_bar
    from reasonx_eval.report.tables import printable
    from reasonx_ft.annotation.annotate import raise_if_partial
    from reasonx_ft.annotation.photos import open_photos
    from reasonx_ft.judges.api import annotate
    from reasonx_ft.judges.load import needs_targets

    asked = tuple(m.strip() for m in modalities.split(",") if m.strip())
    with prints_to_stderr():
        photos = open_photos(images, root=root, dataset_options=parse_options(dataset_options, "--dataset-option"),
                             limit=limit, shard=shard, want=needs_targets(spec))  # fmt: skip
        for said in photos.overlooked:
            click.echo(f"note: {printable(said)}", err=True)
        with progress_bar(spec.partition(":")[0], quiet, unit="answers") as progress:
            summary = annotate(photos, spec, out, options=parse_options(options, "--option"), modalities=asked,
                               progress=progress, **how)  # fmt: skip
    for reason in summary.damaged:
        click.echo(printable(f"warning: left out {reason}"), err=True)
    for reason in summary.unreadable.values():
        click.echo(printable(f"left out: {reason}"), err=True)
    for reason in summary.warnings:
        click.echo(f"warning: {reason}", err=True)
    _print(summary, out, as_json)
    raise_if_partial(summary, out)
    return 0


def _print(summary: Summary, out: Path, as_json: bool) -> None:
    from reasonx_eval.cli.common import print_json
    from reasonx_eval.report.tables import printable

    if as_json:
        print_json({"store": str(out), **asdict(summary)})
        return
    unanswered = {f: n for f, n in summary.flags.items() if f != "ok"}
    lost = "".join(f", {n:,} {flag}" for flag, n in sorted(unanswered.items()))
    speed = f" ({summary.asked / summary.seconds:,.1f} a second)" if summary.asked and summary.seconds > 0 else ""
    click.echo(printable(f"judge     {summary.judge} ({summary.revision})"))
    if summary.reading is not None:
        click.echo(f"reading   {_READINGS[summary.reading]}")
    click.echo(f"photos    {summary.photos:,}" + (f", {summary.repeated:,} repeated" if summary.repeated else "")
               + (f", {len(summary.unreadable):,} unreadable" if summary.unreadable else ""))  # fmt: skip
    click.echo(f"asked     {summary.asked:,} questions in {summary.seconds:.1f} s{speed}{lost}")
    click.echo(f"known     {summary.known:,} had been asked before"
               + (f", {summary.unanswered:,} of them without an answer (--retry-failed asks them again)"
                  if summary.unanswered else ""))  # fmt: skip
    click.echo(f"store     {out} ({summary.shards} new shards)")
