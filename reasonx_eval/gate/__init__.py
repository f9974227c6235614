"""A regression gate: paired non-inferiority against a stored baseline."""
