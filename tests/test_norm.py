"""Normalization: against oracles over geometries, and bit for bit against itself; layers, statistics and folding."""

import itertools

import numpy as np
import pytest

import nncore
from nncore import nn, optim
from nncore._core import norm as kernels
from nncore._core import runtime, tensor
from nncore.nn import functional as F
from nncore.nn.utils import fuse_conv_bn_eval, fuse_linear_bn_eval

from . import reference, shapes, tolerance

from_array = tensor.from_array


def geometries(dtype):
    """(N, P, C, G): what changes the path. Narrow images are folded; pieces are of at most 1024 rows; blocks of 1024
    columns; images of more than 512 KiB go through in two passes."""
    (_, lanes), wide = shapes.tile(dtype), shapes.NORM_COLUMNS + 10
    channels = [1, 3, 6, lanes - 1, lanes, lanes + 1, 4 * lanes - 2, 4 * lanes, 4 * lanes + 3]
    out = [(1, p, c, c) for c in channels if c for p in (2, 7, 8, 9, 50)]
    out += [(3, p, 12, g) for p in (1, 2, 5, 9, 49) for g in (1, 2, 4, 12)]
    out += [(2, p, lanes + 2, 2) for p in (1, 17, 70)]
    out += [(n, 1, c, 1) for n in (1, 3, 9, 70) for c in (2, lanes - 1, lanes + 1, 5 * lanes + 3, 515)]
    out += [(5, 1, 6 * lanes, 3), (2, 1, 1100, 1), (1, 3, wide, wide), (2, 3, wide, 2), (65, 2, 8, 2)]
    rows = 2 * shapes.NORM_MAX_ROWS + 5
    out += [(1, rows, 2 * lanes, 2 * lanes), (1, rows * 3 + 1, 3, 3), (2, rows, 4 * lanes + 1, 1)]
    return out


def normal(rng, geometry, dtype, offset=1.0):
    n, p, c, _ = geometry
    return (rng.standard_normal((n, p, c)) + offset).astype(dtype)


def forward(x, geometry, weight=None, bias=None, eps=1e-3, rms=False, relu=0, **options):
    """(y, mean or zeros, rstd) as arrays; held to write nothing beyond y."""
    wrap = lambda a: None if a is None else from_array(a)
    shapes.prime(x.shape, x.dtype)
    y, mean, rstd = kernels.forward(from_array(x), wrap(weight), wrap(bias), geometry, eps, rms, relu, **options)
    shapes.check_slack(y, f"norm {geometry}")
    return np.asarray(y), np.zeros_like(np.asarray(rstd)) if mean is None else np.asarray(mean), np.asarray(rstd)


def backward(x, dy, geometry, weight, bias, mean, rstd, rms=False, fixed=False, relu=0, wanted=(True, True, True)):
    wrap = lambda a: None if a is None else from_array(a)
    shapes.prime(x.shape, x.dtype)
    got = kernels.backward(
        *map(wrap, (x, dy, weight, bias, mean, rstd)), geometry, *wanted, rms=rms, fixed=fixed, relu=relu
    )
    if got[0] is not None:
        shapes.check_slack(got[0], f"norm_backward {geometry}")
    return [None if g is None else np.asarray(g) for g in got]


def parameters(rng, geometry, dtype):
    c = geometry[2]
    return rng.standard_normal(c).astype(dtype), rng.standard_normal(c).astype(dtype)


# ---- kernels ----


def test_forward(isa, dtype, rng):
    """Statistics, and y from them, with and without weight, bias and ReLU; rows also without mean."""
    _, lanes = shapes.tile(dtype)
    for geometry in geometries(dtype):
        x = normal(rng, geometry, dtype)
        weight, bias = parameters(rng, geometry, dtype)
        for rms in (False, True)[: 1 + (geometry[1] == 1)]:
            want, var, inverse = reference.norm_statistics(x, geometry, 1e-3, rms)
            emean, erstd = tolerance.norm_statistics(x, var, inverse, geometry, lanes, 1e-3)
            for w, b, relu in ((None, None, 0), (weight, bias, 0), (weight, None, 1), (weight, bias, 1)):
                what = f"{geometry} rms={rms} relu={relu}"
                y, mean, rstd = forward(x, geometry, w, b, rms=rms, relu=relu)
                tolerance.close(mean, want, emean, f"mean {what}")
                tolerance.close(rstd, inverse, erstd, f"rstd {what}")
                linear, xhat = reference.norm(x, mean, rstd, geometry, w, b)
                clear = np.where(linear > 0, linear, 0) if relu else linear
                tolerance.close(y, clear, tolerance.norm(linear, xhat, w, b, dtype), what)


def test_backward(isa, dtype, rng):
    """dx, dweight and dbias from given statistics; ReLU's mask is recomputed, and is that of the forward."""
    _, lanes = shapes.tile(dtype)
    for geometry in geometries(dtype):
        x, dy = normal(rng, geometry, dtype), normal(rng, geometry, dtype, 0.3)
        weight, bias = parameters(rng, geometry, dtype)
        for rms, fixed in ((False, False), (True, False), (False, True)):
            if (rms and geometry[1] > 1) or (fixed and (geometry[3] != geometry[2] or geometry[0] != 1)):
                continue
            for w, b, relu in ((None, None, 0), (weight, bias, 0), (weight, bias, 1)):
                what = f"{geometry} rms={rms} fixed={fixed} relu={relu}"
                y, mean, rstd = forward(x, geometry, w, b, rms=rms, relu=relu)
                if fixed:
                    var = (1 / rstd[0].astype(np.float64) ** 2 - 1e-3).astype(dtype)
                    y, mean, rstd = forward(
                        x, geometry, w, b, relu=relu, running_mean=from_array(mean[0]), running_var=from_array(var),
                        fixed=True,
                    )  # fmt: skip
                g = np.where(y > 0, dy, 0).astype(dtype) if relu else dy
                (dx, size), dw, db = reference.norm_backward(x, g, mean, rstd, geometry, w, rms, fixed)
                got = backward(x, dy, geometry, w, b, mean, rstd, rms, fixed, relu)
                tolerance.close(got[0], dx, tolerance.norm_backward(size, geometry, lanes, dtype), f"dx {what}")
                tolerance.close(got[1], dw[0], tolerance.norm_parameters(dw[1], geometry, dtype), f"dweight {what}")
                tolerance.close(got[2], db[0], tolerance.norm_parameters(db[1], geometry, dtype), f"dbias {what}")
                for wanted in ((True, False, False), (False, True, False), (False, False, True)):
                    part = backward(x, dy, geometry, w, b, mean, rstd, rms, fixed, relu, wanted)
                    for a, e, wish in zip(part, got, wanted, strict=True):
                        assert (a is None) == (not wish)
                        if wish:
                            tolerance.same_bits(a, e, f"{what}, alone")


def test_a_large_mean_costs_nothing(isa, dtype, rng):
    """Numbers 1 apart around 2^(half of the mantissa): their squares cannot be told apart, their variance can."""
    _, lanes = shapes.tile(dtype)
    large = 2.0 ** (np.finfo(dtype).nmant // 2 + 2)
    for geometry in ((1, 3000, 5, 5), (1, 999, 70, 70), (2, 200, 12, 3), (3, 1, 700, 1)):
        x = (large + rng.integers(-8, 9, geometry[:3])).astype(dtype)
        want, var, inverse = reference.norm_statistics(x, geometry, 1e-3)
        _, mean, rstd = forward(x, geometry)
        emean, erstd = tolerance.norm_statistics(x, var, inverse, geometry, lanes, 1e-3)
        tolerance.close(mean, want, emean, f"{geometry}")
        tolerance.close(rstd, inverse, np.minimum(erstd, inverse / 100), f"{geometry}")
        n, p, c, g = geometry
        v = x.reshape(n, p, g, c // g)
        naive = (v * v).mean((1, 3), dtype=dtype) - v.mean((1, 3), dtype=dtype) ** 2
        assert (np.abs(naive - var) > var / 50).any(), "E[x^2] - E[x]^2 would pass"


def test_constant_groups(isa, dtype):
    """Equal numbers are their own mean to the bit: y is the bias."""
    for geometry in ((1, 1000, 3, 3), (1, 77, 65, 65), (2, 50, 8, 2), (3, 1, 64, 1)):
        x = np.full(geometry[:3], 0.1, dtype)
        bias = np.arange(geometry[2]).astype(dtype)
        if geometry[1] > 1:
            y, _, _ = forward(x, geometry, None, bias, 1e-12)
            scale = np.finfo(dtype).eps * 0.1 * 1e6 * 140  # 1 / sqrt(eps) of the mean's roundings
            assert np.abs(y - bias).max() <= scale


def test_nan_stays_in_its_group(isa, dtype, rng):
    geometry = (3, 20, 8, 4)
    x = normal(rng, geometry, dtype)
    clean, _, _ = forward(x, geometry)
    for bad in (np.nan, np.inf):
        z = x.copy()
        z[1, 3, 5] = bad  # image 1, group 2
        y, _, _ = forward(z, geometry)
        assert np.isnan(y[1, :, 4:6]).any(0).all()
        keep = np.ones(x.shape, bool)
        keep[1, :, 4:6] = False
        tolerance.same_bits(y[keep], clean[keep])


def test_empty(isa, dtype):
    """No images: nothing to write, and gradients of 0."""
    for geometry in ((0, 1, 5, 1), (1, 0, 5, 5), (0, 4, 6, 2)):
        x = np.zeros(geometry[:3], dtype)
        y, mean, rstd = forward(x, geometry)
        assert y.shape == x.shape
        _, dw, db = backward(x, x, geometry, None, None, mean, rstd)
        assert (dw == 0).all()
        assert (db == 0).all()


def test_running_statistics(isa, dtype, rng):
    """(1 - momentum) old + momentum new with the unbiased variance, averaged over images; counted; cumulative."""
    for geometry in ((1, 37, 5, 5), (1, 3000, 3, 3), (4, 9, 6, 6), (2, 1100, 70, 70)):
        _, p, c, _ = geometry
        x = normal(rng, geometry, dtype)
        old = rng.standard_normal(c).astype(dtype), rng.random(c).astype(dtype)
        mean, var, _ = reference.norm_statistics(x, geometry, 0)
        new = mean.mean(0), var.mean(0) * p / (p - 1)
        for momentum, count in ((0.0, 3), (0.3, 3), (1.0, 3), (-1.0, 0), (-1.0, 3)):
            share = 1 / (count + 1) if momentum < 0 else momentum
            running, batches = [from_array(o.copy()) for o in old], from_array(np.array(count))
            forward(x, geometry, momentum=momentum, running_mean=running[0], running_var=running[1], batches=batches)
            assert batches.item() == count + 1
            for t, o, v in zip(running, old, new):
                bound = (tolerance.norm_depth(geometry, 1) * 4 + 16) * np.finfo(dtype).eps * (np.abs(x).max() ** 2 + 1)
                tolerance.close(np.asarray(t), (1 - share) * o + share * v, bound, f"{geometry} {momentum}")


def test_fixed_statistics(isa, dtype, rng):
    """Evaluation: y of the running statistics, which stay; a sample's bits do not depend on its batch."""
    for c in (1, 3, 16, 33, 70, 1100):
        geometry = (1, 29, c, c)
        x, (weight, bias) = normal(rng, geometry, dtype), parameters(rng, geometry, dtype)
        mean, var = rng.standard_normal(c).astype(dtype), rng.random(c).astype(dtype)
        stats = {"running_mean": from_array(mean.copy()), "running_var": from_array(var.copy()), "fixed": True}
        y, m, r = forward(x, geometry, weight, bias, **stats)
        tolerance.same_bits(m[0], mean)
        tolerance.close(r[0], 1 / np.sqrt(reference.wide(var) + 1e-3), np.finfo(dtype).eps * r[0])
        want, xhat = reference.norm(x, m, r, geometry, weight, bias)
        tolerance.close(y, want, tolerance.norm(want, xhat, weight, bias, dtype))
        tolerance.same_bits(np.asarray(stats["running_mean"]), mean)
        for i in (0, 5, 28):
            one, _, _ = forward(np.ascontiguousarray(x[:, i : i + 1]), (1, 1, c, c), weight, bias, **stats)
            tolerance.same_bits(one[0, 0], y[0, i])


def test_batches(isa, dtype, rng):
    """An image's bits, forward and backward, do not depend on its place in the batch or on the others."""
    for geometry in ((9, 49, 12, 4), (9, 7, 3, 3), (70, 1, 37, 1), (3, 2100, 70, 7)):
        n, p, c, g = geometry
        x, dy, (weight, bias) = (
            normal(rng, geometry, dtype),
            normal(rng, geometry, dtype),
            parameters(rng, geometry, dtype),
        )
        y, mean, rstd = forward(x, geometry, weight, bias)
        dx, _, _ = backward(x, dy, geometry, weight, bias, mean, rstd)
        for i in {0, 1, n - 1}:
            one = (1, p, c, g)
            xi, di = x[i : i + 1].copy(), dy[i : i + 1].copy()
            yi, mi, ri = forward(xi, one, weight, bias)
            for a, b in ((yi, y), (mi, mean), (ri, rstd), (backward(xi, di, one, weight, bias, mi, ri)[0], dx)):
                tolerance.same_bits(a[0], b[i], f"{geometry} {i}")


def test_threads(isa, dtype, rng):
    """1, 2, 3 and 7 threads give the same bits."""
    for geometry in ((1, 9000, 24, 24), (1, 2100, 1040, 1040), (9, 1200, 20, 5), (3, 2100, 70, 7), (700, 1, 130, 1)):
        x, dy, (weight, bias) = (
            normal(rng, geometry, dtype),
            normal(rng, geometry, dtype),
            parameters(rng, geometry, dtype),
        )
        results = []
        for threads in (1, 2, 3, 7):
            runtime.set_num_threads(threads)
            runtime.set_parallel_threshold(0.0)
            runtime.threads_used(True)
            out = forward(x, geometry, weight, bias, relu=1)
            results.append([*out, *backward(x, dy, geometry, weight, bias, *out[1:], relu=1)])
            assert runtime.threads_used(True) >= min(threads, 3)
            for a, b in zip(results[-1], results[0], strict=True):
                tolerance.same_bits(a, b, f"{geometry} {threads} threads")


LRN = [(1, 1.0, 0.75, 1.0), (2, 0.3, 0.5, 2.0), (5, 1e-1, 0.75, 1.0), (4, 2.0, 1.3, 0.5), (40, 1.0, 0.75, 1.0)]


def test_lrn(isa, dtype, rng):
    """Forward and backward over channel counts around the window and the vector."""
    _, lanes = shapes.tile(dtype)
    for c, (size, alpha, beta, k) in itertools.product((1, 3, lanes - 1, lanes, 2 * lanes + 3), LRN):
        if c == 0:
            continue
        x, dy = (rng.standard_normal((13, c)).astype(dtype) for _ in range(2))
        image = lambda a: from_array(np.ascontiguousarray(a))  # [13, C]: rows of channels
        y = reference.lrn(x, size, alpha, beta, k)
        dx, magnitude = reference.lrn(x, size, alpha, beta, k, dy)
        s = np.array([k, k + alpha * min(size, c) / size * float(np.abs(x).max()) ** 2])
        bound = lambda m: tolerance.lrn(m, size, c, s, beta, dtype)
        shapes.prime(x.shape, dtype)
        got = kernels.lrn(image(x), None, size, alpha, beta, k)
        shapes.check_slack(got, "lrn")
        tolerance.close(np.asarray(got), y, bound(np.abs(y)), f"{c} {size}")
        got = kernels.lrn(image(x), image(dy), size, alpha, beta, k)
        tolerance.close(np.asarray(got), dx, bound(magnitude), f"dx {c} {size}")


def test_lrn_threads_and_batches(isa, dtype, rng):
    x = rng.standard_normal((3000, 11)).astype(dtype)
    runtime.set_parallel_threshold(0.0)
    results = []
    for threads in (1, 2, 3, 7):
        runtime.set_num_threads(threads)
        runtime.threads_used(True)
        results.append(np.asarray(kernels.lrn(from_array(x), None, 5, 0.1, 0.75, 1.0)))
        assert runtime.threads_used(True) == min(threads, -(-3000 // (1 + shapes.LRN_CHUNK // 11)))
        tolerance.same_bits(results[-1], results[0])
    alone = kernels.lrn(from_array(x[7:8].copy()), None, 5, 0.1, 0.75, 1.0)
    tolerance.same_bits(np.asarray(alone)[0], results[0][7])


# ---- functions ----

CALLS = {
    "batch": (lambda t, w, b: F.batch_norm(t, None, None, w, b, True), (5, 6, 3, 4)),
    "instance": (lambda t, w, b: F.instance_norm(t, None, None, w, b), (5, 6, 3, 4)),
    "group": (lambda t, w, b: F.group_norm(t, 3, w, b), (5, 6, 3, 4)),
    "group of 2-D": (lambda t, w, b: F.group_norm(t, 3, w, b), (5, 6)),
    "layer": (lambda t, w, b: F.layer_norm(t, (6,), w, b), (5, 3, 6)),
    "rms": (lambda t, w, b: F.rms_norm(t, 6, w) + b, (5, 3, 6)),
    "lrn": (lambda t, w, b: F.local_response_norm(t * w[0] + b[0], 3), (5, 6, 3, 4)),
}


@pytest.mark.parametrize("name", CALLS)
def test_layouts(name, rng):
    """Inputs and cotangents of any strides give the same bits and stay as they are; images come out channels-last."""
    fn, shape = CALLS[name]
    x, dy = rng.standard_normal(shape).astype(np.float32), rng.standard_normal(shape).astype(np.float32)
    w, b = rng.standard_normal(6).astype(np.float32), rng.standard_normal(6).astype(np.float32)
    results = []
    for layout in shapes.LAYOUTS.values():
        leaves = [from_array(layout(a)) for a in (x, w, b)]
        for t in leaves:
            t.requires_grad = True
        y = fn(*leaves)
        assert y.channels_last == (len(shape) > 3)
        y.backward(from_array(layout(dy)))
        results.append([y.detach().numpy(), *[t.grad.numpy() for t in leaves]])
        np.testing.assert_array_equal(leaves[0].detach().numpy(), x)
        for a, e in zip(results[-1], results[0], strict=True):
            tolerance.same_bits(a, e)


def test_layer_norm_of_whole_images(rng):
    """Over all of C, H, W, channels-last data is normalized as it lies, with the same numbers as row-major data."""
    x, p = rng.standard_normal((4, 6, 3, 5)), rng.standard_normal((2, 6, 3, 5))
    dy = rng.standard_normal(x.shape)
    grads = []
    for tagged in (False, True):
        t, w, b = (nncore.tensor(a, requires_grad=True) for a in (x, *p))
        image = F.max_pool2d(t, 1) if tagged else t
        y = F.layer_norm(image, (6, 3, 5), w, b)
        assert y.channels_last == tagged
        y.backward(nncore.tensor(dy))
        grads.append([y.detach().numpy(), *[v.grad.numpy() for v in (t, w, b)]])
    for a, e in zip(*grads):
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-13)


def test_a_change_before_backward_is_an_error():
    x = nncore.rand(4, 3, requires_grad=True)
    w = nncore.ones(3, requires_grad=True)
    y = F.layer_norm(x, 3, w)
    with nncore.no_grad():
        w.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward(np.ones((4, 3)))


def test_evaluation_survives_training_in_between(rng):
    """A recorded evaluation keeps the statistics it used."""
    bn = nn.BatchNorm1d(3).eval()
    x = nncore.tensor(rng.standard_normal((5, 3)), dtype="float32", requires_grad=True)
    y = bn(x)
    bn.train()(x.detach() * 9)
    y.backward(np.ones((5, 3)))
    np.testing.assert_allclose(x.grad.numpy(), np.full((5, 3), 1 / np.sqrt(1 + 1e-5)), rtol=1e-6)


# ---- layers ----


def test_batch_norm_layer(rng):
    """Training updates the statistics, evaluation uses them."""
    bn = nn.BatchNorm2d(3, momentum=0.2)
    assert list(bn.state_dict()) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert [n for n, _ in bn.named_parameters()] == ["weight", "bias"]
    x = rng.standard_normal((4, 3, 5, 6)).astype(np.float32) * 2 + 1
    bn(x)
    np.testing.assert_allclose(bn.running_mean.numpy(), 0.2 * x.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(bn.running_var.numpy(), 0.8 + 0.2 * x.var((0, 2, 3), ddof=1), rtol=1e-5)
    assert bn.num_batches_tracked.item() == 1
    state = bn.state_dict()
    y = bn.eval()(x)
    mean, var = state["running_mean"], state["running_var"]
    want = (x - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None]
    np.testing.assert_allclose(y.detach().numpy(), want, rtol=1e-5, atol=1e-6)
    for name, value in bn.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
    other = nn.BatchNorm2d(3).eval()
    assert other.load_state_dict(state) == ([], [])
    tolerance.same_bits(other(x).detach().numpy(), y.detach().numpy())
    assert other.num_batches_tracked.item() == 1
    bn.reset_running_stats()
    assert (bn.running_mean.tolist(), bn.running_var.tolist(), bn.num_batches_tracked.item()) == ([0] * 3, [1] * 3, 0)


def test_cumulative_average(rng):
    """momentum None: the statistics are the means over all batches."""
    bn = nn.BatchNorm1d(2, momentum=None)
    batches = [rng.standard_normal((n, 2)).astype(np.float32) for n in (4, 9, 5)]
    for x in batches:
        bn(x)
    np.testing.assert_allclose(bn.running_mean.numpy(), np.mean([x.mean(0) for x in batches], 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(bn.running_var.numpy(), np.mean([x.var(0, ddof=1) for x in batches], 0), rtol=1e-5)
    assert bn.num_batches_tracked.item() == 3
    assert bn.eval()(batches[0]).shape == (4, 2)
    assert bn.num_batches_tracked.item() == 3
    nn.BatchNorm1d(2, momentum=None, track_running_stats=False)(batches[0])


def test_without_running_statistics(rng):
    """The batch's statistics in evaluation too, and no buffers."""
    bn, x = nn.BatchNorm1d(3, track_running_stats=False), rng.standard_normal((6, 3)).astype(np.float32)
    assert list(bn.state_dict()) == ["weight", "bias"]
    tolerance.same_bits(bn(x).detach().numpy(), bn.eval()(x).detach().numpy())
    assert list(nn.BatchNorm1d(3, affine=False).state_dict()) == ["running_mean", "running_var", "num_batches_tracked"]
    assert [n for n, _ in nn.BatchNorm1d(3, bias=False).named_parameters()] == ["weight"]


def test_empty_batch_in_training():
    """As torch: nothing is normalized, a batch is counted, the statistics stay."""
    bn = nn.BatchNorm1d(3)
    x = nncore.zeros(0, 3, requires_grad=True)
    bn(x).sum().backward()
    assert x.grad.shape == (0, 3)
    assert bn.weight.grad.tolist() == [0, 0, 0]
    assert (bn.running_mean.tolist(), bn.num_batches_tracked.item()) == ([0, 0, 0], 1)


def test_strided_running_statistics(rng):
    """Buffers of any strides are updated."""
    x = rng.standard_normal((5, 3)).astype(np.float32)
    both, dense = nncore.zeros(2, 3), nncore.zeros(3)
    F.batch_norm(x, both.T[:, 0], both.T[:, 1], training=True)
    wide = nncore.zeros(3, 2)
    F.batch_norm(x, wide[:, 0], wide[:, 1], training=True)
    F.batch_norm(x, dense, nncore.zeros(3), training=True)
    tolerance.same_bits(wide[:, 0].numpy(), dense.numpy())
    tolerance.same_bits(both[0].numpy(), dense.numpy())


def test_instance_norm_layer(rng):
    """Statistics per image; one image without batch axis; running ones only on demand."""
    layer = nn.InstanceNorm2d(3)
    assert list(layer.state_dict()) == []
    x = rng.standard_normal((4, 3, 5, 6)).astype(np.float32)
    y = layer(x).numpy()
    np.testing.assert_allclose(y.mean((2, 3)), 0, atol=1e-6)
    tolerance.same_bits(layer(x[1]).numpy(), y[1])
    tracking = nn.InstanceNorm2d(3, affine=True, track_running_stats=True)
    tracking(x)
    np.testing.assert_allclose(tracking.running_mean.numpy(), 0.1 * x.mean((0, 2, 3)), rtol=1e-4, atol=1e-7)
    var = 0.9 + 0.1 * x.var((2, 3), ddof=1).mean(0)
    np.testing.assert_allclose(tracking.running_var.numpy(), var, rtol=1e-5)
    tolerance.same_bits(tracking.eval()(x[0]).detach().numpy(), tracking(x).detach().numpy()[0])


def test_compiled_training(rng):
    """A recorded step is replayed with the same bits: statistics and counters, also the cumulative ones, go on."""
    layers = lambda: [
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4, momentum=None), nn.ReLU(), nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True), nn.LocalResponseNorm(3), nn.Flatten(),
        nn.Linear(64, 10), nn.LayerNorm(10), nn.RMSNorm(10),
    ]  # fmt: skip
    x, t = rng.standard_normal((6, 8, 1, 4, 4)).astype(np.float32), rng.integers(0, 10, (6, 8))
    states = []
    for wrap in (lambda f: f, nncore.compile):
        nncore.manual_seed(0)
        net = nn.Sequential(*layers())
        opt = optim.Adam(net.parameters(), lr=0.01)

        def step(x, t, net=net, opt=opt):
            opt.zero_grad()
            loss = F.cross_entropy(net(x), t)
            loss.backward()
            opt.step()
            return loss

        run = wrap(step)
        for a, b in zip(x, t):
            run(nncore.tensor(a), nncore.tensor(b))
        states.append(net.state_dict())
    assert states[0]["1.num_batches_tracked"] == 6
    for name, value in states[0].items():
        tolerance.same_bits(states[1][name], value, name)


def test_double_and_copies():
    """Layers convert; counters stay integers."""
    bn = nn.BatchNorm1d(3).double()
    assert bn.running_var.dtype == np.float64
    assert bn.num_batches_tracked.dtype == np.int64
    assert bn(nncore.rand(4, 3).double()).dtype == np.float64
    assert nn.LayerNorm(3, dtype="float64").weight.dtype == np.float64


@pytest.mark.parametrize(
    "layer, text",
    [
        (
            nn.BatchNorm2d(4),
            "BatchNorm2d(4, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)",
        ),
        (nn.GroupNorm(2, 4), "GroupNorm(2, 4, eps=1e-05, affine=True, bias=True)"),
        (nn.LayerNorm((2, 3)), "LayerNorm((2, 3), eps=1e-05, elementwise_affine=True, bias=True)"),
        (nn.RMSNorm(3), "RMSNorm((3,), eps=None, elementwise_affine=True)"),
        (nn.LocalResponseNorm(5), "LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=1.0)"),
    ],
)
def test_repr(layer, text):
    assert repr(layer) == text


# ---- folding into the layer before ----


def trained(bn, rng):
    for t in (bn.weight, bn.bias, bn.running_mean, bn.running_var):
        if t is not None:
            with nncore.no_grad():
                t.copy_(rng.random(t.shape) + 0.5)
    return bn.eval()


FOLDED = [
    (lambda: nn.Conv1d(4, 6, 3, groups=2), lambda: nn.BatchNorm1d(6), (2, 4, 7), {}),
    (lambda: nn.Conv2d(3, 6, 3, bias=False), lambda: nn.BatchNorm2d(6), (2, 3, 7, 6), {}),
    (lambda: nn.Conv3d(3, 2, 2), lambda: nn.BatchNorm3d(2, affine=False), (2, 3, 4, 3, 3), {}),
    (lambda: nn.ConvTranspose2d(3, 6, 3, 2), lambda: nn.BatchNorm2d(6, bias=False), (2, 3, 4, 4), {"transpose": True}),
]


@pytest.mark.parametrize("conv, bn, shape, options", FOLDED)
def test_fuse_conv(conv, bn, shape, options, rng):
    """One layer computes what the two did; both stay as they are."""
    conv, bn = conv().double().eval(), trained(bn().double(), rng)
    x = rng.standard_normal(shape)
    want, before = bn(conv(x)).detach().numpy(), conv.state_dict()
    fused = fuse_conv_bn_eval(conv, bn, **options)
    assert type(fused) is type(conv)
    np.testing.assert_allclose(fused(x).detach().numpy(), want, rtol=0, atol=1e-13)
    for name, value in conv.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_fuse_linear(rng):
    for bias, features in ((True, 4), (False, 4), (True, 1), (False, 1)):
        linear = nn.Linear(3, 4, bias).double().eval()
        bn = trained(nn.BatchNorm1d(features).double(), rng)
        x = rng.standard_normal((5, 3))
        y = linear(x)
        want = bn(y) if features == 4 else bn(y.reshape(5, 1, 4)).reshape(5, 4)
        fused = fuse_linear_bn_eval(linear, bn)
        np.testing.assert_allclose(fused(x).detach().numpy(), want.detach().numpy(), rtol=0, atol=1e-13)


COVERS = {"norm": test_forward, "norm_backward": test_backward, "lrn": test_lrn}
