"""Containers of modules and parameters; layers that move elements, drop channels or compare vectors."""

import copy
import math

import numpy as np
import pytest

import nncore
from nncore import nn
from nncore.nn import functional as F


def names(module):
    return [n for n, _ in module.named_parameters()]


def test_module_list():
    layers = [nn.Linear(1, i) for i in range(1, 5)]
    m = nn.ModuleList(layers[:2])
    m += [layers[3]]
    m.insert(2, layers[2])
    assert list(m) == layers
    assert m[-1] is layers[3]
    assert list(m[1:3]) == layers[1:3]
    assert isinstance(m[1:3], nn.ModuleList)
    assert m.pop(0) is layers[0]
    del m[1]
    assert list(m) == [layers[1], layers[3]]
    assert list(m._modules) == ["0", "1"]
    assert names(m) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    m[1] = nn.ReLU()
    assert (len(m), names(m)) == (2, ["0.weight", "0.bias"])
    m.insert(-1, layers[0])
    assert m[1] is layers[0]


def test_module_dict():
    m = nn.ModuleDict([("a", nn.Linear(1, 2)), ("b", nn.ReLU())])
    m["c"] = nn.Tanh()
    m.update({"a": nn.Linear(1, 3)})
    assert list(m) == list(m.keys()) == ["a", "b", "c"]
    assert [k for k, _ in m.items()] == ["a", "b", "c"]
    assert "b" in m
    assert "d" not in m
    assert m["a"].out_features == 3
    assert names(m) == ["a.weight", "a.bias"]
    assert isinstance(m.pop("b"), nn.ReLU)
    del m["c"]
    assert len(m) == 1
    with pytest.raises(KeyError):
        del m["c"]
    with pytest.raises(KeyError):
        m["c"]
    m.clear()
    assert (len(m), names(m)) == (0, [])


def test_parameter_list_and_dict():
    p, q = nn.Parameter([1.0]), nn.Parameter([2.0, 3.0])
    m = nn.ParameterList([p])
    m += [q, nncore.ones(2)]
    assert [m[0] is p, m[1] is q, isinstance(m[2], nn.Parameter)] == [True] * 3
    assert names(m) == ["0", "1", "2"]
    assert [x is y for x, y in zip(m[:2], (p, q))] == [True, True]
    m[0] = np.array([7.0])
    assert m[0].tolist() == [7.0]
    d = nn.ParameterDict({"w": p})
    d["v"] = [5.0]
    assert names(d) == ["w", "v"]
    assert d["w"] is p
    assert d.pop("w") is p
    assert list(d) == ["v"]
    both = nn.ModuleDict({"list": m, "dict": d})
    other = copy.deepcopy(both)
    assert names(both) == ["list.0", "list.1", "list.2", "dict.v"]
    nn.init.zeros_(other["list"][1])
    other.load_state_dict(both.state_dict())
    assert other["list"][1].tolist() == [2.0, 3.0]
    (both["list"][1] * 2).sum().backward()
    assert q.grad.tolist() == [2.0, 2.0]


def test_pixel_shuffle():
    """By its definition; and back."""
    x = np.arange(2 * 18 * 2 * 3, dtype=np.float32).reshape(2, 18, 2, 3)
    y = F.pixel_shuffle(x, 3).numpy()
    assert y.shape == (2, 2, 6, 9)
    for n, c, h, w in np.ndindex(*y.shape):
        assert y[n, c, h, w] == x[n, c * 9 + h % 3 * 3 + w % 3, h // 3, w // 3]
    assert np.array_equal(F.pixel_unshuffle(y, 3).numpy(), x)
    assert F.pixel_shuffle(nncore.zeros(0, 4, 1, 1), 2).shape == (0, 1, 2, 2)
    assert F.pixel_shuffle(nncore.zeros(4, 0, 1), 2).shape == (1, 0, 2)


def test_unflatten():
    x = nncore.arange(12.0).reshape(2, 6)
    assert nn.Unflatten(1, (2, 3))(x).tolist() == x.reshape(2, 2, 3).tolist()
    assert nn.Unflatten(-1, (3, -1, 1))(x).shape == (2, 3, 2, 1)
    assert nncore.zeros(3, 0).unflatten(1, (0, 4)).shape == (3, 0, 4)


CHANNELS = [
    (nn.Dropout1d, (40, 50, 3), 2),
    (nn.Dropout1d, (500, 3), 1),
    (nn.Dropout2d, (40, 50, 2, 3), 2),
    (nn.Dropout2d, (40, 50, 4), 2),
    (nn.Dropout3d, (40, 50, 1, 3, 2), 2),
    (nn.Dropout3d, (500, 2, 3, 1), 1),
]


@pytest.mark.parametrize("make, shape, leading", CHANNELS)
def test_channels_are_dropped_as_a_whole(make, shape, leading, isa, dtype):
    """Each channel is 0 or scaled; about p of them are 0 (5 standard deviations)."""
    nncore.manual_seed(1)
    x = np.ones(shape, dtype)
    for p in (0.25, 0.5):
        y = make(p)(x).numpy()
        flat = y.reshape(*shape[:leading], -1)
        assert (flat == flat[..., :1]).all()
        kept = flat[..., 0] != 0
        np.testing.assert_allclose(flat[kept], 1 / (1 - p), rtol=1e-6)
        n = kept.size
        assert abs(kept.mean() - (1 - p)) < 5 * math.sqrt(p * (1 - p) / n)
    assert (make(1.0)(x).numpy() == 0).all()
    assert (make(0.0)(x).numpy() == 1).all()
    assert (make(0.5).eval()(x).numpy() == 1).all()


def test_channels_stay_last():
    x = F.conv2d(nncore.ones(1, 2, 4, 4), nncore.ones(3, 2, 1, 1))
    assert x.channels_last
    assert nn.Dropout2d(0.5)(x).channels_last


@pytest.mark.parametrize("make, shape", [(nn.AlphaDropout, (60, 500)), (nn.FeatureAlphaDropout, (150, 200, 3))])
def test_alpha_dropout_keeps_the_moments(make, shape, isa, dtype):
    """Of standard normal numbers: mean 0 and variance 1 within 5 standard deviations; two values without noise."""
    nncore.manual_seed(2)
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    for p in (0.1, 0.5):
        y = make(p)(x).numpy().astype(float)
        independent = np.prod(shape[:2])
        assert abs(y.mean()) < 5 / math.sqrt(independent)
        assert abs(y.var() - 1) < 5 * 3 / math.sqrt(independent)
        a = 1 / math.sqrt((1 - p) * (1 + p * 1.7580993408473766**2))
        flat = make(p)(np.ones(shape, dtype)).numpy()
        low, high = a * 1.7580993408473766 * (p - 1), a + a * 1.7580993408473766 * p
        near = lambda v, v0: np.abs(v - v0) < 8 * np.finfo(dtype).eps * 4
        assert (near(flat, low) | near(flat, high)).all()
        if make is nn.FeatureAlphaDropout:
            assert (flat == flat[..., :1]).all()
    assert np.array_equal(make(0.5).eval()(x).numpy(), x)
    assert (make(1.0)(x).numpy() == 0).all()


def test_cosine_similarity_of_short_and_zero_vectors():
    zero, a = nncore.tensor(np.zeros(3), requires_grad=True), nncore.tensor(np.array([3.0, 0.0, 4.0]))
    y = F.cosine_similarity(zero, a, 0)
    assert y.item() == 0.0
    y.backward()
    np.testing.assert_allclose(zero.grad.numpy(), a.numpy() / (1e-8 * 5))
    x, y = np.random.default_rng(0).standard_normal((2, 4, 5))
    want = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    np.testing.assert_allclose(nn.CosineSimilarity()(x, y).numpy(), want, rtol=1e-14)


@pytest.mark.parametrize("p", [1.0, 2.0, 2.5, math.inf])
def test_pairwise_distance(p):
    x, y = np.random.default_rng(0).standard_normal((2, 4, 5))
    want = np.linalg.norm(x - y + 1e-6, p, axis=1)
    np.testing.assert_allclose(nn.PairwiseDistance(p)(x, y).numpy(), want, rtol=1e-13)
    np.testing.assert_allclose(nn.PairwiseDistance(p, keepdim=True)(x, y[0]).numpy().shape, (4, 1))


def test_bilinear(isa, dtype):
    x, y = (np.random.default_rng(i).standard_normal((2, 7, n)).astype(dtype) for i, n in enumerate((3, 4)))
    net = nn.Bilinear(3, 4, 5, dtype=dtype)
    w, b = (p.numpy().astype(np.float64) for p in net.parameters())
    assert max(abs(w).max(), abs(b).max()) <= 1 / math.sqrt(3) < 2 * abs(w).max()
    want = np.einsum("...i,oij,...j->...o", x.astype(float), w, y.astype(float)) + b
    size = np.einsum("...i,oij,...j->...o", abs(x).astype(float), abs(w), abs(y).astype(float)) + abs(b)
    assert (np.abs(net(x, y).numpy() - want) <= (3 + 4 + 2) * np.finfo(dtype).eps * size).all()
