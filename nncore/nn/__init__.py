"""Layers, losses and containers, with torch.nn's names, arguments, defaults and state_dict keys."""

from nncore.nn import functional, init
from nncore.nn.activation import Dropout, Flatten, Identity, LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
from nncore.nn.container import ModuleList, Sequential
from nncore.nn.linear import Linear
from nncore.nn.loss import CrossEntropyLoss, MSELoss, NLLLoss
from nncore.nn.module import Module
from nncore.nn.parameter import Parameter

__all__ = [
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Identity",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "Module",
    "ModuleList",
    "NLLLoss",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "functional",
    "init",
]
