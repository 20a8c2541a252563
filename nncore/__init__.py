"""Neural networks on CPUs: torch.nn's names over compiled kernels.

>>> import nncore
>>> from nncore import nn, optim
>>> net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
>>> opt = optim.Adam(net.parameters(), lr=0.01)
>>> x, y = nncore.randn(16, 2), nncore.randn(16, 1)
>>> loss = nn.functional.mse_loss(net(x), y)
>>> loss.backward(); opt.step(); opt.zero_grad()
"""

import numpy  # first, and from Python: from within a compiled module its import takes 30 ms longer

from nncore import nn, optim
from nncore._config import (
    empty_cache,
    get_conv_algorithm,
    get_num_threads,
    memory_stats,
    reset_peak_memory,
    set_conv_algorithm,
    set_num_threads,
    show_config,
)
from nncore._core.record import RecordError
from nncore._grad import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from nncore._graph import draw_graph
from nncore._ops.activation import log_softmax, softmax
from nncore._ops.arithmetic import (
    abs,
    add,
    clamp,
    div,
    exp,
    log,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    relu,
    sigmoid,
    sqrt,
    square,
    sub,
    tanh,
    where,
)
from nncore._ops.linear import matmul
from nncore._ops.reduction import argmax, argmin, max, mean, min, std, sum, var
from nncore._ops.shape import cat, flatten, permute, reshape, split, squeeze, stack, transpose, unsqueeze
from nncore._plan import compile
from nncore._profile import profile
from nncore._random import Generator, get_rng_state, manual_seed, rand, randn, randperm, set_rng_state
from nncore._tensor import (
    Tensor,
    arange,
    empty,
    float32,
    float64,
    from_numpy,
    full,
    int64,
    ones,
    ones_like,
    tensor,
    zeros,
    zeros_like,
)

__version__ = "0.1.0"


def __getattr__(name):
    if name in ("train", "data"):  # on first use: they are not needed to compute
        import importlib

        return importlib.import_module(f"nncore.{name}")
    raise AttributeError(f"module 'nncore' has no attribute {name!r}")
