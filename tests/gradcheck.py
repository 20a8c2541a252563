"""The judge of gradients: SciPy's central differences in float64, and properties that every backward has."""

import numpy as np
from scipy.optimize._numdiff import approx_derivative

import nncore
from nncore import Tensor, nn, no_grad

# A central difference with step h = eps^(1/3) is wrong by about h^2 f''' / 6 (truncation) plus eps f / h (rounding):
# both are eps^(2/3) times a magnitude. The factor covers the third derivatives of the functions tested here.
STEP_ERROR = np.finfo(np.float64).eps ** (2 / 3)
FACTOR = 200


def leaf(x):
    """A float64 leaf that collects a gradient; Tensors pass as they are."""
    return x if isinstance(x, Tensor) else nncore.tensor(np.asarray(x, np.float64), requires_grad=True)


def outputs_of(fn, inputs):
    """The floating results of fn, as a list."""
    y = fn(*inputs)
    ys = y if isinstance(y, tuple | list) else (y,)
    return [t for t in ys if t.dtype.kind == "f"]


def gradients(fn, inputs, wanted, cotangents):
    """Gradients of sum of <cotangent, output> with respect to `wanted`, as arrays (None where there is none)."""
    for t in wanted:
        t.grad = None
    accumulate(fn, inputs, cotangents)
    return [None if t.grad is None else t.grad.numpy().copy() for t in wanted]


def accumulate(fn, inputs, cotangents):
    """One forward and backward, from one random cotangent per output."""
    ys = outputs_of(fn, inputs)
    # one root for several outputs, so that one backward sees all of them
    root = None
    for y, dy in zip(ys, cotangents, strict=True):
        part = (y * nncore.tensor(dy)).sum() if len(ys) > 1 else None
        root = part if root is None else root + part
    if len(ys) > 1:
        root.backward()
    else:
        ys[0].backward(cotangents[0])


def gradcheck(fn, *inputs, seed=0):
    """Asserts that the gradients of fn are right, for every input that requires one and every parameter.

    Args:
        fn: function of tensors, or a Module in float64; its result is a tensor or a tuple of tensors.
        *inputs: arrays (become float64 leaves), or Tensors, which are checked if they require a gradient. Points
            within a step of a kink must be avoided by the caller.
        seed: of the random cotangent.
    """
    rng = np.random.default_rng(seed)
    inputs = [leaf(x) for x in inputs]
    wanted = [t for t in inputs if t.requires_grad]
    if isinstance(fn, nn.Module):
        wanted += [p for p in fn.parameters() if p.requires_grad]
    assert wanted, "nothing to check"
    assert all(t.dtype == np.float64 for t in wanted), "gradient checks need float64"

    with no_grad():
        ys = outputs_of(fn, inputs)
    assert all(y.dtype == np.float64 for y in ys)
    cotangents = [rng.standard_normal(y.shape) for y in ys]
    before = [t.numpy().copy() for t in wanted]
    analytic = gradients(fn, inputs, wanted, cotangents)
    for t, b in zip(wanted, before):
        assert np.array_equal(t.numpy(), b), "forward or backward changed an input"

    def value():
        with no_grad():
            ys = outputs_of(fn, inputs)
        return np.array(sum(float(np.vdot(y.numpy(), dy)) for y, dy in zip(ys, cotangents)))

    scale = sum(float(np.abs(y.numpy() * dy).sum()) for y, dy in zip(ys, cotangents))
    for k, (t, x0, g) in enumerate(zip(wanted, before, analytic)):

        def at(flat, t=t, x0=x0):
            with no_grad():
                t.copy_(flat.reshape(x0.shape))
                return value()

        numeric = approx_derivative(at, x0.ravel(), method="3-point").reshape(x0.shape)
        with no_grad():
            t.copy_(x0)
        assert np.linalg.norm(numeric) > 0, f"input {k}: the numeric gradient is zero, nothing is checked"
        assert g is not None, f"input {k}: no gradient arrived"
        assert g.dtype == np.float64
        assert g.shape == x0.shape
        tolerance = FACTOR * STEP_ERROR * max(scale, float(np.abs(numeric).max()), 1.0)
        error = np.abs(g - numeric).max()
        assert error <= tolerance, f"input {k}: error {error:.3g} > {tolerance:.3g}\nbackward {g}\nnumeric {numeric}"

    # the same bits again
    for g, h in zip(analytic, gradients(fn, inputs, wanted, cotangents), strict=True):
        assert np.array_equal(g, h), "two runs gave different bits"
    # backward is linear in the cotangent; a power of two scales every rounding with it
    for g, h in zip(analytic, gradients(fn, inputs, wanted, [-4.0 * dy for dy in cotangents]), strict=True):
        assert np.array_equal(-4.0 * g, h), "backward is not linear in the cotangent"
    # a gradient that is already there stays
    held = [rng.standard_normal(t.shape) for t in wanted]
    for t, h in zip(wanted, held):
        t.grad = nncore.tensor(h)
    accumulate(fn, inputs, cotangents)
    for t, h, g in zip(wanted, held, analytic):
        np.testing.assert_allclose(t.grad.numpy(), h + g, rtol=1e-13, atol=1e-13 * max(1.0, float(np.abs(g).max())))
        t.grad = None
