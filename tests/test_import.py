"""Importing is cheap and clean, and everything public is documented."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nncore
from nncore import nn, optim
from nncore.nn import functional as F
from nncore.nn import init

HEAVY = ("tqdm", "safetensors", "scipy", "torch", "sklearn", "matplotlib", "pandas", "threadpoolctl", "onnx")


def python(code, *flags, **env):
    """Runs code in a fresh interpreter that finds this nncore; gives what it printed."""
    root = str(Path(nncore.__file__).parent.parent)
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, *flags, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **env},
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_import_brings_numpy_only():
    """What is not needed to compute is imported when it is used."""
    found = python(f"import sys, nncore; print([m for m in {HEAVY!r} if m in sys.modules])")
    assert found.strip() == "[]"
    assert python("import sys, numpy, nncore; print('numpy' in sys.modules)").strip() == "True"  # the check can fail


def test_import_is_quick():
    """Beyond NumPy's; the limit leaves room for a slow machine (about 20 ms where it was written)."""
    code = "import time, numpy; t = time.perf_counter(); import nncore; print(time.perf_counter() - t)"
    assert min(float(python(code)) for _ in range(3)) < 0.5


def test_import_warns_of_nothing():
    assert python("import nncore; print('ok')", "-W", "error").strip() == "ok"


def test_import_without_docstrings():
    """python -OO strips docstrings and assertions."""
    code = "import nncore; print(nncore.nn.Linear(2, 3)(nncore.ones(1, 2)).shape)"
    assert python(code, "-OO").strip() == "(1, 3)"


def test_import_starts_no_threads_and_leaves_numpy_alone():
    code = (
        "import numpy as np, threading; a = np.geterr(); import nncore; "
        "print(threading.active_count(), a == np.geterr(), np.get_printoptions()['precision'])"
    )
    assert python(code).split() == ["1", "True", "8"]


def test_wrong_instruction_set_is_an_import_error():
    root = str(Path(nncore.__file__).parent.parent)
    env = {**os.environ, "NNCORE_ISA": "z80", "PYTHONPATH": root}
    run = subprocess.run([sys.executable, "-c", "import nncore"], capture_output=True, text=True, env=env, timeout=60)
    assert run.returncode != 0
    assert "ImportError: NNCORE_ISA=z80" in run.stderr


def test_version():
    assert [part.isdigit() for part in nncore.__version__.split(".")[:2]] == [True, True]


def public(namespace, names=None):
    for name in names if names is not None else dir(namespace):
        value = getattr(namespace, name)
        if not name.startswith("_") and callable(value):
            yield name, value


def own(value):
    return getattr(value, "__module__", "").startswith("nncore")


EVERYTHING = [
    *((f"nncore.{n}", v) for n, v in public(nncore)),
    *((f"nn.{n}", v) for n, v in public(nn, nn.__all__)),
    *((f"F.{n}", v) for n, v in public(F, F.__all__)),
    *((f"init.{n}", v) for n, v in public(init) if own(v) and inspect.getmodule(v) is init),
    *((f"optim.{n}", v) for n, v in public(optim, optim.__all__)),
]


def test_everything_public_is_listed():
    names = {n for n, _ in EVERYTHING}
    assert {"nncore.tensor", "nncore.no_grad", "nn.Linear", "F.relu", "init.eye_", "optim.Adam", "nncore.exp"} <= names
    assert len(names) > 90


def documented_elsewhere(name):
    """Operations are described once: as Tensor's method, or in the table of nn.functional."""
    short = name.split(".")[1]
    method = getattr(nncore.Tensor, short, None)
    return (method is not None and method.__doc__) or f"{short}(" in (F.__doc__ or "")


@pytest.mark.parametrize("name, value", EVERYTHING, ids=[n for n, _ in EVERYTHING])
def test_docstrings(name, value):
    doc = inspect.getdoc(value) if not isinstance(value, type) else value.__doc__
    if not doc:
        assert not isinstance(value, type), name
        assert documented_elsewhere(name), f"{name} is described nowhere"
        return
    assert doc.strip()
    assert len(doc.strip().splitlines()[0]) < 130
    if isinstance(value, type) and own(value):
        for attribute, member in vars(value).items():
            if inspect.isfunction(member) and not attribute.startswith("_"):
                assert inspect.getdoc(getattr(value, attribute)), f"{name}.{attribute}"  # its own or its base's


def test_modules_have_docstrings():
    for module in (nncore, nn, F, init, optim):
        assert module.__doc__


def test_all_names_exist():
    for module in (nn, F, optim):
        assert len(set(module.__all__)) == len(module.__all__)
        for name in module.__all__:
            assert hasattr(module, name)


def test_names_that_were_promised():
    for name in [
        "tensor",
        "from_numpy",
        "Tensor",
        "no_grad",
        "manual_seed",
        "set_num_threads",
        "get_num_threads",
        "show_config",
        "zeros",
        "ones",
        "float32",
        "float64",
        "int64",
    ]:
        assert hasattr(nncore, name), name
    for name in ["numpy", "shape", "dtype", "grad", "requires_grad", "backward", "detach", "item"]:
        assert hasattr(nncore.Tensor, name), name
    assert nncore.float32 == np.float32
