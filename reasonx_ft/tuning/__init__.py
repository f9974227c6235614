"""Tuning of predictors by a judge's answers: configuration, data, objective, checkpoints, checks and export."""
