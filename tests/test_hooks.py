"""Hooks of tensors and modules."""

import copy
import weakref

import numpy as np
import pytest

import nncore
from nncore import nn


def leaf(*values):
    return nncore.tensor(np.array(values), requires_grad=True)


def test_tensor_hooks_see_and_change_gradients():
    """Of a result: once, with its whole gradient; several in order; what they return goes on."""
    x = leaf(1.0, 2.0)
    y = x * 3
    seen = []
    y.register_hook(lambda g: seen.append(g.tolist()))
    y.register_hook(lambda g: g * 10)
    last = y.register_hook(lambda g: seen.append(g.tolist()))
    (y * y + y).sum().backward(retain_graph=True)
    assert seen == [[7.0, 13.0], [70.0, 130.0]]
    assert x.grad.tolist() == [210.0, 390.0]
    last.remove()
    last.remove()
    x.grad = None
    y.sum().backward()
    assert seen[2:] == [[1.0, 1.0]]
    assert x.grad.tolist() == [30.0, 30.0]


def test_leaf_hooks_get_the_whole_gradient_of_a_backward():
    """A leaf that is used twice: one call with the sum, before it is added to .grad."""
    x, seen = leaf(1.0, 2.0), []
    x.register_hook(lambda g: seen.append(g.tolist()))
    handle = x.register_hook(lambda g: g * 2)
    (x * x + x * 5).sum().backward()
    assert seen == [[7.0, 9.0]]
    assert x.grad.tolist() == [14.0, 18.0]
    handle.remove()
    (x * 1).sum().backward()
    assert x.grad.tolist() == [15.0, 19.0]
    x.backward(np.ones(2))
    assert seen[2:] == [[1.0, 1.0]]


def test_hooks_of_one_of_several_results():
    x = leaf(3.0, 1.0, 2.0)
    values, indices = x.max(0)
    values.register_hook(lambda g: g * 7)
    values.backward()
    assert x.grad.tolist() == [7.0, 0.0, 0.0]
    with pytest.raises(RuntimeError, match="register_hook"):
        indices.register_hook(lambda g: None)


def test_tensor_hook_errors():
    with pytest.raises(RuntimeError, match="register_hook"):
        nncore.ones(2).register_hook(lambda g: None)
    with pytest.raises(TypeError, match="hook"):
        leaf(1.0).register_hook(3)
    for result, error in ((3.0, TypeError), (nncore.ones(3), ValueError), (nncore.ones(1), ValueError)):
        x = leaf(1.0, 2.0)
        with x.register_hook(lambda g, r=result: r), pytest.raises(error, match="hook"):
            (x * 2).sum().backward()
        assert x.grad is None
        (x * 2).sum().backward()
        assert x.grad.tolist() == [2.0, 2.0]


def test_forward_hooks():
    """Before and after, in order and prepended; what they return goes on; removed ones are gone."""
    net, order = nn.Linear(2, 1, bias=False).double(), []
    nn.init.ones_(net.weight)
    net.register_forward_pre_hook(lambda m, args: order.append("pre") or (args[0] * 2,))
    net.register_forward_pre_hook(lambda m, args: order.append("first") or args[0] + 1, prepend=True)
    handle = net.register_forward_hook(lambda m, args, out: order.append(args[0].tolist()) or out * 10)
    net.register_forward_hook(lambda m, args, out: order.append(out.tolist()))
    assert net(nncore.tensor(np.array([1.0, 2.0]))).tolist() == [100.0]
    assert order == ["first", "pre", [4.0, 6.0], [100.0]]
    handle.remove()
    assert net(nncore.tensor(np.array([1.0, 2.0]))).tolist() == [10.0]


def test_forward_hooks_with_keywords():
    class Add(nn.Module):
        def forward(self, x, *, y):
            return x + y

    m, seen = Add(), []
    m.register_forward_pre_hook(lambda m, args, kwargs: (args, {"y": kwargs["y"] * 2}), with_kwargs=True)
    m.register_forward_hook(lambda m, args, kwargs, out: seen.append((kwargs, out)), with_kwargs=True)
    assert m(1, y=3) == 7
    assert seen == [({"y": 6}, 7)]
    m.register_forward_pre_hook(lambda m, args, kwargs: 3, with_kwargs=True)
    with pytest.raises(TypeError, match="hook"):
        m(1, y=3)


def test_full_backward_hook():
    net, seen = nn.Linear(2, 1, bias=False).double(), []
    nn.init.ones_(net.weight)
    net.register_full_backward_hook(lambda m, into, out: seen.append((into[0].tolist(), out[0].tolist())))
    handle = net.register_full_backward_hook(lambda m, into, out: (into[0] * 10,))
    x = leaf(1.0, 2.0)
    (net(x) * 3).sum().backward()
    assert seen == [([3.0, 3.0], [3.0])]
    assert x.grad.tolist() == [30.0, 30.0]
    assert net.weight.grad.tolist() == [[3.0, 6.0]]
    handle.remove()
    net(x).sum().backward()
    assert x.grad.tolist() == [31.0, 31.0]


def test_full_backward_hook_without_gradient_for_the_input():
    net, seen = nn.Linear(2, 1), []
    net.register_full_backward_hook(lambda m, into, out: seen.append((into, out[0].tolist())))
    net(nncore.ones(2)).sum().backward()
    assert seen == [((None,), [1.0])]
    with nncore.no_grad():
        net(nncore.ones(2))
    assert len(seen) == 1


def test_full_backward_hook_of_several():
    class Two(nn.Module):
        def forward(self, a, n, b):
            return a * n, a * b

    m, seen = Two(), []
    m.register_full_backward_hook(lambda m, into, out: seen.append((into, out)))
    a, b = leaf(2.0), leaf(3.0)
    m(a, 5, b)[1].sum().backward()
    (into, out) = seen[0]
    assert [g and g.tolist() for g in into] == [[3.0], None, [2.0]]
    assert [g and g.tolist() for g in out] == [None, [1.0]]
    m.register_full_backward_hook(lambda m, into, out: into[:1])
    with pytest.raises(ValueError, match="hook"):
        m(a, 5, b)[0].sum().backward()


def test_full_backward_pre_hook():
    """What it returns is what the module's backward starts from, and what the hooks after it see."""
    net, seen = nn.Linear(2, 1, bias=False).double(), []
    nn.init.ones_(net.weight)
    handle = net.register_full_backward_pre_hook(lambda m, out: seen.append(out[0].tolist()) or (out[0] * 10,))
    net.register_full_backward_hook(lambda m, into, out: seen.append((into[0].tolist(), out[0].tolist())))
    x = leaf(1.0, 2.0)
    (net(x) * 3).sum().backward()
    assert seen == [[3.0], ([30.0, 30.0], [30.0])]
    assert net.weight.grad.tolist() == [[30.0, 60.0]]
    handle.remove()
    net.register_full_backward_pre_hook(lambda m, out: out * 2)
    with pytest.raises(ValueError, match="hook: expected 1 gradients"):
        net(x).sum().backward()


def test_always_called_hooks():
    """Also after an error in forward or in another hook; errors of their own are warnings then."""

    class Fails(nn.Module):
        def forward(self, x):
            raise KeyError("forward")

    net, seen = Fails(), []
    net.register_forward_hook(lambda m, args, out: seen.append("never"))
    net.register_forward_hook(lambda m, args, out: seen.append((args, out)), always_call=True)
    with pytest.raises(KeyError, match="forward"):
        net(1)
    assert seen == [((1,), None)]
    net.register_forward_hook(lambda m, args, kwargs, out: 1 / 0, always_call=True, with_kwargs=True)
    with pytest.warns(UserWarning, match="division"), pytest.raises(KeyError, match="forward"):
        net(1)
    assert len(seen) == 2
    net, seen = nn.Identity(), []
    net.register_forward_hook(lambda m, args, out: seen.append(out), always_call=True)
    net.register_forward_hook(lambda m, args, out: {}[out])
    net.register_forward_hook(lambda m, args, out: seen.append(-out), always_call=True)
    with pytest.raises(KeyError):
        net(3)
    assert seen == [3, -3]


def test_retain_grad():
    """The gradient of a result is kept as a leaf's, added up; the graph does not keep the result for it."""
    x = leaf(1.0, 2.0)
    y = x * 2
    y.retain_grad()
    y.retain_grad()
    y.sum().backward(retain_graph=True)
    (y * y).sum().backward()
    assert y.grad.tolist() == [5.0, 9.0]
    x.retain_grad()
    z = y.detach() * x
    z.retain_grad()
    gone = weakref.ref(z)
    total = z * 2
    del z
    assert gone() is None
    total.backward(np.ones(2))
    with pytest.raises(RuntimeError, match="retain_grad"):
        nncore.ones(2).retain_grad()


def test_hooks_are_taken_along():
    """By deepcopy; and a compiled function follows them."""
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    net[0].register_forward_hook(lambda m, args, out: out * 0 + 1)
    assert copy.deepcopy(net)(nncore.ones(2)).tolist() == [1.0, 1.0]
    step = nncore.compile(lambda x: net(x))
    x = nncore.ones(2)
    assert [step(x).tolist() for _ in range(4)] == [[1.0, 1.0]] * 4
    handle = net[1].register_forward_hook(lambda m, args, out: out * 3)
    assert [step(x).tolist() for _ in range(4)] == [[3.0, 3.0]] * 4
    handle.remove()
    assert [step(x).tolist() for _ in range(4)] == [[1.0, 1.0]] * 4


@pytest.mark.parametrize(
    "register", ["forward_pre_hook", "forward_hook", "full_backward_pre_hook", "full_backward_hook"]
)
def test_module_hook_errors(register):
    with pytest.raises(TypeError, match="hook"):
        getattr(nn.Identity(), f"register_{register}")("print")
