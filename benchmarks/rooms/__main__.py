"""``python -m benchmarks.rooms``: render rooms, as many at a time as there are cores, and write the data set's maps."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np

from benchmarks.rooms.furniture import unpack
from benchmarks.rooms.maps import Floats, encode, write
from reasonx_eval.cli.main import exit_with

#: rooms of each split, in the set that the study uses
ROOMS = {"train": 210, "val": 30, "test": 100}


@click.command("rooms")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the data set.")
@click.option("--blender", type=click.Path(path_type=Path, exists=True), required=True,
              help="The Python that has bpy: see benchmarks/rooms/README.md.")
@click.option("--furniture", type=click.Path(path_type=Path, exists=True), show_default=True,
              default="/usr/share/sweethome3d/furniture", help="Folder of the .sh3f files.")
@click.option("--split", type=click.Choice(list(ROOMS)), help="[default: all three]")
@click.option("--rooms", type=click.IntRange(min=1), help="Rooms of each split.  [default: 210, 30, 100]")
@click.option("--size", default="224x168", show_default=True, help="Width x height in pixels.")
@click.option("--samples", default=24, show_default=True, help="Paths a pixel.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(min=1),
              help="Rooms at a time.")  # fmt: skip
def command(out: Path, blender: Path, furniture: Path, split: str | None, rooms: int | None, size: str, samples: int,
            workers: int) -> int:  # fmt: skip
    """Render furnished rooms with exact maps, from nothing. What is there already is not rendered again.

    \b
    python -m benchmarks.rooms --blender bpy/bin/python --out rooms
    python -m benchmarks.rooms --blender bpy/bin/python --out rooms --split train --rooms 1000
    """
    work = out / ".work"
    unpack(furniture, work / "catalogues")
    jobs = [(name, seed) for name, n in ROOMS.items() if split in (None, name) for seed in range(rooms or n)]

    def make(job: tuple[str, int]) -> None:
        _make(out, work, blender, *job, size=size, samples=samples)

    with ThreadPoolExecutor(workers) as pool, click.progressbar(pool.map(make, jobs), len(jobs), "rooms") as bar:
        for _ in bar:
            pass
    click.echo(f"{out}: {len(list(out.glob('*/*_rgb.png')))} rooms")
    return 0


def _make(out: Path, work: Path, blender: Path, split: str, seed: int, *, size: str, samples: int) -> None:
    stem = out / split / f"r{seed:04d}"
    # the last map that is written: a room cut off half-way is rendered again
    if stem.with_name(f"{stem.name}_normal.png").exists():
        return
    done = subprocess.run(
        [blender, Path(__file__).with_name("render.py"), "--seed", str(seed), "--split", split, "--size", size,
         "--samples", str(samples), "--catalogues", work / "catalogues", "--out", work / "passes"],
        check=False, capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        raise click.ClickException(f"room {split}/{seed}: Blender ended with {done.returncode}\n{done.stderr[-2000:]}")
    source = work / "passes" / f"{split}{seed:04d}.exr"
    camera = json.loads(source.with_suffix(".json").read_text(encoding="utf-8"))
    maps = encode(_passes(source), np.array(camera["camera_to_world"]))
    if maps is None:
        click.echo(f"room {split}/{seed} shows more sky than room and is left out", err=True)
        return
    stem.parent.mkdir(parents=True, exist_ok=True)
    write(maps, stem)


def _passes(path: Path) -> dict[str, Floats]:
    """Pass -> float32 [H, W, 3] (Depth: [H, W])."""
    import OpenEXR

    channels = {name: np.asarray(c.pixels, np.float32)
                for part in OpenEXR.File(str(path), separate_channels=True).parts
                for name, c in part.channels.items()}  # fmt: skip
    layer = {name: np.stack([channels[f"ViewLayer.{name}.{c}"] for c in axes], -1)
             for name, axes in (("Combined", "RGB"), ("DiffCol", "RGB"), ("Normal", "XYZ"))}  # fmt: skip
    beside = next(path.parent.glob(f"{path.stem}_irradiance_*.exr"))
    light = next(iter(OpenEXR.File(str(beside)).parts[0].channels.values()))
    return {**layer, "Depth": channels["ViewLayer.Depth.Z"],
            "irradiance": np.asarray(light.pixels, np.float32)[..., :3]}  # fmt: skip


if __name__ == "__main__":
    exit_with(command, None)
