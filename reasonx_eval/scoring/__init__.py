"""Sample, prediction and protocol to numbers: resize, align, mask, measure. One file per kind of ground truth."""

from reasonx_eval.scoring.sample import Scored, check_shape, score_sample, to_record

__all__ = ["Scored", "check_shape", "score_sample", "to_record"]
