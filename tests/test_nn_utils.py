"""nncore.nn.utils: clipping of gradients, parameters as a vector."""

import math

import numpy as np
import pytest

import nncore
from nncore import nn
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
