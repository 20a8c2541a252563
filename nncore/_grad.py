"""Switching the recording of operations, for one thread."""

import functools

from nncore import _tape
from nncore._core.record import changed


class RemovableHandle:
    """What the `register_..._hook` methods return: `remove()` takes the hook away again, and so does leaving a `with`.

    >>> import nncore
    >>> w = nncore.tensor([1.0], requires_grad=True)
    >>> handle = w.register_hook(lambda grad: grad * 10)
    >>> handle.remove()
    >>> (w * 2).backward(); w.grad.tolist()
    [2.0]
    """

    def __init__(self, hooks, hook, prepend=False):
        if not callable(hook if not isinstance(hook, tuple) else hook[0]):
            raise TypeError(f"hook: expected a function, got {type(hook).__name__}")
        self._hooks = hooks
        others = list(hooks.items()) if prepend else []
        for key, _ in others:
            del hooks[key]
        hooks[self] = hook
        hooks.update(others)
        changed()

    def remove(self):
        """Takes the hook away; more than once does nothing."""
        self._hooks.pop(self, None)
        changed()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.remove()


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
