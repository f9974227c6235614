"""Random streams keyed by (seed, sample id), so that order, batches, shards and resume change nothing."""

from __future__ import annotations

import hashlib

import numpy as np


def stream_seed(seed: int, *keys: str) -> int:
    """A 128-bit integer from a seed and string keys, the same on every machine and Python."""
    text = "\x1f".join([str(int(seed)), *keys])
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest(), "little")


def rng(seed: int, *keys: str) -> np.random.Generator:
    """A numpy generator (PCG64, whose streams are stable across numpy versions) for (seed, keys)."""
    return np.random.Generator(np.random.PCG64(stream_seed(seed, *keys)))
