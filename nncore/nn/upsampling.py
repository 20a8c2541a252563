"""Layers that change the size of images, sequences and volumes."""

from nncore._ops._check import one_of
from nncore._ops.resample import MODES, interpolate, size_arguments
from nncore.nn.module import Module


class Upsample(Module):
    """Images [N, C, H, W], sequences [N, C, L] or volumes [N, C, D, H, W] in another size: functional.interpolate,
    where the formulas of the modes are.

    Args:
        size: of the result: an integer, or one per spatial axis. Either this or scale_factor.
        scale_factor: the size as a multiple of the input's: a number > 0, or one per spatial axis.
        mode: 'nearest', 'nearest-exact', 'linear', 'bilinear', 'bicubic', 'trilinear' or 'area'.
        align_corners: for the linear and cubic modes: the ends stay the ends.
        recompute_scale_factor: with scale_factor: the scale follows from the resulting sizes.

    >>> import nncore
    >>> Upsample(scale_factor=2, mode="bilinear")(nncore.ones(1, 3, 4, 5)).shape
    (1, 3, 8, 10)
    """

    def __init__(self, size=None, scale_factor=None, mode="nearest", align_corners=None, recompute_scale_factor=None):
        super().__init__()
        size_arguments(None, size, scale_factor)
        one_of(mode, "mode", tuple(MODES))
        self.size, self.scale_factor = size, scale_factor
        self.mode, self.align_corners = mode, align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input):
        return interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self):
        size = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{size}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """Upsample with mode 'nearest'.

    Args:
        size: of the result: an integer or (height, width). Either this or scale_factor.
        scale_factor: a number > 0, or two.

    >>> import nncore
    >>> UpsamplingNearest2d(scale_factor=2)(nncore.tensor([[[[1.0, 2.0]]]])).tolist()
    [[[[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]]]
    """

    def __init__(self, size=None, scale_factor=None):
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """Upsample with mode 'bilinear' and aligned corners.

    Args:
        size: of the result: an integer or (height, width). Either this or scale_factor.
        scale_factor: a number > 0, or two.

    >>> import nncore
    >>> UpsamplingBilinear2d(size=(1, 3))(nncore.tensor([[[[1.0, 2.0]]]])).tolist()
    [[[[1.0, 1.5, 2.0]]]]
    """

    def __init__(self, size=None, scale_factor=None):
        super().__init__(size, scale_factor, "bilinear", align_corners=True)
