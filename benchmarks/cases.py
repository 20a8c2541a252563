"""What is measured: for each row what runs, what runs beside it, what it costs at least, and how it is verified."""

from dataclasses import dataclass, field
from functools import cache
from math import prod

import numpy as np

import nncore
from benchmarks import harness, shapes, verify
from nncore import _tape
from nncore._core import dense, elementwise


@dataclass
class Work:
    """What is run for a row, and what that costs at least."""

    ours: object  # a function
    check: object  # of its result as an array; raises AssertionError
    flops: float = 0.0
    bytes: float = 0.0
    stream: str = "copy"  # or "update": results are written over operands
    resident: float = 0.0  # bytes of memory that they lie in, if they are read more than once
    before: float = 0.0  # the flops of a product without which nothing can read them
    result: object = None  # a function that gives what `check` takes, if `ours` does not return it
    peers: dict = field(default_factory=dict)  # {name: function}
    job: tuple = None  # (op, arrays, options, check) for a harness.Peer


@dataclass
class Case:
    """A row of the table. `classes` are keys of kernels.GOALS."""

    kind: str
    name: str
    direction: str
    classes: tuple
    build: object  # a function of a random generator that makes the Work
    layer: object = None  # a shapes.Conv
    algorithm: str = ""


def times(shape):
    return "x".join(map(str, shape))


def image(a):
    """A channels-last tensor, as a layer before would have left it."""
    return elementwise.channels_last(nncore.from_numpy(a))


def backward_of(op, tensors, wanted, dy):
    """(a function that runs backward of op(*tensors) for the gradients of the inputs `wanted`; the list of those
    gradients). The inputs are results of an operation before, as between layers, that drops their gradients."""
    found = {}
    leaf = nncore.zeros(1).requires_grad_()

    def keep(i):
        def backward(g):
            found[i] = g
            return (None,)

        return backward

    inputs = [_tape.record(t, "input", (leaf,), keep(i)) if i in wanted else t for i, t in enumerate(tensors)]
    y = op(*inputs)
    return lambda: y.backward(dy, retain_graph=True), found


def torch_backward_of(op, tensors, wanted, dy):
    torch = harness.torch()
    leaves = [tensors[i].requires_grad_() for i in wanted]
    y = op(*tensors)
    return lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True)


def without_grad(function):
    """function under torch.no_grad."""
    torch = harness.torch()

    def run():
        with torch.no_grad():
            return function()

    return run


# ---- products ----


def gemm_case(kind, form, m, n, k, classes):
    def build(rng):
        normal = lambda *shape: rng.standard_normal(shape, dtype=np.float32)
        packed = form == "packed"
        a = normal(k, m).T if form[0] == "T" else normal(m, k)
        b = normal(n, k).T if form[1] == "T" or packed else normal(k, n)
        ta, tb = nncore.from_numpy(a), nncore.from_numpy(b)
        if packed:
            weight = nncore.nn.Parameter(b.T)
            ours = lambda: dense.linear(ta, weight)
            ours(), ours()  # the pack is kept from the second use on
        else:
            ours = lambda: dense.matmul(ta, tb)
        check = verify.product(a, b, rng)
        peers = {"numpy": lambda: a @ b}
        if torch := harness.torch():
            pa, pb = torch.from_numpy(a), torch.from_numpy(b)
            peers["torch"] = without_grad(
                (lambda: torch.nn.functional.linear(pa, pb.T)) if packed else (lambda: pa @ pb)
            )
        job = ("gemm", (a, b), {"packed": packed}, check)
        moved = 4.0 * (m * k + k * n + m * n)
        return Work(ours, check, flops=2.0 * m * n * k, bytes=moved, peers=peers, job=job)

    return Case(kind, f"{form} {m}x{n}x{k}", "", classes, build)


def gemm_cases():
    for form, m, n, k in shapes.SQUARES:
        name = f"GEMM {m} cubed" if m <= 128 else "GEMM >= 512 cubed"
        yield gemm_case("gemm", form, m, n, k, () if m == 256 else (name,))
    for form, m, n, k in shapes.SKINNY:
        name = "skinny, M 1-4" if m <= 4 else "skinny, M 6-15" if m < 16 else "skinny, M 16-128"
        yield gemm_case("gemm", form, m, n, k, (name,))


def deepbench_cases():
    for form, m, n, k in shapes.DEEPBENCH_GEMM:
        yield gemm_case("deepbench", form, m, n, k, ("GEMM, DeepBench",))


# ---- convolutions ----


def conv_classes(l, direction, algorithm):
    if l.groups > 1:
        return ("depthwise",)
    if l.c <= 3:
        way = "forward" if direction == "forward" else "backward"
        if l.net == "LeNet-5":
            return (f"first layer of LeNet-5, {way}",)
        return (f"first layers, K >= 32, {way}",) if l.k >= 32 and direction != "backward-data" else ()
    if l.stride > 1:
        return ("conv stride 2",)
    if l.r == l.s == 3 and l.c >= 64 and l.k >= 64:
        return ("conv 3x3, Winograd",) if algorithm == "default" else (f"conv 3x3 {direction}",)
    if l.r == l.s == 1 and l.c >= 64:
        return ("conv 1x1, C >= 256" if l.c >= 256 else "conv 1x1, C 64-255",)
    return ()


@cache
def conv_data(l):
    """x, w, dy: the same for the three directions of a layer, which follow each other."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.standard_normal(shape, dtype=np.float32)
    p, q = l.out
    return normal(l.n, l.c, l.h, l.w), normal(l.k, l.c // l.groups, l.r, l.s), normal(l.n, l.k, p, q)


def conv_case(kind, l, direction, algorithm=""):
    def build(rng):
        x, w, dy = conv_data(l)
        options = {"stride": l.stride, "padding": l.padding, "groups": l.groups}
        F = nncore.nn.functional
        tx, tw, tdy = image(x), nncore.from_numpy(w), image(dy)
        conv = lambda x, w: F.conv2d(x, w, None, **options)
        wanted = {"forward": (), "backward-data": (0,), "backward-weights": (1,)}[direction]
        result = None
        if wanted:
            ours, found = backward_of(conv, [tx, tw], wanted, tdy)
            result = lambda: found[wanted[0]]
        else:
            ours = lambda: conv(tx, tw)
        peers = {}
        if torch := harness.torch():
            theirs = lambda x, w: torch.nn.functional.conv2d(x, w, None, **options)
            formats = {"torch": torch.contiguous_format, "torch channels_last": torch.channels_last}
            for name, memory in formats.items():
                px, pw, pdy = (torch.from_numpy(a).to(memory_format=memory, copy=True) for a in (x, w, dy))
                if wanted:
                    peers[name] = torch_backward_of(theirs, [px, pw], wanted, pdy)
                else:
                    peers[name] = without_grad(lambda px=px, pw=pw: theirs(px, pw))
        check = verify.convolution(l, x, w, dy, direction, rng, 2 if algorithm == "default" else 0)
        job = None if wanted else ("conv", (x, w), options, verify.convolution(l, x, w, dy, direction, rng))
        moved = float(x.nbytes + w.nbytes + dy.nbytes)
        return Work(ours, check, flops=float(l.flops), bytes=moved, result=result, peers=peers, job=job)

    classes = conv_classes(l, direction, algorithm)
    return Case(kind, str(l), direction, classes, build, l, algorithm)


def conv_cases(kind, layers):
    """Each layer and direction by the direct algorithm, and by the default one where that is another."""
    for l in layers:
        choice = hasattr(nncore, "set_conv_algorithm") and l.r == l.s == 3 and l.stride == 1 and l.groups == 1
        for direction in ("forward", "backward-data", "backward-weights"):
            for algorithm in ("direct", "default") if choice else ("",):
                yield conv_case(kind, l, direction, algorithm)
        conv_data.cache_clear()


# ---- pooling, normalization, elementwise: an operation with torch's name, forward and backward ----


def module_case(kind, name, direction, classes, make, shape, least, check, normal=True):
    """An operation, make(library), on an input of `shape`, which must move `least` bytes; check(x, dy, result) raises.
    Images are channels-last here and in both formats there. x is normal, or else uniform between 0.1 and 1.1."""

    def build(rng):
        x = rng.standard_normal(shape, dtype=np.float32) if normal else positive(rng, shape)
        tensor = image if len(shape) == 4 else nncore.from_numpy
        op, tx = make(nncore), tensor(x)
        with nncore.no_grad():
            dy = rng.standard_normal(op(tx).shape, dtype=np.float32)
        result = None
        if direction == "backward":
            ours, found = backward_of(op, [tx], (0,), tensor(dy))
            result = lambda: found[0]
        else:
            ours = lambda: op(tx)
        peers = {}
        if torch := harness.torch():
            theirs = make(torch)
            formats = {"torch": torch.contiguous_format}
            if len(shape) == 4:
                formats["torch channels_last"] = torch.channels_last
            for label, memory in formats.items():
                px, pdy = (torch.from_numpy(a).to(memory_format=memory, copy=True) for a in (x, dy))
                if direction == "backward":
                    peers[label] = torch_backward_of(theirs, [px], (0,), pdy)
                else:
                    peers[label] = without_grad(lambda px=px: theirs(px))
        return Work(ours, lambda y: check(x, dy, y), bytes=float(least), result=result, peers=peers)

    return Case(kind, name, direction, classes, build)


def pool_cases():
    for module, arguments, shape in shapes.POOLS:
        maximum = "Max" in module
        outputs = shape[0] * shape[1] * prod(len(a) for a in verify.pool_windows(shape, arguments))
        make = lambda lib, module=module, arguments=arguments: getattr(lib.nn, module)(**arguments)
        name = f"{module} {' '.join(f'{k[0]}{v}' for k, v in arguments.items())} {times(shape)}"
        for direction in ("forward", "backward"):
            index = outputs if maximum and direction == "backward" else 0  # a byte says where the maximum stood
            least = 4 * (prod(shape) + outputs) + index
            check = verify.pooling(maximum, arguments, direction)
            yield module_case("pool", name, direction, ("pooling",), make, shape, least, check)


def upsample_cases():
    for arguments, shape in shapes.UPSAMPLES:
        size = [m for m, _ in verify.upsample_axes(shape, arguments)]
        make = lambda lib, arguments=arguments: lib.nn.Upsample(**arguments)
        name = f"Upsample {' '.join(map(str, arguments.values()))} {times(shape)}"
        for direction in ("forward", "backward"):
            least = 4 * shape[0] * shape[1] * (prod(shape[2:]) + prod(size))
            check = verify.interpolation(arguments, direction)
            yield module_case("upsample", name, direction, ("interpolation",), make, shape, least, check)


def norm_cases():
    for module, arguments, shape, forward, backward in shapes.NORMS:
        if not hasattr(nncore.nn, module):
            continue
        make = lambda lib, module=module, arguments=arguments: getattr(lib.nn, module)(*arguments)
        for direction, each in (("forward", forward), ("backward", backward)):
            check = verify.normalization(module, arguments, direction)
            name = f"{module} {times(shape)}"
            yield module_case("norm", name, direction, ("normalization",), make, shape, each * prod(shape), check)


# ---- recurrent layers ----

GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}


def recurrent_classes(kind, hidden, batch, direction):
    if kind == "RNN":
        return ()
    if batch == 1:
        size = "H >= 256" if hidden >= 256 else "H < 256"
        return (f"LSTM/GRU, batch 1, {size}",) if direction == "forward" else ()
    if batch >= 16:
        return (f"LSTM/GRU, {'B >= 16, H >= 512' if hidden >= 512 else 'B 16, H 128-256'}, {direction}",)
    return ()


def recurrent_forward(lib, net, x):
    x = lib.tensor(x)

    def run():
        with lib.no_grad():
            return net(x)[0]

    return run


def recurrent_both(lib, net, x, dy):
    """(forward and backward with all gradients; a function that gives these)."""
    x, dy = lib.tensor(x).requires_grad_(), lib.tensor(dy)
    leaves = (x, *net.parameters())

    def run():
        for t in leaves:
            t.grad = None
        y = net(x)[0]
        y.backward(dy)
        return y

    return run, lambda: [t.grad.numpy() for t in leaves]


def recurrent_case(kind, inputs, hidden, batch, steps, direction):
    """FLOPs are those of the products with W_ih and W_hh, three times for forward and backward. At batch 1 W_hh is read
    at every step but the first, which starts from zeros, after the product of all inputs."""
    both = direction != "forward"

    def build(rng):
        x = rng.standard_normal((steps, batch, inputs), dtype=np.float32)
        dy = rng.standard_normal((steps, batch, hidden), dtype=np.float32)
        nncore.manual_seed(0)
        net = getattr(nncore.nn, kind)(inputs, hidden)
        peers, result, job = {}, None, None
        if both:
            ours, gradients = recurrent_both(nncore, net, x, dy)
            exact = getattr(nncore.nn, kind)(inputs, hidden, dtype="float64")
            exact.load_state_dict(net.state_dict())
            run, wide = recurrent_both(nncore, exact, x.astype(np.float64), dy.astype(np.float64))
            run()
            check = verify.recurrent_gradients(["x", *dict(net.named_parameters())], wide(), gradients)
        else:
            ours, check = recurrent_forward(nncore, net, x), verify.recurrent(kind, net, x)
            arrays = (x, *(p.numpy() for p in net.parameters()))
            job = ("recurrent", arrays, {"kind": kind}, check)
        if torch := harness.torch():
            theirs = getattr(torch.nn, kind)(inputs, hidden)
            theirs.load_state_dict({n: torch.from_numpy(v) for n, v in net.state_dict().items()})
            peers["torch"] = recurrent_both(torch, theirs, x, dy)[0] if both else recurrent_forward(torch, theirs, x)
        w_ih, w_hh = (GATES[kind] * hidden * n for n in (inputs, hidden))
        flops = 2.0 * batch * (w_hh * (steps - 1) + w_ih * steps) * (3 if both else 1)
        moved = 4.0 * w_hh * (steps - 1) if batch == 1 and not both else 0.0
        before = 2.0 * w_ih * steps if moved else 0.0
        return Work(ours, check, flops, moved, resident=4.0 * w_hh, before=before, result=result, peers=peers, job=job)

    name = f"{kind} {inputs}-{hidden} B{batch} T{steps}"
    return Case("recurrent", name, direction, recurrent_classes(kind, hidden, batch, direction), build)


def recurrent_cases():
    for direction in ("forward", "forward+backward"):
        for shape in shapes.RECURRENT:
            yield recurrent_case(*shape, direction)


# ---- elementwise, rows, reductions ----

LARGE = 1 << 24  # elements: beyond the caches
ROWS = (8192, 1000)
SMALL = 2048  # elements: two arrays in L1


def positive(rng, shape):
    return rng.random(shape, dtype=np.float32) + np.float32(0.1)


def unary(name):
    """The function of this name of a library, torch.exp or torch.nn.functional.gelu; None if nncore has it not."""
    find = lambda lib: getattr(lib, name, None) or getattr(lib.nn.functional, name, None)
    return find if find(nncore) else None


def math_cases():
    """Elementwise functions in L1: what counts is the arithmetic."""
    for name in ("exp", "tanh", "sigmoid", "log", "gelu"):
        if unary(name):
            classes = ("exp, tanh, sigmoid, log, gelu in L1",)
            check, normal = verify.unary(name, "forward"), name != "log"
            case = module_case("math", f"{name} {SMALL}", "forward", classes, unary(name), (SMALL,), 0, check, normal)
            yield with_numpy(case, getattr(np, name, None))


def with_numpy(case, function):
    """The case with NumPy's function as a further peer, if there is one."""
    build = case.build

    def both(rng):
        work, x = build(rng), positive(rng, (SMALL,))
        if function:
            work.peers["numpy"] = lambda: function(x)
        return work

    case.build = both
    return case


CLASSES = ("softmax, cross-entropy, elementwise",)


def elementwise_cases():
    for name in ("relu", "exp", "tanh", "sigmoid", "log", "gelu", "silu"):
        for direction, each in (("forward", 8), ("backward", 12)):
            if unary(name) and (direction == "forward" or name not in ("exp", "log")):
                check = verify.unary(name, direction)
                shape, least = (LARGE,), each * LARGE
                yield module_case(
                    "bandwidth", f"{name} 2^24", direction, CLASSES, unary(name), shape, least, check, name != "log"
                )
    dropout = lambda lib: lambda x: lib.nn.functional.dropout(x, 0.5)
    for direction in ("forward", "backward"):
        check = verify.dropout(direction)
        yield module_case("bandwidth", "dropout 2^24", direction, CLASSES, dropout, (LARGE,), 8 * LARGE, check)


def row_cases():
    for name in ("softmax", "log_softmax"):
        make = lambda lib, name=name: lambda x: getattr(lib.nn.functional, name)(x, dim=-1)
        for direction, each in (("forward", 8), ("backward", 12)):
            check = verify.softmax(name == "log_softmax", direction)
            text = f"{name} {times(ROWS)}"
            yield module_case("bandwidth", text, direction, CLASSES, make, ROWS, each * prod(ROWS), check)

    target = np.random.default_rng(2).integers(0, ROWS[1], ROWS[0])

    def make(lib):
        t = lib.tensor(target)
        return lambda x: lib.nn.functional.cross_entropy(x, t)

    for direction, each in (("forward", 4), ("backward", 8)):
        check = verify.cross_entropy(target, direction)
        text = f"cross_entropy {times(ROWS)}"
        yield module_case("bandwidth", text, direction, CLASSES, make, ROWS, each * prod(ROWS), check)


def embedding_cases():
    """Forward moves the rows that are asked for twice; backward fills the table's gradient and adds them."""
    table, tokens = (30000, 512), 8192
    index = np.random.default_rng(3).integers(0, table[0], tokens)

    def make(lib):
        i = lib.tensor(index)
        return lambda w: lib.nn.functional.embedding(i, w)

    for direction, numbers in (("forward", 2 * tokens * table[1]), ("backward", prod(table) + tokens * table[1])):
        check = verify.embedding(index, direction)
        name = f"embedding {tokens} of {times(table)}"
        yield module_case("bandwidth", name, direction, CLASSES, make, table, 4 * numbers, check)


def reduction_cases():
    shape = (16384, 1024)
    for text, dim in (("all", None), ("rows", 1), ("columns", 0)):
        make = lambda lib, dim=dim: lambda x: lib.sum(x, *([] if dim is None else [dim]))
        name = f"sum over {text} {times(shape)}"
        yield module_case("bandwidth", name, "forward", CLASSES, make, shape, 4 * prod(shape), verify.total(dim))


# name: (options, bytes per parameter: itself and its states read and written, its gradient read)
OPTIMIZERS = {
    "SGD": ({"lr": 1e-3}, 12),
    "SGD momentum": ({"lr": 1e-3, "momentum": 0.9}, 20),
    "Adam": ({}, 28),
    "AdamW": ({}, 28),
    "RMSprop": ({}, 20),
}


def optimizer_case(name, options, each):
    """A step on 8 matrices of 1024 x 1024."""
    kind = name.split()[0]

    def build(rng):
        values, grads = ([rng.standard_normal((1024, 1024), dtype=np.float32) for _ in range(8)] for _ in range(2))

        def stepper(lib, tensor, **more):
            params = [lib.nn.Parameter(tensor(v.copy())) for v in values]
            for p, g in zip(params, grads):
                p.grad = tensor(g)
            return params, getattr(lib.optim, kind)(params, **options, **more).step

        params, step = stepper(nncore, nncore.from_numpy)
        peers = {}
        if torch := harness.torch():
            _, peers["torch"] = stepper(torch, torch.from_numpy)
            if kind != "RMSprop":
                _, peers["torch fused"] = stepper(torch, torch.from_numpy, fused=True)
        check = verify.optimizer(kind, options, values[0], grads[0])
        moved = each * 8.0 * (1 << 20)
        return Work(step, check, bytes=moved, stream="update", result=lambda: params[0].detach(), peers=peers)

    in_class = "Adam, AdamW" if kind.startswith("Adam") else "other optimizers"
    return Case("bandwidth", f"{name} 8x1024x1024", "step", (in_class,), build)


def bandwidth_cases():
    yield from elementwise_cases()
    yield from row_cases()
    yield from embedding_cases()
    yield from reduction_cases()
    yield from (optimizer_case(name, *rest) for name, rest in OPTIMIZERS.items())


KINDS = {
    "gemm": gemm_cases,
    "deepbench": deepbench_cases,
    "conv": lambda: conv_cases("conv", shapes.CONVS),
    "depthwise": lambda: conv_cases("depthwise", shapes.MOBILENET),
    "pool": pool_cases,
    "upsample": upsample_cases,
    "norm": norm_cases,
    "recurrent": recurrent_cases,
    "bandwidth": bandwidth_cases,
    "math": math_cases,
}
