"""Padding: against the oracle, bit for bit, in every mode and layout."""

import numpy as np
import pytest
from nncore._core.elementwise import channels_last

import nncore
from nncore import nn
from nncore._core import runtime, tensor
from nncore.nn import functional as F

from . import reference, shapes, tolerance

from_array = tensor.from_array
MODES = ("constant", "reflect", "replicate", "circular")

# (shape, pad); pads within what every mode allows
GEOMETRIES = [
    ((5,), (2, 1)),
    ((5,), (-2, 3)),
    ((4, 6), (0, 0)),
    ((4, 6), (5, 5, 3, 3)),
    ((4, 6), (-1, -2, 1, -3)),
    ((4, 6), (0, 0, 2, 1)),
    ((3, 4, 5), (4, 4)),
    ((3, 4, 5), (1, 0, 0, 2)),
    ((2, 3, 4, 5), (2, 3, 1, 0)),
    ((2, 3, 4, 5), (0, 0, 2, -2, 2, 1)),
    ((2, 3, 4, 5), (1, 2, 3, 1, 2, 2, 1, 1)),
    ((2, 17, 4, 5), (1, 2, 2, 1)),
    ((2, 3, 4, 5, 6), (1, 2, 3, -1, 2, 1)),
    ((1, 1, 70), (30, 69)),
]


def numbers(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def gradient(x, pad, mode, dy):
    leaf = nncore.tensor(x, requires_grad=True)
    F.pad(leaf, pad, mode).backward(from_array(dy))
    return leaf.grad.numpy()


def test_the_oracle():
    """Numbers that can be checked by eye."""
    a = np.array([1.0, 2.0, 3.0])
    assert reference.pad(a, (1, 2), value=9).tolist() == [9, 1, 2, 3, 9, 9]
    assert reference.pad(a, (2, 1), "reflect").tolist() == [3, 2, 1, 2, 3, 2]
    assert reference.pad(a, (2, 1), "replicate").tolist() == [1, 1, 1, 2, 3, 3]
    assert reference.pad(a, (2, 1), "circular").tolist() == [2, 3, 1, 2, 3, 1]
    assert reference.pad(a, (-1, 1), "reflect").tolist() == [2, 3, 2]
    assert reference.pad(a, (-1, 2), "circular").tolist() == [2, 3, 2, 3]
    assert reference.pad_backward(np.array([1.0, 2.0, 4.0, 8.0]), (3,), (1, 0), "replicate").tolist() == [3, 4, 8]


@pytest.mark.parametrize("mode", MODES)
def test_pad(mode, isa, dtype, rng):
    """Values and gradients, bit for bit; nothing is written beyond the result."""
    for shape, pad in GEOMETRIES:
        x = numbers(rng, shape, dtype)
        want = reference.pad(x, pad, mode)
        shapes.prime(want.shape, dtype)
        y = F.pad(from_array(x), pad, mode)
        shapes.check_slack(y, f"{shape} {pad}")
        tolerance.same_bits(y, want, f"{shape} {pad}")
        dy = numbers(rng, want.shape, dtype)
        tolerance.same_bits(gradient(x, pad, mode, dy), reference.pad_backward(dy, shape, pad, mode), f"{shape} {pad}")


def test_gradients_add_in_order(isa, dtype, rng):
    """From the last output to the first the sums would have other bits."""
    dy = numbers(rng, (30, 40), dtype)
    want = reference.pad_backward(dy, (4, 6), (17, 17, 13, 13), "replicate")
    assert (want != reference.pad_backward(dy, (4, 6), (17, 17, 13, 13), "replicate", -1)).any()
    tolerance.same_bits(gradient(np.zeros((4, 6), dtype), (17, 17, 13, 13), "replicate", dy), want)


def test_values(isa, dtype):
    """Any number, also NaN and infinity, and NaN and infinity of the input stay where they are."""
    x = np.array([[1.0, np.nan], [np.inf, -0.0]], dtype)
    for value in (0, -0.0, 2.5, np.nan, np.inf, -np.inf, np.float64(3)):
        tolerance.same_bits(F.pad(x, (1, 0, 0, 2), value=value), reference.pad(x, (1, 0, 0, 2), value=value))
    tolerance.same_bits(F.pad(x, (1, 1), "reflect"), reference.pad(x, (1, 1), "reflect"))


def test_integers(isa, rng):
    """int64 is moved bit for bit."""
    x = rng.integers(-(2**63), 2**63 - 1, (3, 37))
    x[0, :3] = 1, -1, 2**52 + 1
    for mode in MODES:
        tolerance.same_bits(F.pad(x, (3, 2, 1, 1), mode), reference.pad(x, (3, 2, 1, 1), mode))
    for value in (-1, 1, 2**63 - 1, -(2**63), np.int64(7)):
        tolerance.same_bits(F.pad(x, (20, 0, 0, 1), value=value), reference.pad(x, (20, 0, 0, 1), value=value))


@pytest.mark.parametrize("mode", MODES)
def test_layouts(mode, isa, dtype, rng):
    """Any strides give the same bits; channels-last images stay so, their gradients too."""
    for shape, pad in ((5, 6), (2, 1, 3, -1)), ((2, 3, 4, 5), (2, 1, 3, 0)), ((2, 17, 5, 4), (1, 3)):
        x, want = numbers(rng, shape, dtype), None
        for name, layout in shapes.LAYOUTS.items():
            z = layout(x)
            want = reference.pad(x, pad, mode)
            tolerance.same_bits(F.pad(from_array(z), pad, mode), want, name)
            np.testing.assert_array_equal(z, x)
        if len(shape) < 3:
            continue
        t = channels_last(from_array(x)).requires_grad_()
        y = F.pad(t, pad, mode)
        assert y.channels_last
        tolerance.same_bits(y.detach(), want)
        dy = numbers(rng, want.shape, dtype)
        back = reference.pad_backward(dy, shape, pad, mode)
        y.backward(channels_last(from_array(dy)))
        tolerance.same_bits(t.grad, back)
        tolerance.same_bits(gradient(x, pad, mode, np.asfortranarray(dy)), back)


def test_channels_may_be_padded_too(isa, dtype, rng):
    x = numbers(rng, (2, 3, 4, 5), dtype)
    for mode in MODES:
        y = F.pad(channels_last(from_array(x)), (1, 2, 0, 1, 2, 1), mode)
        assert y.channels_last
        tolerance.same_bits(y, reference.pad(x, (1, 2, 0, 1, 2, 1), mode))


def test_empty(isa, dtype):
    """Axes without elements: a constant fills what is added."""
    for shape, pad in ((0,), (2, 1)), ((2, 0), (1, 0)), ((0, 3), (1, 1)), ((2, 3), (-1, -2)), ((0, 3, 4), (1, 1, 1, 0)):
        x = np.ones(shape, dtype)
        tolerance.same_bits(F.pad(x, pad, value=2), reference.pad(x, pad, value=2))
        assert gradient(x, pad, "constant", np.ones(reference.pad(x, pad).shape, dtype)).shape == shape
    assert F.pad(np.ones((0, 3, 4), dtype), (1, 1), "reflect").shape == (0, 3, 6)


@pytest.mark.parametrize("mode", MODES)
def test_threads_and_batches(mode, isa, dtype, rng):
    """1, 2, 3 and 7 threads give the same bits, all take part, and an image alone has those it has in a batch."""
    x, pad = numbers(rng, (6, 5, 40, 33), dtype), (3, 2, 4, 1)
    want = reference.pad(x, pad, mode)
    dy = numbers(rng, want.shape, dtype)
    back = reference.pad_backward(dy, x.shape, pad, mode)
    runtime.set_parallel_threshold(0.0)
    for threads in (1, 2, 3, 7):
        runtime.set_num_threads(threads)
        runtime.threads_used(True)
        tolerance.same_bits(F.pad(from_array(x), pad, mode), want, f"{threads} threads")
        assert runtime.threads_used(True) >= min(threads, 2)
        tolerance.same_bits(gradient(x, pad, mode, dy), back, f"{threads} threads")
    for i in (0, 4):
        tolerance.same_bits(F.pad(from_array(x[i]), pad, mode), want[i])
        tolerance.same_bits(gradient(x[i], pad, mode, dy[i]), back[i])


KINDS = {
    "ConstantPad": "constant",
    "ZeroPad": "constant",
    "ReflectionPad": "reflect",
    "ReplicationPad": "replicate",
    "CircularPad": "circular",
}


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_layers(kind, axes, rng):
    """A layer is the function with its padding, for all ends or for each."""
    more = (3.5,) if kind == "ConstantPad" else ()
    for shape in ((2, 3, *(5, 6, 4)[:axes]), (3, *(5, 6, 4)[:axes])):
        x = numbers(rng, shape, np.float32)
        for padding in (2, (1, 0, 2, 1, -1, 2)[: 2 * axes]):
            layer = getattr(nn, f"{kind}{axes}d")(padding, *more)
            ends = padding if isinstance(padding, tuple) else (padding,) * (2 * axes)
            tolerance.same_bits(layer(x), reference.pad(x, ends, KINDS[kind], *more))
            assert layer.padding == ends
            assert str(ends) in repr(layer)
            assert list(layer.parameters()) == []


@pytest.mark.parametrize("mode", MODES[1:])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_padding_mode_of_convolutions(axes, mode, isa, rng):
    """The convolution of the padded input, for numbers, 'same' and 'valid'."""
    x = nncore.tensor(numbers(rng, (2, 3, *(7, 6, 5)[:axes]), np.float32))
    conv = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    for padding, kernel, options in (
        ((2, 1, 2)[:axes], (3, 2, 3)[:axes], {"stride": 2}),
        ("same", (3, 4, 2)[:axes], {"dilation": (1, 1, 2)[:axes]}),
        ("valid", 2, {"groups": 3}),
    ):
        layer = getattr(nn, f"Conv{axes}d")(3, 6, kernel, padding=padding, padding_mode=mode, **options)
        if padding == "same":
            spans = [d * (k - 1) for d, k in zip(options["dilation"], kernel)]
            ends = [p for s in reversed(spans) for p in (s // 2, s - s // 2)]
        else:
            ends = [p for n in reversed(padding) for p in (n, n)] if padding != "valid" else [0, 0] * axes
        wide = reference.pad(x.numpy(), ends, mode)
        tolerance.same_bits(layer(x).detach(), conv(wide, layer.weight, layer.bias, **options).detach())
        assert f"padding_mode={mode}" in repr(layer)
    assert nn.Conv2d(1, 1, 1).padding_mode == nn.ConvTranspose2d(1, 1, 1).padding_mode == "zeros"


COVERS = {"pad": test_pad, "pad_backward": test_pad}
