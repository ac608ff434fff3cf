"""pegasus-zh NAME …, the same as python -m scripts.NAME …: one of the commands, or a list of them."""

import ast
import runpy
import sys
from pathlib import Path

from . import prog


def questions() -> dict[str, str]:
    """What each command does, from the first line of its file; importing it would take seconds."""
    files = sorted(Path(__file__).parent.glob("[!_]*.py"))
    docs = {file.stem: ast.get_docstring(ast.parse(file.read_bytes())) or "" for file in files}
    return {name: doc.partition("python -m")[0].rstrip(": ") for name, doc in docs.items()}


def main() -> None:
    """Runs a command as Python's -m does, so that its worker processes find it too."""
    name, *arguments = sys.argv[1:] or [""]
    known = questions()
    if name not in known:
        lines = "\n".join(f"  {name:20} {question}" for name, question in known.items())
        print(f"usage: {prog('NAME')} [flags]\n\n{lines}\n\n{prog('NAME')} --help: its flags")
        sys.exit(0 if name in ("--help", "-h") else f"\nerror: {f'no command {name!r}' if name else 'no NAME given'}")
    sys.argv = [sys.argv[0], *arguments]
    runpy.run_module(f"{__package__}.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
