"""Data: data sets, loaders, splits, files of the standard image collections, and augmentation (`nncore.data.augment`).

>>> from nncore import data
>>> x, y = data.load_digits()
>>> train, test = data.stratified_split(y)
>>> len(train), len(test)
(1438, 359)
>>> loader = data.DataLoader(data.TensorDataset(x[train], y[train]), batch_size=64, shuffle=True, drop_last=True)
>>> len(loader), [t.shape for t in next(iter(loader))]
(22, [(64, 64), (64,)])
"""

from nncore.data import augment
from nncore.data.dataset import Dataset, Subset, TensorDataset, random_split
from nncore.data.files import (
    CIFAR10_CLASSES,
    FASHION_MNIST_CLASSES,
    ImageFolder,
    load_cifar10,
    load_digits,
    load_fashion_mnist,
    load_mnist,
    read_idx,
)
from nncore.data.loader import DataLoader, batches
from nncore.data.splits import plain_split, stratified_split

__all__ = [
    "CIFAR10_CLASSES",
    "FASHION_MNIST_CLASSES",
    "DataLoader",
    "Dataset",
    "ImageFolder",
    "Subset",
    "TensorDataset",
    "augment",
    "batches",
    "load_cifar10",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "plain_split",
    "random_split",
    "read_idx",
    "stratified_split",
]
