"""Affine maps of images: one kernel for shifts, flips, crops, rotations, zoom and cutout."""

import numpy as np

from nncore._core import affine as kernels
from nncore._ops._check import FLOAT64, INT64, as_float, as_tensor, integer, number
from nncore._ops.arithmetic import mul
from nncore._ops.reduction import sum as sum_


def affine(input, matrix, size=None, fill=0.0, hole=None):
    """Images resampled at affine positions: pixel (r, c) of the result is the input at

        (a b t; d e u) (r, c, 1)^T,  one matrix (a b t; d e u) for each image,

    rows and columns being counted from the middle of the result and of the input, in pixels. Between pixels the value
    is
    bilinear: (1 - f)(1 - g) x00 + (1 - f) g x01 + f (1 - g) x10 + f g x11 for fractions f of the row and g of the
        column.
    Maps of whole pixels copy bits. No gradient flows through.

    Args:
        input: images [N, C, H, W] of floats.
        matrix: [N, 2, 3] finite numbers.
        size: (height, width) of the result, or None: the input's.
        fill: what lies outside of an image: a finite number, or 'edge': its nearest pixel.
        hole: [N, 4] integers (top, bottom, left, right), the rows and columns top <= r < bottom, left <= c < right of
            the result that are set to `fill` (0 for 'edge'), or None.

    Returns:
        Tensor [N, C, height, width], channels-last in memory if the input is.

    Raises:
        ValueError, TypeError: an argument is not as described, or input requires a gradient.

    >>> import nncore
    >>> x = nncore.arange(4.0).reshape(1, 1, 2, 2)
    >>> affine(x, [[[1, 0, 0], [0, -1, 0]]]).tolist()
    [[[[1.0, 0.0], [3.0, 2.0]]]]
    >>> affine(x, [[[1, 0, 0], [0, 1, 0.5]]]).tolist()
    [[[[0.5, 0.5], [2.5, 1.5]]]]
    """
    x = as_float(input)
    if x.ndim != 4 or 0 in x.shape[2:]:
        raise ValueError(f"input: expected images [N, C, H, W], got shape {x.shape}")
    if x.requires_grad:
        raise ValueError("input: no gradient flows through affine; pass x.detach()")
    m = as_tensor(matrix if not isinstance(matrix, tuple | list) else np.asarray(matrix, np.float64), "matrix", FLOAT64)
    if m.shape != (x.shape[0], 2, 3):
        raise ValueError(f"matrix: expected shape ({x.shape[0]}, 2, 3), one matrix for each image, got {m.shape}")
    if sum_(mul(m.detach(), 0)).item() != 0:
        raise ValueError("matrix: expected finite numbers")
    size = x.shape[2:] if size is None else tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(size) != 2:
        raise ValueError(f"size: expected (height, width), got {size}")
    size = tuple(integer(s, "size", 1) for s in size)
    edge = isinstance(fill, str) and fill == "edge"
    value = 0.0 if edge else number(fill, "fill")
    if value in (float("inf"), -float("inf")):
        raise ValueError(f"fill: expected a finite number or 'edge', got {fill}")
    if hole is not None:
        hole = as_tensor(hole, "hole")
        if hole._code != INT64:
            raise TypeError(f"hole: expected integers, got {hole.dtype}")
        if hole.shape != (x.shape[0], 4):
            raise ValueError(f"hole: expected shape ({x.shape[0]}, 4), got {hole.shape}")
    return kernels.affine(x, m, hole, size, edge, value)
