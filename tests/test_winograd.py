"""Winograd's 3x3 convolutions: against the oracle of the plain sum, and bit for bit against themselves."""

import numpy as np
import pytest
from nncore._core.elementwise import channels_last

import nncore
from nncore import nn, optim
from nncore._core import elementwise, runtime, tensor
from nncore.nn import functional as F

from . import reference, shapes, tolerance
from .gradcheck import gradcheck
from .test_conv import (
    ACTIVATIONS,
    forward,
    guarded,
    input_gradient,
    operands,
    oracle,
    packs,
    weight_gradient,
)

from_array = tensor.from_array

TILES = {"winograd2": 2, "winograd4": 4}


@pytest.fixture(params=TILES)
def m(request):
    """Each tile size, set as the algorithm."""
    nncore.set_conv_algorithm(request.param)
    return TILES[request.param]


def layer(n, c, k, size, padding=1, groups=1):
    return shapes.conv(n, c, k, size, (3, 3), padding=padding, groups=groups)


def edges(dtype):
    """Around everything by which the kernels cut their work."""
    NR, lanes = shapes.tile(dtype)
    KC = shapes.KC_BYTES // dtype.itemsize
    channels = sorted({1, *shapes.around(lanes), *shapes.around(NR), 2 * NR + 1} - {0})
    out = [layer(2, 2, 3, (h, w), p) for h, w in ((3, 3), (3, 8), (4, 5), (6, 7), (9, 4)) for p in (0, 1, 2)]
    out += [layer(1, 1, 1, (1, 1)), layer(2, 3, 2, (1, 5)), layer(2, 3, 2, (6, 2), 2), layer(1, 2, 2, (4, 5), 3)]
    out += [layer(2, 3, k, (5, 6)) for k in channels]
    out += [layer(2, c, 3, (5, 6)) for c in channels]
    out += [layer(1, c, 2, (3, 5)) for c in shapes.around(shapes.WINOGRAD_C, KC)]
    out += [layer(1, 2, k, (3, 5)) for k in shapes.around(shapes.WINOGRAD_C, KC)]
    # tiles: of a block, of several images in one, of several pieces
    out += [
        layer(1, 3, NR + 1, (4 * shapes.WINOGRAD_MIN_TILES + 3, 5)),
        layer(37, 3, 5, (5, 4)),
        layer(3, 2, 3, (41, 38), 0),
    ]
    out += [layer(5, lanes + 1, NR + 2, (16, 17), 1), layer(2, 2 * lanes, 3, (15, 33), 2)]
    out += [layer(2, 3, 4, (7, 6), p, groups=3) for p in (0, 1, 2)]
    out += [layer(2, 1, 1, (6, 6), groups=2 * lanes + 1), layer(2, lanes + 1, NR + 1, (5, 5), groups=2)]
    out += [layer(0, 3, 4, (4, 5))]
    return out


def magnitudes(m, c, x, w, dy):
    """reference.winograd's magnitudes of y, dx and dw, group by group."""
    found = [], [], []
    for g in range(c.groups):
        i, o = slice(g * c.c, (g + 1) * c.c), slice(g * c.k, (g + 1) * c.k)
        p, turned = c.padding[0], w[o, :, ::-1, ::-1].swapaxes(0, 1)
        found[0].append(reference.winograd(m, x[:, i], w[o], p, c.out)[1])
        found[1].append(reference.winograd(m, dy[:, o], turned, 2 - p, c.size)[1])
        found[2].append(reference.winograd_weight(m, x[:, i], dy[:, o], p)[1])
    return np.concatenate(found[0], 1), np.concatenate(found[1], 1), np.concatenate(found[2])


def test_every_edge(m, isa, dtype, rng):
    """Forward with a bias, and both gradients; nothing is written beyond the results."""
    for c in edges(dtype):
        x, w, bias, dy = operands(rng, c, dtype)
        in_y, in_dx, in_dw = magnitudes(m, c, x, w, dy)
        column = bias.reshape(-1, 1, 1)
        got = guarded(dy.shape, dtype, forward, c, x, w, bias)
        bound = tolerance.winograd(m, c.c, in_y, dtype, column)
        tolerance.close(got, reference.conv(x, w, *oracle(c))[0] + column, bound, f"forward {c}")
        assert got.channels_last
        got = guarded(x.shape, dtype, input_gradient, c, dy, w)
        want = reference.conv_input_gradient(dy, w, c.size, *oracle(c))[0]
        tolerance.close(got, want, tolerance.winograd(m, c.k, in_dx, dtype), f"input gradient {c}")
        got = guarded(w.shape, dtype, weight_gradient, c, x, dy)
        want = reference.conv_weight_gradient(x, dy, c.kernel, *oracle(c))[0]
        tiles = c.n * int(np.prod([-(-n // m) for n in c.out]))
        tolerance.close(got, want, tolerance.winograd_weight(m, tiles, in_dw, dtype), f"weight gradient {c}")


COVERS = dict.fromkeys(("winograd", "winograd_pack", "winograd_weight"), test_every_edge)


def test_the_oracle_of_magnitudes_computes_convolutions(rng):
    """Without the absolute values it gives the convolution and its gradient, so its transforms are Winograd's."""
    for m in (2, 4):
        for c in (layer(2, 3, 4, (7, 6)), layer(1, 2, 3, (5, 9), 0), layer(2, 2, 2, (4, 4), 2)):
            x, w, _, dy = operands(rng, c, np.float32)
            for (got, size), want in (
                (reference.winograd(m, x, w, c.padding[0], c.out), reference.conv(x, w, *oracle(c))),
                (
                    reference.winograd_weight(m, x, dy, c.padding[0]),
                    reference.conv_weight_gradient(x, dy, c.kernel, *oracle(c)),
                ),
            ):
                assert np.abs(got - want[0]).max() <= 1e-14 * size.max()
                assert (size >= want[1] * (1 - 1e-12)).all()


def test_errors_beside_direct(isa, dtype, rng):
    """By root mean square, F(2x2) is at least as accurate as the direct sum, and F(4x4) within a factor of 4."""
    c = layer(2, 64, 64, (24, 24))
    x, w, _, dy = operands(rng, c, dtype)
    want = (
        reference.conv(x, w, *oracle(c))[0],
        reference.conv_input_gradient(dy, w, c.size, *oracle(c))[0],
        reference.conv_weight_gradient(x, dy, c.kernel, *oracle(c))[0],
    )
    errors = {}
    for name in ("direct", *TILES):
        nncore.set_conv_algorithm(name)
        got = forward(c, x, w), input_gradient(c, dy, w), weight_gradient(c, x, dy)
        errors[name] = [float(np.sqrt(((reference.wide(g.numpy()) - v) ** 2).mean())) for g, v in zip(got, want)]
    for direct, two, four in zip(*errors.values()):
        assert two <= direct
        assert four <= 4 * direct


def test_epilogue(m, isa, dtype, rng):
    """act(conv + bias) has the bits of the operations one by one."""
    NR, _ = shapes.tile(dtype)
    for c in (layer(2, 3, NR + 1, (5, 4)), layer(2, 2, 3, (4, 5), groups=3)):
        x, w, bias, _ = operands(rng, c, dtype)
        plain, with_bias = forward(c, x, w), forward(c, x, w, bias)
        tolerance.same_bits(with_bias, np.asarray(plain) + bias.reshape(-1, 1, 1), f"bias {c}")
        for name, act in ACTIVATIONS.items():
            for b, z in ((None, plain), (bias, with_bias)):
                op = elementwise.ewise(runtime.OPS[name], z)
                tolerance.same_bits(forward(c, x, w, b, act), op, f"{name} {c}")


def test_layouts(m, isa, dtype, rng):
    """Any layout of the operands, and NaN beside them: the same bits."""
    for c in (layer(3, 5, 7, (6, 5)), layer(2, 3, 4, (6, 7), 0, groups=3)):
        x, w, bias, dy = operands(rng, c, dtype)
        y, dx, dw = forward(c, x, w, bias), input_gradient(c, dy, w), weight_gradient(c, x, dy)
        inside = []
        for a in (x, dy, w):
            big = np.full([n + 5 for n in a.shape], np.nan, dtype)
            v = big[tuple(slice(2, 2 + n) for n in a.shape)]
            v[...] = a
            inside.append(v)
        for name, a, b, v in (
            ("channels-last", channels_last(from_array(x)), channels_last(from_array(dy)), w),
            ("window", *inside),
            *((name, f(x), f(dy), f(w)) for name, f in shapes.LAYOUTS.items()),
        ):
            tolerance.same_bits(forward(c, a, v, bias), y, f"forward {name} {c}")
            tolerance.same_bits(input_gradient(c, b, v), dx, f"input gradient {name} {c}")
            tolerance.same_bits(weight_gradient(c, a, b), dw, f"weight gradient {name} {c}")


def test_one_image_alone(m, isa, dtype, rng):
    """An image alone gives the bits it gives in a batch, wherever it stands in it."""
    NR, lanes = shapes.tile(dtype)
    for c in (
        layer(7, 3, NR + 1, (5, 5)),
        layer(40, 2, 3, (3, 3)),
        layer(3, 2, 3, (30, 31), 2),
        layer(3, 2 * lanes + 1, 5, (9, 8), 0),
        layer(3, 3, 4, (7, 6), groups=2),
    ):
        x, w, bias, dy = operands(rng, c, dtype)
        y, dx = forward(c, x, w, bias).numpy(), input_gradient(c, dy, w).numpy()
        for part in (slice(0, 1), slice(c.n - 1, c.n), slice(1, 2), slice(1, c.n)):
            tolerance.same_bits(forward(c, x[part], w, bias), y[part], f"{part} {c}")
            tolerance.same_bits(input_gradient(c, dy[part], w), dx[part], f"{part} {c}")


BY_THREADS = [
    layer(1, 5, 7, (70, 65)),
    layer(16, 3, 5, (15, 15), 0),
    layer(4, 2, 3, (9, 20), groups=7),
    layer(1, 300, 9, (5, 6)),
]


@pytest.mark.parametrize("c", BY_THREADS)
def test_threads(c, m, isa, dtype, rng):
    """1, 2, 3 and 7 threads give the same bits, and more than one takes part."""
    NR, _ = shapes.tile(dtype)
    c = c._replace(k=9 * NR) if c.c > 100 else c
    x, w, bias, dy = operands(rng, c, dtype)
    x, dy = channels_last(from_array(x)), channels_last(from_array(dy))
    w, bias = from_array(w), from_array(bias)
    calls = {
        "forward": lambda: forward(c, x, w, bias),
        "input gradient": lambda: input_gradient(c, dy, w),
        "weight gradient": lambda: weight_gradient(c, x, dy),
    }
    runtime.set_num_threads(1)
    plain = {name: call().numpy() for name, call in calls.items()}
    runtime.set_parallel_threshold(0.0)
    for threads in (1, 2, 3, 7):
        runtime.set_num_threads(threads)
        for name, call in calls.items():
            runtime.threads_used(True)
            got = call()
            used = runtime.threads_used(True)
            tolerance.same_bits(got, plain[name], f"{name}, {threads} threads")
            assert used >= min(threads, 2), f"{name}: {used} of {threads} threads"


def test_packed_weights(isa, dtype, rng):
    """A weight used twice at one version stays packed, once per algorithm; after a write the new values count."""
    NR, _ = shapes.tile(dtype)
    for c in (layer(2, 5, NR + 1, (6, 5)), layer(2, 2, 3, (5, 6), groups=2)):
        x, values, bias, dy = operands(rng, c, dtype)
        w = nn.Parameter(values)
        want = {}

        def check(values, what):
            for use in range(3):
                for name in ("direct", *TILES):
                    nncore.set_conv_algorithm(name)
                    y, dx = forward(c, x, values, bias), input_gradient(c, dy, values)
                    tolerance.same_bits(forward(c, x, w, bias), y, f"{name}, use {use} {what}")
                    tolerance.same_bits(input_gradient(c, dy, w), dx, f"{name}, use {use} {what}")
                    want[name] = np.asarray(y)
                assert len(packs(w)) == 3 * (use >= 1)

        check(values, "at first")
        assert (want["winograd2"] != want["winograd4"]).any()
        assert (want["winograd2"] != want["direct"]).any()
        with nncore.no_grad():
            w.copy_(-values)
        check(-values, "after a write")
        with nncore.no_grad():
            w[0] = 2.0
        new = -values
        new[0] = 2
        check(new, "after an assignment")
        for other in runtime.isas():
            runtime.set_isa(other)
            nncore.set_conv_algorithm("winograd2")
            tolerance.same_bits(forward(c, x, w, bias), forward(c, x, new, bias), f"under {other}")
        runtime.set_isa(isa)


def test_nan_and_infinity(m, isa, dtype, rng):
    """They reach every result whose sum they are in, and of the others only those of the same tiles (or filters)."""
    NR, _ = shapes.tile(dtype)
    for c in (layer(2, 3, NR + 1, (9, 8)), layer(2, 2, 3, (9, 8), 0, groups=3)):
        x, w, bias, dy = operands(rng, c, dtype)
        y, dw = np.asarray(forward(c, x, w, bias)), np.asarray(weight_gradient(c, x, dy))
        for bad in (np.nan, np.inf, -np.inf):
            for corner in (0, 1):
                at = (1, *[(n - 1) * corner for n in x.shape[1:]])
                mark, z = np.zeros_like(x), x.copy()
                mark[at], z[at] = 1, bad
                hit = reference.conv(mark, np.ones_like(w), *oracle(c))[0] > 0
                got = np.asarray(forward(c, z, w, bias))
                assert not np.isfinite(got[hit]).any(), f"{bad} {c}"
                room = [(0, 0), (0, 0), *((0, -n % m) for n in c.out)]
                tiles = np.pad(hit, room).reshape(c.n, -1, -(-c.out[0] // m), m, -(-c.out[1] // m), m).any((3, 5))
                near = tiles.repeat(m, 2).repeat(m, 3)[:, :, : c.out[0], : c.out[1]]
                tolerance.same_bits(got[~near], y[~near], f"forward {bad} {c}")
                assert (~near).any()
                hit = reference.conv_weight_gradient(mark, np.ones_like(dy), c.kernel, *oracle(c))[0] > 0
                got = np.asarray(weight_gradient(c, z, dy))
                assert not np.isfinite(got[hit]).any(), f"{bad} {c}"
                near = np.broadcast_to(hit.any((2, 3), keepdims=True), hit.shape)
                tolerance.same_bits(got[~near], dw[~near], f"weight gradient {bad} {c}")


def test_recorded(isa, rng):
    """A compiled step, in training and in inference, has the bits of the step run plainly, under each algorithm."""
    x = [nncore.tensor(rng.standard_normal((2, 16, 6, 5)).astype(np.float32)) for _ in range(5)]

    def build():
        nncore.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(16, 18, 3, padding=1), nn.ReLU(), nn.Conv2d(18, 16, 3))
        opt = optim.SGD(net.parameters(), lr=0.1)

        def step(x):
            opt.zero_grad()
            loss = F.mse_loss(net(x), x[:, :, :4, :3])
            loss.backward()
            opt.step()
            return loss

        return net, step

    net, step = build()
    compiled_net, compiled_step = build()
    compiled, infer = nncore.compile(compiled_step), nncore.compile(compiled_net)
    for name in ("auto", "direct", *TILES):
        nncore.set_conv_algorithm(name)
        for v in x:
            tolerance.same_bits(compiled(v), step(v).detach(), f"step, {name}")
        for a, b in zip(net.parameters(), compiled_net.parameters()):
            tolerance.same_bits(a.detach(), b.detach(), name)
        with nncore.no_grad():
            for v in x:
                tolerance.same_bits(infer(v), net(v), f"inference, {name}")


# ---- the choice ----


@pytest.mark.parametrize("name", ["auto", "direct", *TILES])
def test_gradients(name):
    """SciPy's central differences, whatever the algorithm; and that each is what runs."""
    rng = np.random.default_rng(0)
    nncore.set_conv_algorithm(name)
    x, w, b = (rng.standard_normal(s) for s in ((2, 2, 5, 4), (3, 2, 3, 3), (3,)))
    gradcheck(lambda x, w, b: F.conv2d(x, w, b, padding=1), x, w, b)
    gradcheck(lambda x, w, b: F.conv_transpose2d(x, w, b, padding=1), x[:, :, :3], w.swapaxes(0, 1), b)
    gradcheck(lambda x, w: F.conv2d(x, w, padding=2, groups=2), x, w[:2, :1])


def test_one_gradient_check_where_auto_takes_winograd():
    """16 channels in and out."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 16, 3, 2)), rng.standard_normal((16, 16, 3, 3))
    y = F.conv2d(x, w, padding=1).numpy()
    nncore.set_conv_algorithm("winograd2")
    tolerance.same_bits(F.conv2d(x, w, padding=1), y)
    nncore.set_conv_algorithm("auto")
    gradcheck(lambda x: F.conv2d(x, w, padding=1), x)


def chosen(c, dtype, rng):
    """The algorithms whose bits are those of 'auto': for y, dx, dw."""
    x, w, _, dy = operands(rng, c, dtype)
    calls = (lambda: forward(c, x, w), lambda: input_gradient(c, dy, w), lambda: weight_gradient(c, x, dy))
    found = []
    for call in calls:
        bits = {}
        for name in ("auto", "direct", *TILES):
            nncore.set_conv_algorithm(name)
            bits[name] = call().numpy().tobytes()
        found.append({name for name in ("direct", *TILES) if bits[name] == bits["auto"]})
    return found


def test_auto(isa, dtype, rng):
    """F(2x2) from 16 channels on, unless most of its multiplications are for points beyond the image; else direct."""
    for c, name in (
        (layer(2, 16, 16, (8, 8)), "winograd2"),
        (layer(2, 16, 64, (7, 7)), "winograd2"),
        (layer(2, 16, 64, (3, 4)), "winograd2"),
        (layer(2, 16, 16, (6, 6), groups=2), "winograd2"),
        (layer(2, 15, 64, (8, 8)), "direct"),
        (layer(2, 64, 15, (8, 8)), "direct"),
        (layer(2, 8, 16, (6, 6), groups=2), "direct"),
        (layer(2, 32, 32, (3, 3)), "direct"),
        (layer(2, 32, 32, (1, 9)), "direct"),
    ):
        assert chosen(c, dtype, rng) == [{name}] * 3, f"{c}"


def test_layers_that_it_does_not_fit(dtype, rng):
    """Other kernels, strides, dilations and numbers of axes: the direct algorithm's bits, whatever was asked for."""
    for c in (
        shapes.conv(2, 16, 16, (8, 8), (3, 2)),
        shapes.conv(2, 16, 16, (8, 8), (1, 1)),
        shapes.conv(2, 16, 16, (8, 8), (5, 5), padding=2),
        shapes.conv(2, 16, 16, (8, 8), (3, 3), (1, 2), 1),
        shapes.conv(2, 16, 16, (8, 8), (3, 3), 1, 1, (2, 1)),
        shapes.conv(2, 16, 16, (8,), (3,)),
        shapes.conv(2, 16, 16, (1, 8, 8), (1, 3, 3)),
    ):
        assert chosen(c, dtype, rng) == [{"direct", *TILES}] * 3, f"{c}"


def test_get_and_set():
    """Each name comes back; a wrong one changes nothing."""
    assert nncore.get_conv_algorithm() == "auto"
    for name in ("direct", "winograd2", "winograd4", "auto", "winograd4"):
        nncore.set_conv_algorithm(name)
        assert nncore.get_conv_algorithm() == name
        assert nncore.show_config()["conv_algorithm"] == name
    for wrong in ("winograd", "", 4, None):
        with pytest.raises(ValueError, match="name: expected 'auto'"):
            nncore.set_conv_algorithm(wrong)
        assert nncore.get_conv_algorithm() == "winograd4"
