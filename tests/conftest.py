"""What holds for every test."""

from __future__ import annotations

import os

# Read once, when numpy and torch are first imported, by this process and by those that tests start: threads of small
# networks wait for each other longer than they work, all the more where another worker of pytest has the core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
