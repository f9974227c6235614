"""A board's files: written, or held against those that are there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reasonx_eval.errors import NotComparable, UsageError
from reasonx_eval.io.files import encode_json, write_bytes
from reasonx_eval.leaderboard.board import Board, make_board
from reasonx_eval.leaderboard.document import board_csv, board_document, board_json
from reasonx_eval.leaderboard.markdown import board_markdown

PAGE: Final = "index.html"

#: in the first bytes of each generated file: a file without it is somebody else's
_MARKS: Final = {PAGE: b"reasonx-eval leaderboard", "README.md": b"# Leaderboard\n\nOne table for each protocol",
                 "leaderboard.csv": b"section,signature,", "leaderboard.json": b'"what": "leaderboard"'}  # fmt: skip


@dataclass(frozen=True)
class Generated:
    board: Board
    files: Mapping[Path, bytes]


def generate(results: Path, out: Path) -> Generated:
    """All files of the board of a folder of reviewed results: the same bytes whenever the results are the same.

    Parameters
    ----------
    results : folder of reviewed results
    out : folder the files are meant for; links lead from there to `results`

    Raises
    ------
    UsageError
        No such folder.
    DataError, NotComparable
        A damaged file, or results under one signature that are not comparable.
    """
    from reasonx_eval.leaderboard.page import render_page

    board = make_board(results)
    document = board_document(board)
    # "./" also keeps a folder's name from being read as the scheme of an address
    link = "./" + Path(os.path.relpath(results, out)).as_posix()
    texts = {PAGE: render_page(board, link), "README.md": board_markdown(board),
             "leaderboard.csv": board_csv(board, document), "leaderboard.json": board_json(document)}  # fmt: skip
    return Generated(board, {out / name: encode_json(text) for name, text in texts.items()})


def write(generated: Generated, *, force: bool = False) -> None:
    """Write the files.

    Raises
    ------
    UsageError
        One would replace a file that is no leaderboard, and `force` is not given.
    """
    foreign = [p for p in generated.files if p.exists() and _MARKS[p.name] not in p.read_bytes()[:1500]]
    if foreign and not force:
        raise UsageError("not a leaderboard's file, and would be replaced", where=str(foreign[0]),
                         fix="another --out, or --force")  # fmt: skip
    for path, data in generated.files.items():
        write_bytes(path, data)


def check(generated: Generated) -> None:
    """Hold the files that are there against the generated ones.

    Raises
    ------
    NotComparable
        One is missing or differs: the results changed and the page was not generated again, or it was edited.
    """
    stale = [p for p, data in generated.files.items() if not p.is_file() or p.read_bytes() != data]
    if stale:
        what = "; ".join(f"{p.name} is {'stale' if p.is_file() else 'missing'}" for p in stale)
        raise NotComparable(f"{what}: not what the reviewed results give", where=str(stale[0].parent),
                            fix="the same command without --check, and commit what it writes")  # fmt: skip
