"""Instruction sets: the choice at import, the tables, agreement between them; and that no kernel is without a test."""

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nncore
from nncore._core import dense, elementwise, reduction, runtime, tensor

from . import reference, shapes, tolerance

dtype_code, from_array = tensor.dtype_code, tensor.from_array

ORDER = ("baseline", "avx2", "avx512")


def imported(isa):
    """`import nncore` in a fresh interpreter with NNCORE_ISA set (None: not set): (ISA in use, why), or the error."""
    env = {k: v for k, v in os.environ.items() if k != "NNCORE_ISA"} | ({} if isa is None else {"NNCORE_ISA": isa})
    code = "from nncore._core import runtime as r; print(r.get_isa()); print(r.ISA_REASON)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
    return done.stdout.split("\n")[:2] if done.returncode == 0 else done.stderr


def test_the_highest_is_the_default():
    """Without NNCORE_ISA, or with an empty one, the highest instruction set that the machine has is used."""
    for unset in (None, "", " "):
        isa, reason = imported(unset)
        assert isa == runtime.isas()[-1]
        assert "highest" in reason


@pytest.mark.parametrize("name", runtime.isas())
def test_environment_lowers_it(name):
    """NNCORE_ISA chooses among what the machine has, in any case and with blanks around."""
    assert imported(name) == [name, f"NNCORE_ISA={name}"]
    assert imported(f" {name.upper()} ")[0] == name


def test_environment_with_an_impossible_value():
    """A name that does not exist, or that this machine lacks, is an ImportError that says what is possible."""
    impossible = ["sse9", "avx", *(name for name, ok in runtime.built_isas() if not ok)]
    for name in impossible:
        error = imported(name)
        assert isinstance(error, str)
        last = error.strip().splitlines()[-1]
        assert last.startswith("ImportError"), error
        assert f"NNCORE_ISA={name}" in last
        assert all(isa in last for isa in runtime.isas())


def test_names_and_order():
    """Built ones are ordered from the lowest; the lowest runs everywhere."""
    built = [name for name, _ in runtime.built_isas()]
    assert built == [name for name in ORDER if name in built]
    assert built[0] == "baseline"
    assert runtime.isas()[0] == "baseline"
    assert runtime.isas() == tuple(name for name, ok in runtime.built_isas() if ok)
    if Path("/proc/cpuinfo").exists() and "avx2" in built:
        flags = Path("/proc/cpuinfo").read_text().split()
        assert ("avx2" in runtime.isas()) == ({"avx2", "fma", "bmi2"} <= set(flags))
        assert ("avx512" in runtime.isas()) == ({"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx2"} <= set(flags))


def test_set_isa():
    """Switching works both ways; a wrong name is an error that changes nothing."""
    for name in (*runtime.isas(), *reversed(runtime.isas())):
        runtime.set_isa(name)
        assert runtime.get_isa() == name
    with pytest.raises(ValueError, match="expected one of baseline"):
        runtime.set_isa("mmx")
    assert runtime.get_isa() == runtime.isas()[0]


def test_tiles(isa):
    """The micro-tile is whole vectors of the instruction set's width."""
    width = {"baseline": 16, "avx2": 32, "avx512": 64}[isa]
    for dtype in ("float32", "float64"):
        NR, lanes = shapes.tile(np.dtype(dtype))
        assert lanes == width // np.dtype(dtype).itemsize
        assert NR % lanes == 0
        assert lanes <= NR


def test_show_config(capsys):
    """What it prints and returns is what is in use."""
    runtime.set_isa(runtime.isas()[0])
    runtime.set_num_threads(3)
    config = nncore.show_config()
    printed = capsys.readouterr().out
    assert config["isa"] == runtime.get_isa() == "baseline"
    assert config["threads"] == 3
    assert config["conv_algorithm"] == "auto"
    assert config["version"] == nncore.__version__
    assert set(config["built"]) == {name for name, _ in runtime.built_isas()}
    assert [name for name, state in config["built"].items() if state == "supported"] == list(runtime.isas())
    for word in ("baseline", "threads: 3", nncore.__version__, runtime.ISA_REASON, np.__version__):
        assert word in printed


def results(dtype, rng):
    """{name: (result, bound of its error)} of one kernel of each kind."""
    a, b = rng.standard_normal((40, 70)).astype(dtype), rng.standard_normal((70, 50)).astype(dtype)
    out = {}
    _, magnitude = reference.matmul(a, b)
    out["gemm"] = np.asarray(dense.matmul(from_array(a), from_array(b))), tolerance.gemm(70, magnitude, dtype)
    for name in runtime.OPS:
        x = [np.abs(b) + dtype.type(0.1)] * max(1, runtime.OP_ARITY[name])
        ref = reference.elementwise(name, x, 0.5, 0.7)
        y = elementwise.ewise(runtime.OPS[name], *[from_array(v) for v in x], *[None] * (3 - len(x)), 0.5, 0.7)
        out[name] = np.asarray(y), tolerance.elementwise(name, ref, x, 0.5, 0.7)
    for log in (False, True):
        ref = reference.softmax(b, log)
        bound = (tolerance.log_softmax if log else tolerance.softmax)(b, ref, 1)
        out[f"softmax {log}"] = np.asarray(reduction.softmax(from_array(b), log)), bound
    y, _ = reduction.reduce(reduction.SUM, from_array(b), 0, 1)
    out["sum"] = np.asarray(y), tolerance.sum_columns(70, np.abs(b).sum(0), dtype)
    y, _ = reduction.reduce(reduction.MAX, from_array(b), 0, 1)
    out["max"] = np.asarray(y), 0
    return out


def test_instruction_sets_agree(dtype, rng):
    """Any two differ by at most the sum of their errors."""
    state = rng.bit_generator.state
    found = {}
    for name in runtime.isas():
        runtime.set_isa(name)
        rng.bit_generator.state = state
        found[name] = results(dtype, rng)
    first = found[runtime.isas()[0]]
    for name in runtime.isas()[1:]:
        for key, (y, bound) in found[name].items():
            tolerance.close(y, reference.wide(first[key][0]), 2 * bound, f"{key}, {name} and {runtime.isas()[0]}")


@pytest.mark.skipif(len(runtime.isas()) < 2, reason="this machine has one instruction set only")
def test_switching_switches(rng):
    """Another instruction set really is in use after set_isa: with FMA, a long product has other bits than without."""
    a, b = rng.standard_normal((4, 500)).astype(np.float32), rng.standard_normal((500, 40)).astype(np.float32)
    bits = []
    for name in runtime.isas()[:2]:
        runtime.set_isa(name)
        bits.append(np.asarray(dense.matmul(from_array(a), from_array(b))).tobytes())
    assert bits[0] != bits[1]


# ---- the registry ----


def test_every_kernel_is_covered():
    """Each kernel is named by a test module of this package together with the test that holds it to its oracle."""
    covered = {}
    package = sys.modules[__package__]
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("test_"):
            try:
                claims = getattr(importlib.import_module(f".{module.name}", __package__), "COVERS", {})
            except pytest.skip.Exception:  # a module that skips itself, for want of an optional package
                continue
            for kernel, test in claims.items():
                assert test.__name__.startswith("test_")
                assert test.__module__.rsplit(".", 1)[-1] == module.name
                covered[kernel] = test
    assert set(covered) == set(runtime.KERNELS)


def test_registry():
    """Names are unique; ops have 0 to 3 operands; numbers are places in the table."""
    assert len(set(runtime.KERNELS)) == len(runtime.KERNELS)
    assert sorted(runtime.OPS.values()) == list(range(len(runtime.OPS)))
    assert set(runtime.OP_ARITY) == set(runtime.OPS)
    assert set(runtime.OP_ARITY.values()) <= {0, 1, 2, 3}


def test_sizes_are_the_source_s():
    """The block sizes around which the tests choose their shapes are those of csrc (in a checkout)."""
    csrc = Path(__file__).resolve().parents[1] / "csrc"
    if not (csrc / "tuning.h").exists():
        pytest.skip("no sources beside the tests")
    defined = {}
    for line in (csrc / "tuning.h").read_text().splitlines():
        words = line.split()
        if words[:1] == ["#define"] and len(words) > 2 and words[2].isdigit():
            defined[words[1]] = int(words[2])
    for name, value in {
        "NN_MR": shapes.MR,
        "NN_KC_BYTES": shapes.KC_BYTES,
        "NN_KB_BYTES": shapes.KB_BYTES,
        "NN_NC_BYTES": shapes.NC_BYTES,
        "NN_MC": shapes.MC,
        "NN_WIDE_M": shapes.WIDE_M,
        "NN_PACK_B_MIN_M": shapes.PACK_B_MIN_M,
        "NN_PACK_A_MIN_N": shapes.PACK_A_MIN_N,
        "NN_WINOGRAD_MIN_TILES": shapes.WINOGRAD_MIN_TILES,
        "NN_WINOGRAD_C": shapes.WINOGRAD_C,
        "NN_EWISE_CHUNK": shapes.CHUNK,
        "NN_STAGE_BUF": shapes.STAGE,
        "NN_DEEP_K": shapes.DEEP_K,
        "NN_DEEP_M": shapes.DEEP_M,
        "NN_DEEP_STEP": shapes.DEEP_STEP,
        "NN_STRIPE_M": shapes.STRIPE_M,
        "NN_STRIPE_STEP": shapes.STRIPE_STEP,
        "NN_STRIPE_PANELS": shapes.STRIPE_PANELS,
        "NN_CONV_PIXELS": shapes.CONV_PIXELS,
        "NN_CONV_DEAD": shapes.CONV_DEAD,
        "NN_CONV_LEAVE_C": shapes.CONV_LEAVE_C,
        "NN_CONV_BLOCK_POINTS": shapes.CONV_BLOCK_POINTS,
        "NN_CONV_C_CHUNK": shapes.CONV_C_CHUNK,
        "NN_CONV_WEIGHT_CHUNKS": shapes.CONV_WEIGHT_CHUNKS,
        "NN_RNN_ROWS": shapes.RNN_ROWS,
        "NN_POOL_CHUNK": shapes.POOL_CHUNK,
        "NN_GATHER_COLUMNS": shapes.GATHER_COLUMNS,
        "NN_RANDOM_CHUNK": shapes.RANDOM_CHUNK,
        "NN_NORM_MIN_ROWS": shapes.NORM_MIN_ROWS,
        "NN_NORM_MAX_ROWS": shapes.NORM_MAX_ROWS,
        "NN_NORM_COLUMNS": shapes.NORM_COLUMNS,
        "NN_LRN_CHUNK": shapes.LRN_CHUNK,
        "NN_SUM_BLOCK": shapes.SUM_BLOCK,
        "NN_SUM_PIECE": shapes.SUM_PIECE,
        "NN_SUM_ROWS": shapes.SUM_ROWS,
        "NN_SUM_ROW_PIECE": shapes.SUM_ROW_PIECE,
    }.items():
        assert defined[name] == value, f"{name} has changed: change tests/shapes.py"


# ---- probes: what the machine can do ----


def test_probe_fma(isa, dtype):
    """A plausible rate: more than 0.1 and less than 10000 GFLOP/s."""
    assert 1e8 < runtime.probe_fma(dtype_code(dtype), 0.002) < 1e13


@pytest.mark.parametrize("nbytes", [0, 4, 60, 4096, 1 << 20])
def test_probe_copy(isa, nbytes):
    """A plausible rate for any size, and nothing kept; of nothing there is none to measure."""
    in_use = runtime.memory_stats()["in_use"]
    rate = runtime.probe_copy(nbytes, 0.002)
    assert 1e6 < rate < 1e14 if nbytes else rate == 0
    assert runtime.memory_stats()["in_use"] == in_use


def test_time_kernels(isa):
    """Each kernel that ran, in order, with a time; the result is right; and nothing is timed afterwards."""
    a, b = (from_array(np.eye(40, dtype=np.float32) * s) for s in (2, 3))
    results = []

    def function():
        results.append(dense.matmul(a, b))
        results.append(elementwise.ewise(runtime.OPS["exp"], a))

    timed = runtime.time_kernels(function, 1e-5)
    assert [name for name, _ in timed] == ["gemm", "ewise"]
    assert all(0 < seconds < 1 for _, seconds in timed)
    np.testing.assert_array_equal(results[0].numpy(), np.eye(40) * 6)
    function()
    assert len(timed) == 2
    with pytest.raises(ZeroDivisionError):
        runtime.time_kernels(lambda: 1 / 0)
    function()
    assert runtime.time_kernels(lambda: None) == []


COVERS = {"probe_fma": test_probe_fma, "probe_copy": test_probe_copy}
