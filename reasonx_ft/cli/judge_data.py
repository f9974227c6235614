"""reasonx-ft judge-data: training data for vision-language judges."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click


@click.command("judge-data")
@click.option("--dataset", "name", required=True, metavar="NAME", help="Dataset with ground-truth maps.")
@click.option("--split", help="Split of the dataset.  [default: the first that it has]")
@click.option("--out", required=True, type=click.Path(path_type=Path),
              help="Folder that pictures, JSONL and Parquet are written to.")
@click.option("--modalities", metavar="NAME[,NAME]",
              help="Modalities to ask about.  [default: all that the dataset has maps of]")
@click.option("--pairs", type=click.IntRange(min=1, max=1000), default=10, show_default=True,
              help="Number of questions about each photo and modality.")
@click.option("--same", type=click.FloatRange(0, 1), default=0.5, show_default=True,
              help='Share of albedo\'s answers that are "same", where the photo has as many.')
@click.option("--format", "picture", type=click.Choice(["jpg", "png"]), default="jpg", show_default=True,
              help="Format of the pictures; png is larger and exact.")
@click.option("--questions", "wording", type=click.Path(path_type=Path),
              help="Take the wording of the questions from this TOML file.")
@click.option("--root", type=click.Path(path_type=Path), help="Folder of the dataset's files.")
@click.option("--dataset-option", "dataset_options", multiple=True, metavar="KEY=VALUE",
              help="Set an option of the dataset; may be repeated.")
@click.option("--limit", type=int, help="Write N photos only, spread evenly.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed that pairs and colours are drawn with.")
@click.option("--json", "as_json", is_flag=True, help="Print data.json.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")  # fmt: skip
def command(name: str, split: str | None, out: Path, modalities: str | None, pairs: int, same: float,
            picture: Literal["jpg", "png"], wording: Path | None, root: Path | None,
            dataset_options: tuple[str, ...], limit: int | None, seed: int, as_json: bool,
            quiet: bool) -> int:  # fmt: skip
    """Write questions about marked photos with the right answers, for judge-train or any fine-tuning tool.

    The same command goes on where an earlier one stopped.

    \b
    reasonx-ft judge-data --dataset scenes-broad --split train --limit 2000 --out pairs
    """
    from reasonx_eval.cli.common import parse_options, print_json, prints_to_stderr, progress_bar
    from reasonx_eval.errors import EXIT_OK, EXIT_PARTIAL
    from reasonx_eval.io.selection import Selection
    from reasonx_eval.registry import load_dataset
    from reasonx_ft.annotation.photos import Recent
    from reasonx_ft.annotation.questions import read_questions
    from reasonx_ft.judges.training.data import maps_of, write_data

    questions = read_questions(wording)
    with prints_to_stderr():
        dataset = load_dataset(name, root, split, parse_options(dataset_options, "--dataset-option"))
        chosen = None if modalities is None else tuple(m.strip() for m in modalities.split(",") if m.strip())
        asked = maps_of(dataset, chosen)
        with progress_bar(dataset.name, quiet) as progress:
            card = write_data(Recent(dataset, asked), out, questions, modalities=asked, pairs=pairs, same=same,
                              seed=seed, picture=picture, selection=Selection(limit=limit),
                              progress=progress)  # fmt: skip
    if as_json:
        print_json(card.model_dump(mode="json", by_alias=True))
    else:
        for modality, answers in card.answers.items():
            click.echo(f"{modality:<10}  " + "  ".join(f"{k} {n:,}" for k, n in sorted(answers.items())))
        for reason in list(card.failed.values())[:5]:
            click.echo(f"left out  {reason}")
        click.echo(f"data  {out}  ({card.rows:,} questions about {card.photos:,} photos)")
    return EXIT_PARTIAL if card.failed else EXIT_OK
