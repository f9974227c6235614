"""Predictors as Gaussian policies: what GRPO samples from, replays, and makes better."""
