"""Random numbers: a seed and a count of the streams taken. Each random operation takes the next stream, and number i
of it is a function of (seed, stream, i) alone."""

import contextlib
import threading

import numpy as np

from nncore._core import record, rng
from nncore._core.tensor import new_empty
from nncore._ops._check import FLOAT64, float_code, integer, number, shape_arg


class Generator:
    """A source of random numbers (Philox4x32-7).

    Args:
        seed: integer from 0 to 2^64 - 1.

    >>> g = Generator(1)
    >>> a = uniform((2,), generator=g).tolist()
    >>> b = uniform((2,), generator=g.manual_seed(1)).tolist()
    >>> a == b
    True
    """

    def __init__(self, seed=0):
        self.manual_seed(seed)

    def manual_seed(self, seed):
        """Starts over with this seed; returns the generator."""
        if not 0 <= integer(seed, "seed") < 2**64:
            raise ValueError(f"seed: expected an integer from 0 to 2^64 - 1, got {seed}")
        if record.current() is not None:
            raise record.RecordError("seed: a replay goes on with the generator's next numbers; seed it outside")
        self._seed, self._stream = int(seed), 0
        return self

    def initial_seed(self):
        """The seed."""
        return self._seed

    def next_stream(self):
        """(seed, number of a stream that nobody else gets)."""
        seed, stream = self._take()
        return seed, record.taken(self, stream)

    def _take(self):
        self._stream = stream = self._stream + 1  # another thread may take the next one from here on
        return self._seed, stream

    def spawn(self):
        """A new generator, whose seed is drawn from this one.

        >>> g = Generator(1)
        >>> g.spawn().initial_seed() == Generator(1).spawn().initial_seed() != g.spawn().initial_seed()
        True
        """
        return Generator(int(uniform((1,), dtype=np.float64, generator=self).item() * 2**53))

    def get_state(self):
        """What `set_state` restores: (seed, streams taken)."""
        return self._seed, self._stream

    def set_state(self, state):
        """Goes back to a state of `get_state`'s."""
        if not isinstance(state, tuple | list) or len(state) != 2:
            raise TypeError(f"state: expected (seed, streams taken), got {state!r}")
        if not 0 <= integer(state[1], "state") < 2**63:
            raise ValueError(f"state: expected 0 to 2^63 - 1 streams taken, got {state[1]}")
        self.manual_seed(state[0])
        self._stream = int(state[1])


class _DefaultGenerator(Generator):
    """What is drawn from where no generator is named; a thread may have another one stand for it."""

    def __init__(self):
        super().__init__(0)
        self._threads = threading.local()

    def _take(self):  # a replay, too, takes from who stands for it then
        other = getattr(self._threads, "generator", None)
        return super()._take() if other is None else other._take()


default_generator = _DefaultGenerator()


def checked(generator):
    """A caller's generator; None: the default one."""
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(f"generator: expected a nncore.Generator, got {type(generator).__name__}")
    return default_generator if generator is None else generator


@contextlib.contextmanager
def drawing_from(generator):
    """Inside, this thread draws from `generator` instead of the default one; None changes nothing."""
    threads = default_generator._threads
    former = getattr(threads, "generator", None)
    threads.generator = former if generator is None else generator
    try:
        yield
    finally:
        threads.generator = former


def manual_seed(seed):
    """Seeds the default generator: initialization, dropout, shuffling and sampling repeat from here.

    >>> import nncore
    >>> g = nncore.manual_seed(7); a = nncore.rand(3).tolist()
    >>> g = nncore.manual_seed(7); a == nncore.rand(3).tolist()
    True
    """
    return default_generator.manual_seed(seed)


def get_rng_state():
    """State of the default generator."""
    return default_generator.get_state()


def set_rng_state(state):
    """Restores the default generator's state."""
    default_generator.set_state(state)


def fill(t, dist, a, b, generator=None):
    """Fills a contiguous floating tensor in place."""
    seed, stream = checked(generator).next_stream()
    rng.fill_random(t, dist, a, b, seed, stream)
    return t


def uniform(shape, low=0.0, high=1.0, dtype=np.float32, generator=None):
    """Numbers uniform on [low, high)."""
    t = new_empty(shape_arg((shape,)), float_code(dtype))
    return fill(t, rng.UNIFORM, number(low, "low"), number(high, "high"), generator)


def normal(shape, mean=0.0, std=1.0, dtype=np.float32, generator=None):
    """Numbers of the normal distribution."""
    t = new_empty(shape_arg((shape,)), float_code(dtype))
    return fill(t, rng.NORMAL, number(mean, "mean"), number(std, "std", 0), generator)


def rand(*shape, dtype=np.float32, generator=None, requires_grad=False):
    """Numbers uniform on [0, 1).

    >>> import nncore
    >>> nncore.rand(2, 3).shape
    (2, 3)
    """
    t = uniform(shape_arg(shape), dtype=dtype, generator=generator)
    return t.requires_grad_() if requires_grad else t


def randn(*shape, dtype=np.float32, generator=None, requires_grad=False):
    """Numbers of the standard normal distribution.

    >>> import nncore
    >>> nncore.randn(2, 3).shape
    (2, 3)
    """
    t = normal(shape_arg(shape), dtype=dtype, generator=generator)
    return t.requires_grad_() if requires_grad else t


def permutation(n, generator=None):
    """A random order of 0..n-1 as a NumPy int64 array: the order of n random keys."""
    keys = fill(new_empty((integer(n, "n", 0),), FLOAT64), rng.UNIFORM, 0.0, 1.0, generator)
    return np.argsort(keys.numpy(), kind="stable")


def randperm(n, generator=None):
    """A random order of 0..n-1 as an int64 tensor.

    >>> import nncore
    >>> sorted(nncore.randperm(4).tolist())
    [0, 1, 2, 3]
    """
    from nncore._core.tensor import from_array

    return from_array(permutation(n, generator))


__all__ = ["Generator", "get_rng_state", "manual_seed", "rand", "randn", "randperm", "set_rng_state"]
