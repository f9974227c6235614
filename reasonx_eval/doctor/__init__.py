"""Checks of a data set: files, splits, digests, and the meaning of the values."""

from reasonx_eval.doctor.diagnose import diagnose
from reasonx_eval.doctor.findings import Finding, Report

__all__ = ["Finding", "Report", "diagnose"]
