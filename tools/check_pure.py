"""Refuses I/O in the code that decides: `sync_worker/decide/` and the words it speaks in.

The hardest rules of the product are tested by properties there (any order, any duplicates, any
crash), which is worth nothing if a clock, a file or a connection can slip in. So what may be
imported is listed, instead of what may not, and the built-ins that reach outside are refused
under any name.

Usage: python tools/check_pure.py [DIRECTORY that holds sync_worker, default the current one]
"""  # noqa: INP001 - a script beside the packages

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PURE = ("sync_worker/decide", "sync_worker/domain.py")

ALLOWED_IMPORTS = (
    *("__future__", "collections", "dataclasses", "enum", "functools", "itertools", "math", "re"),
    *("typing", "msgspec", "sync_worker.domain", "sync_worker.decide"),
)
"""These and what lies within them."""

REFUSED_NAMES = {
    *("open", "print", "input", "breakpoint", "exec", "eval", "compile", "__import__"),
    *("globals", "__builtins__", "__loader__", "__spec__"),
}
"""Built-ins that reach outside, and the ways to get at them by another name."""

REFUSED_ATTRIBUTES = {"__builtins__", "__globals__", "__loader__", "__subclasses__"}


def faults_in(source: str) -> Iterator[tuple[int, str]]:
    """What is not pure in a module, each with its line."""
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        for name in _imported(node):
            if not _allowed(name):
                yield line, f"imports {name}"
        match node:
            case ast.Name(id=name) if name in REFUSED_NAMES:
                yield line, f"uses {name}"
            case ast.Attribute(attr=name) if name in REFUSED_ATTRIBUTES:
                yield line, f"uses {name}"
            case ast.Global(names=names):
                yield line, f"keeps state in a global: {', '.join(names)}"
            case _:
                pass


def _imported(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(level=level, module=module) if level:
            yield f"{'.' * level}{module or ''}"
        case ast.ImportFrom(module="sync_worker", names=names):
            yield from (f"sync_worker.{alias.name}" for alias in names)
        case ast.ImportFrom(module=str(module)):
            yield module
        case _:
            pass


def _allowed(name: str) -> bool:
    return any(name == allowed or name.startswith(f"{allowed}.") for allowed in ALLOWED_IMPORTS)


def check(root: Path) -> list[str]:
    """Every fault under a directory that holds `sync_worker`, as `file:line: what`."""
    found = []
    for place in PURE:
        path = root / place
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        if not files or not files[0].is_file():
            found.append(f"{place}: is not there: correct PURE in tools/check_pure.py")
            continue
        for file in files:
            found += [
                f"{file.relative_to(root)}:{line}: {what}, but code that decides does no I/O"
                for line, what in faults_in(file.read_text(encoding="utf-8"))
            ]
    return found


def main() -> int:
    """Print the faults; 1 if there are any."""
    faults = check(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    for fault in faults:
        sys.stdout.write(f"{fault}\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
