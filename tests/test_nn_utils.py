"""nncore.nn.utils: clipping of gradients, parameters as a vector, normalized weights."""

import copy
import math
import pickle

import numpy as np
import pytest

import nncore
from nncore import nn, optim
from nncore._core import runtime
from nncore.nn import utils


def with_gradients(dtypes=("float32", "float32", "float64"), seed=0):
    rng = np.random.default_rng(seed)
    params = [nn.Parameter(rng.standard_normal(s).astype(d)) for s, d in zip([(3, 4), (5,), ()], dtypes)]
    for p in params:
        p.grad = nncore.tensor(rng.standard_normal(p.shape).astype(p.dtype))
    return params


def flat(params):
    return np.concatenate([np.asarray(p.grad, np.float64).ravel() for p in params])


@pytest.mark.parametrize("p", [1, 2, 2.0, 3.5, math.inf, 0.5])
@pytest.mark.parametrize("max_norm", [0.0, 0.1, 1.0, 1e6])
def test_clip_grad_norm(isa, p, max_norm):
    params = with_gradients()
    g = flat(params)
    norm = np.abs(g).max() if p == math.inf else (np.abs(g) ** p).sum() ** (1 / p)
    got = utils.clip_grad_norm_([*params, nn.Parameter([1.0])], max_norm, p)
    assert (got.shape, got.dtype) == ((), np.float64)
    assert got.item() == pytest.approx(norm, rel=1e-14)
    np.testing.assert_allclose(flat(params), g * min(1, max_norm / (norm + 1e-6)), rtol=2.0**-22)
    assert got.item() == pytest.approx(utils.get_total_norm([nncore.tensor(g)], p).item(), rel=1e-14)
    assert not got.requires_grad


def test_gradients_below_the_norm_stay_as_they_are():
    params = with_gradients()
    g = flat(params)
    utils.clip_grad_norm_(params, 100.0)
    assert np.array_equal(flat(params), g)


def test_the_norms_dtype_is_the_gradients():
    assert utils.clip_grad_norm_(with_gradients(("float32",) * 3), 1.0).dtype == np.float32
    assert utils.get_total_norm([nncore.ones(2)]).dtype == np.float32
    assert utils.get_total_norm(nncore.ones(4)).item() == 2.0
    assert utils.clip_grad_norm_([], 1.0).item() == 0.0
    assert utils.get_total_norm([], math.inf).item() == 0.0


def test_not_finite():
    for value in (math.nan, math.inf):
        p = nn.Parameter([1.0, 2.0])
        p.grad = nncore.tensor([1.0, value])
        with pytest.raises(ValueError, match="error_if_nonfinite"):
            utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
        assert p.grad[0].item() == 1.0
        utils.clip_grad_norm_(p, 1.0)
        assert math.isnan(p.grad[1].item())


@pytest.mark.parametrize("limit", [0.0, 0.3, 10.0])
def test_clip_grad_value(isa, limit):
    params = with_gradients()
    g = flat(params)
    assert utils.clip_grad_value_(params, limit) is None
    np.testing.assert_allclose(flat(params), np.clip(g, -limit, limit), rtol=2.0**-23)


def test_gradients_that_are_views():
    p = nn.Parameter(np.zeros((2, 3)))
    p.grad = nncore.tensor(np.arange(6.0).reshape(3, 2)).T
    utils.clip_grad_value_(p, 2.5)
    assert p.grad.tolist() == [[0, 2, 2.5], [1, 2.5, 2.5]]
    norm = np.linalg.norm(p.grad.numpy())
    assert utils.clip_grad_norm_(p, 1.0).item() == pytest.approx(norm, rel=1e-15)
    assert np.linalg.norm(p.grad.numpy()) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("make", [lambda a: a, lambda a: a.T], ids=["row-major", "transposed"])
def test_gradients_that_share_memory_are_scaled_one_after_the_other(make):
    """A parameter given twice counts twice, and its gradient is scaled twice, as torch's; on any number of threads."""
    n = 1200
    runtime.set_parallel_threshold(0.0)
    for threads in (1, 2, 7):
        runtime.set_num_threads(threads)
        p, q = nn.Parameter(np.zeros((n, n), np.float32)), nn.Parameter(np.zeros((n // 2, n), np.float32))
        g = nncore.tensor(np.full((n, n), 2.0, np.float32))
        p.grad = make(g)
        q.grad = make(g)[: n // 2]
        norm = utils.clip_grad_norm_([p, p, q], 1.0).item()
        assert norm == pytest.approx(2 * n * math.sqrt(2.5), rel=1e-6)
        c = 1 / (norm + 1e-6)
        got = p.grad.numpy()
        np.testing.assert_allclose(got[: n // 2], 2 * c**3, rtol=1e-6)
        np.testing.assert_allclose(got[n // 2 :], 2 * c**2, rtol=1e-6)


def test_vectors():
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    vec = utils.parameters_to_vector(net.parameters())
    assert vec.tolist() == np.concatenate([a.ravel() for a in net.state_dict().values()]).tolist()
    vec.square().sum().backward()
    for p in net.parameters():
        np.testing.assert_allclose(p.grad.numpy(), 2 * p.detach().numpy())
    utils.vector_to_parameters(nncore.arange(11).float(), net.parameters())
    assert net[0].weight.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert net[1].bias.tolist() == [10]
    before = net.state_dict()
    with pytest.raises(ValueError, match="vec"):
        utils.vector_to_parameters(nncore.ones(12), net.parameters())
    for n, a in net.state_dict().items():
        assert np.array_equal(a, before[n])


NORMALIZED = {
    "weight": (lambda: utils.weight_norm(nn.Linear(5, 3)), utils.remove_weight_norm),
    "weight whole": (lambda: utils.weight_norm(nn.Conv2d(2, 3, 2), dim=None), utils.remove_weight_norm),
    "spectral": (lambda: utils.spectral_norm(nn.Linear(5, 3)), utils.remove_spectral_norm),
    "spectral conv": (lambda: utils.spectral_norm(nn.ConvTranspose2d(2, 3, 2)), utils.remove_spectral_norm),
}


def input_of(layer):
    return nncore.randn(4, 5) if isinstance(layer, nn.Linear) else nncore.randn(2, 2, 4, 4)


def test_weight_norm_keeps_the_function():
    """At first the weight is what it was; then its length is g, whatever v is."""
    layer = nn.Linear(5, 3)
    x = nncore.randn(4, 5)
    before = layer(x).detach()
    assert utils.weight_norm(layer) is layer
    np.testing.assert_allclose(layer(x).detach().numpy(), before.numpy(), rtol=1e-5, atol=1e-6)
    layer.weight_g.fill_(2.0)
    layer.weight_v.mul_(7.0)
    np.testing.assert_allclose(np.linalg.norm(layer.weight.detach().numpy(), axis=1), 2.0, rtol=1e-6)


def test_spectral_norm_finds_the_largest_singular_value():
    """After enough forwards in training mode; none in evaluation mode."""
    for make in (lambda: nn.Linear(7, 5), lambda: nn.ConvTranspose2d(2, 5, 2)):
        layer = utils.spectral_norm(make(), n_power_iterations=3).double()
        x = nncore.randn(2, 7, dtype="float64") if isinstance(layer, nn.Linear) else nncore.randn(1, 2, 3, 3).double()
        layer.eval()(x)
        u = layer.weight_u.numpy().copy()
        layer(x)
        assert np.array_equal(u, layer.weight_u.numpy())
        layer.train()
        for _ in range(300):
            layer(x)
        w = layer.weight.detach().numpy()
        w = w if w.ndim == 2 else np.moveaxis(w, 1, 0).reshape(5, -1)
        assert np.linalg.norm(w, 2) == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("name", NORMALIZED)
def test_normalized_weights(name):
    """Train, are copied, pickled and saved, and become plain parameters again."""
    make, remove = NORMALIZED[name]
    nncore.manual_seed(0)
    layer = make()
    opt = optim.SGD(layer.parameters(), lr=0.01)
    x, losses = input_of(layer), []
    for _ in range(5):
        opt.zero_grad()
        loss = (layer(x) - 1).square().mean()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    layer.eval()
    want = layer(x).detach().numpy()
    other = make().eval()
    other.load_state_dict(layer.state_dict())
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other):
        assert np.array_equal(copied(x).detach().numpy(), want)
        next(copied.parameters()).fill_(5.0)
    assert np.array_equal(layer(x).detach().numpy(), want)
    assert remove(layer) is layer
    assert sorted(layer.state_dict()) == ["bias", "weight"]
    assert np.array_equal(layer(x).detach().numpy(), want)
    with pytest.raises(ValueError, match="name"):
        remove(layer)


def test_missing_attributes_are_named():
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'weights'"):
        utils.weight_norm(nn.Linear(2, 2)).weights  # noqa: B018


def test_max_norm(isa, dtype):
    """Each slice above the limit is scaled to it; the others keep their bits."""
    rng = np.random.default_rng(1)
    for shape, dim in (((5, 7), 0), ((5, 7), 1), ((4, 3, 2, 2), 0), ((4, 3, 2, 2), -3), ((6,), 0)):
        a = rng.standard_normal(shape).astype(dtype)
        norms = np.sqrt((a.astype(np.float64) ** 2).sum(tuple(np.delete(range(a.ndim), dim)), keepdims=True))
        limit = float(np.median(norms))
        p = nn.Parameter(a)
        utils.max_norm_([p], limit, dim)
        small = np.broadcast_to(norms <= limit, shape)
        assert 0 < small.sum() < small.size
        assert (np.asarray(p)[small] == a[small]).all()
        want = a.astype(np.float64) * np.minimum(1, limit / norms)
        np.testing.assert_allclose(np.asarray(p), want, rtol=4 * np.finfo(dtype).eps)


def test_max_norm_of_extremes():
    p = nn.Parameter([[3e30, 4e30], [0.0, 0.0], [math.nan, 1.0]])
    utils.max_norm_(p, 10.0)
    np.testing.assert_allclose(np.asarray(p), [[6, 8], [0, 0], [math.nan, math.nan]], rtol=1e-6)


def test_l1_drives_weights_to_nothing():
    """The lasso's solution for an orthonormal design: the least-squares one, shrunk by the factor and cut at 0."""
    best = np.array([2.0, -1.0, 0.3, -0.2, 0.0])
    w = nn.Parameter(np.ones(5))
    opt = nncore.optim.SGD([w], lr=0.05)
    for _ in range(300):
        opt.zero_grad()
        (0.5 * (w - best).square().sum() + 0.5 * utils.l1_penalty(w)).backward()
        opt.step()
    np.testing.assert_allclose(np.asarray(w), [1.5, -0.5, 0, 0, 0], atol=0.05 * 0.5)


def test_gaussian_noise(isa, dtype):
    x = np.full((300, 200), 2.0, dtype)
    layer = nn.GaussianNoise(0.5)
    nncore.manual_seed(1)
    noise = np.asarray(layer(x)) - 2.0
    nncore.manual_seed(1)
    assert (np.asarray(layer(nncore.tensor(x.T).T)) - 2.0 == noise).all()  # whatever the layout
    n = noise.size
    assert abs(noise.mean()) < 5 * 0.5 / math.sqrt(n)
    assert abs(noise.std() - 0.5) < 5 * 0.5 / math.sqrt(2 * n)
    assert (np.asarray(layer(x)) - 2.0 != noise).any()
    assert layer.eval()(x).tolist() == x.tolist()
    assert "std=0.5" in repr(layer)
