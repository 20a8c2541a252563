"""Threads, memory, and what the build and the machine are."""

import os
import platform

import numpy as np

from nncore._core import runtime
from nncore._core.runtime import empty_cache, get_num_threads, memory_stats, reset_peak_memory
from nncore._ops._check import integer


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
    asked = os.environ.get("OMP_NUM_THREADS")
    return (f"OMP_NUM_THREADS={asked}; " if asked else "") + f"{cpus} CPUs allowed; set_num_threads changes it"


def show_config():
    """Prints what was built, what was chosen and why; returns the same as a dict.

    >>> sorted(show_config())  # doctest: +ELLIPSIS
    nncore ...
    ['built', 'isa', 'isa_reason', 'machine', 'numpy', 'python', 'threads', 'threads_reason', 'version']
    """
    from nncore import __version__

    config = {
        "version": __version__,
        "isa": runtime.get_isa(),
        "isa_reason": runtime.ISA_REASON,
        "built": {name: "supported" if ok else "not supported here" for name, ok in runtime.built_isas()},
        "threads": get_num_threads(),
        "threads_reason": _threads_reason(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    print(f"nncore {config['version']} on {config['machine']}, Python {config['python']}, NumPy {config['numpy']}")
    print(f"  instruction set: {config['isa']} ({config['isa_reason']}; NNCORE_ISA lowers it)")
    print("  built for: " + ", ".join(f"{k} ({v})" for k, v in config["built"].items()))
    print(f"  threads: {config['threads']} ({config['threads_reason']})")
    return config


__all__ = ["empty_cache", "get_num_threads", "memory_stats", "reset_peak_memory", "set_num_threads", "show_config"]
