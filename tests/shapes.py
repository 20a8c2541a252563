"""Sizes at which kernels change their path, memory layouts, and memory with guard bands."""

import functools
from typing import NamedTuple

import numpy as np

from nncore._core import runtime, tensor

dtype_code, from_array, new_empty = tensor.dtype_code, tensor.from_array, tensor.new_empty

# Of csrc/tuning.h (test_isa.py holds them to it):
MR = 6  # rows of the GEMM micro-tile
KC_BYTES, KB_BYTES, NC_BYTES = 2048, 16384, 8192  # GEMM's blocks
PACK_B_MIN_M, PACK_A_MIN_N, PACK_A_MIN_K, MC, WIDE_M = 48, 192, 64, 96, 384
CONV_PIXELS, CONV_BLOCK_POINTS, CONV_C_CHUNK, CONV_WEIGHT_CHUNKS = 216, 512, 48, 16
CONV_DEAD = 100
CONV_LEAVE_C = 5
DEEP_K, DEEP_M, DEEP_STEP = 512, 768, 128
STRIPE_M, STRIPE_STEP, STRIPE_PANELS = 96, 32, 16
POOL_CHUNK, GATHER_COLUMNS, RANDOM_CHUNK = 8192, 1024, 256
SUM_BLOCK, SUM_PIECE, SUM_ROWS, SUM_ROW_PIECE, SUM_COLUMNS = 512, 65536, 64, 4096, 64
WINOGRAD_MIN_TILES, WINOGRAD_C = 48, 128
NORM_MIN_ROWS, NORM_MAX_ROWS, NORM_COLUMNS, LRN_CHUNK = 64, 1024, 4096, 8192
CHUNK, STAGE = 16384, 256  # elementwise: elements per parallel chunk, per staging buffer
RNN_ROWS = 48


def tile(dtype):
    """(NR, lanes) of the instruction set in use."""
    return runtime.gemm_tile(dtype_code(dtype))


def around(*sizes):
    """Each size with its two neighbours; not below 0."""
    return sorted({max(0, n + d) for n in sizes for d in (-1, 0, 1)})


def lengths(dtype):
    """Lengths of rows: empty, one, around one and two vectors, and longer than a few."""
    _, lanes = tile(dtype)
    return sorted({0, 1, 3, *around(lanes, 2 * lanes, 4 * lanes), 5 * lanes + 3})


def gemm_grid(dtype):
    """M x N x K around the micro-tile."""
    NR, lanes = tile(dtype)
    rows = (0, 1, MR - 1, MR, MR + 1, 2 * MR + 1)
    columns = sorted({0, *around(lanes), NR - 1, NR, NR + 1, 2 * NR + 1})
    return [(m, n, k) for m in rows for n in columns for k in (0, 1, 2, lanes + 1, 2 * lanes + 3)]


def gemm_blocks(dtype):
    """M x N x K around the blocks that the driver cuts and the sizes at which it begins to pack."""
    NR, _ = tile(dtype)
    KC, KB, NC = (b // dtype.itemsize for b in (KC_BYTES, KB_BYTES, NC_BYTES))
    out = [(m, NR + 3, 70) for m in around(PACK_B_MIN_M, MC)]
    out += [(MR + 2, n, 66) for n in around(PACK_A_MIN_N)]
    out += [(MR + 2, NR + 2, k) for k in around(PACK_A_MIN_K, KC, KB)]
    out += [(1, NR + 2, k) for k in around(KC, KB)]
    out += [(m, NR + 1, 33) for m in around(WIDE_M)]
    out += [(WIDE_M + MR + 1, n, 66) for n in around(PACK_A_MIN_N)]
    out += [(WIDE_M + MC + 1, NR + 1, k) for k in (PACK_A_MIN_K + 1, KC + 1, KB + 1)]
    out += [(m, n, 9) for m in (50, WIDE_M + 2) for n in around(NC)]
    out += [(MC + MR + 1, NC + NR + 1, 5), (50, 2 * NR + 1, KB + KC + 1), (2, 3, 2 * KB + 1)]
    # A transposed, B not, C small: blocks of the depth, and of rows
    out += [(m, n, k) for m, n in ((MR + 2, 2 * NR + 1), (MR + 1, NR)) for k in around(DEEP_K, DEEP_K + DEEP_STEP)]
    out += [(m, n, DEEP_K + 1) for m in around(DEEP_M) for n in (NR + 1, 2 * NR)]
    return out


class Conv(NamedTuple):
    """A convolution: c inputs and k outputs per group; the rest per spatial axis."""

    n: int
    c: int
    k: int
    size: tuple
    kernel: tuple
    stride: tuple
    padding: tuple
    dilation: tuple
    groups: int

    @property
    def out(self):
        """Spatial sizes of the result."""
        sizes = zip(self.size, self.kernel, self.stride, self.padding, self.dilation)
        return tuple((i + 2 * p - d * (k - 1) - 1) // s + 1 for i, k, s, p, d in sizes)


def conv(n, c, k, size, kernel, stride=1, padding=0, dilation=1, groups=1):
    """A Conv; numbers stand for every axis."""
    each = [v if isinstance(v, tuple) else (v,) * len(size) for v in (stride, padding, dilation)]
    return Conv(n, c, k, size, kernel, *each, groups)


def conv_channels(dtype):
    """Inputs and outputs around a vector and a panel: each is the panel's width in one direction."""
    NR, lanes = tile(dtype)
    edges = sorted({1, *around(lanes), *around(NR), 2 * NR + 1} - {0})
    out = [conv(2, c, k, (4, 4), (3, 2), padding=(1, 0)) for k in edges for c in (1, 3)]
    out += [conv(2, c, k, (4, 5), (2, 3), (1, 2), (0, 1)) for c in edges for k in (1, 2)]
    out += [conv(1, c, NR + 1, (2, 3), (2, 2)) for c in around(lanes)[1:]]
    return out


def conv_depth(dtype):
    """Channels times taps around the block of the depth, as one run of taps and as several that share registers."""
    NR, lanes = tile(dtype)
    KC = KC_BYTES // dtype.itemsize
    out = [conv(1, c, 3, (1, 7), (1, 1)) for c in around(KC)]
    out += [conv(1, c, NR + 1, (3, 4), (3, 3), padding=1) for c in around(KC // 3)]
    out += [conv(1, c, 2, (3, 7), (3, 1), padding=(1, 0)) for c in around(KC // 2, KC // 3)]
    out += [conv(1, c, 2, (1, 9), (1, 3), dilation=2) for c in around(KC // 2)]
    out += [conv(1, KC + 5, 2, (3, 3), (2, 2), stride=2), conv(1, 2 * KC + 1, 1, (2, 2), (1, 2))]
    out += [conv(1, 1, 2, (5, 7), (5, 5), padding=2), conv(1, 7, lanes + 1, (9, 6), (5, 5))]
    out += [conv(1, KC // 2 + 1, NR + 1, (3, 4), (3, 3), padding=1)]  # a block between those that border points see
    # the same of the gradient for the input, whose depth is of outputs
    out += [conv(1, 2, k, (3, 4), (3, 3), padding=1) for k in around(KC // 3)]
    out += [conv(1, 3, KC + 1, (2, 5), (2, 2), stride=(1, 2))]
    return out


def conv_pixels(dtype):
    """Points of the result around the rows of the micro-tile and around a chunk; chunks that span images and planes."""
    NR, lanes = tile(dtype)
    P = CONV_PIXELS
    out = [conv(1, 3, 2, (1, w), (1, 1)) for w in (1, *around(MR, 2 * MR))]
    out += [conv(1, 2, lanes + 1, (2, w), (1, 3), padding=(0, 1)) for w in (1, *around(MR, 2 * MR))]
    out += [conv(1, 2, 3, (h, 1), (3, 1), padding=(1, 0)) for h in around(P)]
    out += [conv(1, 2, 3, (2, w), (2, 2), padding=1) for w in around(P // 2 - 1, P - 1, P + 1)]
    out += [conv(1, 3, NR + 1, (2, w), (1, 1)) for w in around(P)]
    out += [conv(3, 2, 3, (12, 12), (3, 3), padding=1), conv(3, 2, 3, (14, 14), (3, 3))]
    for p in (0, 1):  # images of few points: chunks that span them, with and without a border
        out += [conv(13, 2, 3, (5, 5), (3, 3), padding=p), conv(P + 1, 1, 2, (3,), (3,), padding=p)]
        out += [conv(5, 2, 2, (4, 5, 6), (2, 3, 3), padding=p), conv(4, 2, 3, (3, 4, 5), (1, 1, 1), padding=p)]
        out += [conv(9, 2, 3, (5, 6, 5), (2, 3, 2), stride=(2, 1, 2), padding=p)]
    return out


def conv_borders(dtype):
    """Long and short axes: along these, taps outside of the image are left out, along those, they meet zeros."""
    NR, _ = tile(dtype)
    L, S, C = CONV_DEAD, 7, CONV_LEAVE_C
    out = [conv(2, C, 3, size, (3, 3), padding=1) for size in ((S, L), (L, S), (S, S))]
    out += [conv(1, C, 3, (S, L), (3, 3), padding=2, dilation=2), conv(1, C, NR + 1, (2 * L, S), (3, 2), 2, 1)]
    out += [conv(1, C, 3, size, (2, 3, 3), padding=1) for size in ((2, 3, L), (2, L, 3), (L, 2, 3), (3, 2, 4))]
    out += [
        conv(1, C - 1, 3, (S, S), (3, 3), padding=1),
        conv(1, C - 1, 3, (S, L), (3, 3), padding=5, dilation=5),
        conv(2, C, 3, (S, L), (3, 3), padding=1, groups=2),
        conv(1, C, 2, (L,), (3,), padding=1),
    ]
    out += [conv(1, C, 3, (w,), (3,), padding=1) for w in around(2 * L // 3)]  # where the one ends and the other begins
    return out


def conv_geometry(dtype):
    """Strides, paddings, dilations and groups, on one, two and three axes."""
    NR, lanes = tile(dtype)
    out = []
    for size, kernel in (((11,), (3,)), ((9, 8), (3, 2)), ((5, 6, 5), (2, 3, 2))):
        axes = len(size)
        out += [conv(2, 3, 4, size, kernel, s, p, d) for s in (1, 2, 3) for p in (0, 1, 2) for d in (1, 2)]
        out += [conv(2, 3, 4, size, kernel, stride=5), conv(2, 3, 4, size, (1,) * axes, stride=3, padding=1)]
        out += [conv(2, 2, 3, size, size), conv(1, 2, 3, size, size, padding=3), conv(2, 2, 3, size, kernel, 2, 7)]
        out += [conv(2, 3, 2, size, (1,) * axes, stride=2), conv(2, 2, 3, size, kernel, 4, 1, 3)]
        out += [conv(2, 1, 1, size, kernel, padding=1, groups=2 * lanes + 1), conv(2, 1, 3, size, kernel, 2, groups=5)]
        out += [conv(2, 3, 2, size, kernel, padding=p, groups=2) for p in (0, 1)]
        out += [conv(2, 2, NR + 1, size, kernel, groups=2), conv(2, lanes + 1, 2, size, kernel, 1, 2, groups=3)]
        out += [conv(3, 2, 3, size, (1,) * axes, groups=3), conv(2, 3, 4, (1,) * axes, kernel, padding=3)]
    out += [
        conv(2, 3, 4, (9, 8), (3, 2), (1, 3), (2, 0), (2, 1)),
        conv(2, 2, 2, (6, 5, 7), (3, 1, 2), (2, 1, 3), (0, 2, 1)),
    ]
    out += [conv(2, 2, 3, (1, 9), (1, 3)), conv(2, 2, 3, (9, 1), (3, 1)), conv(2, 2, 3, (0, 4), (2, 2), padding=1)]
    return [c for c in out if min(c.out) > 0]


def conv_groups(dtype):
    """Groups too narrow for a panel: channels around a vector, tiles of rows and points, runs of taps, chunks."""
    _, lanes = tile(dtype)
    out = [conv(2, 1, 1, (5, 6), (3, 3), padding=1, groups=g) for g in around(lanes, 2 * lanes) if g > 1]
    for s in (1, 2, 3):
        out += [conv(1, 1, 1, (h, 9), (3, 3), s, 1, groups=lanes + 1) for h in range(3, 11)]
        out += [conv(2, 1, 1, (4, w), (3, 3), s, 1, groups=lanes + 1) for w in range(1, 14)]
        out += [conv(1, 1, 1, (11, 12), (k, k), s, p, groups=3) for k in (2, 4, 5, 7) for p in (0, k // 2, k)]
        out += [conv(1, 1, 1, (11, 12), (3, 2), s, 2, d, groups=lanes + 2) for d in ((2, 1), (1, 2), (3, 3), (2, 4))]
        out += [conv(2, c, k, (6, 7), (3, 2), s, 1, groups=5) for c, k in ((1, 2), (2, 1), (2, 2), (1, 3), (3, 2))]
        out += [conv(1, 1, 1, (19,), (5,), s, 2, 2, groups=5), conv(1, 2, 2, (3, 4, 6), (2, 3, 2), s, 1, 2, groups=3)]
        out += [conv(1, 1, 1, (3, 4, 6), (2, 3, 3), s, 1, groups=lanes)]
    out += [conv(2, 2 * lanes + 5, lanes // 2, (5, 6), (3, 3), groups=2)]  # rows of dY of a vector: two groups
    out += [conv(2, c, k, (5, 5), (3, 3), padding=1, groups=40) for c, k in ((1, 2), (2, 2), (1, 4), (4, 4), (2, 1))]
    out += [conv(1, 1, 1, (80, 70), (3, 3), padding=1, groups=17), conv(3, 1, 1, (40, 9), (3, 3), 2, groups=130)]
    out += [conv(2, c, c, (2100,), (3,), 1, 1, groups=36 // c) for c in (1, 2)]  # rows cut into pieces
    out += [conv(1, 1, 1, (5, 5), (3, 3), padding=1, groups=600), conv(17, 1, 1, (5, 4), (3, 3), groups=3)]
    # few inputs per group and a stride: the gradient's phases share what is packed
    out += [conv(1, max(1, lanes // 2), 2 * lanes + 32, (21, 21), (k, k), 2, 1, groups=2) for k in (3, 4, 5)]
    return [c for c in out if min(c.out) > 0]


def conv_points(dtype):
    """What the gradient for the weight is cut by: blocks of points, chunks of inputs, images per piece."""
    NR, lanes = tile(dtype)
    Q, C = CONV_BLOCK_POINTS, CONV_C_CHUNK
    out = [conv(1, 2, 3, (2, w), (2, 3), padding=(0, 1)) for w in around(Q)]
    out += [conv(2, 2, lanes + 1, (h, 15), (1, 3), padding=(1, 1)) for h in around(Q // 16 + 1)]
    out += [conv(1, 2, 3, (45, 29), (3, 3), stride=s, padding=1) for s in (1, 2)]
    out += [conv(2, c, 3, (3, 4), (2, 2)) for c in (*around(C), 2 * C + 1)]
    out += [conv(n, 3, 2, (3, 4), (2, 2), padding=1) for n in (*around(CONV_WEIGHT_CHUNKS), 2 * CONV_WEIGHT_CHUNKS + 1)]
    out += [conv(11, C + 1, NR + 1, (3, 2), (2, 2)), conv(7, 3, 2, (4, 4), (3, 3), padding=1, groups=3)]
    out += [conv(0, 3, 4, (4, 5), (3, 3)), conv(0, 3, 4, (4, 5), (1, 1))]
    return out


def conv_few(dtype):
    """Few inputs or outputs: vectors along lines of points, and gradients that are scattered; strides, borders."""
    _, lanes = tile(dtype)
    half = max(1, lanes // 2)
    out = [conv(2, c, k, (5, lanes + 3), (3, 3), 1, 1) for c in around(half) for k in around(half) if c and k]
    out += [conv(1, 2, half, (3, w), (2, 3), s) for w in around(lanes + 2, 2 * lanes + 2) for s in (1, 2)]
    out += [conv(1, 1, 1, (h, 2 * lanes), (5, 5), padding=2) for h in range(3, 8)]
    out += [conv(n, 2, 1, (3, lanes), (2, 3), padding=1) for n in (*around(CONV_WEIGHT_CHUNKS), 2 * CONV_WEIGHT_CHUNKS)]
    out += [
        conv(2, 2, half, (3, 4, 2 * lanes), (2, 3, 2), (1, 2, 2), 1),
        conv(2, 3, half, (2 * lanes + 5,), (4,), 2, 1),
    ]
    out += [conv(2, 2, half, (4, 2 * lanes), (3, 3), 1, 1, d, groups=2) for d in (1, 2)]
    out += [conv(2, c, 1, (3, 4, w), (2, 3, 3), padding=1) for c in (1, 3) for w in (3 * lanes, 5 * lanes + 1)]
    out += [conv(1, 2, k, (4, 2 * lanes), (3, 2), padding=p) for k in (1, half) for p in (1, 3)]
    for c in (*around(lanes), 3):  # lines of dX around a tile, runs of taps around a vector and a panel
        out += [conv(2, c, 5, (h, 9), (3, 5), s, p) for h in (4, 7, 12) for s in (1, 2) for p in (0, 2)]
        out += [conv(1, c, 3, (4, 12), (2, 9), 1, p, (2, 1)) for p in (0, 4, 9)]
    out += [conv(70, 2, 9, (5, 6), (3, 3), 2, 1), conv(3, 3, 7, (3, 5, 6), (2, 3, 3), (2, 1, 3), 1)]
    return [c for c in out if min(c.out) > 0 and c.c]


CONVS = {
    "few": conv_few,
    "channels": conv_channels,
    "depth": conv_depth,
    "pixels": conv_pixels,
    "borders": conv_borders,
    "geometry": conv_geometry,
    "points": conv_points,
    "groups": conv_groups,
}


# ---- layouts: the same values, elsewhere in memory ----


def _strided(a, step):
    """a with every stride multiplied by `step` (negative: from the end); what lies between is NaN."""
    n = abs(step)
    base = np.full([max(1, s * n) for s in a.shape], np.nan if a.dtype.kind == "f" else 0, a.dtype)
    v = base[(..., *(slice(0, s * n, n) for s in a.shape))]
    if step < 0:
        v = v[(..., *[slice(None, None, -1)] * a.ndim)]
    v[...] = a
    return v


def _readonly(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def _offset(a):
    """a at an address that is a multiple of the item size only."""
    base = np.empty(a.size + 1, a.dtype)
    v = base[1:].reshape(a.shape)
    v[...] = a
    return v


LAYOUTS = {
    "row-major": np.ascontiguousarray,
    "column-major": np.asfortranarray,
    "every second": lambda a: _strided(a, 2),
    "backwards": lambda a: _strided(a, -1),
    "every third backwards": lambda a: _strided(a, -3),
    "read-only": _readonly,
    "one element off": _offset,
}


# ---- guard bands ----

GUARD = 64  # elements: at least a vector of any instruction set


def _pattern(dtype):
    """A bit pattern that no kernel writes: for floats, a NaN with a payload."""
    return {"f4": 0x7FABCDEF, "f8": 0x7FFABCDEF0123456, "i8": 0x7FABCDEF01234567, "b1": 0xA5}[dtype.str[1:]]


def _bits(a):
    return a.view({1: np.uint8, 4: np.uint32, 8: np.uint64}[a.dtype.itemsize])


class Guarded:
    """Memory for a result, in the midst of a pattern: `array` is the part to write, `check` holds that nothing else
    was written. Layouts as in LAYOUTS (those that can be written)."""

    def __init__(self, shape, dtype, layout="row-major"):
        dtype = np.dtype(dtype)
        step = {"row-major": 1, "column-major": 1, "every second": 2, "backwards": -1, "every third backwards": -3}[
            layout
        ]
        size = int(np.prod([max(1, s * abs(step)) for s in shape]))
        self.whole = np.empty(size + 2 * GUARD, dtype)
        self.pattern = _pattern(dtype)
        _bits(self.whole)[:] = self.pattern
        inner = self.whole[GUARD : GUARD + size]
        if layout == "column-major":
            self.array = inner.reshape([max(1, s) for s in shape][::-1]).T[(..., *(slice(0, s) for s in shape))]
        else:
            full = inner.reshape([max(1, s * abs(step)) for s in shape])
            self.array = full[(..., *(slice(0, s * abs(step), abs(step)) for s in shape))]
            if step < 0:
                self.array = self.array[(..., *[slice(None, None, -1)] * len(shape))]

    @property
    def tensor(self):
        return from_array(self.array)

    def check(self, what=""):
        """Fails if anything outside of `array` has changed."""
        inside = np.zeros(self.whole.size, bool)
        offsets = np.zeros((), np.int64)
        start = (self.array.ctypes.data - self.whole.ctypes.data) // self.whole.itemsize
        for n, s in zip(self.array.shape, self.array.strides):
            offsets = offsets[..., None] + np.arange(n) * (s // self.whole.itemsize)
        inside[(start + offsets).reshape(-1)] = True
        touched = np.flatnonzero((_bits(self.whole) != self.pattern) & ~inside)
        assert not touched.size, f"{what}: wrote outside of its result, at {touched[:5] - GUARD} of {self.array.shape}"


def _block(nbytes):
    """Size of the allocator's block for a request (csrc/memory.c: 4 classes per octave)."""
    if nbytes <= 256:
        return max(1, -(-nbytes // 64)) * 64
    step = 1 << ((nbytes - 1).bit_length() - 3)
    return -(-nbytes // step) * step


def prime(shape, dtype):
    """Frees blocks full of the pattern, which the next allocations for such an array take over: the result's, and those
    of row-major copies of operands before it."""
    size = _block(int(np.prod(shape)) * dtype.itemsize)
    blocks = [new_empty((size // dtype.itemsize,), dtype_code(dtype)) for _ in range(4 if size < 1 << 22 else 1)]
    for t in blocks:
        _bits(t.numpy())[:] = _pattern(dtype)


def check_slack(t, what=""):
    """Fails if the kernel that wrote t, allocated after `prime`, wrote beyond its end."""
    n, dtype = t.numel(), t.dtype
    if n == 0 or not slack_is_visible():
        return
    begin = max(n, 8 // dtype.itemsize)  # a free block's first 8 bytes link to the next
    tail = t._view((max(0, _block(n * dtype.itemsize) // dtype.itemsize - begin),), (1,), begin).numpy()
    written = np.flatnonzero(_bits(tail) != _pattern(dtype))
    assert not written.size, f"{what}: wrote {written[0] + begin - n} elements beyond the end of a result of {t.shape}"


@functools.cache
def slack_is_visible():
    """Whether blocks are rounded up to classes: not in builds for the address sanitizer, which sees ends itself."""
    before = runtime.memory_stats()["in_use"]
    t = new_empty((65,), 0)
    return runtime.memory_stats()["in_use"] - before == _block(t.numel() * t.dtype.itemsize)
