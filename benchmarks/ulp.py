"""The largest error of the functions of csrc/kernels/vmath.inc over all 2^32 float32 arguments, in ulp.

    python benchmarks/ulp.py                       every argument, highest instruction set (20 minutes)
    python benchmarks/ulp.py --stride 64 --isa all every 64th argument, every instruction set
    python benchmarks/ulp.py --functions exp log

The oracle is NumPy's float64 function (SciPy's normal distribution for gelu). Denormal arguments count as 0, denormal
results may be 0; a result beyond the range must be infinite.
Prints the largest error, where it is, and how many values were anything but exact roundings.
"""

import argparse
import time

import numpy as np
from scipy.special import ndtr

from nncore._core import elementwise, runtime, tensor

from_array = tensor.from_array
ewise = elementwise.ewise

TINY, TOP = np.float64(2.0**-126), np.float64(2.0**128)


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def limit(f):
    """f where it is a product of infinity and 0: its limit."""
    return lambda x: np.where(x == -np.inf, -0.0, f(x))


ORACLE = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "softplus": softplus,
    "log_sigmoid": lambda x: -softplus(-x),
    "gelu": limit(lambda x: x * ndtr(x)),
    "silu": limit(lambda x: x / (1 + np.exp(-x))),
    "mish": limit(lambda x: x * np.tanh(softplus(x))),
    "tanhshrink": lambda x: np.where(np.abs(x) < 1e-2, x**3 / 3 - 2 * x**5 / 15 + 17 * x**7 / 315, x - np.tanh(x)),
}
SCALARS = {"elu": (1, 1), "softplus": (1, np.inf)}  # s and t: alpha and 1, beta and threshold
BLOCK = 1 << 19  # arguments at a time: the float64 temporaries stay in cache


def errors(y, true):
    """Errors of float32 y against float64 `true`, in ulp of the true value; inf where a special value is wrong."""
    y = y.astype(np.float64)
    nan = np.isnan(true)
    wrong_nan = nan != np.isnan(y)
    size = np.abs(true)
    y = np.where(np.isinf(y), np.copysign(TOP, y), y)
    beyond = size >= TOP
    unit = (np.minimum(size, TOP / 2).view(np.int64) & 0x7FF0000000000000).view(np.float64) * 2.0**-23
    difference = np.abs(y - np.clip(true, -TOP, TOP))
    with np.errstate(divide="ignore", invalid="ignore"):
        error = difference / unit
    error = np.where(size < TINY, np.where(difference <= TINY, 0, np.inf), error)
    error = np.where(beyond, np.where(difference == 0, 0, np.inf), error)
    return np.where(wrong_nan, np.inf, np.where(nan, 0, error))


def sweep(name, stride):
    """(largest error, its argument, arguments tried, how many errors exceed half an ulp)."""
    op, oracle = runtime.OPS[name], ORACLE[name]
    worst, where, tried, unrounded = 0.0, 0.0, 0, 0
    y = np.empty(BLOCK, np.float32)
    for start in range(0, 1 << 32, BLOCK * stride):
        bits = np.arange(start, min(start + BLOCK * stride, 1 << 32), stride, dtype=np.uint64).astype(np.uint32)
        x = bits.view(np.float32)
        out = y[: x.size]
        ewise(op, from_array(x), None, None, *SCALARS.get(name, (0, 0)), from_array(out))
        with np.errstate(all="ignore"):
            wide = x.astype(np.float64)
            wide = np.where(np.abs(wide) < TINY, np.copysign(0.0, wide), wide)
            error = errors(out, oracle(wide))
        at = int(np.argmax(error))
        if error[at] > worst:
            worst, where = float(error[at]), x[at]
        tried += x.size
        unrounded += int((error > 0.5).sum())
    return worst, where, tried, unrounded


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--stride", type=int, default=1, help="try every stride-th bit pattern (default: all)")
    parser.add_argument("--isa", default=runtime.get_isa(), help="instruction set, or all (default: the highest)")
    parser.add_argument("--functions", nargs="+", default=list(ORACLE), choices=list(ORACLE))
    args = parser.parse_args()
    print("function    isa         arguments  max ulp                at        hex  above 0.5 ulp      s")
    for isa in runtime.isas() if args.isa == "all" else [args.isa]:
        runtime.set_isa(isa)
        for name in args.functions:
            start = time.perf_counter()
            worst, where, tried, unrounded = sweep(name, args.stride)
            bits = np.float32(where).view(np.uint32)
            print(
                f"{name:11} {isa:9} {tried:11} {worst:8.4f}  {where:16.9g} {bits:#010x} {unrounded / tried:14.4%} "
                f"{time.perf_counter() - start:6.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
