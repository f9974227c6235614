"""Sample, prediction and protocol to numbers: resize, align, mask, measure. One file per kind of ground truth."""

from reasonx_eval.scoring.sample import Scored, array_digest, check_shape, score_sample, to_record

__all__ = ["Scored", "array_digest", "check_shape", "score_sample", "to_record"]
