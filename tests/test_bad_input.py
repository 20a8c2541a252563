"""Wrong calls: a ValueError or TypeError (IndexError for indices) that names the argument, and nothing has changed."""

import numpy as np
import pytest

import nncore
from nncore import nn, optim
from nncore.nn import functional as F

x = nncore.tensor(np.arange(6.0, dtype=np.float32).reshape(2, 3))
x64 = nncore.ones(2, 3, dtype="float64")
ints = nncore.tensor([[1, 2, 3]])
NAN = float("nan")


def sd(**change):
    """A state_dict of Linear(3, 2), changed."""
    return {"weight": np.zeros((2, 3)), "bias": np.zeros(2), **change}


# (call, with `net` a Linear(3, 2) that has gradients and `opt` an Adam on it; what the message must contain)
CALLS = [
    # making tensors
    (lambda net, opt: nncore.tensor("text"), "data"),
    (lambda net, opt: nncore.tensor(None), "data"),
    (lambda net, opt: nncore.tensor([[1.0], [1.0, 2.0]]), "data"),
    (lambda net, opt: nncore.tensor([1j]), "data"),
    (lambda net, opt: nncore.tensor({"a": 1}), "data"),
    (lambda net, opt: nncore.tensor(np.array([2**63], np.uint64)), "data"),
    (lambda net, opt: nncore.tensor(np.zeros(1, np.longdouble)), "data"),
    (lambda net, opt: nncore.tensor(np.array(["2020-01-01"], "datetime64[D]")), "data"),
    (lambda net, opt: nncore.tensor([1.0], dtype="int8"), "dtype"),
    (lambda net, opt: nncore.tensor([1.0], dtype="no dtype"), "dtype"),
    (lambda net, opt: nncore.tensor([1], requires_grad=True), "requires_grad"),
    (lambda net, opt: nncore.from_numpy([1.0]), "array"),
    (lambda net, opt: nncore.from_numpy(np.zeros(2, np.int32)), "array"),
    (lambda net, opt: nncore.from_numpy(np.zeros(2, ">f4")), "array"),
    (lambda net, opt: nncore.zeros(-1), "size|shape"),
    (lambda net, opt: nncore.zeros(2.0), "size"),
    (lambda net, opt: nncore.zeros("2"), "size"),
    (lambda net, opt: nncore.zeros(True), "size"),
    (lambda net, opt: nncore.zeros(*[1] * 9), "shape"),
    (lambda net, opt: nncore.full((2,), "a"), "value"),
    (lambda net, opt: nncore.rand(-2), "shape"),
    (lambda net, opt: nncore.randn(2, dtype="int64"), "dtype"),
    (lambda net, opt: nncore.randperm(-1), "n"),
    (lambda net, opt: nncore.randperm(2.5), "n"),
    (lambda net, opt: nncore.manual_seed(-1), "seed"),
    (lambda net, opt: nncore.manual_seed(2**64), "seed"),
    (lambda net, opt: nncore.manual_seed(1.5), "seed"),
    (lambda net, opt: nncore.set_num_threads(0), "n"),
    (lambda net, opt: nncore.set_num_threads("2"), "n"),
    (lambda net, opt: nncore.set_grad_enabled(1), "mode"),
    # shapes
    (lambda net, opt: x.reshape(4, 2), "shape"),
    (lambda net, opt: x.reshape(-1, -1), "shape"),
    (lambda net, opt: x.reshape(-1, 4), "shape"),
    (lambda net, opt: x.reshape(2.0, 3), "shape"),
    (lambda net, opt: x.expand(2), "shape"),
    (lambda net, opt: x.expand(4, 3), "shape"),
    (lambda net, opt: x.permute(0, 0), "dims"),
    (lambda net, opt: x.permute(0), "dims"),
    (lambda net, opt: x.transpose(0, 2), "dim1"),
    (lambda net, opt: x.transpose("0", 1), "dim0"),
    (lambda net, opt: x.unsqueeze(4), "dim"),
    (lambda net, opt: x.squeeze(2), "dim"),
    (lambda net, opt: x.flatten(1, 0), "start_dim"),
    (lambda net, opt: x.flatten(3), "start_dim"),
    (lambda net, opt: x.size(2), "dim"),
    (lambda net, opt: nncore.zeros(1, 1, 1).t(), "t:"),
    (lambda net, opt: nncore.cat([]), "tensors"),
    (lambda net, opt: nncore.cat(x), "tensors"),
    (lambda net, opt: nncore.cat([x, x.T]), "tensors"),
    (lambda net, opt: nncore.cat([x, x64]), "tensors"),
    (lambda net, opt: nncore.cat([x, None]), "tensors"),
    (lambda net, opt: nncore.cat([nncore.tensor(1.0)]), "tensors"),
    (lambda net, opt: nncore.cat([x, x], 2), "dim"),
    (lambda net, opt: nncore.stack([x, x.T]), "tensors"),
    (lambda net, opt: nncore.stack([]), "tensors"),
    (lambda net, opt: x.split(0), "size"),
    (lambda net, opt: x.split([1, 3]), "size"),
    (lambda net, opt: x.split([-1, 3]), "size"),
    (lambda net, opt: x.split(1, 2), "dim"),
    (lambda net, opt: x.split(1.5), "size"),
    # indices
    (lambda net, opt: x[2], "index"),
    (lambda net, opt: x[0, 0, 0], "indices"),
    (lambda net, opt: x[[2]], "index"),
    (lambda net, opt: x[x], "index|indices"),
    (lambda net, opt: net.weight.__setitem__(5, 1.0), "index"),
    (lambda net, opt: net.weight.__setitem__([0, 5], 1.0), "index"),
    (lambda net, opt: net.weight.__setitem__(0, "a"), "value"),
    (lambda net, opt: net.weight.__setitem__(0, [1.0, 2.0]), "value"),
    (lambda net, opt: net.weight.__setitem__([0, 1], np.ones((3, 3))), "value"),
    (lambda net, opt: net.weight.copy_(np.ones((3, 2))), "value"),
    (lambda net, opt: net.weight.copy_("a"), "src"),
    (lambda net, opt: net.weight.fill_([1.0]), "value"),
    (lambda net, opt: net.weight.add_("a"), "other"),
    (lambda net, opt: net.weight.add_(np.ones((3, 3))), "broadcast"),
    (lambda net, opt: net.weight.add_(np.ones((5, 2, 3))), "value"),
    # arithmetic
    (lambda net, opt: x + x64, "dtype"),
    (lambda net, opt: x + ints, "dtype"),
    (lambda net, opt: x + np.ones((2, 2)), "broadcast"),
    (lambda net, opt: nncore.add(x, "a"), "other"),
    (lambda net, opt: nncore.add(None, x), "input"),
    (lambda net, opt: nncore.exp(ints), "input"),
    (lambda net, opt: nncore.exp("a"), "input"),
    (lambda net, opt: x.clamp(), "min"),
    (lambda net, opt: x.clamp("a"), "min"),
    (lambda net, opt: x.clamp(max=NAN), "max"),
    (lambda net, opt: nncore.where(x, x, x), "condition"),
    (lambda net, opt: nncore.where([True], x, x64), "dtype"),
    (lambda net, opt: x.maximum(x64), "dtype"),
    (lambda net, opt: x @ x, "other"),
    (lambda net, opt: x @ nncore.tensor(1.0), "other"),
    (lambda net, opt: x @ x64.T, "other"),
    (lambda net, opt: nncore.zeros(2, 2, 3) @ nncore.zeros(5, 3, 1), "other"),
    (lambda net, opt: nncore.matmul(x, "a"), "other"),
    # reductions
    (lambda net, opt: x.sum(2), "dim"),
    (lambda net, opt: x.sum((0, 0)), "dim"),
    (lambda net, opt: x.sum("0"), "dim"),
    (lambda net, opt: x.mean(1.0), "dim"),
    (lambda net, opt: ints.mean(), "input"),
    (lambda net, opt: x.max((0, 1)), "dim"),
    (lambda net, opt: nncore.zeros(0).max(), "input"),
    (lambda net, opt: nncore.zeros(0, 3).argmin(0), "input"),
    (lambda net, opt: x.var(correction="1"), "correction"),
    (lambda net, opt: x.softmax(2), "dim"),
    (lambda net, opt: nncore.tensor(1.0).softmax(0), "input"),
    (lambda net, opt: F.log_softmax(ints), "input"),
    # layers and losses
    (lambda net, opt: net(nncore.zeros(2, 4)), "input"),
    (lambda net, opt: net(nncore.tensor(1.0)), "input"),
    (lambda net, opt: net(x64), "input"),
    (lambda net, opt: net("a"), "input"),
    (lambda net, opt: net(None), "input"),
    (lambda net, opt: net(ints), "input"),
    (lambda net, opt: nn.Linear(-1, 2), "in_features"),
    (lambda net, opt: nn.Linear(2.0, 2), "in_features"),
    (lambda net, opt: nn.Linear(2, "2"), "out_features"),
    (lambda net, opt: nn.Linear(2, 2, dtype="int64"), "dtype"),
    (lambda net, opt: F.linear(x, nncore.zeros(3)), "weight"),
    (lambda net, opt: F.linear(x, nncore.zeros(2, 3), nncore.zeros(3)), "bias"),
    (lambda net, opt: F.linear(x, nncore.zeros(2, 3), x64[0]), "bias"),
    (lambda net, opt: nn.Dropout(1.1), "p"),
    (lambda net, opt: nn.Dropout(NAN), "p"),
    (lambda net, opt: F.dropout(x, -0.1), "p"),
    (lambda net, opt: F.dropout(ints), "input"),
    (lambda net, opt: nn.Softmax("a"), "dim"),
    (lambda net, opt: nn.Flatten(1.5), "start_dim"),
    (lambda net, opt: F.flatten(x, 5), "start_dim"),
    (lambda net, opt: nn.MSELoss(reduction="average"), "reduction"),
    (lambda net, opt: nn.CrossEntropyLoss(reduction=None), "reduction"),
    (lambda net, opt: F.mse_loss(x, x, reduction="max"), "reduction"),
    (lambda net, opt: F.mse_loss(x, x.T), "target"),
    (lambda net, opt: F.mse_loss(x, x64), "target"),
    (lambda net, opt: F.cross_entropy(x, [0, 3]), "target"),
    (lambda net, opt: F.cross_entropy(x, [0, -1]), "target"),
    (lambda net, opt: F.cross_entropy(x, [0]), "target"),
    (lambda net, opt: F.cross_entropy(x, [0.0, 1.0]), "target"),
    (lambda net, opt: F.cross_entropy(x, x64), "target"),
    (lambda net, opt: F.cross_entropy(ints, [0]), "input"),
    (lambda net, opt: F.cross_entropy(nncore.tensor(1.0), 0), "input"),
    (lambda net, opt: F.cross_entropy(nncore.zeros(2, 0), [0, 0]), "input"),
    (lambda net, opt: F.cross_entropy(x, [True, False]), "target"),
    (lambda net, opt: F.nll_loss(x, [0, 3]), "target"),
    (lambda net, opt: F.nll_loss(x, [[0, 1]]), "target"),
    (lambda net, opt: F.nll_loss(x, [0.0, 1.0]), "target"),
    # modules
    (lambda net, opt: nn.Parameter([1, 2]), "data"),
    (lambda net, opt: nn.Parameter("a"), "data"),
    (lambda net, opt: setattr(net, "weight", x), "weight"),
    (lambda net, opt: setattr(net, "bias", 3), "bias"),
    (lambda net, opt: nn.Sequential(3), "modules"),
    (lambda net, opt: nn.Sequential([nn.ReLU()]), "modules"),
    (lambda net, opt: nn.Sequential({"a.b": nn.ReLU()}), "name"),
    (lambda net, opt: nn.Sequential().append(None), "modules"),
    (lambda net, opt: nn.ModuleList([3]), "modules"),
    (lambda net, opt: nn.ModuleList(3), "modules"),
    (lambda net, opt: net.register_parameter("p", x), "param"),
    (lambda net, opt: net.register_buffer("b", "a"), "tensor"),
    (lambda net, opt: net.register_buffer("b.c", x), "name"),
    (lambda net, opt: net.add_module("m", 3), "module"),
    (lambda net, opt: net.train(1), "mode"),
    (lambda net, opt: net.to("int64"), "dtype"),
    (lambda net, opt: net.load_state_dict([1, 2]), "state_dict"),
    (lambda net, opt: net.load_state_dict({}), "weight"),
    (lambda net, opt: net.load_state_dict(sd(more=np.ones(1))), "more"),
    (lambda net, opt: net.load_state_dict(sd(bias=np.zeros(3))), "bias"),
    (lambda net, opt: net.load_state_dict(sd(bias="a")), "bias"),
    # init
    (lambda net, opt: nn.init.zeros_(np.zeros(2)), "tensor"),
    (lambda net, opt: nn.init.normal_(ints), "tensor"),
    (lambda net, opt: nn.init.normal_(net.weight, std=-1), "std"),
    (lambda net, opt: nn.init.uniform_(net.weight, a="0"), "a"),
    (lambda net, opt: nn.init.uniform_(net.weight, b=NAN), "b"),
    (lambda net, opt: nn.init.constant_(net.weight, None), "val"),
    (lambda net, opt: nn.init.xavier_uniform_(net.bias), "tensor"),
    (lambda net, opt: nn.init.xavier_normal_(net.weight, gain="a"), "gain"),
    (lambda net, opt: nn.init.kaiming_normal_(net.weight, mode="fan"), "mode"),
    (lambda net, opt: nn.init.kaiming_uniform_(net.weight, nonlinearity="gelu?"), "nonlinearity"),
    (lambda net, opt: nn.init.eye_(net.bias), "tensor"),
    (lambda net, opt: nn.init.orthogonal_(net.bias), "tensor"),
    (lambda net, opt: nn.init.orthogonal_(net.weight, gain="a"), "gain"),
    # autograd
    (lambda net, opt: net(x).backward(), "gradient"),
    (lambda net, opt: net(x).backward(np.ones((2, 3))), "gradient"),
    (lambda net, opt: net(x).backward("a"), "gradient"),
    (lambda net, opt: net(x).backward(x64[:, :2]), "gradient"),
    (lambda net, opt: setattr(net.weight, "grad", np.ones((2, 3))), "grad"),
    (lambda net, opt: setattr(net.weight, "grad", nncore.ones(3, 2)), "grad"),
    (lambda net, opt: setattr(net.weight, "grad", x64), "grad"),
    (lambda net, opt: ints.requires_grad_(), "requires_grad"),
    # optimizers
    (lambda net, opt: optim.SGD([]), "params"),
    (lambda net, opt: optim.SGD(net.weight), "params"),
    (lambda net, opt: optim.SGD(None), "params"),
    (lambda net, opt: optim.SGD([1.0]), "params"),
    (lambda net, opt: optim.SGD([ints]), "params"),
    (lambda net, opt: optim.SGD([net.weight, net.weight]), "params"),
    (lambda net, opt: optim.SGD([{"params": [net.weight]}, {"params": [net.weight]}]), "params"),
    (lambda net, opt: optim.SGD([net.weight * 2]), "params"),
    (lambda net, opt: optim.SGD([net.weight.detach().T]), "params"),
    (lambda net, opt: optim.SGD([{"lr": 0.1}]), "params"),
    (lambda net, opt: optim.SGD([{"params": [net.weight], "rate": 1}]), "rate"),
    (lambda net, opt: optim.SGD(net.parameters(), lr=-1), "lr"),
    (lambda net, opt: optim.SGD(net.parameters(), lr=NAN), "lr"),
    (lambda net, opt: optim.SGD(net.parameters(), lr="fast"), "lr"),
    (lambda net, opt: optim.SGD(net.parameters(), lr=None), "lr"),
    (lambda net, opt: optim.SGD(net.parameters(), momentum=-0.1), "momentum"),
    (lambda net, opt: optim.SGD(net.parameters(), dampening="a"), "dampening"),
    (lambda net, opt: optim.SGD(net.parameters(), weight_decay=-1), "weight_decay"),
    (lambda net, opt: optim.SGD(net.parameters(), nesterov=True), "nesterov"),
    (lambda net, opt: optim.SGD(net.parameters(), momentum=0.9, dampening=0.1, nesterov=True), "nesterov"),
    (lambda net, opt: optim.Adam(net.parameters(), betas=0.9), "betas"),
    (lambda net, opt: optim.Adam(net.parameters(), betas=(0.9,)), "betas"),
    (lambda net, opt: optim.Adam(net.parameters(), betas=(0.9, 1.0)), "betas"),
    (lambda net, opt: optim.Adam(net.parameters(), betas=(-0.1, 0.9)), "betas"),
    (lambda net, opt: optim.Adam(net.parameters(), eps=-1e-8), "eps"),
    (lambda net, opt: optim.AdamW(net.parameters(), weight_decay=NAN), "weight_decay"),
    (lambda net, opt: opt.add_param_group([net.weight]), "param_group"),
    (lambda net, opt: opt.add_param_group({"params": [net.weight]}), "params"),
    (lambda net, opt: opt.add_param_group({"params": [nn.Parameter([1.0])], "lr": -1}), "lr"),
    (lambda net, opt: opt.load_state_dict({}), "state_dict"),
    (lambda net, opt: opt.load_state_dict(None), "state_dict"),
    (lambda net, opt: opt.load_state_dict({"state": {}, "param_groups": []}), "state_dict"),
    (
        lambda net, opt: opt.load_state_dict({"state": {7: {"step": 1}}, "param_groups": [{"params": [0, 1]}]}),
        "state_dict",
    ),
    (lambda net, opt: opt.load_state_dict({"state": {0: {"step": "a"}}, "param_groups": [{"params": [0, 1]}]}), "step"),
    (lambda net, opt: opt.step(3), "closure"),
]


@pytest.mark.parametrize("call, match", CALLS, ids=[f"{i} {match}" for i, (_, match) in enumerate(CALLS)])
def test_wrong_call(call, match):
    nncore.manual_seed(0)
    net = nn.Linear(3, 2)
    opt = optim.Adam(net.parameters())
    net(x).sum().backward()
    opt.step()
    parts = lambda: {
        **net.state_dict(),
        **{n + " grad": p.grad.numpy().copy() for n, p in net.named_parameters()},
        "inputs": np.concatenate([t.numpy().ravel() for t in (x, x64, ints)]),
        "optimizer": np.array(repr(opt.state_dict())),
        "module": np.array(repr([n for n, _ in net.named_modules()] + list(vars(net)))),
    }
    before = parts()
    with pytest.raises((ValueError, TypeError, IndexError), match=match) as e:
        call(net, opt)
    assert type(e.value) is not IndexError or match in (
        "index",
        "indices",
        "index|indices",
        "dim",
        "dim0",
        "dim1",
        "start_dim",
        "dims",
    )
    after = parts()
    assert before.keys() == after.keys()
    for name in before:
        assert np.array_equal(before[name], after[name], equal_nan=before[name].dtype.kind == "f"), f"{name} changed"
    assert nncore.is_grad_enabled()


def test_the_table_is_long():
    assert len(CALLS) >= 200
