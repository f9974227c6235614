"""Where real samples are, which the project doesn't hold: tests of them are skipped where it isn't a folder."""

import os
from pathlib import Path

SHARED = Path(os.environ.get("REASONX_SHARED", Path(__file__).parents[3] / "shared")) / "data"
