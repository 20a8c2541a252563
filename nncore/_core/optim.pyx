"""Fused optimizer updates over lists of parameters."""
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t

from . cimport runtime
from .c cimport *
from .elementwise cimport contiguous
from .tensor cimport TensorBase, require_writable


cdef void *_state(list states, int64_t i, TensorBase p) except? NULL:
    cdef TensorBase s
    if states is None:
        return NULL
    s = states[i]
    if s.code != p.code or s.count() != p.count() or not s.contiguous():
        raise TypeError(f"params: the optimizer's state is {s.dtype} of shape {s.shape}, the parameter is now {p.dtype} of "
                        f"{p.shape}; make the optimizer after converting the model")
    return s.data


cdef class Chunks:
    """(parameter, gradient, state, state) of each parameter with a gradient; neighbours in memory are merged, so
    that parameters allocated together are updated in one stretch. All of one dtype."""

    cdef nn_chunk *chunks
    cdef int64_t n
    cdef int code
    cdef list params
    cdef list keep

    def __cinit__(self):
        self.chunks = NULL

    def __init__(self, list params, list s0, list s1):
        cdef nn_chunk *c
        cdef nn_chunk *last = NULL
        cdef TensorBase p, g
        cdef int64_t i, size
        self.chunks = <nn_chunk *>PyMem_Malloc((len(params) + 1) * sizeof(nn_chunk))
        if self.chunks == NULL:
            raise MemoryError()
        self.params = params
        self.keep = []
        self.code = (<TensorBase>params[0]).code if params else NN_FLOAT32
        size = 4 if self.code == NN_FLOAT32 else 8
        for i in range(len(params)):
            p = params[i]
            if p.code != self.code:
                raise TypeError(f"params: expected one dtype, got {p.dtype}")
            require_writable(p)
            if not p.contiguous():
                raise ValueError(f"params: expected row-major tensors, got shape {p.shape} with strides {p.strides}")
            g = contiguous(p.grad_)  # of the dtype and shape of p: the setter of .grad sees to it
            self.keep.append(g)
            c = self.chunks + self.n
            c.p = p.data
            c.g = g.data
            c.n = p.count()
            c.s0 = _state(s0, i, p)
            c.s1 = _state(s1, i, p)
            if (last != NULL and <char *>last.p + last.n * size == c.p and <char *>last.g + last.n * size == c.g
                    and (s0 is None or <char *>last.s0 + last.n * size == c.s0)
                    and (s1 is None or <char *>last.s1 + last.n * size == c.s1)):
                last.n += c.n
            else:
                last = c
                self.n += 1

    def __dealloc__(self):
        PyMem_Free(self.chunks)

    cdef void update(self, int kernel, nn_optim_args *o) noexcept:
        cdef TensorBase p
        o.chunks = self.chunks
        o.n_chunks = self.n
        runtime.run(kernel, self.code, o)
        for p in self.params:
            p.storage.version += 1


def sgd(list params, list momentum_buffers, double lr, double momentum, double dampening, double weight_decay,
        bint nesterov, bint maximize, bint first):
    """p -= lr * (momentum applied to (grad + weight_decay * p)); buffers are written, not read, when first."""
    cdef nn_optim_args o
    cdef Chunks chunks = Chunks(params, momentum_buffers if momentum else None, None)
    o.lr, o.momentum, o.dampening, o.weight_decay = lr, momentum, dampening, weight_decay
    o.nesterov, o.maximize, o.first = nesterov, maximize, first
    chunks.update(NN_K_sgd, &o)


def adam(list params, list m, list v, double lr, double beta1, double beta2, double eps, double weight_decay,
         bint decoupled, bint maximize, int64_t step):
    """One Adam step number `step` (from 1) for all parameters."""
    cdef nn_optim_args o
    cdef Chunks chunks = Chunks(params, m, v)
    o.lr, o.beta1, o.beta2, o.eps, o.weight_decay = lr, beta1, beta2, eps, weight_decay
    o.bias1, o.bias2 = 1 - beta1 ** <double>step, 1 - beta2 ** <double>step
    o.decoupled, o.maximize = decoupled, maximize
    chunks.update(NN_K_adam, &o)
