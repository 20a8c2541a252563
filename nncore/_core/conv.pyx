"""Convolution: forward, and the gradients for the input and the weight. All on three spatial axes; fewer have size 1
in front. Images are channels-last in memory."""
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t
from libc.string cimport memset

from itertools import product

from nncore._core import dense

from . cimport depthwise, runtime
from .c cimport *
from .elementwise cimport channels_last, contiguous
from .tensor cimport Storage, TensorBase, empty, empty_channels_last, find_packed, keep_packed, new_storage

from .record import changed


cdef class Geometry:
    """Strides, paddings (in front) and dilations of a convolution, on three axes."""
    cdef int64_t[3] kernel
    cdef int64_t[3] stride
    cdef int64_t[3] padding
    cdef int64_t[3] dilation
    cdef readonly int64_t groups
    cdef readonly int axes

    def __init__(self, tuple kernel, tuple stride, tuple padding, tuple dilation, int64_t groups):
        cdef int i, skip = 3 - len(kernel)
        self.axes = len(kernel)
        self.groups = groups
        for i in range(3):
            self.kernel[i] = kernel[i - skip] if i >= skip else 1
            self.stride[i] = stride[i - skip] if i >= skip else 1
            self.padding[i] = padding[i - skip] if i >= skip else 0
            self.dilation[i] = dilation[i - skip] if i >= skip else 1

    cdef bint pointwise(self) noexcept:
        return (self.kernel[0] * self.kernel[1] * self.kernel[2] == 1
                and self.padding[0] == 0 and self.padding[1] == 0 and self.padding[2] == 0)


cdef class Taps:
    """A list of taps in ascending order, and where each of the kernel's taps stands in it (-1: not in it)."""
    cdef int64_t *taps
    cdef int64_t *position
    cdef int64_t n, all_taps

    def __cinit__(self, list per_axis, kernel):
        """per_axis: for each axis [(offset, kernel index)], ascending."""
        cdef int64_t i, n = 1
        self.all_taps = kernel[0] * kernel[1] * kernel[2]
        for axis in per_axis:
            n *= len(axis)
        self.n = n
        self.taps = <int64_t *>PyMem_Malloc((3 * n + 1) * sizeof(int64_t))
        self.position = <int64_t *>PyMem_Malloc((self.all_taps + 1) * sizeof(int64_t))
        if self.taps == NULL or self.position == NULL:
            raise MemoryError()
        for i in range(self.all_taps):
            self.position[i] = -1
        for i, (t, r, s) in enumerate(product(*per_axis)):
            self.taps[3 * i], self.taps[3 * i + 1], self.taps[3 * i + 2] = t[0], r[0], s[0]
            self.position[(<int64_t>t[1] * kernel[1] + r[1]) * kernel[2] + s[1]] = i

    def __dealloc__(self):
        PyMem_Free(self.taps)
        PyMem_Free(self.position)

    cdef void keep(self):
        runtime.keep(self.taps, <size_t>(3 * self.n) * sizeof(int64_t), self)
        runtime.keep(self.position, <size_t>self.all_taps * sizeof(int64_t), self)


cdef Taps _forward_taps(Geometry g):
    axes = [[(k * g.dilation[d] - g.padding[d], k) for k in range(g.kernel[d])] for d in range(3)]
    return Taps(axes, [g.kernel[0], g.kernel[1], g.kernel[2]])


cdef Taps _phase_taps(Geometry g, tuple phase):
    """Of the gradient for the input: the taps that reach the positions phase + stride g of dX."""
    cdef int64_t v
    axes = []
    for d in range(3):
        found = []
        for k in range(g.kernel[d]):
            v = <int64_t>phase[d] + g.padding[d] - <int64_t>k * g.dilation[d]
            if v % g.stride[d] == 0:
                found.append((v / g.stride[d], k))
        axes.append(sorted(found))
    return Taps(axes, [g.kernel[0], g.kernel[1], g.kernel[2]])


cdef extern from "tuning.h":
    enum:
        NN_WINOGRAD_MIN_CHANNELS, NN_WINOGRAD_MIN_GAIN
    double NN_SCATTER_CYCLES, NN_GATHER
    double NN_GATHER_FEW(int64_t C)

# What is asked for: auto, direct, or m of Winograd's F(m x m, 3x3).
ALGORITHMS = {"auto": 0, "direct": 1, "winograd2": 2, "winograd4": 4}
cdef int algorithm = 0


def set_algorithm(str name):
    global algorithm
    algorithm = ALGORITHMS[name]
    changed()


def get_algorithm():
    return next(name for name, value in ALGORITHMS.items() if value == algorithm)


cdef int _winograd_tile(Geometry g, TensorBase x, TensorBase y) noexcept:
    """m of the F(m x m, 3x3) to be used, or 0. Nothing but the layer and the image size may decide this."""
    cdef int i
    cdef int64_t h = y.dims[2], w = y.dims[3]
    if algorithm == 1 or g.axes != 2:
        return 0
    for i in range(1, 3):
        if g.kernel[i] != 3 or g.stride[i] != 1 or g.dilation[i] != 1:
            return 0
    if algorithm:
        return algorithm
    if min(x.dims[1], y.dims[1]) < NN_WINOGRAD_MIN_CHANNELS * g.groups:
        return 0
    return 2 if 900 * h * w >= NN_WINOGRAD_MIN_GAIN * 16 * ((h + 1) // 2) * ((w + 1) // 2) else 0


cdef Storage _winograd_pack(TensorBase w, int m, Geometry g, bint turned):
    """Transformed and packed weights for the forward direction, or turned: summed over K, written to C."""
    cdef nn_winograd_pack_args a
    memset(&a, 0, sizeof(a))
    cdef Storage p
    cdef int64_t K = w.dims[0] // g.groups, C = w.dims[1], nr = runtime.gemm_nr(w.code)
    cdef int64_t depth = K if turned else C, outputs = C if turned else K
    cdef tuple key = ("winograd", m, runtime.isa(), <size_t>(w.data - w.storage.data), K, C, g.groups)
    found = False if turned else find_packed(w.storage, key)
    if found is not False and found is not True:
        return <Storage>found
    a.m, a.turned = m, turned
    a.groups, a.C, a.K, a.w = g.groups, C, K, w.data
    p = new_storage(<size_t>(g.groups * ((outputs + nr - 1) // nr * nr) * (m + 2) * (m + 2) * depth * (4 if w.code == NN_FLOAT32 else 8)))
    a.packed = p.data
    runtime.run_with_scratch(NN_K_winograd_pack, w.code, &a, &a.scratch)
    if found is True:
        keep_packed(w.storage, key, p)
    return p


cdef TensorBase _winograd(TensorBase x, TensorBase w, TensorBase bias, Geometry g, int m, bint turned, TensorBase y, int act):
    """y = act(x * w + bias); turned: y is the gradient for the input of a convolution with w, from x."""
    cdef nn_winograd_args a
    memset(&a, 0, sizeof(a))
    cdef Storage p = _winograd_pack(w, m, g, turned)
    cdef int i
    a.m = m
    a.N, a.C, a.K, a.groups = x.dims[0], x.dims[1] // g.groups, y.dims[1] // g.groups, g.groups
    a.ldx, a.ldy = x.dims[1], y.dims[1]
    for i in range(2):
        a.extent[i], a.out[i] = x.dims[2 + i], y.dims[2 + i]
        a.offset[i] = g.padding[1 + i] - 2 if turned else -g.padding[1 + i]
    a.x, a.packed, a.y = x.data, p.data, y.data
    a.epilogue.bias = bias.data if bias is not None else NULL
    a.epilogue.n, a.epilogue.then[0].op = act >= 0, act
    runtime.run_with_scratch(NN_K_winograd, x.code, &a, &a.scratch)
    return y


cdef TensorBase _winograd_weight(TensorBase x, TensorBase dy, Geometry g, int m, TensorBase dw):
    cdef nn_winograd_args a
    memset(&a, 0, sizeof(a))
    cdef int i
    a.m = m
    a.N, a.C, a.K, a.groups = x.dims[0], dw.dims[1], dw.dims[0] // g.groups, g.groups
    a.ldx, a.ldy = x.dims[1], dy.dims[1]
    for i in range(2):
        a.extent[i], a.out[i] = x.dims[2 + i], dy.dims[2 + i]
        a.offset[i] = -g.padding[1 + i]
    a.x, a.dy, a.dw = x.data, dy.data, dw.data
    runtime.run_with_scratch(NN_K_winograd_weight, x.code, &a, &a.scratch)
    return dw


cdef void _spatial(TensorBase t, int64_t *to) noexcept:
    cdef int i, skip = 3 - (t.ndim - 2)
    for i in range(3):
        to[i] = t.dims[i - skip + 2] if i >= skip else 1


cdef Storage _pack(TensorBase w, Taps taps, Geometry g, bint turned, bint keep):
    """Packed weights [K, C, taps] for the forward direction, or turned: summed over K, written to C."""
    cdef nn_conv_pack_args a
    memset(&a, 0, sizeof(a))
    cdef Storage p
    cdef int64_t K = w.dims[0] // g.groups, C = w.dims[1], nr = runtime.gemm_nr(w.code)
    cdef tuple key = ("conv", runtime.isa(), <size_t>(w.data - w.storage.data), K, C, taps.all_taps, g.groups)
    found = find_packed(w.storage, key) if keep else False
    if found is not False and found is not True:
        return <Storage>found
    a.groups = g.groups
    a.inputs, a.outputs = (K, C) if turned else (C, K)
    a.in_stride = C * taps.all_taps if turned else taps.all_taps
    a.out_stride = taps.all_taps if turned else C * taps.all_taps
    a.group_stride = K * C * taps.all_taps
    a.all_taps, a.n_taps, a.position = taps.all_taps, taps.n, taps.position
    a.w = w.data
    p = new_storage(<size_t>(g.groups * ((a.outputs + nr - 1) // nr * nr) * taps.n * a.inputs * (4 if w.code == NN_FLOAT32 else 8)))
    a.packed = p.data
    taps.keep()
    runtime.run(NN_K_conv_pack, w.code, &a)
    if found is True:
        keep_packed(w.storage, key, p)
    return p


def forward(TensorBase x, TensorBase w, TensorBase bias, Geometry g, tuple out, int act=-1):
    """x [N, C, spatial], w [K, C / groups, kernel], bias [K] or None -> act(x * w + bias) [N, K, out], channels-last."""
    cdef nn_conv_args a
    memset(&a, 0, sizeof(a))
    cdef TensorBase y
    cdef Taps taps
    cdef Storage p
    cdef int64_t[8] dims
    cdef int i, m
    x = channels_last(x)
    w = contiguous(w)
    if bias is not None:
        bias = contiguous(bias)
    dims[0], dims[1] = x.dims[0], w.dims[0]
    for i in range(g.axes):
        dims[2 + i] = out[i]
    y = empty_channels_last(x.code, x.ndim, dims)
    m = _winograd_tile(g, x, y)
    if m:
        return _winograd(x, w, bias, g, m, False, y, act)
    if depthwise.fits(x.code, g.groups, w.dims[1], w.dims[0] // g.groups):
        depthwise.convolve(False, x, w, bias, act, y, g.groups, g.kernel, g.stride, g.padding, g.dilation)
        return y
    taps = _forward_taps(g)
    p = _pack(w, taps, g, False, True)
    a.N, a.C, a.K, a.groups = x.dims[0], w.dims[1], w.dims[0] // g.groups, g.groups
    a.ldx, a.ldy = x.dims[1], w.dims[0]
    _spatial(x, a.extent)
    _spatial(y, a.grid)
    _spatial(y, a.out)
    for i in range(3):
        a.step[i] = g.stride[i]
        a.ostep[i], a.obase[i] = 1, 0
    a.n_taps, a.taps = taps.n, taps.taps
    a.x, a.packed, a.y = x.data, p.data, y.data
    a.panel = taps.n * a.C * runtime.gemm_nr(x.code)
    a.epilogue.bias = bias.data if bias is not None else NULL
    a.epilogue.n, a.epilogue.then[0].op = act >= 0, act
    taps.keep()
    runtime.run_with_scratch(NN_K_conv, x.code, &a, &a.scratch)
    return y


cdef bint _scatters(Geometry g, TensorBase dy, TensorBase dx) noexcept:
    """Whether dX, of few channels, is scattered to: by the cycles of a run of taps along w at each point of dY, and of the
    taps of its phase at each point of dX. Nothing but the layer and the image size may decide this."""
    cdef int64_t lanes = runtime.lanes(dx.code), C = dx.dims[1]
    cdef double scattered = 1, gathered = 1, K = dy.dims[1]
    cdef int i
    if g.groups != 1 or g.dilation[2] != 1 or C > lanes:
        return False
    for i in range(g.axes):
        scattered *= dy.dims[2 + i]
        gathered *= dx.dims[2 + i]
    for i in range(3):
        scattered *= g.kernel[i] if i < 2 else (g.kernel[2] * C + lanes - 1) // lanes
        gathered *= <double>g.kernel[i] / g.stride[i]
    scattered *= K + NN_SCATTER_CYCLES
    gathered *= K * (NN_GATHER_FEW(C) / lanes if 2 * C <= lanes else NN_GATHER)
    return scattered < gathered


def input_gradient(TensorBase dy, TensorBase w, Geometry g, tuple shape, TensorBase bias=None):
    """dX of `shape` [N, C, spatial], channels-last; the transposed convolution of dy. One call per phase of the stride:
    dX at positions h = phase + stride g receives dY[g + (phase + padding - k dilation) / stride] W_k, for the k for
    which that is whole."""
    cdef nn_conv_args a
    memset(&a, 0, sizeof(a))
    cdef TensorBase dx
    cdef Taps taps, all_taps
    cdef Storage p
    cdef int64_t[8] dims
    cdef int d, i, m
    cdef int64_t tap, first = 0
    dy = channels_last(dy)
    w = contiguous(w)
    if bias is not None:
        bias = contiguous(bias)
    for i in range(2 + g.axes):
        dims[i] = shape[i]
    dx = empty_channels_last(dy.code, dy.ndim, dims)
    m = _winograd_tile(g, dy, dx)
    if m:
        return _winograd(dy, w, bias, g, m, True, dx, -1)
    if depthwise.fits(dy.code, g.groups, w.dims[0] // g.groups, w.dims[1]):
        depthwise.convolve(True, dy, w, bias, -1, dx, g.groups, g.kernel, g.stride, g.padding, g.dilation)
        return dx
    a.N, a.C, a.K, a.groups = dy.dims[0], w.dims[0] // g.groups, w.dims[1], g.groups
    a.ldx, a.ldy = w.dims[0], dx.dims[1]
    _spatial(dy, a.extent)
    _spatial(dx, a.out)
    a.epilogue.bias = bias.data if bias is not None else NULL
    a.x, a.y = dy.data, dx.data
    if _scatters(g, dy, dx):
        w = channels_last(w)
        taps = _forward_taps(g)
        for i in range(3):
            a.step[i] = g.stride[i]
        a.n_taps, a.taps, a.packed = taps.n, taps.taps, w.data
        taps.keep()
        runtime.run_with_scratch(NN_K_conv_scatter, dy.code, &a, &a.scratch)
        return dx
    phases = [(phase, _phase_taps(g, phase)) for phase in product(*[range(g.stride[i]) for i in range(3)])]
    all_taps = _forward_taps(g)  # only for where they stand: phase after phase
    for _, taps in phases:
        for i in range(taps.all_taps):
            if taps.position[i] >= 0:
                all_taps.position[i] = first + taps.position[i]
        first += taps.n
    p = _pack(w, all_taps, g, True, False)
    a.panel = all_taps.n * a.C * runtime.gemm_nr(dy.code)
    tap, first = a.C * runtime.gemm_nr(dy.code) * (4 if dy.code == NN_FLOAT32 else 8), 0
    for phase, taps in phases:
        for d in range(3):
            a.grid[d] = max(0, (a.out[d] - <int64_t>phase[d] + g.stride[d] - 1) // g.stride[d])
            a.step[d] = 1
            a.ostep[d], a.obase[d] = g.stride[d], phase[d]
        if a.grid[0] and a.grid[1] and a.grid[2]:
            a.n_taps, a.taps = taps.n, taps.taps
            a.packed = <char *>p.data + (first * tap if taps.n else 0)
            taps.keep()
            runtime.run_with_scratch(NN_K_conv, dy.code, &a, &a.scratch)
        first += taps.n
    return dx


def weight_gradient(TensorBase x, TensorBase dy, Geometry g, tuple shape):
    """dW of `shape` [K, C / groups, kernel], row-major."""
    cdef nn_conv_weight_args a
    memset(&a, 0, sizeof(a))
    cdef TensorBase dw
    cdef Taps taps
    cdef int64_t[8] dims
    cdef int i, m
    x = channels_last(x)
    dy = channels_last(dy)
    if g.pointwise() and g.groups == 1:  # a product over all points
        return dense.matmul(rows_of(dy)._view((dy.dims[1], dy.count() // max(1, dy.dims[1])), (1, dy.dims[1]), 0),
                            rows_of(_strided(x, g, dy)))._view(shape, (shape[1],) + (1,) * (g.axes + 1), 0)
    for i in range(2 + g.axes):
        dims[i] = shape[i]
    m = _winograd_tile(g, x, dy)
    if not m and depthwise.fits(x.code, g.groups, shape[1], shape[0] // g.groups):
        return depthwise.weight_gradient(x, dy, shape, g.groups, g.kernel, g.stride, g.padding, g.dilation)
    dw = empty(x.code, 2 + g.axes, dims)
    if m:
        return _winograd_weight(x, dy, g, m, dw)
    taps = _forward_taps(g)
    a.N, a.C, a.K, a.groups = x.dims[0], dw.dims[1], dw.dims[0] // g.groups, g.groups
    a.ldx, a.ldy = x.dims[1], dy.dims[1]
    _spatial(x, a.extent)
    _spatial(dy, a.out)
    for i in range(3):
        a.stride[i] = g.stride[i]
    a.n_taps, a.taps = taps.n, taps.taps
    a.x, a.dy, a.dw = x.data, dy.data, dw.data
    taps.keep()
    runtime.run_with_scratch(NN_K_conv_weight, x.code, &a, &a.scratch)
    return dw


cdef TensorBase _strided(TensorBase x, Geometry g, TensorBase dy):
    """The pixels of x that a pointwise convolution with a stride sees, next to each other."""
    cdef TensorBase t = x.alias()
    cdef int i
    if g.stride[0] == 1 and g.stride[1] == 1 and g.stride[2] == 1:
        return x
    t.channels_last = False
    for i in range(g.axes):
        t.dims[2 + i] = dy.dims[2 + i]
        t.steps[2 + i] *= g.stride[3 - g.axes + i]
    return channels_last(t)


def rows_of(TensorBase dy):
    """dy [N, K, spatial] as the matrix [points, K] that its memory is."""
    cdef int64_t[2] dims
    cdef int64_t[2] steps
    dy = channels_last(dy)
    dims[0], dims[1] = dy.count() // dy.dims[1] if dy.dims[1] else 0, dy.dims[1]
    steps[0], steps[1] = dims[1], 1
    return dy.view(2, dims, steps, 0)
