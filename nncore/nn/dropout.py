"""Dropout of whole channels, and for SELU networks; noise."""

from nncore._ops._check import number
from nncore.nn import functional as F
from nncore.nn.activation import Dropout
from nncore.nn.module import Module


class Dropout1d(Dropout):
    """In training, zeroes whole channels of [N, C, L] (or [C, L]) with probability p and scales the others by 1 / (1
    - p); nothing in evaluation. Tompson et al., CVPR 2015.

    Args:
        p: probability of a channel to be zeroed, 0 to 1.
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> import nncore
    >>> Dropout1d(0.5).eval()(nncore.ones(1, 2, 1)).tolist()
    [[[1.0], [1.0]]]
    """

    def forward(self, input):
        return F.dropout1d(input, self.p, self.training)


class Dropout2d(Dropout):
    """Dropout1d for images: whole channels of [N, C, H, W] (or, as torch has it, of [N, C, L]).

    Args: as Dropout1d's.

    >>> import nncore
    >>> Dropout2d(0.5).eval()(nncore.ones(1, 2, 1, 1)).shape
    (1, 2, 1, 1)
    """

    def forward(self, input):
        return F.dropout2d(input, self.p, self.training)


class Dropout3d(Dropout):
    """Dropout1d for volumes: whole channels of [N, C, D, H, W] (or [C, D, H, W]).

    Args: as Dropout1d's.

    >>> import nncore
    >>> Dropout3d(0.5).eval()(nncore.ones(2, 1, 1, 1)).shape
    (2, 1, 1, 1)
    """

    def forward(self, input):
        return F.dropout3d(input, self.p, self.training)


class AlphaDropout(Dropout):
    """Dropout that keeps mean 0 and variance 1, for SELU networks: dropped elements take SELU's limit at -inf, and an
    affine map puts the moments back. Klambauer et al., NIPS 2017. Nothing in evaluation.

    Args:
        p: probability of an element to be dropped, 0 to 1.
        inplace: accepted for torch's sake; the input is never overwritten.

    >>> import nncore
    >>> AlphaDropout(0.5).eval()(nncore.ones(2)).tolist()
    [1.0, 1.0]
    """

    def forward(self, input):
        return F.alpha_dropout(input, self.p, self.training)


class FeatureAlphaDropout(Dropout):
    """AlphaDropout of whole channels of [N, C, ...].

    Args: as AlphaDropout's.

    >>> import nncore
    >>> FeatureAlphaDropout(0.5).eval()(nncore.ones(1, 2)).tolist()
    [[1.0, 1.0]]
    """

    def forward(self, input):
        return F.feature_alpha_dropout(input, self.p, self.training)


class GaussianNoise(Module):
    """In training x + std n, n drawn from the standard normal distribution for each element; nothing in evaluation.
    Sietsma, Dow, "Creating artificial neural networks that generalize", 1991.

    Args:
        std: standard deviation, >= 0, in the input's units.

    >>> import nncore
    >>> GaussianNoise(0.5).eval()(nncore.ones(2)).tolist()
    [1.0, 1.0]
    """

    def __init__(self, std=0.1):
        super().__init__()
        self.std = number(std, "std", 0)

    def forward(self, input):
        return F.gaussian_noise(input, self.std, self.training)

    def extra_repr(self):
        return f"std={self.std}"
