"""Restricted Boltzmann machines, and deep networks pretrained by them, layer by layer."""

from nncore import optim
from nncore._core.tensor import TensorBase, new_empty, new_zeros
from nncore._grad import enable_grad, no_grad
from nncore._ops._check import as_tensor, float_code, integer, one_of
from nncore._ops.shape import writable
from nncore._random import checked, normal, permutation, uniform
from nncore.nn import functional as F
from nncore.nn import init
from nncore.nn.activation import Sigmoid
from nncore.nn.container import ModuleList, Sequential
from nncore.nn.linear import Linear
from nncore.nn.module import Module
from nncore.nn.parameter import Parameter


class RBM(Module):
    """A restricted Boltzmann machine: p(v, h) = e^-E(v, h) / Z over visible units v and hidden units h in {0, 1}, with

        E(v, h) = -a v - c h - h W v                for v in {0, 1} ("bernoulli"),
        E(v, h) = |v - a|^2 / 2 - c h - h W v       for real v ("gaussian": scale the data to variance 1).

    No unit is tied to its own layer, so each layer is independent given the other: p(h_j = 1 | v) = s(c + W v)_j with
    s the sigmoid, and v given h is Bernoulli with mean s(a + h W), or normal with mean a + h W and variance 1.
    Smolensky 1986; Hinton, "Training products of experts by minimizing contrastive divergence", Neural Computation 14,
    2002; "A practical guide to training restricted Boltzmann machines", 2010.

    Called on v it gives p(h = 1 | v), the features of the next layer. It learns with `fit`, or in a loop by any
    optimizer from the gradient of `contrastive_divergence`.

    Args:
        visible_features: number V of visible units.
        hidden_features: number H of hidden units.
        visible: 'bernoulli' (numbers from 0 to 1 are probabilities) or 'gaussian'.
        dtype: float32 (default) or float64.

    Shape:
        input [*, V] -> output [*, H].

    Attributes:
        weight: W, [H, V], initialized with mean 0 and standard deviation 0.01.
        visible_bias: a, [V], zero at first.
        hidden_bias: c, [H], zero at first.

    >>> import nncore
    >>> from nncore import nn
    >>> g = nncore.manual_seed(0)
    >>> x = nncore.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]] * 8)
    >>> rbm = nn.RBM(4, 2)
    >>> errors = rbm.fit(x, epochs=200, batch_size=None, lr=0.5)
    >>> errors[-1] < 0.05 < errors[0], rbm(x).shape
    (True, (16, 2))
    """

    def __init__(self, visible_features, hidden_features, visible="bernoulli", *, dtype="float32"):
        super().__init__()
        self.visible_features = integer(visible_features, "visible_features", 1)
        self.hidden_features = integer(hidden_features, "hidden_features", 1)
        self.visible = one_of(visible, "visible", ("bernoulli", "gaussian"))
        code = float_code(dtype)
        self.weight = Parameter(new_empty((self.hidden_features, self.visible_features), code))
        self.visible_bias = Parameter(new_empty((self.visible_features,), code))
        self.hidden_bias = Parameter(new_empty((self.hidden_features,), code))
        self.reset_parameters()

    def reset_parameters(self):
        """Draws the weight anew; the biases become zero."""
        init.normal_(self.weight, 0.0, 0.01)
        init.zeros_(self.visible_bias)
        init.zeros_(self.hidden_bias)

    def _units(self, x, name, size):
        x = as_tensor(x, name, self.weight._code)
        if x.ndim == 0 or x.shape[-1] != size:
            raise ValueError(f"{name}: expected shape [*, {size}], got {x.shape}")
        return x

    def _visible(self, input):
        return self._units(input, "input", self.visible_features)

    def _hidden(self, hidden):
        return self._units(hidden, "hidden", self.hidden_features)

    def forward(self, input):
        return F.sigmoid(F.linear(self._visible(input), self.weight, self.hidden_bias))

    def visible_mean(self, hidden):
        """The mean of v given h: s(a + h W), or a + h W for Gaussian units.

        Args:
            hidden: [*, H].

        Returns:
            Tensor [*, V].
        """
        mean = F.linear(self._hidden(hidden), self.weight.T, self.visible_bias)
        return F.sigmoid(mean) if self.visible == "bernoulli" else mean

    def sample_hidden(self, input, generator=None):
        """Hidden units drawn given v, outside the graph.

        Args:
            input: v, [*, V].
            generator: Generator, or None for the default.

        Returns:
            Tensor [*, H] of 0 and 1.
        """
        with no_grad():
            return _bernoulli(self(input), generator)

    def sample_visible(self, hidden, generator=None):
        """Visible units drawn given h, outside the graph.

        Args:
            hidden: h, [*, H].
            generator: Generator, or None for the default.

        Returns:
            Tensor [*, V].
        """
        with no_grad():
            mean = self.visible_mean(hidden)
            if self.visible == "bernoulli":
                return _bernoulli(mean, generator)
            return mean + normal(mean.shape, dtype=mean.dtype, generator=generator)

    def gibbs(self, input, steps=1, generator=None):
        """Visible units after steps of Gibbs sampling, h drawn given v and v given h, outside the graph.

        Args:
            input: v at the start, [*, V].
            steps: integer >= 1.
            generator: Generator, or None for the default.

        Returns:
            Tensor [*, V].
        """
        v = self._visible(input)
        for _ in range(integer(steps, "steps", 1)):
            v = self.sample_visible(self.sample_hidden(v, generator), generator)
        return v

    def reconstruct(self, input):
        """The mean of v given the mean of h given v: one step of Gibbs sampling with means in place of samples.

        Args:
            input: v, [*, V].

        Returns:
            Tensor [*, V].
        """
        return self.visible_mean(self(input))

    def energy(self, input, hidden):
        """E(v, h).

        Args:
            input: v, [*, V].
            hidden: h, [*, H], of the same leading sizes.

        Returns:
            Tensor [*].
        """
        v, h = self._visible(input), self._hidden(hidden)
        if v.shape[:-1] != h.shape[:-1]:
            raise ValueError(f"hidden: expected shape {(*v.shape[:-1], self.hidden_features)}, got {h.shape}")
        return self._alone(v) - (h * F.linear(v, self.weight, self.hidden_bias)).sum(-1)

    def _alone(self, v):
        """What E says about v alone."""
        if self.visible == "bernoulli":
            return -(v * self.visible_bias).sum(-1)
        return (v - self.visible_bias).square().sum(-1) * 0.5

    def free_energy(self, input):
        """F(v) = -log of the sum over h of e^-E(v, h), so that p(v) = e^-F(v) / Z:

            F(v) = -a v - sum_j log(1 + e^(c + W v)_j)              ("bernoulli"),
            F(v) = |v - a|^2 / 2 - sum_j log(1 + e^(c + W v)_j)     ("gaussian").

        Args:
            input: v, [*, V].

        Returns:
            Tensor [*].
        """
        v = self._visible(input)
        return self._alone(v) - F.softplus(F.linear(v, self.weight, self.hidden_bias)).sum(-1)

    def contrastive_divergence(self, input, k=1, chain=None, generator=None):
        """A quantity whose gradient is that of contrastive divergence: mean F(data) - mean F(model).

        The gradient of -log p(v) is that of F(v) less its mean under the model. CD-k (Hinton 2002) takes for the
        model's samples those of k steps of Gibbs sampling from the data; persistent CD (Tieleman, ICML 2008) those of
        chains that go on from one call to the next. As F sums over h, the last h enters with its probability, not as
        a sample. The value itself is no measure of progress: see `reconstruct`.

        Args:
            input: data, [N, V].
            k: steps of Gibbs sampling, >= 1.
            chain: None, or for persistent CD a Tensor [M, V] with the state of M chains, which the new state replaces.
            generator: Generator, or None for the default.

        Returns:
            Tensor of one element; call its `backward()`.

        Raises:
            ValueError, TypeError: an argument is not as described; nothing has been changed then.

        >>> import nncore
        >>> from nncore import nn, optim
        >>> g = nncore.manual_seed(0)
        >>> rbm = nn.RBM(6, 3); optimizer = optim.SGD(rbm.parameters(), lr=0.1)
        >>> x, chain = nncore.ones(20, 6), nncore.zeros(10, 6)
        >>> @nncore.compile
        ... def step(x):
        ...     optimizer.zero_grad()
        ...     rbm.contrastive_divergence(x, chain=chain).backward()
        ...     optimizer.step()
        >>> for _ in range(100): step(x)
        >>> rbm.reconstruct(x).min().item() > 0.9
        True
        """
        v = self._visible(input)
        if v.ndim != 2 or v.shape[0] == 0:
            raise ValueError(f"input: expected shape [N, {self.visible_features}], N >= 1, got {v.shape}")
        if chain is not None:
            if not isinstance(chain, TensorBase):
                raise TypeError(f"chain: expected a Tensor, got {type(chain).__name__}")
            if self._units(chain, "chain", self.visible_features).ndim != 2 or chain.shape[0] == 0:
                raise ValueError(f"chain: expected shape [M, {self.visible_features}], M >= 1, got {chain.shape}")
            writable(chain)
        k = integer(k, "k", 1)
        data = self.free_energy(v).mean()
        model = self.gibbs(v if chain is None else chain, k, generator)
        if chain is not None:
            chain.copy_(model)
        return data - self.free_energy(model).mean()

    def fit(
        self,
        input,
        epochs=10,
        batch_size=32,
        lr=0.1,
        momentum=0.0,
        weight_decay=0.0,
        k=1,
        persistent=False,
        generator=None,
    ):
        """Learns the data's distribution by contrastive divergence and gradient descent.

        Args:
            input: data, [N, V].
            epochs: passes over the data, each in a new order.
            batch_size: samples per step, or None for all of them.
            lr: learning rate; Gaussian units need a tenth or less of what Bernoulli units bear.
            momentum: of the optimizer, SGD.
            weight_decay: of the weight, not of the biases.
            k: steps of Gibbs sampling.
            persistent: persistent CD, with as many chains as a batch has samples, which start at the first ones.
            generator: Generator, or None for the default.

        Returns:
            The mean squared error of the reconstruction in each epoch, a list.
        """
        x = self._visible(input).detach()
        if x.ndim != 2 or x.shape[0] == 0:
            raise ValueError(f"input: expected shape [N, {self.visible_features}], N >= 1, got {x.shape}")
        n, k, epochs = x.shape[0], integer(k, "k", 1), integer(epochs, "epochs", 1)
        size = n if batch_size is None else min(integer(batch_size, "batch_size", 1), n)
        checked(generator)
        weights = {"params": [self.weight], "weight_decay": weight_decay}
        optimizer = optim.SGD([weights, {"params": [self.visible_bias, self.hidden_bias]}], lr=lr, momentum=momentum)
        chain = x[:size].clone() if persistent else None
        errors = []
        for _ in range(epochs):
            order, total = permutation(n, generator), 0.0
            for at in range(0, n, size):
                v = x[order[at : at + size]]
                optimizer.zero_grad()
                with enable_grad():
                    self.contrastive_divergence(v, k, chain, generator).backward()
                optimizer.step()
                with no_grad():
                    total += F.mse_loss(self.reconstruct(v), v).item() * v.shape[0]
            errors.append(total / n)
        optimizer.zero_grad()
        return errors

    def extra_repr(self):
        sizes = f"visible_features={self.visible_features}, hidden_features={self.hidden_features}"
        return f"{sizes}, visible={self.visible!r}"


def _bernoulli(p, generator):
    """1 with probability p, else 0; NaN is 0."""
    return (uniform(p.shape, dtype=p.dtype, generator=generator) < p).to(p.dtype)


class DBN(Module):
    """Restricted Boltzmann machines on top of each other: the features of each are the data of the next. Trained one
    after the other, they initialize a deep network, which back-propagation then tunes. Hinton, Osindero, Teh, "A fast
    learning algorithm for deep belief nets", Neural Computation 18, 2006; Hinton, Salakhutdinov, "Reducing the
    dimensionality of data with neural networks", Science 313, 2006.

    Called on data it gives the features of the last layer: the probabilities of the hidden units, layer after layer.

    Args:
        sizes: units of each layer, the visible one first: at least two integers.
        visible: units of the visible layer, 'bernoulli' or 'gaussian'; all others are Bernoulli.
        dtype: float32 (default) or float64.

    Shape:
        input [*, sizes[0]] -> output [*, sizes[-1]].

    Attributes:
        rbms: ModuleList of RBM.

    >>> import nncore
    >>> from nncore import nn
    >>> dbn = nn.DBN([8, 6, 4])
    >>> errors = dbn.fit(nncore.rand(50, 8), epochs=2)
    >>> dbn.mlp(3)
    Sequential(
      (0): Linear(in_features=8, out_features=6, bias=True)
      (1): Sigmoid()
      (2): Linear(in_features=6, out_features=4, bias=True)
      (3): Sigmoid()
      (4): Linear(in_features=4, out_features=3, bias=True)
    )
    """

    def __init__(self, sizes, visible="bernoulli", *, dtype="float32"):
        super().__init__()
        if not isinstance(sizes, tuple | list) or len(sizes) < 2:
            raise ValueError(f"sizes: expected at least two integers, got {sizes!r}")
        sizes = [integer(n, "sizes", 1) for n in sizes]
        kinds = [visible] + ["bernoulli"] * (len(sizes) - 2)
        self.rbms = ModuleList([RBM(*pair, kind, dtype=dtype) for *pair, kind in zip(sizes, sizes[1:], kinds)])

    def forward(self, input):
        for rbm in self.rbms:
            input = rbm(input)
        return input

    def fit(self, input, **options):
        """Trains each machine in turn on the features of those below it.

        Args:
            input: data, [N, V].
            **options: those of `RBM.fit`; a list gives one for each machine.

        Returns:
            For each machine what its `fit` gave.
        """
        for name, value in options.items():
            if isinstance(value, tuple | list) and len(value) != len(self.rbms):
                raise ValueError(f"{name}: expected {len(self.rbms)} values, one for each machine, got {len(value)}")
        errors, x = [], input
        for i, rbm in enumerate(self.rbms):
            own = {k: v[i] if isinstance(v, tuple | list) else v for k, v in options.items()}
            errors.append(rbm.fit(x, **own))
            with no_grad():
                x = rbm(x)
        return errors

    def mlp(self, out_features=None):
        """A network of sigmoid layers with copies of the weights, to be tuned by back-propagation.

        Args:
            out_features: outputs of one more linear layer, drawn at random; None: the last features are the output.

        Returns:
            Sequential of Linear, Sigmoid, ..., which computes what the machines do, layer by layer.
        """
        layers = []
        for rbm in self.rbms:
            layers += [_linear(rbm.weight, rbm.hidden_bias), Sigmoid()]
        if out_features is not None:
            last = self.rbms[-1]
            layers.append(Linear(last.hidden_features, out_features, dtype=last.weight.dtype))
        return Sequential(*layers)

    def autoencoder(self):
        """The machines unrolled: up to the last features and down again, with copies of the weights, to be tuned by
        back-propagation (Hinton and Salakhutdinov 2006). The output is the mean of the visible units.

        Returns:
            Sequential of Linear, Sigmoid, ..., without a last Sigmoid if the visible units are Gaussian.
        """
        layers = [*self.mlp()]
        for rbm in reversed([*self.rbms]):
            layers.append(_linear(rbm.weight.T, rbm.visible_bias))
            if rbm.visible == "bernoulli":
                layers.append(Sigmoid())
        return Sequential(*layers)

    def sample(self, n, steps=100, generator=None):
        """Data drawn from the net: Gibbs sampling in the last machine, from visible units drawn given
        silent hidden ones, then one pass down.

        Args:
            n: number of samples.
            steps: of Gibbs sampling, >= 1.
            generator: Generator, or None for the default.

        Returns:
            Tensor [n, V]: the means of the visible units.
        """
        last = self.rbms[-1]
        with no_grad():
            silent = new_zeros((integer(n, "n", 1), last.hidden_features), last.weight._code)
            start = last.sample_visible(silent, generator)
            h = last.sample_hidden(last.gibbs(start, steps, generator), generator)
            for rbm in reversed([*self.rbms][1:]):
                h = rbm.sample_visible(h, generator)
            return self.rbms[0].visible_mean(h)


def _linear(weight, bias):
    """A Linear with copies of these."""
    layer = Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer
