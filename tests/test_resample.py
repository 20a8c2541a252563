"""Interpolation: against matrices along each axis, forward and backward, in every mode."""

import itertools

import numpy as np
import pytest
from nncore._core.elementwise import channels_last

import nncore
from nncore import nn
from nncore._core import runtime, tensor
from nncore.nn import functional as F

from . import reference, shapes, tolerance

from_array = tensor.from_array
AXIS = {"bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}  # the mode along one axis

# (mode, sizes of the input, of the result or factors, more)
CASES = [
    *(
        (mode, size, to, {})
        for mode in ("nearest", "nearest-exact")
        for size, to in (((5,), (9,)), ((7,), (3,)), ((1,), (4,)), ((4, 5), (8, 3)), ((3, 2, 4), (5, 4, 2)))
    ),
    *(
        (mode, size, to, {"align_corners": corners})
        for corners in (False, True)
        for mode, size, to in (
            ("linear", (5,), (9,)),
            ("linear", (9,), (4,)),
            ("linear", (1,), (3,)),
            ("linear", (6,), (1,)),
            ("linear", (33,), (66,)),
            ("bilinear", (4, 5), (8, 10)),
            ("bilinear", (7, 9), (3, 9)),
            ("bicubic", (4, 5), (9, 7)),
            ("bicubic", (7, 8), (3, 4)),
            ("bicubic", (2, 1), (5, 3)),
            ("trilinear", (3, 2, 4), (6, 3, 7)),
            ("trilinear", (4, 5, 3), (2, 5, 1)),
        )
    ),
    *(
        (mode, (9, 8), to, {"align_corners": corners, "antialias": True})
        for corners in (False, True)
        for mode in ("bilinear", "bicubic")
        for to in ((4, 3), (2, 13), (9, 5))
    ),
    ("nearest", (5, 3), (1.5, 2.7), {}),
    ("nearest", (9,), (0.3,), {}),
    ("nearest", (31,), (2.7,), {}),
    ("linear", (2,), (1.3,), {}),  # the size stays
    ("bilinear", (4, 3), (1.2, 2.0), {}),
    ("trilinear", (2, 3, 4), (1.3, 1.5, 1.2), {"align_corners": True}),
    ("bicubic", (4, 5), (1.2, 1.3), {}),
    ("bicubic", (4, 5), (1.2, 1.3), {"antialias": True}),
    ("bilinear", (5, 7), (1.5, 2.7), {}),
    ("bilinear", (5, 7), (0.71, 2.0), {}),
    ("bicubic", (5, 7), (1.3, 0.6), {}),
    ("bicubic", (9, 8), (0.4, 0.3), {"antialias": True}),
    ("trilinear", (3, 4, 5), (2.5, 0.5, 1.2), {"recompute_scale_factor": True}),
]
IDS = [f"{mode} {size} {to} {more}" for mode, size, to, more in CASES]


def channels(dtype):
    _, lanes = shapes.tile(dtype)
    return sorted({1, 3, lanes - 1, lanes, lanes + 1, 5 * lanes + 1} - {0})


def matrices(mode, size, to, more):
    """Of each axis."""
    options = {k: v for k, v in more.items() if k != "recompute_scale_factor"}
    factors = [t if isinstance(t, float) else None for t in to]
    sizes = [int(n * t) if isinstance(t, float) else t for n, t in zip(size, to)]
    if "recompute_scale_factor" in more:
        factors = [None] * len(to)
    kind = AXIS.get(mode, mode)
    return [reference.resample_axis(n, m, kind, factor=f, **options) for n, m, f in zip(size, sizes, factors)]


def run(x, mode, to, more):
    name = "scale_factor" if isinstance(to[0], float) else "size"
    return F.interpolate(x, **{name: to}, mode=mode, **more)


def bound(terms, magnitude, x, dtype, size):
    """Each term is a product with the product of the weights, rounded, and an addition; weights are double, made from a
    position up to n, whose rounding they feel at most 2 times along each axis."""
    eps = np.finfo(dtype).eps
    positions = 4 * sum(n + 1 for n in size) * np.finfo(np.float64).eps * np.abs(reference.wide(x)).max()
    return (terms + 2) * eps * magnitude + terms * positions


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_values(case, isa, dtype, rng):
    """Results and gradients; nothing is written beyond them."""
    mode, size, to, more = case
    matrix = matrices(*case)
    for c in channels(dtype):
        x = rng.standard_normal((2, c, *size)).astype(dtype)
        want, magnitude, terms = reference.resample(x, matrix)
        shapes.prime(want.shape, dtype)
        leaf = nncore.tensor(x, requires_grad=True)
        y = run(leaf, mode, to, more)
        shapes.check_slack(y.detach(), f"{c} channels")
        tolerance.close(y.detach().numpy(), want, bound(terms, magnitude, x, dtype, size), f"{c} channels")
        dy = rng.standard_normal(want.shape).astype(dtype)
        shapes.prime(x.shape, dtype)
        y.backward(channels_last(from_array(dy)))
        want, magnitude, terms = reference.resample(dy, [m.T for m in matrix])
        shapes.check_slack(leaf.grad, f"{c} channels, gradient")
        what = f"{c} channels, gradient"
        tolerance.close(leaf.grad.numpy(), want, bound(terms, magnitude, dy, dtype, want.shape[2:]), what)


def test_bits_are_copied(isa, dtype, rng):
    """'nearest' moves any bits; so does every mode between equal sizes."""
    for c in channels(dtype):
        x = rng.standard_normal((2, c, 4, 3)).astype(dtype)
        x[0, 0, :2] = [[np.nan, np.inf, -np.inf], [-0.0, 0.0, np.finfo(dtype).max]]
        tolerance.same_bits(F.interpolate(x, scale_factor=2), x.repeat(2, 2).repeat(2, 3))
        for mode, corners in itertools.product(("bilinear", "bicubic"), (False, True)):
            tolerance.same_bits(F.interpolate(x, size=(4, 3), mode=mode, align_corners=corners), x, mode)
        assert not np.signbit(gradient(x, (2, 2), "nearest").numpy()[:, :, 1, 1]).any()  # not read: +0


def gradient(x, size, mode):
    leaf = nncore.tensor(x, requires_grad=True)
    F.interpolate(leaf, size, mode=mode).backward(np.full((*x.shape[:2], *size), -1, x.dtype))
    return leaf.grad


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_threads_and_batches(mode, isa, dtype, rng):
    """1, 2, 3 and 7 threads, all of which take part, give the same bits, and an image alone has those of a batch."""
    runtime.set_parallel_threshold(0.0)
    for c in (1, 3, 40):
        x = rng.standard_normal((5, c, 17, 23)).astype(dtype)
        dy, found = rng.standard_normal((5, c, 40, 39)).astype(dtype), None
        for threads in (1, 2, 3, 7):
            runtime.set_num_threads(threads)
            runtime.threads_used(True)
            leaf = nncore.tensor(x, requires_grad=True)
            y = F.interpolate(leaf, (40, 39), mode=mode)
            assert runtime.threads_used(True) >= min(threads, 2)
            y.backward(from_array(dy))
            found = found or (y.detach().numpy(), leaf.grad.numpy())
            tolerance.same_bits(y.detach(), found[0], f"{threads} threads")
            tolerance.same_bits(leaf.grad, found[1], f"{threads} threads")
        alone = nncore.tensor(x[3:4], requires_grad=True)
        y = F.interpolate(alone, (40, 39), mode=mode)
        y.backward(from_array(dy[3:4]))
        tolerance.same_bits(y.detach(), found[0][3:4])
        tolerance.same_bits(alone.grad, found[1][3:4])


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_the_end_of_the_array(mode, isa, dtype, rng):
    """The first image of two has the bits that it has alone, where its last lines end the array."""
    for c, size, to in itertools.product((1, 3), (7, 10), (3, 7)):
        x, dy = (rng.standard_normal((2, c, n, n)).astype(dtype) for n in (size, to))
        found = []
        for n in (1, 2):
            leaf = nncore.tensor(x[:n], requires_grad=True)
            y = F.interpolate(leaf, (to, to), mode=mode)
            y.backward(from_array(dy[:n]))
            found.append((y.detach().numpy()[:1], leaf.grad.numpy()[:1]))
        for alone, among in zip(*found):
            tolerance.same_bits(alone, among, f"{c} channels, {size} to {to}")


def test_layouts(isa, dtype, rng):
    """Any strides give the same bits; the result is channels-last."""
    x = rng.standard_normal((2, 5, 4, 6)).astype(dtype)
    want = F.interpolate(x, (7, 5), mode="bilinear")
    assert want.channels_last
    for name, layout in shapes.LAYOUTS.items():
        tolerance.same_bits(F.interpolate(from_array(layout(x)), (7, 5), mode="bilinear"), want, name)
    dy = rng.standard_normal(want.shape).astype(dtype)
    found = []
    for cotangent in (from_array(dy), channels_last(from_array(dy)), from_array(np.asfortranarray(dy))):
        leaf = nncore.tensor(x, requires_grad=True)
        F.interpolate(leaf, (7, 5), mode="bilinear").backward(cotangent)
        found.append(leaf.grad)
        tolerance.same_bits(leaf.grad, found[0])
    assert F.interpolate(x[:0], (7, 5)).shape == (0, 5, 7, 5)


def test_area_is_adaptive_pooling(dtype, rng):
    x = rng.standard_normal((2, 5, 4, 6)).astype(dtype)
    tolerance.same_bits(F.interpolate(x, (3, 4), mode="area"), F.adaptive_avg_pool2d(x, (3, 4)))
    tolerance.same_bits(F.interpolate(x, scale_factor=0.5, mode="area"), F.adaptive_avg_pool2d(x, (2, 3)))


def test_layers(rng):
    x = rng.standard_normal((2, 3, 4, 6)).astype(np.float32)
    for layer, options in (
        (nn.Upsample(scale_factor=2), {"scale_factor": 2}),
        (
            nn.Upsample((5, 9), mode="bicubic", align_corners=True),
            {"size": (5, 9), "mode": "bicubic", "align_corners": True},
        ),
        (nn.Upsample(scale_factor=(1.3, 2), recompute_scale_factor=True), {"size": (5, 12)}),
        (nn.UpsamplingNearest2d(7), {"size": 7}),
        (nn.UpsamplingBilinear2d(scale_factor=1.5), {"scale_factor": 1.5, "mode": "bilinear", "align_corners": True}),
    ):
        tolerance.same_bits(layer(x), F.interpolate(x, **options))
    assert repr(nn.Upsample(scale_factor=2.0)) == "Upsample(scale_factor=2.0, mode='nearest')"
    assert repr(nn.UpsamplingBilinear2d((3, 4))) == "UpsamplingBilinear2d(size=(3, 4), mode='bilinear')"


COVERS = {"resample": test_values}
