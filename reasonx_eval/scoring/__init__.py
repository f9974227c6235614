"""Sample, prediction and protocol to numbers: resize, align, mask, measure. One file per kind of ground truth."""

from reasonx_eval.scoring.sample import score_sample, to_record
from reasonx_eval.scoring.scored import Scored, check_shape

__all__ = ["Scored", "check_shape", "score_sample", "to_record"]
