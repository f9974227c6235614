"""Runs compared sample by sample: read and verified, joined on ids, tested in pairs."""

from reasonx_eval.paired.columns import Column, column, columns
from reasonx_eval.paired.join import Joined, differences, join
from reasonx_eval.paired.ranks import Rank, rank_ranges, tie_group
from reasonx_eval.paired.runs import Run, find_runs, load_run
from reasonx_eval.paired.significance import exchange_test, holm, pair_p_values
from reasonx_eval.paired.statistics import Change, Paired, Settings, adjust, interval, paired, widened

__all__ = [
    "Change",
    "Column",
    "Joined",
    "Paired",
    "Rank",
    "Run",
    "Settings",
    "adjust",
    "column",
    "columns",
    "differences",
    "exchange_test",
    "find_runs",
    "holm",
    "interval",
    "join",
    "load_run",
    "pair_p_values",
    "paired",
    "rank_ranges",
    "tie_group",
    "widened",
]
