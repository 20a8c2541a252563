"""Weights computed from other parameters whenever they are read: weight and spectral normalization."""

from nncore._grad import no_grad
from nncore._ops._check import axis, integer, number
from nncore._random import randn
from nncore.nn.conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from nncore.nn.module import Module
from nncore.nn.parameter import Parameter

__all__ = ["remove_spectral_norm", "remove_weight_norm", "spectral_norm", "weight_norm"]


class _Computed:
    """A forward pre-hook by which the attribute `computes` of a module is a function of parameters."""

    kind = ""

    def __init__(self, name):
        self.computes = name

    def __call__(self, module, args):
        pass

    def part(self, module, suffix):
        return getattr(module, f"{self.computes}_{suffix}")


def _install(module, hook):
    """The parameter that the hook is to compute, no longer one of the module's."""
    if not isinstance(module, Module):
        raise TypeError(f"module: expected a Module, got {type(module).__name__}")
    if any(getattr(h, "computes", None) == hook.computes for h, *_ in module._forward_pre_hooks.values()):
        raise ValueError(f"name: {hook.computes!r} of {type(module).__name__} is normalized already")
    p = module._parameters.get(hook.computes) if isinstance(hook.computes, str) else None
    if p is None:
        raise ValueError(f"name: {type(module).__name__} has no parameter {hook.computes!r}")
    return p


def _remove(module, name, kind, suffixes):
    """The weight as it is now becomes a parameter again."""
    if not isinstance(module, Module):
        raise TypeError(f"module: expected a Module, got {type(module).__name__}")
    for handle, (hook, *_) in module._forward_pre_hooks.items():
        if isinstance(hook, kind) and hook.computes == name:
            handle.remove()
            with no_grad():
                weight = Parameter(hook.compute(module), hook.part(module, suffixes[0]).requires_grad)
            for suffix in suffixes:
                delattr(module, f"{name}_{suffix}")
            module.register_parameter(name, weight)
            return module
    raise ValueError(f"name: {name!r} of {type(module).__name__} has no {kind.kind}")


class _WeightNorm(_Computed):
    kind = "weight normalization"

    def __init__(self, name, dim):
        super().__init__(name)
        self.dim = dim

    def norm(self, v):
        others = None if self.dim is None else tuple(d for d in range(v.ndim) if d != self.dim)
        return v.abs() if others == () else v.square().sum(others, keepdim=self.dim is not None).sqrt()

    def compute(self, module):
        v = self.part(module, "v")
        return v * (self.part(module, "g") / self.norm(v))


def weight_norm(module, name="weight", dim=0):
    """Splits a weight into length and direction, W = g v / ||v||, computed whenever it is read. T. Salimans, D. Kingma,
    "Weight normalization: a simple reparameterization to accelerate training of deep neural networks",
    NeurIPS 2016.

    Call it before the optimizer is made: the parameters are name + '_g' and name + '_v' from then on.

    Args:
        module: the layer; it is changed.
        name: its parameter W.
        dim: each index along it has a length and a norm of its own (0: each output); None: one for all of W.

    Returns:
        The module.

    Raises:
        ValueError, TypeError: the module has no such parameter or axis, or the parameter is normalized already.

    >>> import nncore
    >>> from nncore import nn
    >>> layer = weight_norm(nn.Linear(3, 2))
    >>> [(n, p.shape) for n, p in layer.named_parameters()]
    [('bias', (2,)), ('weight_g', (2, 1)), ('weight_v', (2, 3))]
    >>> layer(nncore.ones(5, 3)).shape
    (5, 2)
    """
    hook = _WeightNorm(name, dim)
    p = _install(module, hook)
    hook.dim = None if dim is None else axis(dim, p.ndim)
    with no_grad():
        g = Parameter(hook.norm(p), p.requires_grad)
    delattr(module, name)
    module.register_parameter(f"{name}_g", g)
    module.register_parameter(f"{name}_v", Parameter(p.detach(), p.requires_grad))
    module.register_forward_pre_hook(hook)
    return module


def remove_weight_norm(module, name="weight"):
    """Undoes `weight_norm`: the weight as it is now is a parameter again.

    Args:
        module: the layer; it is changed.
        name: the parameter.

    Returns:
        The module.

    Raises:
        ValueError, TypeError: it is not normalized so.

    >>> from nncore import nn
    >>> list(remove_weight_norm(weight_norm(nn.Linear(3, 2))).state_dict())
    ['bias', 'weight']
    """
    return _remove(module, name, _WeightNorm, ("g", "v"))


class _SpectralNorm(_Computed):
    kind = "spectral normalization"

    def __init__(self, name, n_power_iterations, eps, dim):
        super().__init__(name)
        self.n_power_iterations, self.eps, self.dim = n_power_iterations, eps, dim

    def matrix(self, weight):
        if self.dim:
            weight = weight.permute(self.dim, *(d for d in range(weight.ndim) if d != self.dim))
        return weight.reshape(weight.shape[0], -1)

    def unit(self, x):
        return x / x.square().sum().sqrt().clamp(min=self.eps)

    def __call__(self, module, args):
        if module.training:
            w, u, v = (self.part(module, s) for s in ("orig", "u", "v"))
            with no_grad():
                w = self.matrix(w)
                for _ in range(self.n_power_iterations):
                    v.copy_(self.unit(u @ w))
                    u.copy_(self.unit(w @ v))

    def compute(self, module):
        weight = self.part(module, "orig")
        u, v = (self.part(module, s).clone() for s in ("u", "v"))  # backward may come after the next iterations
        return weight / (u * (self.matrix(weight) @ v)).sum()


def spectral_norm(module, name="weight", n_power_iterations=1, eps=1e-12, dim=None):
    """Divides a weight by its largest singular value, W / (u^T W v), whenever it is read: the layer is no steeper than
    1. T. Miyato, T. Kataoka, M. Koyama, Y. Yoshida, "Spectral normalization for generative adversarial networks",
    ICLR 2018.

    u and v are the singular vectors as found so far: in training mode each forward goes on by the power iteration
    v <- W^T u / ||W^T u||, u <- W v / ||W v||. The parameter is name + '_orig' from then on, with buffers name + '_u'
    and '_v'.

    Args:
        module: the layer; it is changed.
        name: its parameter W, taken as a matrix: one axis against all others.
        n_power_iterations: iterations before each forward, >= 1.
        eps: smallest norm that u and v are divided by.
        dim: that axis; by default the axis of outputs, which is 0, and 1 for transposed convolutions.

    Returns:
        The module.

    Raises:
        ValueError, TypeError: the module has no such parameter or axis, the parameter is normalized already, or a
            number makes no sense.

    >>> import nncore
    >>> from nncore import nn
    >>> layer = spectral_norm(nn.Linear(3, 2))
    >>> list(layer.state_dict())
    ['bias', 'weight_orig', 'weight_u', 'weight_v']
    >>> layer(nncore.ones(5, 3)).shape
    (5, 2)
    """
    n = integer(n_power_iterations, "n_power_iterations", 1)
    hook = _SpectralNorm(name, n, number(eps, "eps", 0, low_open=True), dim)
    p = _install(module, hook)
    transposed = isinstance(module, ConvTranspose1d | ConvTranspose2d | ConvTranspose3d)
    hook.dim = axis((1 if transposed else 0) if dim is None else dim, p.ndim)
    with no_grad():
        rows, columns = hook.matrix(p).shape
        u, v = (hook.unit(randn(n, dtype=p.dtype)) for n in (rows, columns))
    delattr(module, name)
    module.register_parameter(f"{name}_orig", p)
    module.register_buffer(f"{name}_u", u)
    module.register_buffer(f"{name}_v", v)
    module.register_forward_pre_hook(hook)
    return module


def remove_spectral_norm(module, name="weight"):
    """Undoes `spectral_norm`: the weight as it is now is a parameter again.

    Args:
        module: the layer; it is changed.
        name: the parameter.

    Returns:
        The module.

    Raises:
        ValueError, TypeError: it is not normalized so.

    >>> from nncore import nn
    >>> list(remove_spectral_norm(spectral_norm(nn.Linear(3, 2))).state_dict())
    ['bias', 'weight']
    """
    return _remove(module, name, _SpectralNorm, ("orig", "u", "v"))
