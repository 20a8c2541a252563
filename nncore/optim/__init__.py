"""Optimizers and schedules of learning rates, with torch.optim's names and defaults."""

from nncore.optim import lr_scheduler
from nncore.optim.adagrad import Adadelta, Adagrad, RMSprop
from nncore.optim.adam import Adam, Adamax, AdamW, Lion, NAdam, RAdam
from nncore.optim.adasecant import AdaSecant
from nncore.optim.lbfgs import LBFGS
from nncore.optim.optimizer import Optimizer
from nncore.optim.rprop import Rprop
from nncore.optim.sgd import ASGD, SGD

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "AdaSecant",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "lr_scheduler",
]
