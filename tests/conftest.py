"""Fixtures of all tests: every instruction set of this machine, both dtypes, and a runtime left as it was found."""

import os
import zlib

import numpy as np
import pytest

import nncore
from nncore._core import runtime

# Set by a run that is to cover one instruction set only (a sanitizer build, an emulator).
ISAS = (os.environ["NNCORE_TEST_ISA"],) if os.environ.get("NNCORE_TEST_ISA") else runtime.isas()


@pytest.fixture(autouse=True)
def _restore_runtime():
    """Every test starts from, and leaves, the default ISA, threads, threshold and random state."""
    isa, threads, state = runtime.get_isa(), runtime.get_num_threads(), nncore.get_rng_state()
    yield
    runtime.set_isa(isa)
    runtime.set_num_threads(threads)
    runtime.set_parallel_threshold(-1)
    nncore.set_conv_algorithm("auto")
    nncore.set_rng_state(state)


@pytest.fixture(params=ISAS)
def isa(request):
    """Each instruction set that this build has and this machine supports."""
    runtime.set_isa(request.param)
    return request.param


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """float32 and float64."""
    return np.dtype(request.param)


@pytest.fixture
def rng(request):
    """NumPy's generator, seeded by the test's name: the same numbers in every run and in any order of tests."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))
