"""Every example runs, prints the lines of its docstring (a quick run: with other figures), and is compiled."""

import ast
import importlib.util
import math
import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = sorted(p for p in EXAMPLES.glob("*.py") if not p.name.startswith("_"))
NEEDS = {"cartpole": "gymnasium"}  # name: a module that it cannot do without
NOT_COMPILED = {  # name: why its training is not recorded
    "gru_sequences": "batches differ in shape",
    "perceptron": "its rule decides sample by sample",
}

if not SCRIPTS:
    pytest.skip("the examples are not installed", allow_module_level=True)


def form(lines):
    """Lines without their figures and spacing; what stands behind a bar is free text."""
    lines = [re.sub(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", "#", line) for line in lines]
    return [" ".join(line.partition("|")[0].split()) for line in lines]


def numbers(value):
    """All numbers in a structure."""
    if isinstance(value, dict):
        value = list(value.values())
    return [n for v in value for n in numbers(v)] if isinstance(value, list | tuple) else [float(value)]


@pytest.mark.parametrize("path", SCRIPTS, ids=[p.stem for p in SCRIPTS])
def test_example(path, tmp_path, monkeypatch, capsys):
    if path.stem in NEEDS:
        pytest.importorskip(NEEDS[path.stem])
    doc = ast.get_docstring(ast.parse(path.read_text()), clean=False)
    head, found, expected = doc.partition(f"Expected (python examples/{path.name}):\n")
    assert found, "no block of expected lines"
    assert f"    python examples/{path.name}" in head.splitlines(), "no command"
    monkeypatch.syspath_prepend(str(EXAMPLES))
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = module.main(["--quick", "--figures", str(tmp_path)])
    assert result
    assert all(map(math.isfinite, numbers(result)))
    printed = capsys.readouterr().out.splitlines()
    assert form(printed) == form(expected.splitlines())
    assert (path.stem in NOT_COMPILED) != ("nncore.compile" in path.read_text())


def test_form_sees_differences():
    assert form(["loss 0.5  |x"]) == form(["loss   12e-3 |y"]) != form(["loss: 0.5"])


def test_index_lists_every_example():
    readme = (EXAMPLES / "README.md").read_text()
    assert re.findall(r"^\| \[`(\w+)`\]", readme, re.M) == [p.stem for p in SCRIPTS]


def test_not_compiled_is_current():
    assert {*NOT_COMPILED, *NEEDS} <= {p.stem for p in SCRIPTS}


def test_figures_are_small():
    for path in (EXAMPLES / "figures").glob("*.png"):
        assert path.stem in {p.stem for p in SCRIPTS}
        assert path.stat().st_size < 60_000, path.name
