"""Switching the recording of operations, for one thread."""

import functools

from nncore import _tape


class set_grad_enabled:
    """Context manager and decorator that records operations, or not.

    Args:
        mode: True to record.

    >>> import nncore
    >>> w = nncore.tensor([1.0], requires_grad=True)
    >>> with set_grad_enabled(False):
    ...     (w * 2).requires_grad
    False
    """

    def __init__(self, mode):
        if not isinstance(mode, bool):
            raise TypeError(f"mode: expected a bool, got {type(mode).__name__}")
        self._mode = mode
        self._former = []

    def __enter__(self):
        self._former.append(_tape.set_enabled(self._mode))
        return self

    def __exit__(self, *exc):
        _tape.set_enabled(self._former.pop())
        return False

    def __call__(self, fn):
        @functools.wraps(fn)
        def wrapped(*args, **kwargs):
            with type(self)._again(self):
                return fn(*args, **kwargs)

        return wrapped

    def _again(self):
        return set_grad_enabled(self._mode)


class no_grad(set_grad_enabled):
    """Context manager and decorator under which nothing is recorded: inference costs no graph.

    >>> import nncore
    >>> w = nncore.tensor([1.0], requires_grad=True)
    >>> with no_grad():
    ...     y = w * 2
    >>> y.requires_grad
    False
    """

    def __init__(self):
        super().__init__(False)


class enable_grad(set_grad_enabled):
    """Context manager and decorator that records again inside `no_grad`."""

    def __init__(self):
        super().__init__(True)


is_grad_enabled = _tape.is_grad_enabled
