"""Recurrent layers: every step against the oracle, whole layers against their definition, packed sequences."""

import itertools
import math

import numpy as np
import pytest

import nncore
from nncore import nn
from nncore._core import rnn as kernels
from nncore._core import runtime, tensor
from nncore._ops import rnn as ops
from nncore.nn.utils import rnn as sequences

from . import reference, shapes, tolerance

from_array = tensor.from_array

MODES = tuple(ops.CELLS)
ROWS, KC = shapes.RNN_ROWS, shapes.KC_BYTES


def array(t):
    return None if t is None else np.asarray(t)


def opt(a):
    return None if a is None else from_array(a)


class Walk:
    """One direction of a layer: random numbers, and what the kernels make of them."""

    def __init__(self, rng, mode, hidden, sizes, dtype, d=0, states=True, bias=True, scale=1.0):
        self.mode, self.cell, self.H, self.d, self.dtype = mode, ops.CELLS[mode], hidden, d, dtype
        self.sizes, self.G = list(sizes), ops.GATES[mode]
        self.rows, self.B = sum(sizes), sizes[0]
        draw = lambda *s: (scale * rng.standard_normal(s)).astype(dtype)
        self.x = draw(self.rows, self.G * hidden)  # the gates as they come from the input
        self.w = (draw(self.G * hidden, hidden) / math.sqrt(hidden)).astype(dtype)
        self.b = draw(self.G * hidden) if bias else None
        self.h0 = draw(d + 1, self.B, hidden) if states else None
        self.c0 = draw(d + 1, self.B, hidden) if states and mode == "LSTM" else None
        self.dy = draw(self.rows, (d + 1) * hidden)
        self.dhn = draw(d + 1, self.B, hidden) if states else None
        self.dcn = draw(d + 1, self.B, hidden) if states and mode == "LSTM" else None

    def forward(self, keep=True):
        """y, hn, cn, gates, more: this direction's part, held to write nothing else."""
        D, H = self.d + 1, self.H
        y = shapes.Guarded((self.rows, D * H), self.dtype)
        hn, cn = (shapes.Guarded((D, self.B, H), self.dtype) for _ in range(2))
        gates, sizes = from_array(self.x.copy()), nncore.tensor(self.sizes)
        more = kernels.forward(
            self.cell, self.d, gates, from_array(self.w), opt(self.b), opt(self.h0), opt(self.c0), sizes, keep,
            y.tensor, hn.tensor, cn.tensor if self.mode == "LSTM" else None,
        )  # fmt: skip
        for g in (y, hn, cn):
            g.check(f"{self.mode} {self.sizes} {H}")
        if self.d:  # the other direction's part is left alone
            untouched = shapes.Guarded((self.rows, H), self.dtype).array
            tolerance.same_bits(y.array[:, :H], untouched)
        self.whole_y = y.array
        self.y, self.hn = y.array[:, self.d * H :], hn.array[self.d]
        self.cn = cn.array[self.d] if self.mode == "LSTM" else None
        self.gates, self.more = array(gates), array(more)
        return self

    def backward(self):
        """dgates, drecurrent, hprev, dh0, dc0."""
        dh0, dc0 = (from_array(np.zeros((self.d + 1, self.B, self.H), self.dtype)) for _ in range(2))
        out = kernels.backward(
            self.cell, self.d, from_array(self.gates), opt(self.more), from_array(self.w), opt(self.h0), opt(self.c0),
            nncore.tensor(self.sizes), from_array(self.whole_y), opt(self.dy), opt(self.dhn), opt(self.dcn), dh0,
            dc0 if self.mode == "LSTM" else None,
        )  # fmt: skip
        self.dgates, self.drecurrent, self.hprev = map(array, out)
        self.dh0, self.dc0 = array(dh0)[self.d], array(dc0)[self.d]
        return self

    def state(self, which, values, rows, before):
        """Wide: of each row, `values` at the step before, or the initial state, or zeros."""
        first = getattr(self, which)
        first = np.zeros((self.B, self.H), self.dtype) if first is None else first[self.d]
        return reference.wide(np.concatenate([values[before], first[len(before) : len(rows)]]))

    def steps(self):
        return reference.rnn_order(self.sizes, self.d == 1)

    def outputs(self):
        return [self.y, self.hn, self.cn]

    def gradients(self):
        return [self.dgates, self.drecurrent, self.hprev, self.dh0, self.dc0]


def check_forward(w):
    """Each step from the kernel's own state before it."""
    eps, H = np.finfo(w.dtype).eps, w.H
    last_h, last_c = np.empty((w.B, H), w.dtype), np.empty((w.B, H), w.dtype)
    for t, rows, before in w.steps():
        what = f"{w.mode} H {H}, sizes {w.sizes}, direction {w.d}, step {t}"
        bias = np.zeros(w.G * H, w.dtype) if w.b is None else w.b
        hp = w.state("h0", w.y, rows, before)
        p, magnitude = reference.rnn_products(hp.astype(w.dtype), w.w, bias)
        x = reference.wide(w.x[rows]).reshape(-1, w.G, H)
        kept = w.gates[rows].reshape(-1, w.G, H)

        def gate(q, name, got, p=p, x=x, magnitude=magnitude, what=what):
            y = reference.rnn_gate(name, x[:, q] + p[:, q])
            bound = tolerance.rnn_gate(name, x[:, q], magnitude[:, q], H, y, w.dtype)
            tolerance.close(got, y, bound, f"{what}, gate {q}")

        if w.mode == "LSTM":
            for q, name in enumerate(("sigmoid", "sigmoid", "tanh", "sigmoid")):
                gate(q, name, kept[:, q])
            i, f, g, o = (reference.wide(kept[:, q]) for q in range(4))
            cp = w.state("c0", w.more, rows, before)
            c = reference.wide(w.more[rows])
            tolerance.close(w.more[rows], f * cp + i * g, eps * (np.abs(f * cp) + 2 * np.abs(i * g)), what + ", c")
            tolerance.close(w.y[rows], o * np.tanh(c), 2.5 * eps * np.abs(o), what + ", h")
            last_c[: len(rows)] = w.more[rows]
        elif w.mode == "GRU":
            tolerance.close(w.more[rows], p[:, 2], tolerance.gemm(H + 1, magnitude[:, 2], w.dtype), what + ", hidden")
            gate(0, "sigmoid", kept[:, 0])
            gate(1, "sigmoid", kept[:, 1])
            r, z, n = (reference.wide(kept[:, q]) for q in range(3))
            a = r * reference.wide(w.more[rows])
            y = np.tanh(x[:, 2] + a)
            tolerance.close(kept[:, 2], y, 2 * eps * (np.abs(x[:, 2]) + 2 * np.abs(a)) + 1.5 * eps, what + ", n")
            bound = 2 * eps * (np.abs(z) * (np.abs(hp) + np.abs(n)) + np.abs(n))
            tolerance.close(w.y[rows], (1 - z) * n + z * hp, bound, what + ", h")
        else:
            gate(0, w.mode[4:].lower(), w.y[rows])
        last_h[: len(rows)] = w.y[rows]
    tolerance.same_bits(w.hn, last_h, "h_n")
    if w.mode == "LSTM":
        tolerance.same_bits(w.cn, last_c, "c_n")


def check_backward(w):
    """Each step from the kernel's own gradients of the step that came before it, which is the later one."""
    eps, H, K = np.finfo(w.dtype).eps, w.H, w.G * w.H
    weights = reference.wide(w.w)
    zeros = np.zeros((w.B, H), w.dtype)
    dhn, dcn = (reference.wide(zeros if t is None else t[w.d]) for t in (w.dhn, w.dcn))
    # per sequence: what the steps seen so far say about h and c, and how wrong it may be
    dh, dc, edh, edc = dhn.copy(), dcn.copy(), 0 * dhn, 0 * dcn
    for t, rows, before in reversed(list(w.steps())):
        what = f"{w.mode} H {H}, sizes {w.sizes}, direction {w.d}, step {t}"
        n = len(rows)
        h = dh[:n] + reference.wide(w.dy[rows, w.d * H :])
        eh = edh[:n] + eps * (np.abs(dh[:n]) + np.abs(h))
        hp = w.state("h0", w.y, rows, before)
        tolerance.same_bits(w.hprev[rows], hp.astype(w.dtype), what + ", h before")
        kept = [reference.wide(k) for k in np.split(w.gates[rows], w.G, 1)]
        grads = reference.wide(w.dgates[rows]).reshape(n, w.G, H)
        carry = ecarry = 0.0
        if w.mode == "LSTM":
            c, cp = reference.wide(w.more[rows]), w.state("c0", w.more, rows, before)
            i, f, g, o = kept
            want, total = reference.lstm_backward(*kept, c, cp, h, dc[:n])
            # 1 - tanh^2 is wrong by at most 4.5 eps: 1.5 ulp of tanh twice, the square's rounding, the difference's
            ec = edc[:n] + eh * o + eps * (6 * np.abs(h * o) + np.abs(dc[:n]) + np.abs(total))
            slopes = g * i * (1 - i), cp * f * (1 - f), i * (1 - g * g)
            for q, slope in enumerate(slopes):
                size = np.abs(total * i) if q == 2 else np.abs(want[:, q])  # 1 - g^2 is relative to 1
                tolerance.close(grads[:, q], want[:, q], ec * np.abs(slope) + 4 * eps * size, f"{what}, gate {q}")
            bound = eh * np.abs(np.tanh(c) * o * (1 - o)) + 5 * eps * np.abs(want[:, 3])
            tolerance.close(grads[:, 3], want[:, 3], bound, what + ", gate 3")
            dc[:n] = total * f
            edc[:n] = ec * f + eps * np.abs(dc[:n])
        elif w.mode == "GRU":
            r, z, m = kept
            hidden = reference.wide(w.more[rows])
            want, from_h, carry = reference.gru_backward(r, z, m, hidden, hp, h)
            en = eh + 5 * eps * np.abs(h)  # 1 - n^2 is relative to 1
            bounds = en * np.abs(hidden) / 4, en * (np.abs(hp) + np.abs(m)) / 4, en  # r (1 - r) <= 1/4
            for q, bound in enumerate(bounds):
                tolerance.close(grads[:, q], want[:, q], bound, f"{what}, gate {q}")
                got = w.drecurrent[rows].reshape(n, 3, H)[:, q]
                tolerance.close(got, from_h[:, q], bound, f"{what}, gate {q} from h")
            ecarry = eh * np.abs(z) + eps * np.abs(carry)
        else:
            y = reference.wide(w.y[rows])
            slope = 1 - y * y if w.mode == "RNN_TANH" else 1.0 * (y > 0)
            tolerance.close(grads[:, 0], h * slope, eh + 3 * eps * np.abs(h), what)
        back = reference.wide(w.drecurrent[rows])
        dh[:n] = back @ weights + carry
        edh[:n] = tolerance.gemm(K, np.abs(back) @ np.abs(weights), w.dtype) + ecarry + eps * np.abs(carry)
    if w.h0 is not None:
        tolerance.close(w.dh0, dh, edh + eps * np.abs(dh), f"{w.mode} {w.sizes}, dh0")
    if w.c0 is not None:
        tolerance.close(w.dc0, dc, edc + eps * np.abs(dc), f"{w.mode} {w.sizes}, dc0")


def cases(dtype):
    """(hidden size, sizes of the steps) around lanes, panels, the micro-tile, blocks of rows and of the depth."""
    NR, lanes = shapes.tile(dtype)
    kc = KC // dtype.itemsize
    out = [(h, (2, 2, 1)) for h in sorted({1, *shapes.around(lanes, NR), 2 * NR + 1} - {0})]
    out += [(lanes + 1, (b, b)) for b in (1, shapes.MR - 1, shapes.MR, shapes.MR + 1, 2 * shapes.MR + 1)]
    out += [(3, (b, b, b - 1)) for b in shapes.around(ROWS, 2 * ROWS)]
    out += [(kc + 1, (2, 1)), (kc // 2, (shapes.MR + 1,)), (kc // 3 + 1, (2, 2))]
    out += [
        (lanes + 2, s) for s in ((5, 4, 4, 1), (7, 7, 2, 2, 2), (1, 1, 1, 1, 1, 1), (ROWS + 9, ROWS + 2, 3), (9, 1))
    ]
    return out


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("d", [0, 1], ids=["forward", "reverse"])
def test_steps(mode, d, isa, dtype, rng):
    """Forward and backward, step by step; and without what backward needs, the same bits."""
    for hidden, sizes in cases(dtype):
        w = Walk(rng, mode, hidden, sizes, dtype, d).forward()
        check_forward(w)
        check_backward(w.backward())
        kept = [array(v).copy() for v in w.outputs() if v is not None]
        bare = w.forward(keep=False)
        for got, want in zip([v for v in bare.outputs() if v is not None], kept, strict=True):
            tolerance.same_bits(got, want, "keep=False")
        tolerance.same_bits(bare.gates, bare.x, "the gates are read only")


@pytest.mark.parametrize("mode", MODES)
def test_without(mode, isa, dtype, rng):
    """No bias, no initial states, no gradient of the last states: as if they were zeros, bit for bit."""
    for d, sizes in itertools.product((0, 1), ((4, 4, 4), (9, 7, 1, 1))):
        w = Walk(rng, mode, 19, sizes, dtype, d, states=False, bias=False)
        check_forward(w.forward())
        check_backward(w.backward())
        found = [v for v in w.outputs() + w.gradients() if v is not None]
        w.b, zeros = np.zeros(w.G * 19, dtype), np.zeros((d + 1, w.B, 19), dtype)
        w.h0, w.dhn = zeros, zeros
        if mode == "LSTM":
            w.c0, w.dcn = zeros, zeros
        w.forward().backward()
        for got, want in zip([v for v in w.outputs() + w.gradients() if v is not None], found, strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("mode", MODES)
def test_special_values(mode, isa, dtype, rng):
    """NaN reaches its sequence from its step on, and nobody else; large numbers saturate."""
    for d in (0, 1):
        w = Walk(rng, mode, 11, (4, 4, 4), dtype, d)
        w.x[4 + 2] = np.nan  # sequence 2 at step 1
        w.forward()
        bad = np.isnan(w.y).any(1).reshape(3, 4)
        want = np.zeros((3, 4), bool)
        want[1, 2] = want[2 * (1 - d), 2] = True
        np.testing.assert_array_equal(bad, want)
        w = Walk(rng, mode, 11, (2, 2), dtype, d, scale=1e4)
        assert np.isfinite(w.forward().y).all()
        assert mode == "RNN_RELU" or np.abs(w.hn).max() <= max(1, np.abs(w.h0).max())


@pytest.mark.parametrize("mode", MODES)
def test_threads(mode, isa, dtype, rng):
    """1, 2, 3 and 7 threads give the same bits, and take part."""
    NR, _ = shapes.tile(dtype)
    cases = (3 * NR + 5, (26, 25, 20)), (4 * NR, (3, 3)), (5, (40, 30)), (NR + 1, (29, 29, 29)), (2 * NR, (1, 1))
    for hidden, sizes in cases:
        for d in (0, 1):
            runtime.set_parallel_threshold(-1)
            runtime.set_num_threads(1)
            w = Walk(rng, mode, hidden, sizes, dtype, d).forward().backward()
            want = [np.array(v) for v in w.outputs() + w.gradients() if v is not None]
            runtime.set_parallel_threshold(0.0)
            for threads in (2, 3, 7):
                runtime.set_num_threads(threads)
                runtime.threads_used(True)
                w.forward()
                assert runtime.threads_used(True) > 1
                w.backward()
                assert runtime.threads_used(True) > 1
                for got, v in zip([v for v in w.outputs() + w.gradients() if v is not None], want, strict=True):
                    tolerance.same_bits(got, v, f"{threads} threads")


@pytest.mark.parametrize("mode", MODES)
def test_place_in_the_batch(mode, isa, dtype, rng):
    """A sequence alone gives the bits that it gives within a batch, wherever it stands, padded or packed."""
    net = recurrent(mode, 5, 9, dtype, num_layers=2, bidirectional=True)
    x = rng.standard_normal((6, 55, 5)).astype(dtype)
    lengths = [int(n) for n in rng.integers(1, 7, 55)]
    with nncore.no_grad():
        y, last = net(x)
        packed = sequences.pack_padded_sequence(x, lengths, enforce_sorted=False)
        z, short = net(packed)
        z, _ = sequences.pad_packed_sequence(z)
        for i in (0, 5, 6, 30, 54):
            alone, state = net(x[:, i])
            tolerance.same_bits(array(y)[:, i], array(alone), f"sequence {i}")
            for a, b in zip(states(last), states(state), strict=True):
                tolerance.same_bits(a[:, i], b, f"sequence {i}")
            alone, state = net(x[: lengths[i], i])
            tolerance.same_bits(array(z)[: lengths[i], i], array(alone), f"sequence {i}, packed")
            for a, b in zip(states(short), states(state), strict=True):
                tolerance.same_bits(a[:, i], b, f"sequence {i}, packed")


# ---- layers ----


def states(h):
    return [array(t) for t in (h if isinstance(h, tuple) else (h,))]


def recurrent(mode, size, hidden, dtype="float64", **options):
    """The layer of a mode."""
    kind, _, act = mode.partition("_")
    more = {"nonlinearity": act.lower()} if act else {}
    return getattr(nn, kind)(size, hidden, dtype=dtype, **more, **options)


def cell(mode, size, hidden, dtype="float64", **options):
    kind, _, act = mode.partition("_")
    more = {"nonlinearity": act.lower()} if act else {}
    return getattr(nn, kind + "Cell")(size, hidden, dtype=dtype, **more, **options)


def expected(net, mode, x, sizes, h0, c0):
    """A network by its definition, in float64: (y, h_n, c_n)."""
    D, y, last = 1 + net.bidirectional, x, []
    for layer in range(net.num_layers):
        directions = []
        for way in ("", "_reverse")[:D]:
            names = [f"{n}_l{layer}{way}" for n in ops.NAMES]
            p = [getattr(net, n) for n in names]
            directions.append([np.zeros(len(p[0])) if t is None else np.asarray(t) for t in p])
        part = slice(layer * D, layer * D + D)
        y, *h = reference.recurrent(mode, y, sizes, h0[part], c0[part], directions)
        last.append(h)
    return y, np.concatenate([h for h, _ in last]), np.concatenate([c for _, c in last])


def chained(net, steps, y):
    """A bound for float64: each step passes the error on through W_hh (slopes are at most 1) and adds that of its
    sums; a factor of 2 for gates that are multiplied."""
    weights = [np.abs(np.asarray(p)).sum(1).max() for n, p in net.named_parameters() if n.startswith("weight")]
    step = np.finfo(np.float64).eps * (sum(weights) + 4) * (net.hidden_size + net.input_size + 8)
    return 2 * step * sum(max(1.0, max(weights)) ** t for t in range(steps * net.num_layers)) + 0 * y


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layers, bidirectional", [(1, False), (1, True), (2, False), (3, True)])
def test_layers(mode, layers, bidirectional, bias, isa, rng):
    """Layers, directions, layouts and packing against the definition."""
    T, B, I, H, S = 3, 4, 5, 6, layers * (1 + bidirectional)
    make = lambda **o: recurrent(mode, I, H, num_layers=layers, bidirectional=bidirectional, bias=bias, **o)
    nncore.manual_seed(1)
    net, first = make(), make(batch_first=True)
    first.load_state_dict(net.state_dict())
    x, h0, c0 = rng.standard_normal((T, B, I)), rng.standard_normal((S, B, H)), rng.standard_normal((S, B, H))
    c0 *= mode == "LSTM"
    hx = (h0, c0) if mode == "LSTM" else h0
    y, h, c = expected(net, mode, x.reshape(-1, I), [B] * T, h0, c0)
    got, last = net(x, hx)
    bound = chained(net, T, 0)
    tolerance.close(got, y.reshape(T, B, -1), bound)
    for a, b in zip(states(last), (h, c)):
        tolerance.close(a, b, bound)
    turned, again = first(x.transpose(1, 0, 2), hx)
    tolerance.same_bits(np.asarray(turned).transpose(1, 0, 2), got, "batch_first")
    for a, b in zip(states(last), states(again), strict=True):
        tolerance.same_bits(a, b)
    # no states are zeros, no batch is a batch of one
    zero = (0 * h0, 0 * c0) if mode == "LSTM" else 0 * h0
    np.testing.assert_array_equal(net(x)[0], net(x, zero)[0])
    one, last_one = net(x[:, 1], tuple(s[:, 1] for s in hx) if mode == "LSTM" else hx[:, 1])
    tolerance.same_bits(one, np.asarray(got)[:, 1])
    for a, b in zip(states(last), states(last_one), strict=True):
        tolerance.same_bits(a[:, 1], b)
    # different lengths: each sequence as if it were alone
    lengths = [2, 3, 1, 3]
    packed = sequences.pack_padded_sequence(x, lengths, enforce_sorted=False)
    got, last = net(packed, hx)
    padded, found = sequences.pad_packed_sequence(got)
    assert found.tolist() == lengths
    for i, n in enumerate(lengths):
        y, h, c = expected(net, mode, x[:n, i], [1] * n, h0[:, i : i + 1], c0[:, i : i + 1])
        tolerance.close(np.asarray(padded)[:n, i], y, bound)
        for a, b in zip(states(last), (h, c)):
            tolerance.close(a[:, i], b[:, 0], bound)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bias", [True, False])
def test_cells(mode, bias, isa, dtype, rng):
    """A cell stepped over time gives the layer's bits, with and without a batch."""
    layer, one = recurrent(mode, 5, 7, dtype, bias=bias), cell(mode, 5, 7, dtype, bias=bias)
    one.load_state_dict({n.removesuffix("_l0"): v for n, v in layer.state_dict().items()})
    x = rng.standard_normal((4, 3, 5)).astype(dtype)
    y, last = layer(x)
    for pick in (slice(None), 1):
        h = None
        for t in range(4):
            h = one(x[t, pick], h)
            tolerance.same_bits(states(h)[0], np.asarray(y)[t, pick])
        for a, b in zip(states(h), states(last), strict=True):
            tolerance.same_bits(a, b[0, pick])


@pytest.mark.parametrize("mode", MODES)
def test_parameters(mode):
    """torch's names, shapes and order; uniform on (-1/sqrt(H), 1/sqrt(H))."""
    G = ops.GATES[mode]
    net = recurrent(mode, 3, 100, "float32", num_layers=2, bidirectional=True)
    names = [f"{n}_l{i}{way}" for i in (0, 1) for way in ("", "_reverse") for n in ops.NAMES]
    found = dict(net.named_parameters())
    assert list(found) == names
    for i, way in itertools.product((0, 1), ("", "_reverse")):
        wanted = (G * 100, 200 if i else 3), (G * 100, 100), (G * 100,), (G * 100,)
        assert [found[f"{n}_l{i}{way}"].shape for n in ops.NAMES] == list(wanted)
    for p in found.values():
        v = p.numpy()
        assert np.abs(v).max() <= 0.1
        assert np.abs(v).max() > 0.09
        assert abs(v.mean()) < 6 * 0.1 / math.sqrt(3 * v.size)
    assert [[p.shape for p in ps] for ps in net.all_weights] == [
        [found[n].shape for n in names[k : k + 4]] for k in range(0, 16, 4)
    ]
    assert net.flatten_parameters() is None
    bare = recurrent(mode, 3, 4, "float32", bias=False)
    assert list(bare.state_dict()) == ["weight_ih_l0", "weight_hh_l0"]
    assert [len(ps) for ps in bare.all_weights] == [2]
    assert list(cell(mode, 3, 4).state_dict()) == list(ops.NAMES)


def test_repr():
    assert (
        repr(nn.LSTM(3, 4, 2, batch_first=True)) == "LSTM(input_size=3, hidden_size=4, num_layers=2, batch_first=True)"
    )
    assert repr(nn.RNN(3, 4, nonlinearity="relu")) == "RNN(input_size=3, hidden_size=4, nonlinearity=relu)"
    assert repr(nn.GRUCell(3, 4, bias=False)) == "GRUCell(input_size=3, hidden_size=4, bias=False)"


def test_dropout_is_between_layers(rng):
    """In training only, and neither before the first layer nor after the last."""
    x = rng.standard_normal((5, 3, 4)).astype("float32")
    with pytest.warns(UserWarning, match="dropout"):
        one = nn.LSTM(4, 6, dropout=0.9)
    np.testing.assert_array_equal(one(x)[0], one.eval()(x)[0])
    net = nn.LSTM(4, 6, num_layers=2, dropout=0.5)
    a, b = np.asarray(net(x)[0]), np.asarray(net(x)[0])
    assert (a != b).any()
    assert (a != 0).all()
    np.testing.assert_array_equal(net.eval()(x)[0], net(x)[0])
    net.dropout, lower = 1.0, nn.LSTM(6, 6)
    lower.load_state_dict({n.replace("_l1", "_l0"): v for n, v in net.state_dict().items() if "_l1" in n})
    np.testing.assert_array_equal(net.train()(x)[0], lower(np.zeros((5, 3, 6), "float32"))[0])


def test_empty_batch():
    net = nn.LSTM(3, 4, bidirectional=True)
    x = nncore.zeros(5, 0, 3, requires_grad=True)
    y, (h, c) = net(x)
    assert y.shape == (5, 0, 8)
    assert h.shape == c.shape == (2, 0, 4)
    y.sum().backward()
    assert x.grad.shape == (5, 0, 3)
    assert not net.weight_hh_l0.grad.numpy().any()


def test_weights_are_packed_anew():
    """A write to the weight between two calls is seen, in inference and in training."""
    for mode in MODES:
        net = recurrent(mode, 3, 8)
        x = nncore.randn(2, 4, 3, dtype="float64")
        with nncore.no_grad():
            before = [np.array(net(x)[0]) for _ in range(3)]
            net.weight_hh_l0.mul_(2.0)
            after = [np.array(net(x)[0]) for _ in range(3)]
        np.testing.assert_array_equal(before[0], before[2])
        np.testing.assert_array_equal(after[0], after[2])
        assert (after[0][1] != before[0][1]).any()


def test_a_write_before_backward_is_an_error(rng):
    """Of everything that backward reads."""
    x = nncore.tensor(rng.standard_normal((3, 2, 4)), requires_grad=True)
    h = nncore.tensor(rng.standard_normal((1, 2, 5)), requires_grad=True)
    for name in ("weight_ih_l0", "weight_hh_l0", "h"):
        net = nn.GRU(4, 5, dtype="float64")
        y, _ = net(x, h)
        with nncore.no_grad():
            (h if name == "h" else getattr(net, name)).add_(1.0)
        with pytest.raises(RuntimeError, match="changed in place"):
            y.sum().backward()


def test_sizes_are_copied():
    """A packed sequence whose sizes change later does no harm."""
    net = nn.GRU(3, 4)
    sizes = np.array([3, 2, 1])
    packed = sequences.PackedSequence(nncore.ones(6, 3), nncore.from_numpy(sizes))
    y, _ = net(packed)
    sizes[:] = 10**6
    y.data.sum().backward()
    with pytest.raises(ValueError, match="batch_sizes"):
        net(packed)


def test_graph_can_be_used_twice(rng):
    net = recurrent("GRU", 3, 4)
    x = nncore.tensor(rng.standard_normal((3, 2, 3)), requires_grad=True)
    y, h = net(x)
    root = (y * y).sum() + h.sum()
    root.backward(retain_graph=True)
    first = x.grad.numpy().copy()
    x.grad = None
    root.backward()
    tolerance.same_bits(x.grad.numpy(), first)


# ---- sequences ----


def test_packing_round_trip(rng):
    """pack and pad are inverse, in either layout, sorted or not, with trailing sizes or none."""
    lengths = [3, 5, 1, 5, 2]
    for more, first, ordered in itertools.product(((), (4,), (2, 3)), (False, True), (False, True)):
        ns = sorted(lengths, reverse=True) if ordered else lengths
        parts = [rng.standard_normal((n, *more)) for n in ns]
        padded = sequences.pad_sequence([nncore.tensor(p) for p in parts], batch_first=first, padding_value=7.0)
        assert padded.shape == ((5, 5, *more))
        for i, p in enumerate(parts):
            column = np.asarray(padded)[i] if first else np.asarray(padded)[:, i]
            np.testing.assert_array_equal(column[: len(p)], p)
            assert (column[len(p) :] == 7).all()
        packed = sequences.pack_padded_sequence(padded, ns, first, enforce_sorted=ordered)
        assert (packed.sorted_indices is None) == ordered
        assert packed.batch_sizes.tolist() == [5, 4, 3, 2, 2]
        order = sorted(range(5), key=lambda i: -ns[i])
        want = [parts[i][t] for t in range(5) for i in order if ns[i] > t]
        np.testing.assert_array_equal(packed.data, want)
        again, found = sequences.pad_packed_sequence(packed, first, 7.0)
        np.testing.assert_array_equal(again, padded)
        assert found.tolist() == ns
        longer, _ = sequences.pad_packed_sequence(packed, first, -1.0, total_length=7)
        assert longer.shape[1 if first else 0] == 7
        for i, s in enumerate(sequences.unpack_sequence(packed)):
            np.testing.assert_array_equal(s, parts[i])
        for i, s in enumerate(sequences.unpad_sequence(padded, ns, first)):
            np.testing.assert_array_equal(s, parts[i])
        same = sequences.pack_sequence([nncore.tensor(p) for p in parts], enforce_sorted=ordered)
        np.testing.assert_array_equal(same.data, packed.data)


def test_padding_side():
    got = sequences.pad_sequence([nncore.tensor([1.0, 2.0]), nncore.tensor([3.0])], True, -1.0, "left")
    assert got.tolist() == [[1.0, 2.0], [-1.0, 3.0]]


def test_packed_sequence_indices():
    data, sizes = nncore.ones(5, 2), nncore.tensor([3, 2])
    p = sequences.PackedSequence(data, sizes, nncore.tensor([2, 0, 1]))
    assert p.unsorted_indices.tolist() == [1, 2, 0]
    p = sequences.PackedSequence(data, sizes, unsorted_indices=nncore.tensor([1, 2, 0]))
    assert p.sorted_indices.tolist() == [2, 0, 1]
    assert p == (p.data, p.batch_sizes, p.sorted_indices, p.unsorted_indices)


def test_the_order_of_the_oracle():
    """Numbers that can be checked by eye."""
    got = [(t, rows.tolist(), before.tolist()) for t, rows, before in reference.rnn_order([3, 2, 1])]
    assert got == [(0, [0, 1, 2], []), (1, [3, 4], [0, 1]), (2, [5], [3])]
    got = [(t, rows.tolist(), before.tolist()) for t, rows, before in reference.rnn_order([3, 2, 1], True)]
    assert got == [(2, [5], []), (1, [3, 4], [5]), (0, [0, 1, 2], [3, 4])]


COVERS = {"rnn": test_steps}
