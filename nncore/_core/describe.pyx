"""What a call of a kernel is, from its arguments: the one place that knows, for summaries and profiles.

FLOP are additions and multiplications as the formula has them (of convolutions the direct one's; a function such as exp counts
as one); bytes are what must be read and written at least, each array once.
"""
from libc.stdint cimport int64_t

from .c cimport *

from .runtime import KERNELS, OP_ARITY, OPS

cdef list OP_NAMES = sorted(OPS, key=OPS.get)
cdef tuple CELLS = ("tanh", "relu", "lstm", "gru")
cdef int64_t[5] SIZES = [4, 8, 8, 1, 4]
cdef int UPDATES = NN_K_norms  # kernels between dropout and norms are the lines of optim.def


cdef int64_t _product(const int64_t *v, int n) noexcept:
    cdef int64_t p = 1
    for i in range(n):
        p *= v[i]
    return p


cdef str _dims(const int64_t *v, int n):
    """Sizes without the leading ones: images of one axis have [1, 1, length]."""
    cdef int i = 0
    if n == 0:
        return "1"
    while i < n - 1 and v[i] == 1:
        i += 1
    return "x".join([str(v[k]) for k in range(i, n)])


cdef str _epilogue(const nn_epilogue *e):
    cdef str found = (" + bias" if e.bias != NULL else "") + (" + norm" if e.mean != NULL else "")
    return found + "".join([" + " + OP_NAMES[e.then[i].op] for i in range(e.n)]) + (" + moments" if e.moments != NULL else "")


cdef int64_t _others(const nn_epilogue *e) noexcept:
    """Arrays of the result's size that the epilogue reads."""
    cdef int64_t n = 0
    for i in range(e.n):
        n += e.then[i].other != NULL
    return n


cdef int64_t _walked(int ndim, const int64_t *shape, const int64_t *strides) noexcept:
    """Elements that strides over an index space reach."""
    cdef int64_t n = 1
    for i in range(ndim):
        if strides[i] != 0:
            n *= shape[i]
        elif shape[i] == 0:
            return 0
    return n


def describe(int kernel, int dtype, size_t address):
    """(name, shapes, FLOP, bytes) of the call of a kernel with the arguments at an address."""
    cdef void *args = <void *>address
    cdef int64_t w = SIZES[dtype]
    cdef str name = KERNELS[kernel]
    if kernel == NN_K_gemm:
        return (name, *_gemm(<nn_gemm_args *>args, w))
    if kernel == NN_K_gemm_pack:
        return (name, *_gemm_pack(<nn_gemm_pack_args *>args, w))
    if kernel in (NN_K_conv, NN_K_conv_scatter):
        return (name, *_conv(<nn_conv_args *>args, w, kernel == NN_K_conv_scatter))
    if kernel in (NN_K_conv_pack, NN_K_depthwise_pack):
        return (name, *_conv_pack(<nn_conv_pack_args *>args, w))
    if kernel == NN_K_conv_weight:
        return (name, *_conv_weight(<nn_conv_weight_args *>args, w))
    if kernel in (NN_K_winograd, NN_K_winograd_weight):
        return (name, *_winograd(<nn_winograd_args *>args, w))
    if kernel == NN_K_winograd_pack:
        return (name, *_winograd_pack(<nn_winograd_pack_args *>args, w))
    if kernel in (NN_K_depthwise, NN_K_depthwise_weight):
        return (name, *_depthwise(<nn_depthwise_args *>args, w))
    if kernel == NN_K_rnn:
        return _rnn(<nn_rnn_args *>args, w)
    if kernel in (NN_K_norm, NN_K_norm_backward):
        return (name, *_norm(<nn_norm_args *>args, w, kernel == NN_K_norm_backward))
    if kernel == NN_K_lrn:
        return (name, *_lrn(<nn_lrn_args *>args, w))
    if kernel in (NN_K_pool, NN_K_pool_backward):
        return (name, *_pool(<nn_pool_args *>args, w, kernel == NN_K_pool_backward))
    if kernel in (NN_K_pad, NN_K_pad_backward):
        return (name, *_pad(<nn_pad_args *>args, w))
    if kernel == NN_K_resample:
        return (name, *_resample(<nn_resample_args *>args, w))
    if kernel == NN_K_affine:
        return (name, *_affine(<nn_affine_args *>args, w))
    if kernel == NN_K_chain:
        return _chain(<nn_chain_args *>args, w)
    if kernel == NN_K_ewise:
        return _ewise(<nn_ewise_args *>args, w)
    if kernel == NN_K_cast:
        return _cast(<nn_cast_args *>args)
    if kernel == NN_K_zero:
        return name, f"{(<nn_zero_args *>args).bytes} bytes", 0, (<nn_zero_args *>args).bytes
    if kernel == NN_K_reduce:
        return _reduce(<nn_reduce_args *>args, w)
    if kernel in (NN_K_softmax, NN_K_softmax_backward):
        return (name, *_softmax(<nn_softmax_args *>args, w, kernel == NN_K_softmax_backward))
    if kernel in (NN_K_cross_entropy, NN_K_cross_entropy_backward):
        return (name, *_cross_entropy(<nn_cross_entropy_args *>args, w))
    if kernel == NN_K_index:
        return name, f"{(<nn_index_args *>args).n}", 0, 16 * (<nn_index_args *>args).n
    if kernel in (NN_K_gather, NN_K_scatter, NN_K_scatter_add):
        return (name, *_gather(<nn_gather_args *>args, w, kernel == NN_K_scatter_add))
    if kernel == NN_K_places:
        return (name, *_places(<nn_places_args *>args))
    if kernel == NN_K_bag:
        return (name, *_bag(<nn_bag_args *>args, w))
    if kernel == NN_K_random:
        return name, f"{(<nn_random_args *>args).n}", 0, w * (<nn_random_args *>args).n
    if kernel == NN_K_dropout:
        return name, f"{(<nn_dropout_args *>args).n}", (<nn_dropout_args *>args).n, 2 * w * (<nn_dropout_args *>args).n
    if kernel == NN_K_norms:
        return (name, *_chunks((<nn_norms_args *>args).chunks, (<nn_norms_args *>args).n_chunks, w, False))
    if NN_K_dropout < kernel < UPDATES:
        return (name, *_chunks((<nn_optim_args *>args).chunks, (<nn_optim_args *>args).n_chunks, w, True))
    return name, "", 0, 0  # a probe


cdef tuple _gemm(const nn_gemm_args *a, int64_t w):
    cdef int64_t times = a.batch, aside = a.M * a.K * (times if a.bsA else 1)
    cdef int64_t bside = a.N * a.K * (times if a.bsB and a.packed == NULL else 1)
    cdef int64_t c = a.M * a.N * times
    shape = f"{a.M}x{a.K} @ {a.K}x{a.N}{_epilogue(&a.epilogue)}{' + C' if a.beta else ''}"
    return shape if times == 1 else f"{times} of {shape}", 2 * c * a.K, w * (aside + bside + c * ((2 if a.beta else 1) + _others(&a.epilogue)))


cdef tuple _gemm_pack(const nn_gemm_pack_args *a, int64_t w):
    return f"{a.K}x{a.N}", 0, 2 * w * a.K * a.N


cdef tuple _images(int64_t images, int64_t channels, const int64_t *before, int64_t filters, const int64_t *after, int n,
                   str taps, int64_t groups, int64_t flop, int64_t numbers, int64_t w, str more, int64_t others=0):
    """Of a convolution with so many numbers in its weight; others: arrays of the result's size that are read too."""
    cdef int64_t moved = images * (channels * _product(before, n) + filters * _product(after, n) * (1 + others)) + numbers
    shape = f"{images}x{channels}x{_dims(before, n)} -> {filters}x{_dims(after, n)}, {taps} taps"
    return shape + (f", {groups} groups" if groups > 1 else "") + more, flop, w * moved


cdef tuple _conv(const nn_conv_args *a, int64_t w, bint scatter):
    cdef const int64_t *points = a.grid  # where products are added up, or from where they are scattered
    cdef const int64_t *out = a.grid
    cdef int64_t numbers = a.groups * a.C * a.K * a.n_taps
    if scatter:
        points = a.extent
        out = a.out
    return _images(a.N, a.C * a.groups, a.extent, a.K * a.groups, out, 3, str(a.n_taps), a.groups,
                   2 * a.N * _product(points, 3) * numbers, numbers, w, _epilogue(&a.epilogue), _others(&a.epilogue))


cdef tuple _conv_weight(const nn_conv_weight_args *a, int64_t w):
    cdef int64_t points = a.N * _product(a.out, 3), numbers = a.groups * a.C * a.K * a.n_taps
    return _images(a.N, a.C * a.groups, a.extent, a.K * a.groups, a.out, 3, str(a.n_taps), a.groups, 2 * points * numbers, numbers, w,
                   "")


cdef tuple _winograd(const nn_winograd_args *a, int64_t w):
    cdef int64_t points = a.N * _product(a.out, 2), numbers = a.groups * a.C * a.K * 9
    return _images(a.N, a.C * a.groups, a.extent, a.K * a.groups, a.out, 2, "9", a.groups, 2 * points * numbers, numbers, w,
                   f", F({a.m}x{a.m})" + _epilogue(&a.epilogue), _others(&a.epilogue))


cdef tuple _depthwise(const nn_depthwise_args *a, int64_t w):
    cdef int64_t taps = _product(a.kernel, 3), numbers = a.groups * a.C * a.K * taps
    cdef int64_t points = a.N * (_product(a.extent, 3) if a.transposed else _product(a.out, 3))
    return _images(a.N, a.C * a.groups, a.extent, a.K * a.groups, a.out, 3, str(taps), a.groups, 2 * points * numbers, numbers, w,
                   _epilogue(&a.epilogue), _others(&a.epilogue))


cdef tuple _conv_pack(const nn_conv_pack_args *a, int64_t w):
    return f"{a.groups * a.outputs}x{a.inputs}x{a.all_taps}", 0, 2 * w * a.groups * a.outputs * a.inputs * a.all_taps


cdef tuple _winograd_pack(const nn_winograd_pack_args *a, int64_t w):
    cdef int64_t n = a.groups * a.K * a.C
    return f"{a.groups * a.K}x{a.C}x3x3, F({a.m}x{a.m})", 0, w * n * (9 + (a.m + 2) * (a.m + 2))


cdef tuple _rnn(const nn_rnn_args *a, int64_t w):
    cdef int64_t rows = 0, gates = 4 if a.cell == NN_LSTM else 3 if a.cell == NN_GRU else 1, t
    cdef bint back = a.dgates != NULL
    for t in range(a.steps):
        rows += a.sizes[t]
    kind = f"rnn {CELLS[a.cell]}{' backward' if back else ''}"
    shape = f"{a.steps} steps, {a.sizes[0] if a.steps else 0} rows, {a.H} wide{', reversed' if a.reverse else ''}"
    # the gates are read, and written if they are kept; h, or its gradient; backward reads h and writes the gates' gradients
    moved = rows * a.H * ((3 * gates + 2) if back else gates * (2 if a.keep else 1) + 1) + gates * a.H * a.H
    return kind, shape, 2 * rows * gates * a.H * a.H, w * moved


cdef tuple _norm(const nn_norm_args *a, int64_t w, bint back):
    cdef int64_t n = a.N * a.P * a.C
    shape = f"{a.N}x{a.P}x{a.C}, {a.N * a.G} groups" + (" of given moments" if a.moments != NULL else "")
    shape += (" + add" if a.add != NULL else "") + (" + relu" if a.relu else "")
    if back:
        return shape, 8 * n, w * n * (3 if a.dx != NULL else 2)
    return shape, n * (2 if a.fixed or a.moments != NULL else 5), w * n * (3 if a.add != NULL else 2)


cdef tuple _lrn(const nn_lrn_args *a, int64_t w):
    cdef bint back = a.dy != NULL
    return f"{a.rows}x{a.C}, {a.size} channels{', backward' if back else ''}", a.rows * a.C * (10 if back else 5), \
        w * a.rows * a.C * (3 if back else 2)


cdef tuple _pool(const nn_pool_args *a, int64_t w, bint back):
    cdef int64_t seen = a.N * a.C, inside = a.N * a.C * _product(a.extent, 3), outside = a.N * a.C * _product(a.out, 3), axis, o
    for d in range(3):
        axis = 0
        for o in range(a.out[d]):
            axis += a.count[d][o] if a.count[d] != NULL else 1
        seen *= axis
    shape = f"{a.N}x{a.C}x{_dims(a.extent, 3)} -> {_dims(a.out, 3)}{', max' if a.max else ''}"
    return shape, outside if back and a.max else seen, w * (inside + outside) + (4 * outside if a.index != NULL else 0)


cdef tuple _pad(const nn_pad_args *a, int64_t w):
    cdef int64_t before = _product(a.extent, a.ndim) * a.inner, after = _product(a.out, a.ndim) * a.inner
    return f"{_dims(a.extent, a.ndim)} -> {_dims(a.out, a.ndim)}" + (f", {a.inner} together" if a.inner > 1 else ""), 0, \
        w * (before + after)


cdef tuple _resample(const nn_resample_args *a, int64_t w):
    cdef int64_t inside = a.N * a.C * _product(a.extent, 3), outside = a.N * a.C * _product(a.out, 3), seen = a.N * a.C
    for d in range(3):
        seen *= a.at[d][a.out[d]] if a.at[d] != NULL else 1
    return f"{a.N}x{a.C}x{_dims(a.extent, 3)} -> {_dims(a.out, 3)}", 2 * seen, w * (inside + outside)


cdef tuple _affine(const nn_affine_args *a, int64_t w):
    cdef int64_t images = a.N * a.planes * a.inner, inside = _product(a.extent, 2), outside = _product(a.out, 2)
    return f"{a.N}x{a.planes * a.inner}x{_dims(a.extent, 2)} -> {_dims(a.out, 2)}", 8 * images * outside, \
        w * images * (inside + outside) + 48 * a.N


cdef tuple _ewise(const nn_ewise_args *a, int64_t w):
    cdef int64_t n = _product(a.shape, a.ndim), moved = 1 if a.sum else _walked(a.ndim, a.shape, a.ys)
    op = OP_NAMES[a.op]
    for i in range(OP_ARITY[op]):
        moved += _walked(a.ndim, a.shape, a.xs[i])
    return f"ewise {op}{' sum' if a.sum else ''}", _dims(a.shape, a.ndim), n * (2 if a.sum else 1), w * moved


cdef tuple _chain(const nn_chain_args *a, int64_t w):
    cdef const nn_link *l = a.link
    cdef int i, k
    cdef int64_t flop = 0
    names, arrays, numbers = [], set(), set()
    for i in range(a.links):
        l = a.link + i
        names.append("sum" if l.sum == NN_LINK_REDUCE else OP_NAMES[l.op] + (" sum" if l.sum else ""))
        flop += a.n * (2 if l.sum == NN_LINK_SUM else 1)
        for k in range(3):
            if l.x[k] != NULL:
                (arrays if l.row[k] < 0 else numbers).add((<size_t>l.x[k], False))
        if l.y != NULL:
            (numbers if l.sum else arrays).add((<size_t>l.y, True))
    return "ewise " + " + ".join(names), str(a.n), flop, w * (a.n * len(arrays) + len(numbers))


cdef tuple _cast(const nn_cast_args *a):
    cdef int64_t n = _product(a.shape, a.ndim)
    return "copy" if a.xtype == a.ytype else "cast", _dims(a.shape, a.ndim), 0, \
        n * SIZES[a.ytype] + _walked(a.ndim, a.shape, a.xs) * SIZES[a.xtype]


cdef tuple _reduce(const nn_reduce_args *a, int64_t w):
    cdef int64_t n = a.outer * a.n * a.inner, out = a.outer * a.inner
    return f"reduce {('sum', 'max', 'min')[a.op]}", f"{a.outer}x{a.n}x{a.inner}", n, \
        w * (n + out) + (8 * out if a.index != NULL else 0)


cdef tuple _softmax(const nn_softmax_args *a, int64_t w, bint back):
    return f"{a.rows}x{a.n}{', log' if a.log else ''}", 5 * a.rows * a.n, w * a.rows * a.n * (3 if back else 2)


cdef tuple _cross_entropy(const nn_cross_entropy_args *a, int64_t w):
    return f"{a.rows}x{a.n}", 5 * a.rows * a.n, w * a.rows * (a.n * (2 if a.dx != NULL else 1) + 2) + 8 * a.rows


cdef tuple _gather(const nn_gather_args *a, int64_t w, bint add):
    return f"{a.n} rows of {a.inner}", a.n * a.inner if add else 0, w * a.n * a.inner * (3 if add else 2) + 8 * a.n


cdef tuple _places(const nn_places_args *a):
    return f"{a.rows}x{a.width}", 0, 16 * a.rows * a.width


cdef tuple _bag(const nn_bag_args *a, int64_t w):
    cdef int64_t n = a.start[a.bags]
    return f"{n} rows of {a.inner} in {a.bags} bags", n * a.inner, w * a.inner * (n + a.bags) + 8 * n


cdef tuple _chunks(const nn_chunk *c, int64_t chunks, int64_t w, bint update):
    """Of an optimizer, a limit of gradients, or norms: its arrays are read, and all but the gradient written."""
    cdef int64_t n = 0, moved = 0, i
    cdef int states = 0, k
    for i in range(chunks):
        n += c[i].n
        moved += c[i].n * (2 if update else 1)
        if c[i].g != NULL:
            moved += c[i].n
        states = 0
        for k in range(NN_MAX_STATES):
            if c[i].s[k] != NULL:
                states += 1
        moved += 2 * states * c[i].n
    return f"{n} in {chunks} arrays", n * (2 + 4 * states), w * moved
