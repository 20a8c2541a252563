"""`make examples`: runs the examples and writes what they print into their docstrings, and the index into README.md.

python -m examples [names]: only these.
"""

import ast
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def scripts():
    """Every example, by name."""
    return sorted(p for p in HERE.glob("*.py") if not p.name.startswith("_"))


def marker(path):
    """The line behind which an example's docstring holds what it prints, up to the docstring's end."""
    return f"Expected (python examples/{path.name}):"


def rewrite(path, printed):
    """Puts the printed lines into the docstring."""
    head, _, tail = path.read_text().partition(marker(path) + "\n")
    block = "".join(f"    {line}".rstrip() + "\n" for line in printed.splitlines())
    text = head + marker(path) + "\n" + block + tail[tail.index('"""') :]
    doc = ast.get_docstring(ast.parse(text), clean=False)
    if not doc.endswith(marker(path) + "\n" + block):
        raise SystemExit(f"{path.name}: what it printed cannot stand in a docstring")
    path.write_text(text)


def index():
    """The table of README.md: each example with the first line of its docstring."""
    rows = ["| example | what it shows |", "|---|---|"]
    for path in scripts():
        title = ast.get_docstring(ast.parse(path.read_text())).splitlines()[0].rstrip(".")
        figure = HERE / "figures" / f"{path.stem}.png"
        link = f" ([figure](figures/{figure.name}))" if figure.exists() else ""
        rows.append(f"| [`{path.stem}`]({path.name}) | {title}{link} |")
    readme = HERE / "README.md"
    head, _, _ = readme.read_text().partition(rows[0])
    readme.write_text(head + "\n".join(rows) + "\n")


def main(names):
    known = {p.stem: p for p in scripts()}
    if unknown := set(names) - known.keys():
        raise SystemExit(f"no such example: {', '.join(sorted(unknown))}")
    for name in names or known:
        start = time.perf_counter()
        run = subprocess.run([sys.executable, str(known[name])], stdout=subprocess.PIPE, text=True, check=True)
        rewrite(known[name], run.stdout)
        print(f"{name}: {time.perf_counter() - start:.1f} s", flush=True)
    index()


if __name__ == "__main__":
    main(sys.argv[1:])
