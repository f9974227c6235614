"""Keeps a protocol's name@version from ever meaning two things: ``python -m reasonx_eval.protocols.lock``.

``protocols/digests.json`` records the digest of the rules of every version that ever was. A change of
rules takes a new version; this command then adds its digest. It never replaces one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from reasonx_eval.errors import EXIT_USAGE, UsageError
from reasonx_eval.io.files import write_text
from reasonx_eval.protocols.protocol import all_protocols

LOCK = Path(__file__).parent / "data" / "digests.json"


def current() -> dict[str, str]:
    """``name@version`` -> digest, of the protocols in the package."""
    return {ref: protocol.digest for ref, protocol in sorted(all_protocols().items())}


def locked(path: Path = LOCK) -> dict[str, str]:
    """``name@version`` -> digest, as recorded; empty if there is no record."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def problems(now: Mapping[str, str], then: Mapping[str, str]) -> list[str]:
    """What is wrong between the protocols and the record: rules changed under a version, or a version not recorded."""
    found = []
    for ref, digest in now.items():
        if ref not in then:
            found.append(f"{ref} is not in digests.json: run python -m reasonx_eval.protocols.lock")
        elif then[ref] != digest:
            found.append(f"the rules of {ref} changed: raise its version by one, say in its notes what changed, then "
                         "run python -m reasonx_eval.protocols.lock (if no result was ever made with it, delete its "
                         "line from digests.json instead)")  # fmt: skip
    return found


def update(path: Path = LOCK) -> list[str]:
    """Record the digests of new versions; returns them.

    Raises
    ------
    UsageError
        Rules changed under a recorded version; nothing is written.
    """
    now, then = current(), locked(path)
    changed = problems({ref: digest for ref, digest in now.items() if ref in then}, then)
    if changed:
        raise UsageError("\n".join(changed), where=path.name)
    added = [ref for ref in now if ref not in then]
    write_text(path, json.dumps(dict(sorted((then | now).items())), indent=1) + "\n")
    return added


def main() -> int:
    try:
        added = update()
    except UsageError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_USAGE
    sys.stdout.write("".join(f"added {ref}\n" for ref in added) or "nothing new\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
