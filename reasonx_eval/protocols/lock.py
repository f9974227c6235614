"""Keeps names from ever meaning two things: ``python -m reasonx_eval.protocols.lock``.

``data/digests.json`` records the digest of the rules of every version of a protocol that ever was, and of every list
of sample ids in ``data/splits``. A change of rules takes a new version, a change of a list a new name; this command
then adds its digest. It never replaces one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from reasonx_eval.errors import EXIT_USAGE, UsageError
from reasonx_eval.io.digests import sha256_lines
from reasonx_eval.io.documents import read_json
from reasonx_eval.io.files import write_text
from reasonx_eval.protocols.protocol import all_protocols

LOCK = Path(__file__).parent / "data" / "digests.json"
SPLITS = LOCK.parent / "splits"


def current() -> dict[str, str]:
    """``name@version`` of each protocol and ``splits/name`` of each list in the package -> digest."""
    lists = {f"splits/{p.stem}": sha256_lines(p.read_text(encoding="ascii").splitlines()) for p in SPLITS.glob("*.txt")}
    return dict(sorted({**{ref: p.digest for ref, p in all_protocols().items()}, **lists}.items()))


def locked(path: Path = LOCK) -> dict[str, str]:
    """The same, as recorded; empty if there is no record."""
    return dict(read_json(path)) if path.exists() else {}


def problems(now: Mapping[str, str], then: Mapping[str, str]) -> list[str]:
    """Differences between the package and the record: a changed digest under a name, or a name not recorded."""
    found = []
    for name, digest in now.items():
        if name not in then:
            found.append(f"{name} is not in digests.json: run python -m reasonx_eval.protocols.lock")
        elif then[name] != digest and name.startswith("splits/"):
            found.append(f"the ids of {name} changed: restore the list, or give the new one another name")
        elif then[name] != digest:
            found.append(f"the rules of {name} changed: raise its version by one, state the change in its notes, then "
                         "run python -m reasonx_eval.protocols.lock (if no result was ever made with it, delete its "
                         "line from digests.json instead)")  # fmt: skip
    return found


def update(path: Path = LOCK) -> list[str]:
    """Record new digests; returns their names.

    Raises
    ------
    UsageError
        A recorded protocol or list changed; nothing is written.
    """
    now, then = current(), locked(path)
    changed = problems({name: digest for name, digest in now.items() if name in then}, then)
    if changed:
        raise UsageError("\n".join(changed), where=path.name)
    added = [name for name in now if name not in then]
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
