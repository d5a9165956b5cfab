"""The figures in a file, a benchmark each: those that are run apart add up to one report."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.harness.figures import Result

FORMAT = 1


class File(msgspec.Struct):
    """What the file holds."""

    format: int = FORMAT
    benchmarks: dict[str, Result] = {}


def load(path: Path) -> File:
    """Read it; an empty one if there is none."""
    if not path.exists():
        return File()
    return msgspec.json.decode(path.read_bytes(), type=File)


def keep(path: Path, result: Result) -> None:
    """Put a result in the place of an older one of the same benchmark."""
    file = load(path)
    file.benchmarks[result.name] = result
    path.write_bytes(msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n")
