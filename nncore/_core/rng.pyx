"""Counter-based random numbers."""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from . cimport runtime
from .c cimport *
from .elementwise cimport contiguous
from .tensor cimport TensorBase, empty_like, require_writable, touch

from .record import note_stream

UNIFORM, NORMAL = NN_UNIFORM, NN_NORMAL


def fill_random(TensorBase t, int dist, double a, double b, uint64_t seed, stream):
    """Fills a contiguous tensor: uniform on [a, b), or normal of mean a and standard deviation b."""
    cdef nn_random_args r
    memset(&r, 0, sizeof(r))
    require_writable(t)
    touch(t.storage)
    r.dist = dist
    r.n = t.count()
    r.y = t.data
    r.a = a
    r.b = b
    r.seed = seed
    r.stream = stream
    note_stream(stream)
    runtime.run(NN_K_random, t.code, &r)
    touch(t.storage)


def dropout(TensorBase x, double p, uint64_t seed, stream):
    """Zeroes elements with probability p (to 1/65536) and scales the others by 1 / (1 - p)."""
    cdef nn_dropout_args d
    memset(&d, 0, sizeof(d))
    cdef TensorBase y
    x = contiguous(x)
    y = empty_like(x)
    d.n = x.count()
    d.x = x.data
    d.y = y.data
    d.threshold = <uint32_t>(p * 65536 + 0.5)
    d.scale = 1 / (1 - p) if p < 1 else 0
    d.seed = seed
    d.stream = stream
    note_stream(stream)
    runtime.run(NN_K_dropout, x.code, &d)
    return y
