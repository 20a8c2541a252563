"""Threads, memory, and what the build and the machine are."""

import os
import platform

import numpy as np

from nncore._core import conv, runtime
from nncore._core.runtime import empty_cache, get_num_threads, memory_stats, reset_peak_memory
from nncore._ops._check import integer, one_of


def set_num_threads(n):
    """How many threads kernels may use (results do not depend on it).

    Args:
        n: at least 1. The default follows OMP_NUM_THREADS, the CPU affinity and the control group's quota.

    >>> import nncore
    >>> n = nncore.get_num_threads()
    >>> nncore.set_num_threads(1); nncore.get_num_threads()
    1
    >>> nncore.set_num_threads(n)
    """
    runtime.set_num_threads(min(integer(n, "n", 1), 256))


def _threads_reason():
    """What the default number of threads follows from."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked, quota = os.environ.get("OMP_NUM_THREADS"), runtime.cgroup_cpus()
    reasons = [f"OMP_NUM_THREADS={asked}"] if asked else []
    reasons += [f"{cpus} CPUs allowed"] + ([f"quota of {quota} CPUs"] if quota else [])
    return "; ".join([*reasons, "set_num_threads changes it"])


def set_conv_algorithm(name):
    """How 3x3 convolutions with stride 1 and dilation 1 are computed from the next call on, forward and backward.

    Winograd's minimal filtering F(m x m, 3x3) (Lavin and Gray, arXiv:1509.09308) needs 9 m^2 / (m + 2)^2 times fewer
    multiplications than the direct sum. Its results are rounded differently, and a NaN or infinity in the input reaches
    the whole m x m tile of outputs. Other layers (another kernel, stride or dilation, 1d, 3d) are always direct.

    Args:
        name: 'auto' (the default): F(2x2) from 16 channels in and out per group, unless the image is so small that too
            much of its tiles lies outside; else direct. The choice follows from layer and image size alone.
            'direct': the plain sum, in one order.
            'winograd2': F(2x2), 2.25 times fewer multiplications; its errors are at most about those of 'direct'.
            'winograd4': F(4x4), 4 times fewer; its errors are about 2 to 3 times those of 'direct' (docs/numerics.md).

    Raises:
        ValueError: another name.

    >>> import nncore
    >>> nncore.set_conv_algorithm("winograd4"); nncore.get_conv_algorithm()
    'winograd4'
    >>> nncore.set_conv_algorithm("auto")
    """
    conv.set_algorithm(one_of(name, "name", tuple(conv.ALGORITHMS)))


def get_conv_algorithm():
    """What set_conv_algorithm was given last, or 'auto'.

    >>> import nncore
    >>> nncore.get_conv_algorithm()
    'auto'
    """
    return conv.get_algorithm()


def show_config():
    """Prints what was built, what was chosen and why; returns the same as a dict.

    >>> sorted(show_config())  # doctest: +ELLIPSIS
    nncore ...
    ['built', 'conv_algorithm', 'isa', 'isa_reason', ..., 'threads', 'threads_reason', 'version']
    """
    from nncore import __version__

    config = {
        "version": __version__,
        "isa": runtime.get_isa(),
        "isa_reason": runtime.ISA_REASON,
        "built": {name: "supported" if ok else "not supported here" for name, ok in runtime.built_isas()},
        "threads": get_num_threads(),
        "threads_reason": _threads_reason(),
        "conv_algorithm": get_conv_algorithm(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    print(f"nncore {config['version']} on {config['machine']}, Python {config['python']}, NumPy {config['numpy']}")
    print(f"  instruction set: {config['isa']} ({config['isa_reason']}; NNCORE_ISA lowers it)")
    print("  built for: " + ", ".join(f"{k} ({v})" for k, v in config["built"].items()))
    print(f"  threads: {config['threads']} ({config['threads_reason']})")
    print(f"  3x3 convolutions: {config['conv_algorithm']} (set_conv_algorithm changes it)")
    return config


__all__ = [
    "empty_cache",
    "get_conv_algorithm",
    "get_num_threads",
    "memory_stats",
    "reset_peak_memory",
    "set_conv_algorithm",
    "set_num_threads",
    "show_config",
]
