"""Fusing the calls of a recorded step, before it becomes a plan: a call's work is moved into the kernel that made its operand,
and the memory between them is never written.

A rewrite is allowed where the bits are those of the calls one by one. What a call reads must hold the same at the place
that it moves to, and what it no longer writes must have had no other reader. Memory is known by the block (made while recording) or
the storage (that was there before) that holds it; a kernel that `_written` does not list counts as writing all that it touches.

The patterns are listed at the end, in the order in which they are tried.
"""
from bisect import bisect_right

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy, memset

from . cimport runtime
from .c cimport *
from .record cimport Block, Call
from .tensor cimport Storage, all_storages

from .plan import edited, own
from .runtime import OP_ARITY, OPS, scratch_bytes

ARITY = {OPS[name]: n for name, n in OP_ARITY.items()}
RELU, ADD, RELU_BACKWARD = OPS["relu"], OPS["add"], OPS["relu_backward"]
# dx = dy or 0, as the element at hand says
MASKS = (RELU_BACKWARD, OPS["hardtanh_backward"], OPS["threshold_backward"])
# not gemm: what a linear layer makes is small, and stays in cache
TAKE_MOMENTS = (NN_K_conv, NN_K_winograd, NN_K_depthwise)
# activations whose derivative can be told from the result: a name, its derivative, and for which (s, t)
FROM_RESULT = {
    OPS["leaky_relu"]: (OPS["leaky_relu_backward"], lambda s, t: s >= 0),
    OPS["clamp"]: (OPS["hardtanh_backward"], lambda s, t: s < t),
}

cdef size_t _at(const void *args, const void *field) noexcept:
    """Where a field stands in its struct."""
    return <size_t>(<const char *>field - <const char *>args)


cdef dict _offsets():
    """kernel -> offsets of the pointers through which it writes."""
    cdef nn_gemm_args gemm
    cdef nn_gemm_pack_args gemm_pack
    cdef nn_conv_args conv
    cdef nn_conv_pack_args conv_pack
    cdef nn_conv_weight_args weight
    cdef nn_winograd_args winograd
    cdef nn_winograd_pack_args winograd_pack
    cdef nn_depthwise_args depthwise
    cdef nn_norm_args norm
    cdef nn_lrn_args lrn
    cdef nn_pool_args pool
    cdef nn_pad_args pad
    cdef nn_ewise_args ewise
    cdef nn_cast_args cast
    cdef nn_zero_args zero
    cdef nn_reduce_args reduce
    cdef nn_softmax_args softmax
    cdef nn_cross_entropy_args entropy
    cdef nn_dropout_args dropout
    cdef nn_random_args random
    return {
        NN_K_gemm: {_at(&gemm, &gemm.C)},
        NN_K_gemm_pack: {_at(&gemm_pack, &gemm_pack.packed)},
        NN_K_conv: {_at(&conv, &conv.y), _at(&conv, &conv.epilogue.moments)},
        NN_K_conv_scatter: {_at(&conv, &conv.y)},
        NN_K_conv_pack: {_at(&conv_pack, &conv_pack.packed)},
        NN_K_depthwise_pack: {_at(&conv_pack, &conv_pack.packed)},
        NN_K_conv_weight: {_at(&weight, &weight.dw)},
        NN_K_winograd: {_at(&winograd, &winograd.y), _at(&winograd, &winograd.epilogue.moments)},
        NN_K_winograd_weight: {_at(&winograd, &winograd.dw)},
        NN_K_winograd_pack: {_at(&winograd_pack, &winograd_pack.packed)},
        NN_K_depthwise: {_at(&depthwise, &depthwise.y), _at(&depthwise, &depthwise.epilogue.moments)},
        NN_K_depthwise_weight: {_at(&depthwise, &depthwise.dw)},
        NN_K_norm: {_at(&norm, &norm.y), _at(&norm, &norm.mean), _at(&norm, &norm.rstd), _at(&norm, &norm.batches),
                    _at(&norm, &norm.running_mean), _at(&norm, &norm.running_var), _at(&norm, &norm.moments)},
        NN_K_norm_backward: {_at(&norm, &norm.dx), _at(&norm, &norm.dweight), _at(&norm, &norm.dbias)},
        NN_K_lrn: {_at(&lrn, &lrn.y), _at(&lrn, &lrn.dx)},
        NN_K_pool: {_at(&pool, &pool.y), _at(&pool, &pool.index)},
        NN_K_pool_backward: {_at(&pool, &pool.dx)},
        NN_K_pad: {_at(&pad, &pad.y)},
        NN_K_pad_backward: {_at(&pad, &pad.y)},
        NN_K_ewise: {_at(&ewise, &ewise.y)},
        NN_K_cast: {_at(&cast, &cast.y)},
        NN_K_zero: {_at(&zero, &zero.y)},
        NN_K_reduce: {_at(&reduce, &reduce.y), _at(&reduce, &reduce.index)},
        NN_K_softmax: {_at(&softmax, &softmax.y)},
        NN_K_softmax_backward: {_at(&softmax, &softmax.dx)},
        NN_K_cross_entropy: {_at(&entropy, &entropy.lse), _at(&entropy, &entropy.loss), _at(&entropy, &entropy.per_row),
                             _at(&entropy, &entropy.total)},
        NN_K_cross_entropy_backward: {_at(&entropy, &entropy.dx)},
        NN_K_dropout: {_at(&dropout, &dropout.y)},
        NN_K_random: {_at(&random, &random.y)},
    }


cdef dict _labels():
    """kernel -> offset of the pointer that only says where an array begins that it writes."""
    cdef nn_gemm_args gemm
    cdef nn_conv_args conv
    cdef nn_winograd_args winograd
    cdef nn_depthwise_args depthwise
    return {
        NN_K_gemm: _at(&gemm, &gemm.epilogue.of),
        NN_K_conv: _at(&conv, &conv.epilogue.of),
        NN_K_conv_scatter: _at(&conv, &conv.epilogue.of),
        NN_K_winograd: _at(&winograd, &winograd.epilogue.of),
        NN_K_depthwise: _at(&depthwise, &depthwise.epilogue.of),
    }


WRITTEN, LABELS = _offsets(), _labels()


cdef class _Call:
    """A step that may be rewritten: its arguments, and which of their words are addresses of blocks and arrays."""
    cdef readonly object step
    cdef readonly int kernel, dtype
    cdef readonly dict words     # offset -> Word
    cdef readonly bytearray data
    cdef bint changed

    def __init__(self, step):
        self.step, self.kernel, self.dtype = step, step.call.kernel, step.call.dtype
        self.data, self.words = bytearray(step.args.data), dict(step.args.words)

    cdef void *args(self):
        return <void *><char *>self.data

    cdef uint64_t raw(self, size_t at):
        cdef uint64_t v
        memcpy(&v, <const char *>self.data + at, 8)
        return v

    cdef object where(self, size_t at):
        """What the pointer at this offset points to, as something that is equal for equal places; None for NULL."""
        word = self.words.get(at)
        if word is not None and word.block is not None:
            return id(word.block), word.value
        return self.raw(at) or None

    cdef object block(self, size_t at):
        """The block whose first byte the pointer at this offset points to, or None."""
        word = self.words.get(at)
        return word.block if word is not None and word.block is not None and word.value == 0 else None

    cdef void point(self, size_t at, _Call other, size_t there):
        """The pointer at this offset becomes the other's."""
        cdef uint64_t v = other.raw(there)
        memcpy(<char *>self.data + at, &v, 8)
        self.words.pop(at, None)
        if there in other.words:
            self.words[at] = other.words[there]
        self.changed = True

    cdef void give(self, size_t at, word):
        """The pointer at this offset becomes what the word says."""
        self.words[at] = word
        self.changed = True

    cdef void clear(self, size_t at):
        """The pointer at this offset becomes NULL."""
        memset(<char *>self.data + at, 0, 8)
        self.words.pop(at, None)
        self.changed = True

    def result(self):
        """The call as a step."""
        return edited(self.step, bytes(self.data), sorted(self.words.items())) if self.changed else self.step


cdef class _Product:
    """What a product writes, if that is a whole block."""
    cdef object block
    cdef int64_t count, columns
    cdef size_t at, epilogue


cdef _Product _product(_Call c):
    cdef _Product p = _Product.__new__(_Product)
    cdef nn_gemm_args *g
    cdef nn_conv_args *v
    cdef nn_winograd_args *w
    cdef nn_depthwise_args *d
    cdef bint whole = True
    cdef int i
    if c.kernel == NN_K_gemm:
        g = <nn_gemm_args *>c.args()
        p.at, p.epilogue = _at(g, &g.C), _at(g, &g.epilogue)
        whole = g.ldC == g.N and not g.beta and (g.batch == 1 or g.bsC == g.M * g.N)
        p.count, p.columns = g.batch * g.M * g.N, g.N
    elif c.kernel == NN_K_conv or c.kernel == NN_K_conv_scatter:
        v = <nn_conv_args *>c.args()
        p.at, p.epilogue = _at(v, &v.y), _at(v, &v.epilogue)
        p.count, p.columns = v.N * v.ldy, v.ldy
        for i in range(3):  # the gradient for the input of a strided convolution is written by several calls
            whole = whole and (c.kernel == NN_K_conv_scatter or v.grid[i] == v.out[i] and v.ostep[i] == 1)
            p.count *= v.out[i]
    elif c.kernel == NN_K_winograd:
        w = <nn_winograd_args *>c.args()
        p.at, p.epilogue = _at(w, &w.y), _at(w, &w.epilogue)
        p.count, p.columns = w.N * w.out[0] * w.out[1] * w.ldy, w.ldy
    elif c.kernel == NN_K_depthwise:
        d = <nn_depthwise_args *>c.args()
        p.at, p.epilogue = _at(d, &d.y), _at(d, &d.epilogue)
        p.columns = d.groups * d.K
        p.count = d.N * d.out[0] * d.out[1] * d.out[2] * p.columns
    else:
        return None
    p.block = c.block(p.at)
    return p if whole and _fills(p.block, p.count, c.dtype) else None


cdef bint _fills(Block b, int64_t count, int dtype):
    return b is not None and b.nbytes == <size_t>count * (4 if dtype == NN_FLOAT32 else 8)


cdef nn_epilogue *_epilogue(_Call c, _Product p):
    return <nn_epilogue *>(<char *>c.args() + p.epilogue)


cdef int64_t _elements(nn_ewise_args *e, int operands):
    """The number of elements, if y and the operands are dense and in one order; else -1."""
    cdef int i, k
    cdef int64_t n = 1
    for i in sorted(range(e.ndim), key=lambda i: e.ys[i]):
        if e.shape[i] == 1:
            continue
        if e.ys[i] != n:
            return -1
        for k in range(operands):
            if e.xs[k][i] != n:
                return -1
        n *= e.shape[i]
    return n


NEAR, NEAR_READS = 32, 4  # chains that a call looks back at; calls between those that only read the same


cdef class _Link:
    """An elementwise call, or a sum, that may become a part of a chain: arrays are walked from their first number to their last."""
    cdef _Call call
    cdef int at, dtype, op, sum
    cdef double s, t, scale
    cdef int64_t n
    cdef size_t to        # offset of the result's pointer
    cdef list pointers    # (offset, whether it is one number, whether it is written): operands, then the result
    cdef set reads, writes  # arrays, as _Call.where


cpdef int _place(_Link x):
    return x.at


cdef _Link _link(_Call c, int j):
    """The call as a link, or None."""
    cdef _Link x = _Link.__new__(_Link)
    cdef nn_ewise_args *e
    cdef nn_cast_args *v
    cdef nn_reduce_args *r
    cdef nn_ewise_args copy
    cdef int i, k, arity
    cdef size_t at
    x.call, x.at, x.dtype, x.n, x.pointers = c, j, c.dtype, 1, []
    if c.kernel == NN_K_ewise:
        e = <nn_ewise_args *>c.args()
        arity = ARITY[e.op]
        x.to = _at(e, &e.y)
        at = _at(e, &e.x[0])
    elif c.kernel == NN_K_cast:
        v = <nn_cast_args *>c.args()
        if v.xtype != v.ytype or v.xtype > NN_FLOAT64:
            return None
        memset(&copy, 0, sizeof(copy))
        e, arity, x.dtype = &copy, 1, v.xtype
        e.op, e.ndim = NN_OP_copy, v.ndim
        for i in range(v.ndim):
            e.shape[i], e.ys[i], e.xs[0][i] = v.shape[i], v.ys[i], v.xs[i]
        x.to = _at(v, &v.y)
        at = _at(v, &v.x)
    elif c.kernel == NN_K_reduce:
        r = <nn_reduce_args *>c.args()
        if r.op != NN_SUM or r.outer != 1 or r.inner != 1:
            return None
        memset(&copy, 0, sizeof(copy))
        e, arity = &copy, 1
        e.op, e.sum, e.ndim, e.shape[0], e.xs[0][0], e.scale = NN_OP_copy, NN_LINK_REDUCE, 1, r.n, 1, r.scale
        x.to = _at(r, &r.y)
        at = _at(r, &r.x)
    else:
        return None
    x.op, x.sum, x.s, x.t, x.scale = e.op, e.sum, e.s, e.t, e.scale
    numbers = [all([e.xs[k][i] == 0 or e.shape[i] == 1 for i in range(e.ndim)]) for k in range(arity)]
    # in the order of memory; a sum in the order in which it is added up
    for i in reversed(range(e.ndim)) if e.sum else sorted(range(e.ndim), key=lambda i: e.ys[i]):
        if e.shape[i] == 1:
            continue
        if not e.sum and e.ys[i] != x.n:
            return None
        for k in range(arity):
            if e.xs[k][i] != (0 if numbers[k] else x.n):
                return None
        x.n *= e.shape[i]
    if x.n == 0:
        return None
    for k in range(arity):
        x.pointers.append((at + k * sizeof(void *), numbers[k] and x.n > 1, False))
    x.pointers.append((x.to, bool(x.sum), True))
    x.reads = {c.where(p) for p, number, writes in x.pointers if not writes and not number}
    x.writes = set() if x.sum else {c.where(x.to)}
    return x


cdef class _Fusing:
    cdef list calls      # of _Call, or None where it is gone
    cdef list before     # calls that moved in front of each
    cdef dict uses       # block, gradient or storage -> sorted [(number of the call, whether it writes)], one for each pointer
    cdef object kept
    cdef list checks     # numbers of the calls that check indices: what is behind one does not happen if it finds one
    cdef list starts, ends

    def __init__(self, list steps, kept):
        self.calls, self.before = [_Call(s) for s in steps], [[] for _ in steps]
        self.kept, self.uses = {id(b) for b in kept}, {}
        # their places alone: a storage that is held here is not alone, as another thread's gradient must be
        self.starts, self.ends = [], []
        for at, size in sorted([(<size_t>(<Storage>s).data, (<Storage>s).nbytes) for s in all_storages()]):
            if self.ends and at < self.ends[len(self.ends) - 1]:  # of one array of NumPy: the first stands for all
                self.ends[len(self.ends) - 1] = max(self.ends[len(self.ends) - 1], at + size)
            elif at:
                self.starts.append(at)
                self.ends.append(at + size)
        self.checks = [i for i, s in enumerate(steps) if s.index is not None]
        for i in range(len(self.calls)):
            self._list(i)

    # ---- who uses what ----

    cdef object _outside(self, uint64_t v):
        """Where the storage that holds an address begins, or None."""
        cdef Py_ssize_t k = bisect_right(self.starts, v) - 1
        return self.starts[k] if v >= 65536 and k >= 0 and v < <uint64_t>self.ends[k] else None

    cdef list _touched(self, _Call c):
        """(block, gradient or storage, whether it is written) of each pointer."""
        cdef size_t at, scratch = runtime.scratch_field(c.kernel)
        found, writes, label = [], WRITTEN.get(c.kernel), LABELS.get(c.kernel, -1)
        for at in range(0, len(c.data) // 8 * 8, 8):
            if at == label:
                continue
            if at in c.words:
                self._word(c.words[at], writes is None or at in writes, found)
            elif not scratch or at != scratch:
                owner = self._outside(c.raw(at))
                if owner is not None:
                    found.append((owner, writes is None or at in writes))
        return found

    cdef void _word(self, word, bint writes, list found):
        if word.block is not None:
            found.append((word.block, writes))
        elif word.moving is not None:
            found.append((word.moving, writes))
        elif word.array is not None:
            inside = dict(word.array.words)
            data = word.array.data
            for at in range(0, len(data) // 8 * 8, 8):
                if at in inside:
                    self._word(inside[at], writes, found)
                else:
                    owner = self._outside(int.from_bytes(data[at:at + 8], "little"))
                    if owner is not None:
                        found.append((owner, writes))

    cdef _list(self, int i):
        for c in (*self.before[i], self.calls[i]):
            if c is not None:
                for what, writes in self._touched(c):
                    self.uses.setdefault(what, []).append((i, writes))
                    self.uses[what].sort()

    cdef _unlist(self, int i):
        for c in (*self.before[i], self.calls[i]):
            if c is not None:
                for what, writes in self._touched(c):
                    self.uses[what].remove((i, writes))

    cdef int maker(self, object block, int j):
        """The call that writes the block, if only that one and call j know it; else -1."""
        uses = self.uses.get(block, ())
        if id(block) in self.kept or len(uses) != 2 or uses[1] != (j, False) or not uses[0][1]:
            return -1
        return uses[0][0]

    cdef bint still(self, _Call c, size_t at, int i, int j):
        """Whether what a pointer points to holds the same before call i as before call j."""
        word = c.words.get(at)
        what = (word.block or word.moving) if word is not None else self._outside(c.raw(at))
        return not any(writes and i <= k < j for k, writes in self.uses.get(what, ()))

    cdef bint unused(self, object block, int j):
        """Whether nothing touches the block before call j."""
        uses = self.uses.get(block)
        return bool(uses) and uses[0][0] >= j

    cdef bint plain(self, int i):
        """Whether call i is there and prepared by nobody."""
        c = self.calls[i]
        return c is not None and c.step.prepare is None and c.step.stream is None

    cdef replace(self, int i, int j):
        """Call i has taken the work of call j."""
        self.calls[j] = None
        self._list(i)

    # ---- patterns: each looks at call j, and gives whether it rewrote something ----

    cdef bint derivative_from_result(self, int j):
        """dx of an activation reads y in place of x, where that is the same."""
        cdef _Call c = self.calls[j], d
        cdef nn_ewise_args *e
        cdef nn_ewise_args *f
        cdef int k
        if c.kernel != NN_K_ewise:
            return False
        e = <nn_ewise_args *>c.args()
        if e.sum or e.op not in FROM_RESULT or not FROM_RESULT[e.op][1](e.s, e.t) or _elements(e, 1) < 0:
            return False
        x, y = c.block(_at(e, &e.x[0])), c.block(_at(e, &e.y))
        if x is None or y is None or x is y or any(writes and k > j for k, writes in self.uses[y]):
            return False
        readers = [k for k, _ in self.uses[x] if k > j]
        for k in readers:
            d = self.calls[k]
            f = <nn_ewise_args *>d.args()
            if (d.kernel != NN_K_ewise or f.op != FROM_RESULT[e.op][0] or f.s != e.s or f.t != e.t or d.dtype != c.dtype
                    or d.where(_at(f, &f.x[0])) == c.where(_at(e, &e.x[0])) or d.block(_at(f, &f.x[1])) is not x
                    or f.ndim != e.ndim or any(f.shape[i] != e.shape[i] for i in range(e.ndim)) or _elements(f, 2) < 0
                    or any(f.ys[i] != e.ys[i] and e.shape[i] > 1 for i in range(e.ndim))):
                return False
        for k in readers:
            self._unlist(k)
            d = self.calls[k]
            f = <nn_ewise_args *>d.args()
            d.point(_at(f, &f.x[1]), c, _at(e, &e.y))
            self._list(k)
        return False  # others may still want call j

    cdef bint into_product(self, int j):
        """y = op(product, other): in the product's epilogue."""
        cdef _Call c = self.calls[j], p
        cdef _Product r
        cdef nn_ewise_args *e
        cdef nn_epilogue *ep
        cdef int i, k
        cdef bint inside
        if c.kernel != NN_K_ewise:
            return False
        e = <nn_ewise_args *>c.args()
        arity = ARITY[e.op]
        if e.sum or arity not in (1, 2) or _elements(e, arity) < 0:
            return False
        for k in range(2 if e.op == ADD else 1):
            block, y = c.block(_at(e, &e.x[k])), c.block(_at(e, &e.y))
            if block is None or y is None:
                continue
            inside = y is block  # written over the product itself
            if inside:
                uses = [u for u in self.uses[block] if u[0] <= j]
                if len(uses) != 3 or uses[1][0] != j or not uses[0][1]:
                    continue
                i = uses[0][0]
            else:
                i = self.maker(block, j)
            if i < 0 or not self.plain(i):
                continue
            p = self.calls[i]
            r = _product(p)
            if (r is None or r.block is not block or r.count != _elements(e, arity) or p.dtype != c.dtype
                    or not _fills(y, r.count, c.dtype) or not (inside or self.unused(y, j))):
                continue
            if arity == 2 and not self.still(c, _at(e, &e.x[1 - k]), i, j):
                continue
            ep = _epilogue(p, r)
            if ep.n == NN_MAX_THEN:
                continue
            self._unlist(i)
            self._unlist(j)
            ep.then[ep.n].op, ep.then[ep.n].s, ep.then[ep.n].t = e.op, e.s, e.t
            if arity == 2:
                p.point(_at(p.args(), &ep.then[ep.n].other), c, _at(e, &e.x[1 - k]))
            ep.n += 1
            p.point(r.at, c, _at(e, &e.y))
            p.point(_at(p.args(), &ep.of), c, _at(e, &e.y))
            self.replace(i, j)
            return True
        return False

    cdef bint fixed_norm_into_product(self, int j):
        """Batch normalization by running statistics: its mean and rstd are taken first, the rest is the product's epilogue."""
        cdef _Call c = self.calls[j], p
        cdef _Product r
        cdef nn_norm_args *a
        cdef nn_epilogue *ep
        cdef int i
        if c.kernel != NN_K_norm:
            return False
        a = <nn_norm_args *>c.args()
        block, y = c.block(_at(a, &a.x)), c.block(_at(a, &a.y))
        if not a.fixed or a.relu or a.add != NULL or block is None or y is None:
            return False
        i = self.maker(block, j)
        if i < 0 or not self.plain(i):
            return False
        p = self.calls[i]
        r = _product(p)
        if r is None or r.columns != a.C or r.count != a.P * a.C or p.dtype != c.dtype or not self.unused(y, j):
            return False
        ep = _epilogue(p, r)
        if ep.n or ep.mean != NULL or not all([self.still(c, at, i, j) for at in (
                _at(a, &a.weight), _at(a, &a.bias), _at(a, &a.running_mean), _at(a, &a.running_var))]):
            return False
        for at in (_at(a, &a.mean), _at(a, &a.rstd)):
            if c.block(at) is None or not self.unused(c.block(at), j):
                return False
        self._unlist(i)
        self._unlist(j)
        for to, at in ((_at(p.args(), &ep.mean), _at(a, &a.mean)), (_at(p.args(), &ep.rstd), _at(a, &a.rstd)),
                       (_at(p.args(), &ep.weight), _at(a, &a.weight)), (_at(p.args(), &ep.shift), _at(a, &a.bias)),
                       (_at(p.args(), &ep.of), _at(a, &a.y)), (r.at, _at(a, &a.y))):
            p.point(to, c, at)
        c.clear(_at(a, &a.x))
        c.clear(_at(a, &a.y))
        a.N = 0
        self.before[i].append(c)
        self.replace(i, j)
        return True

    cdef bint into_norm(self, int j):
        """y = norm + other, or the ReLU of it: in the normalization's second pass."""
        cdef _Call c = self.calls[j], p
        cdef nn_ewise_args *e
        cdef nn_norm_args *a
        cdef int i, k
        if c.kernel != NN_K_ewise:
            return False
        e = <nn_ewise_args *>c.args()
        arity = ARITY[e.op]
        if e.sum or e.op not in (RELU, ADD) or _elements(e, arity) < 0:
            return False
        for k in range(arity):
            block, y = c.block(_at(e, &e.x[k])), c.block(_at(e, &e.y))
            i = self.maker(block, j) if block is not None else -1
            if i < 0 or not self.plain(i) or y is None or not self.unused(y, j):
                continue
            p = self.calls[i]
            if p.kernel != NN_K_norm or p.dtype != c.dtype:
                continue
            a = <nn_norm_args *>p.args()
            if (p.block(_at(a, &a.y)) is not block or a.relu or (e.op == ADD and a.add != NULL)
                    or a.N * a.P * a.C != _elements(e, arity) or not _fills(block, a.N * a.P * a.C, c.dtype)
                    or (arity == 2 and not self.still(c, _at(e, &e.x[1 - k]), i, j))):
                continue
            self._unlist(i)
            self._unlist(j)
            if e.op == RELU:
                a.relu = 1
            else:
                p.point(_at(a, &a.add), c, _at(e, &e.x[1 - k]))
            p.point(_at(a, &a.y), c, _at(e, &e.y))
            self.replace(i, j)
            return True
        return False

    cdef bint into_norm_backward(self, int j):
        """dx of the ReLU that a normalization applies: the normalization's backward finds the mask itself."""
        cdef _Call c = self.calls[j], p, f
        cdef nn_ewise_args *e
        cdef nn_norm_args *a
        cdef nn_norm_args *b
        if c.kernel != NN_K_ewise:
            return False
        e = <nn_ewise_args *>c.args()
        if e.sum or e.op != RELU_BACKWARD or _elements(e, 2) < 0:
            return False
        dz = c.block(_at(e, &e.y))
        uses = self.uses.get(dz, ())
        if dz is None or id(dz) in self.kept or len(uses) != 2 or uses[0] != (j, True) or uses[1][1]:
            return False
        k = uses[1][0]
        p = self.calls[k]
        if p.kernel != NN_K_norm_backward or p.dtype != c.dtype:
            return False
        a = <nn_norm_args *>p.args()
        rstd = p.block(_at(a, &a.rstd))
        if p.block(_at(a, &a.dy)) is not dz or a.relu or rstd is None or not self.uses[rstd][0][1]:
            return False
        i = self.uses[rstd][0][0]
        f = self.calls[i]
        if f is None or f.kernel != NN_K_norm:
            return False
        b = <nn_norm_args *>f.args()
        same = all([f.where(at) == p.where(at) for at in (_at(a, &a.x), _at(a, &a.mean), _at(a, &a.rstd), _at(a, &a.weight))])
        if (not same or not b.relu or b.add != NULL or f.where(_at(b, &b.y)) != c.where(_at(e, &e.x[1]))
                or (b.N, b.P, b.C, b.G, b.rms) != (a.N, a.P, a.C, a.G, a.rms) or a.N * a.P * a.C != _elements(e, 2)
                or not self.still(f, _at(b, &b.y), i + 1, j) or not self.still(c, _at(e, &e.x[0]), j, k)
                or not all([self.still(f, at, i + 1, k) for at in (_at(b, &b.bias), _at(b, &b.weight), _at(b, &b.x))])):
            return False
        self._unlist(k)
        self._unlist(j)
        a.relu = 1
        p.point(_at(a, &a.bias), f, _at(b, &b.bias))
        p.point(_at(a, &a.dy), c, _at(e, &e.x[0]))
        self.replace(k, j)
        return True

    cdef bint before_pool_backward(self, int j):
        """A mask on the gradient that a maximum over windows handed down: masked before, on the few that it hands down, as
        the maximum is the element itself."""
        cdef _Call c = self.calls[j], p, f
        cdef nn_ewise_args *e
        cdef nn_pool_args *a
        cdef nn_pool_args *b
        cdef int64_t inputs, outputs
        cdef int i, d
        if c.kernel != NN_K_ewise:
            return False
        e = <nn_ewise_args *>c.args()
        if e.sum or e.op not in MASKS or _elements(e, 2) < 0:
            return False
        dx = c.block(_at(e, &e.x[0]))
        i = self.maker(dx, j) if dx is not None else -1
        if i < 0 or not self.plain(i):
            return False
        p = self.calls[i]
        if p.kernel != NN_K_pool_backward or p.dtype != c.dtype:
            return False
        a = <nn_pool_args *>p.args()
        index, dy, y = p.block(_at(a, &a.index)), p.block(_at(a, &a.dy)), c.block(_at(e, &e.y))
        if not a.max or index is None or dy is None or y is None or id(dy) in self.kept or not self.unused(y, j):
            return False
        if any([k > i for k, _ in self.uses[dy]]) or not self.uses[index][0][1]:
            return False
        k = self.uses[index][0][0]
        f = self.calls[k]
        if f is None or f.kernel != NN_K_pool:
            return False
        b = <nn_pool_args *>f.args()
        inputs = outputs = a.N * a.C
        for d in range(3):
            inputs *= a.extent[d]
            outputs *= a.out[d]
        if (f.where(_at(b, &b.x)) != c.where(_at(e, &e.x[1])) or f.where(_at(b, &b.index)) != p.where(_at(a, &a.index))
                or inputs != _elements(e, 2) or not _fills(dy, outputs, c.dtype)
                or not _fills(f.block(_at(b, &b.y)), outputs, c.dtype)
                or not self.still(f, _at(b, &b.x), k, j) or not self.still(f, _at(b, &b.y), k + 1, j)):
            return False
        self._unlist(i)
        self._unlist(j)
        p.point(_at(a, &a.dx), c, _at(e, &e.y))
        for at in (_at(e, &e.x[0]), _at(e, &e.y)):
            c.point(at, p, _at(a, &a.dy))
        c.point(_at(e, &e.x[1]), f, _at(b, &b.y))
        e.ndim, e.shape[0], e.ys[0], e.xs[0][0], e.xs[1][0] = 1, outputs, 1, 1, 1
        self.calls[i], self.calls[j] = c, p
        self._list(i)
        self._list(j)
        self.try_all(i)
        return True

    cdef bint moments_into_convolution(self, int j):
        """The moments of a batch: the convolution that makes it takes them, piece after piece, while they are in cache."""
        cdef _Call c = self.calls[j], p
        cdef _Product r
        cdef nn_norm_args *a
        cdef nn_epilogue *ep
        if c.kernel != NN_K_norm:
            return False
        a = <nn_norm_args *>c.args()
        block = c.block(_at(a, &a.x))
        if a.N != 1 or a.G != a.C or a.P < 2 or a.fixed or block is None:
            return False
        writers = [k for k, writes in self.uses[block] if writes and k <= j]
        if len(writers) != 1 or not self.plain(writers[0]):
            return False
        i = writers[0]
        p = self.calls[i]
        r = _product(p)
        if (r is None or p.kernel not in TAKE_MOMENTS or r.block is not block or r.columns != a.C or r.count != a.P * a.C
                or p.dtype != c.dtype):
            return False
        ep = _epilogue(p, r)
        if _at(p.args(), &ep.moments) in p.words:
            return False
        moments = own(scratch_bytes(c.kernel, c.dtype, <size_t>a))
        self._unlist(i)
        self._unlist(j)
        p.give(_at(p.args(), &ep.moments), moments)
        c.give(_at(a, &a.moments), moments)
        self._list(i)
        self._list(j)
        return True

    cdef bint try_all(self, int j):
        """The patterns, in this order."""
        return self.plain(j) and (
            self.derivative_from_result(j)
            or self.into_norm_backward(j)
            or self.before_pool_backward(j)
            or self.fixed_norm_into_product(j)
            or self.into_product(j)
            or self.into_norm(j)
            or self.moments_into_convolution(j)
        )

    # ---- chains: elementwise calls on arrays of one size, at the place of the last ----

    cdef chain_all(self):
        """Elementwise calls that hand results to each other, or read the same, become one call each."""
        cdef _Link link
        cdef int j, k
        open = []
        for j in range(len(self.calls)):
            link = _link(self.calls[j], j) if self.plain(j) else None
            if link is None:
                continue
            group = [link]
            for k in range(len(open) - 1, max(len(open) - 1 - NEAR, -1), -1):
                if self._meet(open[k], group):
                    both = sorted(open[k] + group, key=_place)
                    if self._rows(both) is not None:
                        group = both
                        del open[k]
            open.append(group)
        for group in open:
            if len(group) > 1:
                self._chain(group)

    cdef bint _meet(self, list former, list group):
        """Whether one writes what the other reads or, near to it, both read the same."""
        cdef _Link a = former[0], b = group[0], x
        if a.n != b.n or a.dtype != b.dtype:
            return False
        written, read, wanted = set(), set(), set()
        for x in former:
            written |= x.writes
            read |= x.reads
        for x in group:
            wanted |= x.reads
        return bool(written & wanted or (read & wanted and (<_Link>group[0]).at - (<_Link>former[len(former) - 1]).at <= NEAR_READS))

    cdef object _owner(self, _Call c, size_t at):
        word = c.words.get(at)
        return (word.block or word.moving) if word is not None else self._outside(c.raw(at))

    cdef list _rows(self, list group):
        """[(rows of a link's operands, of its result)], -1 for arrays, if the links may be one chain; else None."""
        cdef _Link x
        cdef _Call c
        cdef int last = (<_Link>group[len(group) - 1]).at, first = (<_Link>group[0]).at, k, i
        cdef size_t at
        if len(group) > NN_MAX_CHAIN or any([first < i < last for i in self.checks]):
            return None
        members = {(<_Link>y).at for y in group}
        places, written = {}, set()
        for x in group:
            for at, number, writes in x.pointers:
                owner = self._owner(x.call, at)
                if owner is None:
                    return None
                places.setdefault(owner, set()).add((x.call.where(at), number, number and writes))
                if writes:
                    written.add(owner)
                for k, other in self.uses[owner]:
                    if x.at < k < last and (other or writes) and k not in members:
                        return None
        if any([len(places[o]) > 1 for o in written]):  # an element depends on what is at its place only
            return None
        # what nobody else sees stays in a row, until its last use
        ends = {}
        for i, y in enumerate(group):
            x = y
            for at, number, _ in x.pointers:
                block = x.call.block(at)
                if (block is not None and not number and id(block) not in self.kept and block in written
                        and _fills(block, x.n, x.dtype) and all([k in members for k, _ in self.uses[block]])):
                    ends[block] = i
        free, held, numbers, found = list(range(NN_CHAIN_ROWS)), {}, {}, []
        for x in group:
            for at, number, writes in x.pointers:
                where = x.call.where(at)
                if number and not writes and where not in numbers:
                    if not free:
                        return None
                    numbers[where] = free.pop()
        for i, y in enumerate(group):
            x, rows, to = y, [], -1
            for at, number, writes in x.pointers:
                if not writes:
                    rows.append(numbers[x.call.where(at)] if number else held.get(x.call.block(at), -1))
            mine = None if x.sum else x.call.block(x.to)
            for block in [b for b in held if ends[b] == i and b is not mine]:
                free.append(held.pop(block))
            if x.sum == NN_LINK_SUM or mine in ends:
                if mine not in held:
                    if not free:
                        return None
                    held[mine] = free.pop()
                to = held[mine]
                if x.sum or ends[mine] == i:
                    free.append(held.pop(mine))
            found.append((rows, to))
        return found

    cdef _chain(self, list group):
        """The links as one call, at the place of the last."""
        cdef nn_chain_args *a
        cdef nn_link *l
        cdef _Link x = group[len(group) - 1]
        cdef Call call = Call.__new__(Call)
        cdef _Call made
        cdef int i, k
        cdef size_t at
        rows = self._rows(group)
        call.kernel, call.dtype, call.where = NN_K_chain, x.dtype, x.call.step.call.where
        call.threads = max([(<_Link>y).call.step.call.threads for y in group])
        made = _Call(edited(x.call.step, bytes(sizeof(nn_chain_args)), [], call))
        made.changed = True
        a = <nn_chain_args *>made.args()
        a.n, a.links = x.n, len(group)
        for i in range(a.links):
            x, l = group[i], &a.link[i]
            l.op, l.sum, l.s, l.t, l.scale, l.to = x.op, x.sum, x.s, x.t, x.scale, rows[i][1]
            for k in range(3):
                l.row[k] = -1
            for k, (at, number, writes) in enumerate(x.pointers):
                if writes:
                    if l.to < 0 or x.sum:
                        made.point(_at(a, &l.y), x.call, at)
                else:
                    l.row[k] = rows[i][0][k]
                    if l.row[k] < 0 or number:
                        made.point(_at(a, &l.x[k]), x.call, at)
            self.calls[x.at] = None
        self.calls[x.at] = made

    def run(self):
        for j in range(len(self.calls)):
            self.try_all(j)
        self.chain_all()
        steps = []
        for first, c in zip(self.before, self.calls):
            steps += [x.result() for x in (*first, c) if x is not None]
        return steps


cdef bint _enabled = True


def set_enabled(bint value):
    """Whether plans made from now on are fused; gives what was in force (for tests and benchmarks)."""
    global _enabled
    was, _enabled = _enabled, value
    return was


def fuse(list steps, kept):
    """The steps with calls fused. kept: blocks that are read after the replay."""
    return _Fusing(steps, kept).run() if _enabled else steps
