"""Augmentation: random changes of a batch of images that leave its classes as they are.

Each transform is a function of a batch, images [N, C, H, W] of floats or (images, targets), that gives one back; each
image has its own random numbers, from `generator` or nncore's default one. Geometry is one pass of `affine`, bilinear.

>>> import nncore
>>> from nncore.data import DataLoader, TensorDataset, augment
>>> steps = augment.Compose([augment.RandomCrop(8, padding=1), augment.RandomHorizontalFlip(), augment.Cutout(3)])
>>> loader = DataLoader(TensorDataset(nncore.rand(10, 3, 8, 8), [0, 1] * 5), 5, shuffle=True, transform=steps)
>>> [(x.shape, y.shape) for x, y in loader]
[((5, 3, 8, 8), (5,)), ((5, 3, 8, 8), (5,))]
"""

import math

import numpy as np

from nncore._grad import no_grad
from nncore._ops._check import INT64, as_float, as_tensor, integer, number
from nncore._ops.affine import affine
from nncore._ops.embedding import one_hot
from nncore._random import checked, normal, uniform
from nncore._tensor import Tensor

__all__ = [
    "Compose",
    "Cutout",
    "GaussianNoise",
    "MixUp",
    "Normalize",
    "RandomAffine",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomRotation",
    "RandomShift",
    "RandomVerticalFlip",
    "ToFloat",
    "affine",
]


class Transform:
    """Base of the transforms: called with images, or with images and targets, which it passes on."""

    def __init__(self, generator=None):
        checked(generator)
        self.generator = generator

    def __call__(self, x, *targets):
        with no_grad():
            x = self.apply(_images(x))
        return (x, *targets) if targets else x

    def apply(self, x):
        """The images, changed."""
        raise NotImplementedError(f"{type(self).__name__} does not define apply")

    def _draw(self, n, k):
        """n rows of k numbers uniform on [0, 1)."""
        return uniform((n, k), dtype=np.float64, generator=self.generator).tolist()


def _images(x):
    x = x.detach() if isinstance(x, Tensor) else as_tensor(x, "x")
    if x.ndim != 4:
        raise ValueError(f"x: expected images [N, C, H, W], got shape {x.shape}")
    return x


def _probability(p):
    return number(p, "p", 0, 1)


def _pair(value, name, low=None):
    """(-value, value) for a number, or a pair of numbers that do not fall."""
    if not isinstance(value, tuple | list):
        value = number(value, name, 0)
        return -value, value
    if len(value) != 2:
        raise ValueError(f"{name}: expected a number or two, got {value}")
    first = number(value[0], name, low)
    return first, number(value[1], name, first)


def _fill(fill):
    if isinstance(fill, str) and fill == "edge":
        return fill
    if not math.isfinite(number(fill, "fill")):
        raise ValueError(f"fill: expected a finite number or 'edge', got {fill}")
    return float(fill)


class Compose:
    """Transforms, one after the other.

    Args:
        transforms: list of functions of a batch.

    >>> import nncore
    >>> Compose([ToFloat(), Normalize(0.5, 0.5)])(nncore.tensor([[[[0, 255]]]])).tolist()
    [[[[-1.0, 1.0]]]]
    """

    def __init__(self, transforms):
        if not isinstance(transforms, tuple | list) or not all(callable(t) for t in transforms):
            raise TypeError("transforms: expected a list of functions")
        self.transforms = list(transforms)

    def __call__(self, x, *targets):
        batch = (x, *targets)
        for t in self.transforms:
            batch = t(*batch)
            batch = batch if isinstance(batch, tuple) else (batch,)
        return batch if len(batch) > 1 else batch[0]


# ---- values ----


class ToFloat(Transform):
    """Pixels of 0 to 255 (int64, as batches of uint8 images come) as float32 of 0 to 1: x / 255.

    >>> import nncore
    >>> ToFloat()(nncore.tensor([[[[51]]]])).item() == nncore.tensor(51.0 / 255).item()
    True
    """

    def __init__(self):
        super().__init__()

    def apply(self, x):
        """x / 255."""
        return x.float() / 255


class Normalize(Transform):
    """(x - mean) / std, channel by channel.

    Args:
        mean, std: a number, or one for each channel; std > 0.

    >>> import nncore
    >>> Normalize([1.0, 2.0], [1.0, 4.0])(nncore.tensor([[[[3.0]], [[4.0]]]])).flatten().tolist()
    [2.0, 0.5]
    """

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = (
            [number(v, name) for v in (values if isinstance(values, tuple | list) else [values])]
            for name, values in (("mean", mean), ("std", std))
        )
        if min(self.std, default=0) <= 0:
            raise ValueError(f"std: expected numbers > 0, got {std}")

    def apply(self, x):
        """(x - mean) / std."""
        x = as_float(x, "x")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, x.shape[1]):
                raise ValueError(f"{name}: expected 1 number or {x.shape[1]}, got {len(getattr(self, name))}")
        mean, std = (as_tensor(np.asarray(v)[:, None, None], "x", x._code) for v in (self.mean, self.std))
        return (x - mean) / std


class GaussianNoise(Transform):
    """x + std n, n drawn from the standard normal distribution for each number.

    Args:
        std: >= 0, in the images' units.
        generator: `nncore.Generator`, or None for the default one.

    >>> import nncore
    >>> GaussianNoise(0.0)(nncore.ones(1, 1, 1, 2)).tolist()
    [[[[1.0, 1.0]]]]
    """

    def __init__(self, std=0.1, generator=None):
        super().__init__(generator)
        self.std = number(std, "std", 0)

    def apply(self, x):
        """x + noise."""
        x = as_float(x, "x")
        return x + normal(x.shape, 0.0, self.std, x.dtype, self.generator)


# ---- geometry ----


class RandomAffine(Transform):
    """Each image rotated, shifted and zoomed about its middle at random. torchvision's; Simard, Steinkraus, Platt,
    "Best practices for convolutional neural networks", ICDAR 2003.

    Args:
        degrees: angles are uniform on [-degrees, degrees], or on the interval of a pair; counterclockwise.
        translate: (a, b): shifts are uniform on [-a, a] widths and [-b, b] heights; None: none.
        scale: (low, high): zoom factors are uniform on this interval, low > 0; None: 1.
        fill: what comes in from outside: a number, or 'edge': the nearest pixel.
        generator: `nncore.Generator`, or None for the default one.

    >>> import nncore
    >>> turn = RandomAffine((90, 90))
    >>> [[round(v, 6) for v in row] for row in turn(nncore.arange(4.0).reshape(1, 1, 2, 2))[0, 0].tolist()]
    [[1.0, 3.0], [0.0, 2.0]]
    """

    def __init__(self, degrees, translate=None, scale=None, fill=0.0, generator=None):
        super().__init__(generator)
        self.degrees, self.fill = _pair(degrees, "degrees"), _fill(fill)
        if translate is not None and (not isinstance(translate, tuple | list) or len(translate) != 2):
            raise ValueError(f"translate: expected two numbers, got {translate}")
        self.translate = (0.0, 0.0) if translate is None else tuple(number(t, "translate", 0, 1) for t in translate)
        if scale is not None and not isinstance(scale, tuple | list):
            raise ValueError(f"scale: expected two numbers, got {scale}")
        self.scale = (1.0, 1.0) if scale is None else _pair(scale, "scale")
        if self.scale[0] <= 0:
            raise ValueError(f"scale: expected numbers > 0, got {scale}")

    def apply(self, x):
        """One pass."""
        (low, high), (least, most), (right, down) = self.degrees, self.scale, self.translate
        matrices = []
        for u in self._draw(x.shape[0], 4):
            angle = math.radians(low + u[0] * (high - low))
            zoom = 1 / (least + u[1] * (most - least))
            c, s = zoom * math.cos(angle), zoom * math.sin(angle)
            dx, dy = (2 * u[2] - 1) * right * x.shape[3], (2 * u[3] - 1) * down * x.shape[2]
            matrices.append([[c, s, -c * dy - s * dx], [-s, c, s * dy - c * dx]])
        return affine(x, np.array(matrices).reshape(-1, 2, 3), fill=self.fill)


class RandomRotation(RandomAffine):
    """Each image rotated about its middle by a random angle: `RandomAffine` with an angle alone.

    Args: degrees, fill, generator: as RandomAffine's.

    >>> import nncore
    >>> RandomRotation(15)(nncore.ones(2, 1, 5, 5)).shape
    (2, 1, 5, 5)
    """

    def __init__(self, degrees, fill=0.0, generator=None):
        super().__init__(degrees, fill=fill, generator=generator)


class RandomShift(Transform):
    """Each image shifted by whole pixels: rows and columns each by a number from -pixels to pixels, all equally likely.

    Args:
        pixels: integer >= 0.
        fill: what comes in from outside: a number, or 'edge': the nearest pixel.
        generator: `nncore.Generator`, or None for the default one.

    >>> import nncore
    >>> RandomShift(1, fill="edge")(nncore.ones(2, 1, 3, 3)).sum().item()
    18.0
    """

    def __init__(self, pixels, fill=0.0, generator=None):
        super().__init__(generator)
        self.pixels, self.fill = integer(pixels, "pixels", 0), _fill(fill)

    def apply(self, x):
        """One pass."""
        shifts = [[int(v * (2 * self.pixels + 1)) - self.pixels for v in u] for u in self._draw(x.shape[0], 2)]
        return affine(x, _moves(shifts), fill=self.fill)


class RandomCrop(Transform):
    """A part of each image, at a random place, after `padding` pixels have been added on each side. torchvision's; with
    padding=4 on 32 x 32 pixels: He, Zhang, Ren, Sun, CVPR 2016.

    Args:
        size: (height, width) of the part, or one number for both.
        padding: pixels added on each side.
        fill: what they are: a number, or 'edge': the nearest pixel.
        generator: `nncore.Generator`, or None for the default one.

    >>> import nncore
    >>> RandomCrop((2, 3))(nncore.ones(1, 1, 4, 4)).shape
    (1, 1, 2, 3)
    """

    def __init__(self, size, padding=0, fill=0.0, generator=None):
        super().__init__(generator)
        size = tuple(size) if isinstance(size, tuple | list) else (size, size)
        if len(size) != 2:
            raise ValueError(f"size: expected (height, width), got {size}")
        self.size = tuple(integer(s, "size", 1) for s in size)
        self.padding, self.fill = integer(padding, "padding", 0), _fill(fill)

    def apply(self, x):
        """One pass."""
        room = [n + 2 * self.padding - s for n, s in zip(x.shape[2:], self.size)]
        if min(room) < 0:
            raise ValueError(f"size: {self.size} is larger than images of shape {x.shape} with padding {self.padding}")
        middle = [(s - n) / 2 - self.padding for n, s in zip(x.shape[2:], self.size)]
        moves = [[m + int(v * (r + 1)) for m, r, v in zip(middle, room, u)] for u in self._draw(x.shape[0], 2)]
        return affine(x, _moves(moves), self.size, self.fill)


class RandomHorizontalFlip(Transform):
    """Each image mirrored, left to right, with a probability.

    Args:
        p: probability.
        generator: `nncore.Generator`, or None for the default one.

    >>> import nncore
    >>> RandomHorizontalFlip(1.0)(nncore.tensor([[[[1.0, 2.0, 3.0]]]])).tolist()
    [[[[3.0, 2.0, 1.0]]]]
    """

    _axis = 1

    def __init__(self, p=0.5, generator=None):
        super().__init__(generator)
        self.p = _probability(p)

    def apply(self, x):
        """One pass."""
        matrices = _moves([(0, 0)] * x.shape[0])
        for m, (u,) in zip(matrices, self._draw(x.shape[0], 1)):
            if u < self.p:
                m[self._axis, self._axis] = -1
        return affine(x, matrices)


class RandomVerticalFlip(RandomHorizontalFlip):
    """Each image turned upside down with a probability.

    Args: as RandomHorizontalFlip's.

    >>> import nncore
    >>> RandomVerticalFlip(1.0)(nncore.tensor([[[[1.0], [2.0]]]])).tolist()
    [[[[2.0], [1.0]]]]
    """

    _axis = 0


class Cutout(Transform):
    """A square of each image blank, its middle anywhere in the image, so that a part of it may lie outside. DeVries,
    Taylor, arXiv:1708.04552, 2017.

    Args:
        size: side of the square, in pixels.
        p: probability.
        fill: the number it is filled with.
        generator: `nncore.Generator`, or None for the default one.

    >>> import nncore
    >>> Cutout(99)(nncore.ones(1, 1, 3, 3)).sum().item()
    0.0
    """

    def __init__(self, size, p=1.0, fill=0.0, generator=None):
        super().__init__(generator)
        self.size, self.p, self.fill = integer(size, "size", 1), _probability(p), _fill(fill)
        if self.fill == "edge":
            raise ValueError("fill: expected a number, got 'edge'")

    def apply(self, x):
        """One pass."""
        holes = []
        for u in self._draw(x.shape[0], 3):
            side = self.size if u[2] < self.p else 0
            holes.append([int(v * n) - self.size // 2 + d for n, v in zip(x.shape[2:], u) for d in (0, side)])
        return affine(x, _moves([(0, 0)] * x.shape[0]), fill=self.fill, hole=np.array(holes, np.int64).reshape(-1, 4))


def _moves(shifts):
    """Matrices [N, 2, 3] without rotation: position + (rows, columns)."""
    return np.array([[[1.0, 0, r], [0, 1, c]] for r, c in shifts]).reshape(-1, 2, 3)


# ---- images and targets ----


class MixUp(Transform):
    """Convex combinations of samples and of their targets: x <- l x + (1 - l) x', y <- l y + (1 - l) y', where (x', y')
    is the batch in a random order, and l is drawn from Beta(alpha, alpha) for each batch. Zhang, Cisse, Dauphin,
    Lopez-Paz, ICLR 2018. `F.cross_entropy` takes such targets.

    Args:
        alpha: > 0: small values keep l near 0 and 1.
        num_classes: for int64 targets [N], which become one-hot; None: targets are floats, and stay as they are.
        generator: `nncore.Generator`, or None for the default one.

    >>> import nncore
    >>> x, y = MixUp(0.2, num_classes=3)(nncore.rand(4, 1, 2, 2), nncore.tensor([0, 1, 2, 0]))
    >>> y.shape, bool((abs(y.sum(1) - 1) < 1e-6).numpy().all())
    ((4, 3), True)
    """

    def __init__(self, alpha=1.0, num_classes=None, generator=None):
        super().__init__(generator)
        self.alpha = number(alpha, "alpha", 0, low_open=True)
        self.num_classes = None if num_classes is None else integer(num_classes, "num_classes", 1)

    def __call__(self, x, y):
        with no_grad():
            x = as_float(_images(x), "x")
            y = y.detach() if isinstance(y, Tensor) else as_tensor(y, "y")
            if y._code == INT64:
                if self.num_classes is None:
                    raise ValueError("num_classes: needed for targets of classes")
                y = one_hot(y, self.num_classes).to(x.dtype)
            y = as_float(y, "y")
            if y.ndim == 0 or y.shape[0] != x.shape[0]:
                raise ValueError(f"y: expected {x.shape[0]} targets, got shape {y.shape}")
            share = _beta(self.alpha, self.generator)
            order = np.argsort([u for (u,) in self._draw(x.shape[0], 1)], kind="stable")
            return x * share + x[order] * (1 - share), y * share + y[order] * (1 - share)


def _beta(a, generator):
    """A number from Beta(a, a): g / (g + h) for two of the gamma distribution, in logarithms, as these may be tiny."""
    g, h = _log_gamma_variate(a, generator), _log_gamma_variate(a, generator)
    return 1 / (1 + math.exp(min(h - g, 700.0)))


def _log_gamma_variate(a, generator):
    """The logarithm of a number of the gamma distribution: Marsaglia, Tsang, "A simple method for generating gamma
    variables", 2000; for a < 1 that of a + 1, times u^(1/a)."""
    d = (a if a >= 1 else a + 1) - 1 / 3
    while True:
        n = normal((1,), dtype=np.float64, generator=generator).item()
        u, w = uniform((2,), dtype=np.float64, generator=generator).tolist()
        v = (1 + n / math.sqrt(9 * d)) ** 3
        if v > 0 and math.log(1 - u) < n * n / 2 + d * (1 - v + math.log(v)):
            return math.log(d * v) + (0 if a >= 1 else math.log(1 - w) / a)
