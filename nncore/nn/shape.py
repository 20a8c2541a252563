"""Layers that move elements."""

from nncore._ops import shape
from nncore._ops._check import integer
from nncore.nn import functional as F
from nncore.nn.module import Module


class Unflatten(Module):
    """An axis as several.

    Args:
        dim: the axis.
        unflattened_size: the sizes; one may be -1.

    >>> import nncore
    >>> Unflatten(1, (3, 4))(nncore.zeros(2, 12)).shape
    (2, 3, 4)
    """

    def __init__(self, dim, unflattened_size):
        super().__init__()
        self.dim = integer(dim, "dim")
        if not isinstance(unflattened_size, tuple | list):
            raise TypeError(f"unflattened_size: expected a tuple of sizes, got {type(unflattened_size).__name__}")
        self.unflattened_size = tuple(integer(n, "unflattened_size", -1) for n in unflattened_size)

    def forward(self, input):
        return shape.unflatten(input, self.dim, self.unflattened_size)

    def extra_repr(self):
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class PixelShuffle(Module):
    """[*, C r^2, H, W] -> [*, C, H r, W r]: groups of r^2 channels become r x r pixels. Shi et al., CVPR 2016.

    Args:
        upscale_factor: r.

    >>> import nncore
    >>> PixelShuffle(2)(nncore.zeros(1, 12, 3, 5)).shape
    (1, 3, 6, 10)
    """

    def __init__(self, upscale_factor):
        super().__init__()
        self.upscale_factor = integer(upscale_factor, "upscale_factor", 1)

    def forward(self, input):
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self):
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """[*, C, H r, W r] -> [*, C r^2, H, W]: PixelShuffle's inverse.

    Args:
        downscale_factor: r.

    >>> import nncore
    >>> PixelUnshuffle(2)(nncore.zeros(1, 3, 6, 10)).shape
    (1, 12, 3, 5)
    """

    def __init__(self, downscale_factor):
        super().__init__()
        self.downscale_factor = integer(downscale_factor, "downscale_factor", 1)

    def forward(self, input):
        return F.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self):
        return f"downscale_factor={self.downscale_factor}"
