"""The same bits: for any number of threads, in any batch, recorded or not, again and again (docs/determinism.md).

What is here walks the tables of the library: a kernel, an operation or a layer that is added cannot be left out.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from nncore._core.tensor import from_array

import nncore
from nncore import nn, optim
from nncore._core import elementwise, runtime
from nncore.data import augment
from nncore.nn import functional as F

from . import test_gradients, tolerance
from .conftest import ISAS

# ---- kernels: enough work for several threads, whatever the kernel ----


def leaf(rng, dtype, *shape):
    return nncore.tensor(rng.standard_normal(shape).astype(dtype), requires_grad=True)


def both_ways(fn, *leaves, rng):
    """Results of fn and gradients of its leaves, for a random cotangent."""
    y = fn(*leaves)
    y.backward(rng.standard_normal(y.shape).astype(y.dtype))
    return [y, *(t.grad for t in leaves)]


def linear(rng, dtype):
    w = nn.Parameter(rng.standard_normal((300, 90)).astype(dtype))
    x, b = leaf(rng, dtype, 400, 90), leaf(rng, dtype, 300)
    with nncore.no_grad():
        first, packed = F.linear(x, w, b), F.linear(x, w, b)
    return [first, packed, *both_ways(F.linear, x, w, b, rng=rng)]


def convolution(rng, dtype):
    x, w, b = leaf(rng, dtype, 20, 33, 9, 8), leaf(rng, dtype, 70, 33, 3, 3), leaf(rng, dtype, 70)
    out, former = [], nncore.get_conv_algorithm()
    for algorithm in ("direct", "winograd2", "winograd4"):
        nncore.set_conv_algorithm(algorithm)
        for t in (x, w, b):
            t.grad = None
        out += both_ways(lambda x, w, b: F.conv2d(x, w, b, padding=1), x, w, b, rng=rng)
    nncore.set_conv_algorithm(former)
    return out


def few_channels(rng, dtype):
    """A first layer, and one whose input's gradient is scattered to."""
    k = max(1, runtime.gemm_tile(0 if dtype == np.float32 else 1)[1] // 2)
    x, w = leaf(rng, dtype, 20, 2, 20, 19), leaf(rng, dtype, k, 2, 5, 5)
    first = both_ways(lambda x, w: F.conv2d(x, w, padding=2), x, w, rng=rng)
    x, w = leaf(rng, dtype, 20, 3, 9, 8), leaf(rng, dtype, 70, 3, 5, 5)
    return [*first, *both_ways(lambda x, w: F.conv2d(x, w, padding=1), x, w, rng=rng)]


def pooling(rng, dtype):
    x = leaf(rng, dtype, 5, 40, 20, 21)
    with nncore.no_grad():
        indices = F.max_pool2d(x, 2, return_indices=True)[1]
    return (
        both_ways(lambda x: F.max_pool2d(x, 2), x, rng=rng)
        + both_ways(lambda x: F.avg_pool2d(x, 3), x, rng=rng)
        + [indices]
    )


def depthwise(rng, dtype):
    x, w = leaf(rng, dtype, 6, 70, 40, 41), leaf(rng, dtype, 70, 1, 3, 3)
    return both_ways(lambda x, w: F.conv2d(x, w, padding=1, groups=70), x, w, rng=rng)


def padding(rng, dtype):
    x = leaf(rng, dtype, 5, 40, 30, 31)
    return [
        y
        for mode in ("reflect", "circular")
        for y in both_ways(lambda x, m=mode: F.pad(x, (3, 2, 1, 4), m), x, rng=rng)
    ]


def interpolation(rng, dtype):
    x = leaf(rng, dtype, 5, 40, 30, 31)
    return both_ways(lambda x: F.interpolate(x, (50, 44), mode="bilinear"), x, rng=rng)


def augmentation(rng, dtype):
    x = leaf(rng, dtype, 40, 3, 30, 31).detach()
    generator = nncore.Generator(3)
    return [
        t(x)
        for t in (
            augment.RandomAffine(20, (0.1, 0.1), (0.8, 1.2), "edge", generator),
            augment.RandomCrop(28, 4, generator=generator),
            augment.Cutout(9, generator=generator),
            augment.GaussianNoise(0.1, generator),
        )
    ]


def normalization(rng, dtype):
    x, w, b = leaf(rng, dtype, 9, 64, 30, 31), leaf(rng, dtype, 64), leaf(rng, dtype, 64)
    out = both_ways(lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), x, w, b, rng=rng)
    out += both_ways(lambda x, w, b: F.group_norm(x, 8, w, b), x, w, b, rng=rng)
    out += both_ways(lambda x: F.layer_norm(x, (30, 31)), x, rng=rng)
    return out + both_ways(lambda x: F.local_response_norm(x, 5), x, rng=rng)


def bags(rng, dtype):
    w, index = leaf(rng, dtype, 500, 200), rng.integers(0, 500, (900, 30))
    return [
        y
        for mode in ("sum", "mean", "max")
        for y in both_ways(lambda w, m=mode: F.embedding_bag(index, w, mode=m), w, rng=rng)
    ]


def operations(rng, dtype):
    x = [rng.uniform(0.1, 2, 50_000).astype(dtype) for _ in range(3)]
    out = []
    for name, op in runtime.OPS.items():
        operands = [from_array(v) for v in x[: max(1, runtime.OP_ARITY[name])]]
        out.append(elementwise.ewise(op, *operands, *[None] * (3 - len(operands)), 0.5, 0.7))
        if len(operands) < 3:
            out.append(elementwise.ewise_sum(op, *operands))
    return [*out, nncore.tensor(x[0]).long(), nncore.tensor(x[0]).T.double()]


def reductions(rng, dtype):
    x = leaf(rng, dtype, 90, 50, 61)
    out = []
    for fn in (nncore.sum, nncore.mean, nncore.var):
        for dim in (None, 0, 1, 2):
            out += both_ways(lambda x, f=fn, d=dim: f(x, d), x, rng=rng)
    for fn in (nncore.max, nncore.min):
        out += [v for dim in (0, 1, 2) for v in fn(x, dim)]
    return out


def rows(rng, dtype):
    x, target = leaf(rng, dtype, 300, 130), rng.integers(0, 130, 300)
    out = both_ways(F.softmax, x, rng=rng) + both_ways(F.log_softmax, x, rng=rng)
    for reduction in ("mean", "none"):
        out += both_ways(lambda x, r=reduction: F.cross_entropy(x, target, reduction=r), x, rng=rng)
    return out


def indexing(rng, dtype):
    x, index = leaf(rng, dtype, 50, 3000), rng.integers(0, 50, 200)
    y = nncore.zeros(50, 3000, dtype=dtype.name)
    y[index] = rng.standard_normal((200, 3000)).astype(dtype)
    return [*both_ways(lambda x: x[index], x, rng=rng), y]


def randomness(rng, dtype):
    nncore.manual_seed(7)
    x = leaf(rng, dtype, 300, 1000)
    out = [fn(300_001, dtype=dtype.name) for fn in (nncore.rand, nncore.randn)]
    return out + both_ways(F.dropout, x, rng=rng)


def optimizers(rng, dtype):
    out = []
    for build in OPTIMIZERS:
        p = nn.Parameter(rng.standard_normal((60, 1000)).astype(dtype))
        opt = build([p])
        for _ in range(3):
            p.grad = nncore.tensor(rng.standard_normal(p.shape).astype(dtype))
            opt.step(lambda: nncore.tensor(1.0))
        out.append(p.detach())
    return out


# Each optimizer that there is, and one with momentum.
OPTIMIZERS = [v for v in vars(optim).values() if isinstance(v, type) and issubclass(v, optim.Optimizer)]
OPTIMIZERS = [v for v in OPTIMIZERS if v is not optim.Optimizer]
OPTIMIZERS.append(lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True))


def clipping(rng, dtype):
    out = []
    for clip in (nn.utils.clip_grad_norm_, nn.utils.clip_grad_value_):
        parameters = [nn.Parameter(rng.standard_normal(n).astype(dtype)) for n in (50_000, 70, 200_000)]
        for p in parameters:
            p.grad = p.detach() * 2
        norm = clip(parameters, 0.5)
        out += [p.grad for p in parameters] + [norm] * (norm is not None)
    return out


def recurrent(rng, dtype):
    nncore.manual_seed(2)
    out = []
    for layer in (nn.RNN, nn.LSTM, nn.GRU):
        net = layer(30, 70, bidirectional=True)
        net = net.double() if dtype == np.float64 else net
        x = leaf(rng, dtype, 9, 200, 30)
        out += [*both_ways(lambda x, n=net: n(x)[0], x, rng=rng), *(p.grad for p in net.parameters())]
    return out


def chains(rng, dtype):
    x, y = leaf(rng, dtype, 70, 3000).detach(), leaf(rng, dtype, 70, 3000).detach()
    run = nncore.compile(lambda x, y: ((x * y).tanh() + x, ((x - y) ** 2).mean(), F.mse_loss(x * y, y)))
    return [t for _ in range(3) for t in run(x, y)]


WORK = (
    chains,
    linear,
    convolution,
    few_channels,
    pooling,
    operations,
    reductions,
    rows,
    indexing,
    randomness,
    optimizers,
    clipping,
    recurrent,
    depthwise,
    padding,
    interpolation,
    augmentation,
    normalization,
    bags,
)
ON_ONE_THREAD = {
    "probe_fma": "measures one thread",
    "probe_copy": "measures one thread",
    "index": "checks integers one by one: bandwidth-bound, and mostly few",
    "places": "as index: classes of multi-label targets",
}


def run(work, dtype, threads):
    """Arrays that `work` gives on so many threads, all of which take part in each kernel that is shared."""
    runtime.set_num_threads(threads)
    runtime.set_parallel_threshold(0.0)
    out = [t.numpy().copy() for t in work(np.random.default_rng(3), dtype)]
    runtime.set_parallel_threshold(-1)
    return out


@pytest.mark.parametrize("work", WORK, ids=lambda w: w.__name__)
def test_any_number_of_threads(work, isa, dtype):
    """Kernels on 2, 3 and 7 threads give what they give on one."""
    expected = run(work, dtype, 1)
    for threads in (2, 3, 7):
        runtime.kernels_shared(True)
        for i, (got, want) in enumerate(zip(run(work, dtype, threads), expected, strict=True)):
            tolerance.same_bits(got, want, f"result {i} of {work.__name__} on {threads} threads")
        assert runtime.kernels_shared(True), "all ran on one thread: nothing is shown"


def test_every_kernel_is_shared(isa):
    """The work above runs each kernel of the library on more than one thread. A new kernel must be added to it."""
    runtime.kernels_shared(True)
    for work in WORK:
        run(work, np.dtype("float32"), 2)
    shared = set(runtime.kernels_shared(True))
    assert sorted(shared & ON_ONE_THREAD.keys()) == []
    assert sorted(set(runtime.KERNELS) - shared - ON_ONE_THREAD.keys()) == [], "add work for these to WORK"
    assert set(ON_ONE_THREAD) <= set(runtime.KERNELS)


# ---- operations and layers: those of the gradient checks, which are all there are ----


def results(fn, inputs, grad, dtype):
    """Floating results, and gradients of inputs and parameters for a fixed cotangent if `grad`."""
    if isinstance(fn, nn.Module):
        fn.zero_grad()
    leaves = [
        t if isinstance(t, nncore.Tensor) else nncore.tensor(np.asarray(t, dtype), requires_grad=grad) for t in inputs
    ]
    nncore.manual_seed(1)
    y = fn(*leaves)
    ys = [t for t in flat(y) if t.dtype.kind == "f"]
    out = [t.numpy().copy() for t in ys]
    if grad:
        rng = np.random.default_rng(4)
        for t in ys:
            if t.requires_grad:
                t.backward(rng.standard_normal(t.shape).astype(t.dtype), retain_graph=True)
        wanted = leaves + (list(fn.parameters()) if isinstance(fn, nn.Module) else [])
        out += [t.grad.numpy().copy() for t in wanted if t.grad is not None]
    return out


def flat(y):
    """The tensors of nested tuples."""
    return [t for part in y for t in flat(part)] if isinstance(y, tuple | list) else [y]


def all_cases():
    """(name, function that builds it, inputs) of every gradient check."""
    for name, (fn, arrays) in test_gradients.CASES.items():
        yield name, lambda fn=fn: fn, arrays
    for name, (build, arrays) in test_gradients.MODULES.items():
        yield name, build, arrays


def test_every_operation(isa):
    """Each operation and layer: on 1, 2 and 3 threads, recorded or not, and once more."""
    dtype = np.dtype("float64")
    for name, build, arrays in all_cases():
        runtime.set_parallel_threshold(-1)
        runtime.set_num_threads(1)
        fn = build()
        expected = results(fn, arrays, True, dtype)
        runtime.set_parallel_threshold(0.0)
        for threads in (1, 2, 3):
            runtime.set_num_threads(threads)
            for got, want in zip(results(fn, arrays, True, dtype), expected, strict=True):
                tolerance.same_bits(got, want, f"{name} on {threads} threads")
            with nncore.no_grad():
                for got, want in zip(results(fn, arrays, False, dtype), expected):
                    tolerance.same_bits(got, want, f"{name} without gradients, on {threads} threads")


# ---- batches ----

# Layers whose result for a sample depends on the others, by definition; and those with another batch axis.
NO_BATCH = {
    "nn.MSELoss": "sums over the batch",
    "nn.CrossEntropyLoss": "sums over the batch",
    "nn.NLLLoss": "sums over the batch",
    "nn.BCELoss": "sums over the batch",
    "nn.BCEWithLogitsLoss": "sums over the batch",
    "nn.HuberLoss": "sums over the batch",
    "nn.KLDivLoss": "sums over the batch",
    "nn.L1Loss": "sums over the batch",
    "nn.PoissonNLLLoss": "sums over the batch",
    "nn.RMSELoss": "sums over the batch",
    "nn.SoftMarginLoss": "sums over the batch",
    "nn.SmoothL1Loss": "sums over the batch",
    "nn.MultiLabelSoftMarginLoss": "sums over the batch",
    "nn.HingeEmbeddingLoss": "sums over the batch",
    "nn.MultiLabelMarginLoss": "sums over the batch",
    "nn.MultiMarginLoss": "sums over the batch",
    "nn.GaussianNLLLoss": "sums over the batch",
    "nn.MarginRankingLoss": "sums over the batch",
    "nn.CosineEmbeddingLoss": "sums over the batch",
    "nn.TripletMarginLoss": "sums over the batch",
    "nn.Bilinear": "two inputs: see test_two_inputs_in_batches",
    "nn.CosineSimilarity": "two inputs: see test_two_inputs_in_batches",
    "nn.PairwiseDistance": "two inputs: see test_two_inputs_in_batches",
    "nn.Embedding": "takes indices: see test_indices_in_batches",
    "nn.EmbeddingBag": "takes indices: see test_indices_in_batches",
    "nn.LogSoftmax": "that entry normalizes along the batch; see LAYERS",
    "nn.Conv1d same": "that entry has no batch axis",
    "nn.RNNCell relu": "that entry has no batch axis",
    "nn.RNN": "the batch is the second axis; see LAYERS",
    "nn.LSTM": "as nn.RNN",
    "nn.GRU": "as nn.RNN",
}
# More of the layers, in sizes at which kernels cut their work differently: name -> (build, shape of a sample)
LAYERS = {
    "nn.Linear": (lambda: nn.Linear(70, 130), (70,)),
    "nn.Linear wide": (lambda: nn.Linear(600, 33), (600,)),
    "nn.Conv1d": (lambda: nn.Conv1d(5, 70, 3, padding=1), (5, 40)),
    "nn.Conv2d": (lambda: nn.Conv2d(17, 33, 3, padding=1), (17, 9, 10)),
    "nn.Conv2d depthwise": (lambda: nn.Conv2d(16, 16, 3, padding=1, groups=16), (16, 7, 7)),
    "nn.Conv2d 1 x 1": (lambda: nn.Conv2d(64, 20, 1, stride=2), (64, 6, 6)),
    "nn.Conv3d": (lambda: nn.Conv3d(3, 8, 2), (3, 4, 5, 6)),
    "nn.ConvTranspose2d": (lambda: nn.ConvTranspose2d(9, 17, 3, stride=2), (9, 5, 6)),
    "nn.MaxPool2d": (lambda: nn.MaxPool2d(2), (17, 10, 10)),
    "nn.AvgPool2d": (lambda: nn.AvgPool2d(2), (17, 10, 10)),
    "nn.Softmax": (lambda: nn.Softmax(-1), (100,)),
    "nn.LogSoftmax": (lambda: nn.LogSoftmax(-1), (100,)),
    "nn.Tanh": (nn.Tanh, (1000,)),
    "nn.RNN": (lambda: nn.RNN(20, 33, batch_first=True), (5, 20)),
    "nn.LSTM": (lambda: nn.LSTM(20, 70, 2, bidirectional=True, batch_first=True), (5, 20)),
    "nn.GRU": (lambda: nn.GRU(20, 33, batch_first=True), (5, 20)),
}


def in_batches(name, net, sample, others, rng):
    """The outputs, and gradients for equal cotangents, of samples alone and among others are the same bits."""
    n, dtype = sample.shape[0], sample.dtype
    for before, after in ((0, 1), (3, 0), (40, 9), (400, 5)):
        front, back = (others[rng.integers(0, len(others), k)] for k in (before, after))
        alone = nncore.tensor(sample, requires_grad=True)
        among = nncore.tensor(np.concatenate([front, sample, back]), requires_grad=True)
        y, z = (next(t for t in flat(net(x)) if t.dtype.kind == "f") for x in (alone, among))
        tolerance.same_bits(z.numpy()[before : before + n], y.numpy(), f"{name}: after {before}, before {after} others")
        dz = rng.standard_normal(z.shape).astype(dtype)
        if y.requires_grad:
            y.backward(dz[before : before + n])
            z.backward(dz)
            got = among.grad.numpy()[before : before + n]
            tolerance.same_bits(got, alone.grad.numpy(), f"{name}, gradient: after {before}, before {after} others")


@pytest.mark.parametrize("name", LAYERS)
def test_layers_in_batches(name, isa, dtype, rng):
    build, shape = LAYERS[name]
    nncore.manual_seed(2)
    net = build().eval()
    net = net.double() if dtype == np.float64 else net
    pool = rng.standard_normal((12, *shape)).astype(dtype)
    for n in (1, 5):
        in_batches(name, net, pool[:n], pool, rng)


def test_every_layer_in_batches(isa, rng):
    """Every layer of the library, in evaluation mode, as its gradient check builds it: the first axis of its first
    input is the batch, or NO_BATCH says why not."""
    checked = {n.split(" ")[0] for n in LAYERS}
    for name, (build, arrays) in test_gradients.MODULES.items():
        if name in NO_BATCH or name.split(" ")[0] in NO_BATCH:
            continue
        x = np.asarray(arrays[0])
        in_batches(name, build().eval(), x, rng.permutation(np.concatenate([x, -x, 2 * x])), rng)
        checked.add(name.split(" ")[0])
    layers = {f"nn.{n}" for n, v in vars(nn).items() if isinstance(v, type) and issubclass(v, nn.Module)}
    missing = layers - checked - NO_BATCH.keys() - test_gradients.EXEMPT.keys()
    assert sorted(missing) == []
    assert set(NO_BATCH) <= layers | set(test_gradients.MODULES)
    assert all(NO_BATCH.values())


@pytest.mark.parametrize("build", [lambda: nn.Bilinear(5, 7, 33), nn.CosineSimilarity, nn.PairwiseDistance])
def test_two_inputs_in_batches(isa, rng, build):
    """A pair of samples has one result in any batch."""
    net = build()
    a, b = (
        rng.standard_normal((70, n)).astype(np.float32) for n in ((5, 7) if isinstance(net, nn.Bilinear) else (9, 9))
    )
    with nncore.no_grad():
        whole = net(a, b).numpy()
        for i in (0, 31, 69):
            tolerance.same_bits(net(a[i : i + 1], b[i : i + 1]), whole[i : i + 1], "alone")
            tolerance.same_bits(net(a[i:], b[i:]), whole[i:], "with those after it")


@pytest.mark.parametrize("build", [lambda: nn.Embedding(11, 17), lambda: nn.EmbeddingBag(11, 17)])
def test_indices_in_batches(isa, rng, build):
    """A row of indices has one result in any batch."""
    net, index = build(), rng.integers(0, 11, (70, 6))
    with nncore.no_grad():
        whole = net(index).numpy()
        for i in (0, 31, 69):
            tolerance.same_bits(net(index[i : i + 1]), whole[i : i + 1], "alone")


# ---- whole trainings ----


@pytest.mark.parametrize("isa", ISAS)
def test_a_training_on_any_threads(isa):
    """Weights after training steps of a net with every kind of layer, in processes of any number of threads."""
    runtime.set_isa(isa)
    found = []
    for threads, threshold in ((1, -1), (2, 0), (3, 1000), (2, -1)):
        runtime.set_num_threads(threads)
        runtime.set_parallel_threshold(threshold)
        nncore.manual_seed(5)
        net = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2),
            nn.Linear(6 * 36, 40), nn.Tanh(), nn.Linear(40, 10),
        )  # fmt: skip
        opt = optim.Adam(net.parameters())
        for _ in range(4):
            x, y = nncore.randn(33, 1, 12, 12), np.arange(33) % 10
            opt.zero_grad()
            F.cross_entropy(net(x), y).backward()
            opt.step()
        found.append(net.state_dict())
    for other in found[1:]:
        for key, value in found[0].items():
            tolerance.same_bits(other[key], value, key)


# ---- the table in the documentation ----


def test_the_documentation_names_tests_that_exist():
    page = Path(__file__).resolve().parents[1] / "docs" / "determinism.md"
    if not page.exists():
        pytest.skip("no documentation beside the tests")
    named = re.findall(r"`(test_\w+)\.py::(\w+)`", page.read_text(encoding="utf-8"))
    assert len(named) > 10
    for module, function in named:
        source = (Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8")
        assert re.search(rf"^def {function}\(", source, re.M), f"{module}.py has no {function}"


COVERS = {}
