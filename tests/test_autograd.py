"""The tape: what is recorded, when it is freed, and what is refused."""

import copy
import gc
import sys
import threading
import weakref

import numpy as np
import pytest

import nncore
from nncore import _tape, enable_grad, no_grad, optim, set_grad_enabled


def leaf(*values, dtype="float64"):
    return nncore.tensor(list(values), dtype=dtype, requires_grad=True)


# ---- accumulation ----


def test_gradients_accumulate_over_backwards():
    w = leaf(1.0, 2.0)
    (w * 3).backward([1.0, 1.0])
    (w * w).backward([1.0, 10.0])
    assert w.grad.tolist() == [5.0, 43.0]


def test_accumulation_writes_into_the_same_gradient():
    """What a caller holds as w.grad keeps up with it, as in torch."""
    w = leaf(1.0)
    (w * 3).backward()
    held = w.grad
    (w * 4).backward()
    assert w.grad is held
    assert held.item() == 7.0


def test_shared_subexpression():
    w = leaf(2.0)
    h = w * w
    (h * h + h).backward()
    assert w.grad.item() == 4 * 2.0**3 + 2 * 2.0


def test_diamond():
    a, b = leaf(3.0), leaf(5.0)
    s = a + b
    left, right = s * 2, s * a
    (left * right).backward()  # 2 a (a+b)^2
    assert a.grad.item() == 2 * 64 + 4 * 3 * 8
    assert b.grad.item() == 4 * 3 * 8


def test_diamonds_take_linear_time():
    """50 diamonds in a row have 2^50 paths; every node runs once."""
    w = leaf(1.0)
    h = w
    for _ in range(50):
        h = h * 0.5 + h * 0.5
    h.backward()
    assert w.grad.item() == 1.0


def test_every_node_runs_once_after_all_its_gradients():
    runs = []
    w = leaf(2.0)

    def op(x, name):
        return _tape.record(x.detach() * 1.0, name, (x,), lambda dy: runs.append((name, dy.item())) or (dy,))

    h = op(w, "h")
    a = op(h, "a")
    b = op(a, "b")
    (h + a + b).backward()
    assert runs == [("b", 1.0), ("a", 2.0), ("h", 3.0)]
    assert w.grad.item() == 3.0


def test_same_leaf_in_both_operands():
    w = leaf(3.0)
    (w * w).backward()
    assert w.grad.item() == 6.0
    w.grad = None
    (w - w).backward([1.0])
    assert w.grad.item() == 0.0


@pytest.mark.parametrize("op", [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: nncore.stack([a, b]).sum(0)])
def test_first_gradients_are_never_shared(op):
    """add hands one cotangent to both leaves: accumulating into one must not change the other."""
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    op(a, b).backward([1.0, 1.0])
    other = b.grad.tolist()
    (a * 100).backward([1.0, 1.0])
    assert a.grad.tolist() == [101.0, 101.0]
    assert b.grad.tolist() == other
    a.grad.zero_()
    assert b.grad.tolist() == other


@pytest.mark.parametrize(
    "op",
    [
        lambda w: w.clone(),
        lambda w: w.reshape(2),
        lambda w: w + 0.0,
        lambda w: w[:],
        lambda w: w,
        lambda w: nncore.cat([w]),
    ],
)
def test_the_callers_cotangent_is_not_adopted(op):
    w = leaf(1.0, 2.0)
    for dy in (np.ones(2), nncore.ones(2, dtype="float64")):
        w.grad = None
        op(w).backward(dy)
        op(w).backward(dy)
        assert np.asarray(dy).tolist() == [1.0, 1.0]
        dy[0] = 7.0
        assert w.grad.tolist() == [2.0, 2.0]


def test_gradients_of_views_of_one_cotangent():
    a, b = leaf(1.0, 2.0), leaf(3.0)
    nncore.cat([a, b]).backward([1.0, 2.0, 3.0])
    assert a.grad.tolist() == [1.0, 2.0]
    assert b.grad.tolist() == [3.0]
    assert a.grad._storage is not b.grad._storage


def test_gradient_layout_and_dtype():
    w = nncore.tensor(np.arange(6.0, dtype=np.float32).reshape(2, 3), requires_grad=True)
    (w.T * 2).backward(np.ones((3, 2)))
    assert w.grad.shape == (2, 3)
    assert w.grad.dtype == np.float32
    assert w.grad.is_contiguous()


# ---- modes ----


def test_no_grad_as_context():
    w = leaf(1.0)
    with no_grad():
        assert not nncore.is_grad_enabled()
        y = w * 2
        with enable_grad():
            assert nncore.is_grad_enabled()
            assert (w * 2).requires_grad
        assert not nncore.is_grad_enabled()
    assert nncore.is_grad_enabled()
    assert not y.requires_grad
    assert y.is_leaf
    assert y.grad_fn is None


@pytest.mark.parametrize("mode", [True, False])
def test_set_grad_enabled(mode):
    w = leaf(1.0)
    with no_grad(), set_grad_enabled(mode):
        assert (w * 2).requires_grad is mode
    with set_grad_enabled(mode):
        assert (w * 2).requires_grad is mode
    assert nncore.is_grad_enabled()


def test_modes_as_decorators():
    w = leaf(1.0)

    @no_grad()
    def double(x):
        """Doubles."""
        return x * 2

    @enable_grad()
    def triple(x):
        return x * 3

    @set_grad_enabled(False)
    def fourfold(x):
        return x * 4

    assert not double(w).requires_grad
    assert double.__name__ == "double"
    assert double.__doc__ == "Doubles."
    assert not fourfold(w).requires_grad
    with no_grad():
        assert triple(w).requires_grad
    assert nncore.is_grad_enabled()


def test_mode_is_restored_after_an_error():
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert nncore.is_grad_enabled()

    @no_grad()
    def fail():
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert nncore.is_grad_enabled()


def test_one_mode_object_nested_in_itself():
    mode = no_grad()
    with mode:
        with mode:
            assert not nncore.is_grad_enabled()
        assert not nncore.is_grad_enabled()
    assert nncore.is_grad_enabled()


def test_decorated_recursion():
    @no_grad()
    def down(n):
        return [nncore.is_grad_enabled()] + (down(n - 1) if n else [])

    assert down(3) == [False] * 4
    assert nncore.is_grad_enabled()


def test_mode_belongs_to_the_thread():
    inside, leave, seen = threading.Event(), threading.Event(), {}

    def other():
        seen["start"] = nncore.is_grad_enabled()
        with no_grad():
            inside.set()
            leave.wait(10)
            seen["inside"] = nncore.is_grad_enabled()

    t = threading.Thread(target=other)
    with no_grad():  # the new thread starts with recording on, whatever this one does
        t.start()
        assert inside.wait(10)
    assert nncore.is_grad_enabled()
    assert (leaf(1.0) * 2).requires_grad
    leave.set()
    t.join()
    assert seen == {"start": True, "inside": False}


def test_threads_with_graphs_of_their_own():
    """Graphs that share only constants are independent."""
    x = nncore.tensor(np.arange(8.0))
    results = [None] * 4

    def work(i):
        w = leaf(*[float(i)] * 8)
        for _ in range(50):
            w.grad = None
            ((x * w).tanh() * w).sum().backward()
        results[i] = w.grad.numpy().copy()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i, r in enumerate(results):
        h = np.tanh(np.arange(8.0) * i)
        np.testing.assert_allclose(r, h + i * (1 - h * h) * np.arange(8.0), rtol=1e-12, atol=1e-12)


def test_backward_runs_without_recording():
    seen = []
    w = leaf(1.0)
    y = _tape.record(w.detach() * 1.0, "op", (w,), lambda dy: seen.append(nncore.is_grad_enabled()) or (dy,))
    y.backward()
    assert seen == [False]
    assert nncore.is_grad_enabled()
    assert not w.grad.requires_grad


def test_inference_under_no_grad_keeps_nothing():
    w = leaf(*range(8))
    with no_grad():
        h = w * 2
        r = weakref.ref(h)
        y = h.exp()
        del h
        assert r() is None
    assert not y.requires_grad


# ---- freeing ----


def test_second_backward_is_an_error():
    w = leaf(2.0)
    y = w * w
    y.backward()
    with pytest.raises(RuntimeError, match=r"mul.*freed.*retain_graph"):
        y.backward()
    assert w.grad.item() == 4.0


def test_second_backward_through_a_shared_part_is_an_error():
    w = leaf(2.0)
    h = w * w
    a, b = h * 2, h * 3
    a.backward()
    with pytest.raises(RuntimeError, match="freed"):
        b.backward()


def test_retain_graph():
    w = leaf(2.0)
    y = (w * w).exp().sum()
    y.backward(retain_graph=True)
    first = w.grad.item()
    y.backward(retain_graph=True)
    y.backward()
    assert w.grad.item() == 3 * first
    with pytest.raises(RuntimeError, match="freed"):
        y.backward()


def test_backward_after_an_error_in_backward():
    """A backward that raises leaves no half-collected gradients behind."""
    w = leaf(2.0)
    fail = [True]

    def backward(dy):
        if fail[0]:
            raise KeyError("no")
        return (dy,)

    h = w * 3
    y = _tape.record(h.detach() * 1.0, "op", (h,), backward) + h
    with pytest.raises(KeyError):
        y.backward(retain_graph=True)
    assert w.grad is None
    assert nncore.is_grad_enabled()
    fail[0] = False
    y.backward()
    assert w.grad.item() == 6.0


def test_wrong_shape_from_a_backward_is_an_error():
    w = leaf(1.0, 2.0)
    y = _tape.record(w.detach() * 1.0, "op", (w,), lambda dy: (dy.sum(),))
    with pytest.raises(RuntimeError, match="shape"):
        y.backward([1.0, 1.0])
    assert w.grad is None


def build(w, n=50):
    """A graph of every kind of node; gives weak references to its intermediate tensors and its root."""
    refs, h = [], w
    for _ in range(n):
        for op in (
            lambda t: t * t,
            lambda t: t.tanh(),
            lambda t: t.exp(),
            lambda t: (t + 1).sqrt(),
            lambda t: t.sigmoid(),
            lambda t: (t * t + 1).log(),
            lambda t: 1 / (t + 2),
            lambda t: t / (t + 3),
            lambda t: (t + 1) ** t,
            lambda t: t.reshape(2, 2).T.reshape(4),
            lambda t: t.softmax() * t,
            lambda t: t[[0, 0, 1, 3]],
            lambda t: nncore.where([True, False, True, True], t, t * 2),
            lambda t: t.maximum(t.detach() * 0),
            lambda t: t * t.max() * t.max(0)[0],
            lambda t: (t.reshape(2, 2) @ t.reshape(2, 2)).flatten() / 9,
            lambda t: t - t.mean(),
            lambda t: nncore.cat([t[:2], t[2:]]),
            lambda t: t.clamp(-1, 1) + t.std(),
            lambda t: t * nncore.nn.functional.cross_entropy(t, np.array(1)),
            lambda t: t.relu() + 0.1,
            lambda t: t * nncore.nn.functional.mse_loss(t, t * 2),
            lambda t: nncore.nn.functional.dropout(t, 0.1),
            lambda t: t.clone().unsqueeze(0).expand(3, 4).sum(0) / 3,
            lambda t: nncore.split(t.log_softmax(), 4)[0] * 0.1,
        ):
            h = op(h)
            refs.append(weakref.ref(h))
    return refs, h.sum()


@pytest.mark.parametrize("how", ["backward", "dropped", "error"])
def test_no_reference_cycles(how):
    """Memory is released by reference counts alone: with the collector off, every tensor of the graph dies at once."""
    w = leaf(0.3, 0.2, 0.5, 0.1)
    gc.collect()
    gc.disable()
    try:
        refs, y = build(w, 2)
        assert sum(r() is not None for r in refs) >= 10  # the graph holds the tensors that backward reads
        if how == "backward":
            y.backward()
            assert sum(r() is not None for r in refs) == 0  # released though the root is still here
        elif how == "error":
            y.backward(retain_graph=True)
            with pytest.raises(ValueError, match="gradient"):
                y.backward([[1.0, 2.0]])
        del y
        assert sum(r() is not None for r in refs) == 0
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_training_loop_does_not_grow():
    """Memory in use after 5 steps is memory in use after 50."""
    nncore.manual_seed(0)
    net = nncore.nn.Sequential(nncore.nn.Linear(20, 30), nncore.nn.ReLU(), nncore.nn.Linear(30, 3))
    opt = optim.Adam(net.parameters())
    x, y = nncore.randn(64, 20), nncore.arange(64).numpy() % 3
    gc.collect()
    gc.disable()
    used = []
    try:
        for i in range(50):
            nncore.nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
            opt.zero_grad()
            if i in (4, 49):
                used.append(nncore.memory_stats()["in_use"])
    finally:
        gc.enable()
    assert used[0] == used[1]


@pytest.mark.parametrize("op", [lambda y, w: y + 1.0, lambda y, w: y * w, lambda y, w: (y + w).tanh()])
def test_deep_graph(op):
    """10,000 operations and far more than the recursion limit: neither backward nor release recurses."""
    n = 10_000
    assert n > sys.getrecursionlimit()
    w = leaf(1.0)
    y = w
    for _ in range(n):
        y = op(y, w)
    y.backward()
    assert np.isfinite(w.grad.item())
    assert w.grad.item() > 0
    y = w
    for _ in range(5 * n):
        y = op(y, w)
    last = weakref.ref(y)
    del y  # 50,000 nodes die in a row, unused
    assert last() is None


# ---- changed in place ----


WRITES = {
    "copy_": lambda t: t.copy_([7.0, 7.0]),
    "setitem": lambda t: t.__setitem__(0, 7.0),
    "setitem by array": lambda t: t.__setitem__(np.array([0]), 7.0),
    "fill_": lambda t: t.fill_(7),
    "zero_": lambda t: t.zero_(),
    "add_": lambda t: t.add_(1.0),
    "mul_": lambda t: t.mul_(2.0),
    "sub_": lambda t: t.sub_(1.0),
    "div_": lambda t: t.div_(2.0),
    "init": lambda t: nncore.nn.init.ones_(t),
    "through a view": lambda t: t.detach()[:1].copy_([5.0]),
    "through a detached name": lambda t: t.detach().copy_([5.0, 5.0]),
}


@pytest.mark.parametrize("write", WRITES)
def test_change_of_a_saved_tensor_is_an_error(write):
    w = leaf(1.0, 2.0)
    x = nncore.tensor([3.0, 4.0], dtype="float64")
    y = w * x
    with no_grad():
        WRITES[write](x)
    with pytest.raises(RuntimeError, match=r"mul: .*changed in place"):
        y.backward([1.0, 1.0])
    assert w.grad is None


def test_change_of_what_backward_does_not_read_is_fine():
    w = leaf(1.0, 2.0)
    x = nncore.tensor([3.0, 4.0], dtype="float64")
    y = w + x
    x.zero_()
    y.backward([1.0, 1.0])
    assert w.grad.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.AdamW])
def test_optimizer_step_between_forward_and_backward_is_an_error(make):
    w = leaf(1.0, 2.0)
    opt = make([w], lr=0.1)
    (w * 2).sum().backward()
    y = (w * w).sum()
    opt.step()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_load_state_dict_between_forward_and_backward_is_an_error():
    net = nncore.nn.Linear(2, 2)
    y = net(leaf(1.0, 2.0, dtype="float32"))
    net.load_state_dict(net.state_dict())
    with pytest.raises(RuntimeError, match=r"linear: .*changed in place"):
        y.backward([1.0, 1.0])


def test_changed_index_is_an_error():
    """max along an axis gives its indices to the user and needs them itself."""
    x = leaf(1.0, 3.0, 2.0)
    values, index = x.reshape(1, 3).max(1)
    index.zero_()
    with pytest.raises(RuntimeError, match="changed in place"):
        values.backward([1.0])


def test_a_changed_key_does_not_move_the_gradient():
    """Indices are read when the operation runs."""
    for key in (np.array(0), np.array([0]), np.array([True, False, False])):
        x = leaf(1.0, 2.0, 3.0)
        y = x[key].sum()
        key[...] = 1
        y.backward()
        assert x.grad.tolist() == [1.0, 0.0, 0.0]
    for key in (nncore.tensor(0), nncore.tensor([0])):
        x = leaf(1.0, 2.0, 3.0)
        y = x[key].sum() + x[..., key].sum()
        key.fill_(1)
        y.backward()
        assert x.grad.tolist() == [2.0, 0.0, 0.0]


@pytest.mark.parametrize("loss", [nncore.nn.functional.cross_entropy, nncore.nn.functional.nll_loss])
def test_a_changed_class_target_changes_nothing(loss):
    """Backward reads a private copy: neither a wrong gradient nor an index beyond the row."""
    grads = []
    for change in (False, True):
        x = leaf(1.0, 3.0, 2.0)
        target = np.array([0])
        y = loss(x.reshape(1, 3), target)
        if change:
            target[:] = 10**10
        y.backward()
        grads.append(x.grad.tolist())
    assert grads[0] == grads[1]


def test_a_reused_input_buffer_changes_nothing():
    """Raw arrays are copied while gradients are on: callers write their buffers again."""
    grads = []
    for change in (False, True):
        w = nncore.nn.Parameter(np.ones((1, 2), np.float32))
        buffer = np.array([[1.0, 2.0]], np.float32)
        y = nncore.nn.functional.linear(buffer, w)
        if change:
            buffer[:] = 100
        y.backward()
        grads.append(w.grad.tolist())
    assert grads[0] == grads[1] == [[1.0, 2.0]]


def test_conversion_between_forward_and_backward_is_an_error():
    """The converted parameter's new memory is not what the forward pass used."""
    net = nncore.nn.Sequential()
    net.w = nncore.nn.Parameter(np.ones((2, 3), np.float32))
    y = nncore.tensor(np.ones((1, 2), np.float32), requires_grad=True) @ net.w
    net.double()
    with pytest.raises(RuntimeError, match="converted in place"):
        y.sum().backward()


def test_expanded_gradients_are_not_added_to_in_place():
    p = nncore.nn.Parameter([0.0, 0.0, 0.0])
    p.grad = nncore.ones(1).expand(3)
    (p * nncore.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert p.grad.tolist() == [2.0, 3.0, 4.0]
    with pytest.raises(ValueError, match="expanded"):
        nncore.zeros(1).expand(5).fill_(1)


def test_the_first_gradient_is_kept():
    """Nobody else holds it, so it is not copied; one that somebody holds is."""
    x = nncore.tensor([1.0, 2.0], requires_grad=True)
    given = nncore.tensor([1.0, 1.0])
    (x * 1.0).backward(given)
    before = nncore.memory_stats()["in_use"]
    address = x.grad.numpy().ctypes.data
    assert address != given.numpy().ctypes.data
    y = nncore.tensor([1.0, 2.0], requires_grad=True)
    kept = []
    z = nncore._tape.record(nncore.zeros(2), "probe", (y,), lambda dy: (kept.append(None) or nncore.full((2,), 3.0),))
    z.backward(given)
    assert y.grad.tolist() == [3.0, 3.0]
    del z
    assert nncore.memory_stats()["in_use"] <= before + 3 * 64  # y, its gradient, and no copy of it


def test_in_place_operators_on_results_make_new_tensors():
    """`h += x` is the residual idiom; the graph keeps the old h."""
    x = leaf(1.0, 2.0)
    h = x * 2
    h += x
    h *= 3
    h.sum().backward()
    assert x.grad.tolist() == [9.0, 9.0]


def test_views_of_results_are_read_only():
    h = leaf(1.0, 2.0).tanh()
    for name in (h, h.detach()):
        with pytest.raises(ValueError, match="read-only"):
            name.numpy()[:] = 0


# ---- what may be written ----


@pytest.mark.parametrize("write", [w for w in WRITES if w not in ("through a view", "through a detached name", "init")])
def test_writing_into_a_result_is_an_error(write):
    y = leaf(1.0, 2.0) * 2
    before = y.tolist()
    with pytest.raises(RuntimeError, match="cannot write"):
        WRITES[write](y)
    with pytest.raises(RuntimeError, match="cannot write"):
        WRITES[write](y[:])
    assert y.tolist() == before


def test_writing_what_requires_grad_is_an_error():
    w, x = leaf(1.0, 2.0), nncore.zeros(2, dtype="float64")
    for write in (x.copy_, x.add_, lambda v: x.__setitem__(slice(None), v)):
        with pytest.raises(RuntimeError, match="gradient would be lost"):
            write(w)
    assert x.tolist() == [0.0, 0.0]
    x.copy_(w.detach())
    with no_grad():
        x.add_(w)
    assert x.tolist() == [2.0, 4.0]


def test_leaves_may_be_written():
    w = leaf(1.0, 2.0)
    w.copy_([3.0, 4.0])
    w[0] = 5.0
    w *= 2
    assert w.is_leaf
    assert w.requires_grad
    assert w.tolist() == [10.0, 8.0]
    (w * w).backward([1.0, 1.0])
    assert w.grad.tolist() == [20.0, 16.0]


def test_results_have_read_only_arrays():
    w = leaf(1.0, 2.0)
    for t in (w, w * 2, nncore.nn.Parameter([1.0])):
        with pytest.raises(ValueError, match="read-only"):
            t.numpy()[0] = 3.0


# ---- leaves, roots, cotangents ----


def test_leaf_rules():
    w = leaf(1.0)
    y = w * 2
    assert w.is_leaf
    assert w.grad_fn is None
    assert not y.is_leaf
    assert y.requires_grad
    assert y.grad_fn.name == "scale"
    with pytest.raises(ValueError, match="leaf"):
        y.requires_grad = False
    with pytest.raises(TypeError, match="floating"):
        nncore.tensor([1]).requires_grad_()
    with pytest.raises(TypeError, match="floating"):
        nncore.tensor([True], requires_grad=True)
    assert nncore.tensor([1.0]).is_leaf
    assert w.requires_grad_(False) is w
    assert not (w * 2).requires_grad


def test_only_leaves_collect():
    w = leaf(1.0, 2.0)
    h = w * 2
    h.sum().backward()
    assert h.grad is None
    assert w.grad is not None


def test_detach():
    w = leaf(1.0, 2.0)
    h = w * 2
    d = h.detach()
    assert not d.requires_grad
    assert d.is_leaf
    assert d._storage is h._storage
    (h * d).sum().backward()
    assert w.grad.tolist() == [4.0, 8.0]


def test_results_without_gradient():
    w = leaf(1.0, 2.0)
    assert not (w > 1).requires_grad
    assert not w.argmax().requires_grad
    assert not w.max(0)[1].requires_grad
    assert w.max(0)[0].requires_grad


def test_backward_of_a_leaf():
    w = leaf(1.0, 2.0)
    w.backward([3.0, 4.0])
    assert w.grad.tolist() == [3.0, 4.0]


@pytest.mark.parametrize(
    "gradient", [[1.0, 2.0], (1, 2), np.array([1.0, 2.0], np.float32), np.array([1, 2]), nncore.tensor([1.0, 2.0])]
)
def test_cotangents(gradient):
    w = leaf(3.0, 4.0, dtype="float32")
    (w * w).backward(gradient=gradient)
    assert w.grad.tolist() == [6.0, 16.0]


def test_python_cotangents_keep_double_precision():
    w = leaf(1.0)
    (w * 1.0).backward([0.1])
    assert w.grad.item() == 0.1


def test_non_contiguous_cotangent():
    w = nncore.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    dy = np.arange(6.0).reshape(3, 2).T
    w.exp().log().backward(dy)
    np.testing.assert_allclose(w.grad.numpy(), dy, rtol=1e-14)
    w.grad = None
    (w * 2).backward(np.broadcast_to(np.array([1.0, 2.0, 3.0]), (2, 3)))
    assert w.grad.tolist() == [[2.0, 4.0, 6.0]] * 2


def test_backward_errors():
    w = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match="gradient"):
        (w * 2).backward()
    with pytest.raises(ValueError, match=r"gradient.*\(2,\).*\(3,\)"):
        (w * 2).backward([1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match="gradient"):
        (w * 2).backward(nncore.ones(2))  # float32
    with pytest.raises(TypeError, match="gradient"):
        (w * 2).backward("1")
    with pytest.raises(RuntimeError, match="does not require grad"):
        nncore.ones(1).backward()
    with pytest.raises(RuntimeError, match="does not require grad"):
        (w * 2).detach().sum().backward()
    assert w.grad is None


def test_one_element_needs_no_cotangent():
    for shape in ((), (1,), (1, 1)):
        w = nncore.ones(shape, requires_grad=True)
        (w * 3).backward()
        assert w.grad.shape == shape
        assert w.grad.item() == 3.0


def test_empty_root():
    w = nncore.zeros(0, 3, requires_grad=True)
    (w * 2).sum().backward()
    assert w.grad.shape == (0, 3)
    v = nncore.ones(2, 3, requires_grad=True)
    v[:0].backward(np.zeros((0, 3)))
    assert v.grad.tolist() == [[0.0] * 3] * 2


# ---- several outputs ----


def two(x, seen):
    """x and 2x as one operation of two results."""

    def backward(da, db):
        seen.append((da is None, db is None))
        return (sum(g * s for g, s in ((da, 1.0), (db, 2.0)) if g is not None),)

    return _tape.record((x.detach() * 1.0, x.detach() * 2.0), "two", (x,), backward)


@pytest.mark.parametrize("used", [(True, True), (True, False), (False, True)])
def test_unused_outputs_get_none(used):
    w, seen = leaf(1.0, 3.0), []
    a, b = two(w, seen)
    assert a.output_nr == 0
    assert b.output_nr == 1
    root = (a if used[0] else 0.0) + (b if used[1] else 0.0)
    root.backward([1.0, 10.0])
    assert seen == [(not used[0], not used[1])]
    slope = used[0] * 1.0 + used[1] * 2.0
    assert w.grad.tolist() == [slope, 10 * slope]


def test_two_outputs_from_two_roots():
    w, seen = leaf(1.0), []
    a, b = two(w, seen)
    a.backward(retain_graph=True)
    b.backward()
    assert seen == [(False, True), (True, False)]
    assert w.grad.item() == 3.0
    with pytest.raises(RuntimeError, match="freed"):
        a.backward()


def test_an_output_used_twice():
    w, seen = leaf(1.0), []
    a, b = two(w, seen)
    (a * b + a).backward()  # 2 w^2 + w
    assert seen == [(False, False)]
    assert w.grad.item() == 5.0


# ---- copies ----


def test_results_cannot_be_copied_deeply():
    y = leaf(1.0) * 2
    with pytest.raises(RuntimeError, match="leaf"):
        copy.deepcopy(y)
    copy.deepcopy(y.detach())


def test_graph_can_be_walked():
    w = leaf(1.0)
    y = (w * 2).exp()
    names, node = [], y.grad_fn
    while not isinstance(node, nncore.Tensor):
        names.append(node.name)
        node = node.next_functions[0]
    assert names == ["exp", "scale"]
    assert node is w
    assert "exp" in repr(y.grad_fn)


def test_graph_can_be_drawn():
    """From the leaves to the root, each operation once, whatever ran in between."""
    net = nncore.nn.Linear(2, 3)
    x = leaf(1.0, 2.0).float()
    h = net(nncore.ones(4, 2))
    h.exp()
    loss = (h * h).mean() + x.sum()
    assert nncore.draw_graph(loss, net.named_parameters()).splitlines() == [
        "leaf1 = float64 (2,)",
        "weight = float32 (3, 2)",
        "bias = float32 (3,)",
        "1 = to(leaf1)",
        "2 = linear(-, weight, bias)",
        "3 = mul(2, 2)",
        "4 = mean(3)",
        "5 = sum(1)",
        "6 = add(4, 5)",
    ]
    dot = nncore.draw_graph(h.relu(), {'a "b"': net.weight}, format="dot")
    assert dot.splitlines() == [
        "digraph {",
        '    n0 [shape=box, label="a \\"b\\"\\nfloat32 (3, 2)"];',
        '    n1 [shape=box, label="leaf2\\nfloat32 (3,)"];',
        '    n2 [label="linear"];',
        "    n0 -> n2;",
        "    n1 -> n2;",
        '    n3 [label="relu"];',
        "    n2 -> n3;",
        "}",
    ]
