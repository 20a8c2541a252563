"""Tables of vectors, looked up by index."""

from nncore._core.tensor import new_empty
from nncore._ops._check import as_float, float_code, integer, one_of
from nncore._ops.embedding import norm_arguments, padding_index
from nncore.nn import functional as F
from nncore.nn.init import normal_, zeros_
from nncore.nn.module import Module
from nncore.nn.parameter import Parameter


class _Table(Module):
    def __init__(
        self, num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, weight, dtype
    ):
        super().__init__()
        self.num_embeddings = integer(num_embeddings, "num_embeddings", 1)
        self.embedding_dim = integer(embedding_dim, "embedding_dim", 1)
        padding = padding_index(padding_idx, self.num_embeddings)
        self.padding_idx = None if padding < 0 else padding
        self.max_norm, self.norm_type = norm_arguments(max_norm, norm_type)
        self.scale_grad_by_freq = bool(scale_grad_by_freq)
        shape = (self.num_embeddings, self.embedding_dim)
        if weight is not None:
            given = as_float(weight, "weight")
            if given.shape != shape:
                raise ValueError(f"weight: expected shape {shape}, got {given.shape}")
            self.weight = Parameter(given)
        else:
            self.weight = Parameter(new_empty(shape, float_code(dtype)))
            self.reset_parameters()

    def reset_parameters(self):
        """Draws the table anew; the padding row is zero."""
        normal_(self.weight)
        if self.padding_idx is not None:
            zeros_(self.weight.detach()[self.padding_idx])

    @classmethod
    def _from_pretrained(cls, embeddings, freeze, **options):
        table = as_float(embeddings, "embeddings")
        if table.ndim != 2:
            raise ValueError(f"embeddings: expected shape [num_embeddings, embedding_dim], got {table.shape}")
        layer = cls(*table.shape, _weight=table, **options)
        layer.weight.requires_grad = not freeze
        return layer

    def extra_repr(self):
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class Embedding(_Table):
    """Rows of a learned table: y[...] = W[input[...]]. Bengio, Ducharme, Vincent, Jauvin, JMLR 2003.

    Args:
        num_embeddings: rows V of the table.
        embedding_dim: length D of a row.
        padding_idx: a row that starts at zero and gets no gradient, or None.
        max_norm: rows in use whose norm exceeds it are scaled down to it first, in the table; None: they are not.
        norm_type: p of that norm.
        scale_grad_by_freq: whether gradients are divided by how often their index occurs in the input.
        dtype: float32 (default) or float64.

    Shape:
        input int64 [*] -> output [*, D].

    Attributes:
        weight: [V, D], initialized with normal numbers.

    >>> import nncore
    >>> from nncore import nn
    >>> nn.Embedding(10, 3)(nncore.tensor([[1, 2, 9]])).shape
    (1, 3, 3)
    """

    def __init__(
        self,
        num_embeddings,
        embedding_dim,
        padding_idx=None,
        max_norm=None,
        norm_type=2.0,
        scale_grad_by_freq=False,
        *,
        _weight=None,
        dtype="float32",
    ):
        super().__init__(
            num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, _weight, dtype
        )

    @classmethod
    def from_pretrained(
        cls, embeddings, freeze=True, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False
    ):
        """An Embedding with a copy of a table.

        Args:
            embeddings: [V, D].
            freeze: whether the table stays as it is (no gradient).
            padding_idx, max_norm, norm_type, scale_grad_by_freq: as the class's.

        >>> import nncore
        >>> from nncore import nn
        >>> nn.Embedding.from_pretrained(nncore.tensor([[1.0, 2.0]]))(nncore.tensor([0])).tolist()
        [[1.0, 2.0]]
        """
        return cls._from_pretrained(
            embeddings,
            freeze,
            padding_idx=padding_idx,
            max_norm=max_norm,
            norm_type=norm_type,
            scale_grad_by_freq=scale_grad_by_freq,
        )

    def forward(self, input):
        return F.embedding(input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq)


class EmbeddingBag(_Table):
    """The sum, mean or elementwise maximum of bags of rows of a learned table, without the rows in between.

    Args:
        num_embeddings: rows V of the table.
        embedding_dim: length D of a row.
        max_norm, norm_type, scale_grad_by_freq: as Embedding's.
        mode: 'sum', 'mean' or 'max'. An empty bag gives 0.
        include_last_offset: whether the last offset is the end of the last bag.
        padding_idx: a row that counts for nothing, or None.
        dtype: float32 (default) or float64.

    Shape:
        input int64 [bags, size], or [total] with offsets [bags]; per_sample_weights (mode 'sum') of the input's shape
        -> output [bags, D].

    Attributes:
        weight: [V, D], initialized with normal numbers.

    >>> import nncore
    >>> from nncore import nn
    >>> nn.EmbeddingBag(10, 3)(nncore.tensor([1, 2, 9, 4]), nncore.tensor([0, 3])).shape
    (2, 3)
    """

    def __init__(
        self,
        num_embeddings,
        embedding_dim,
        max_norm=None,
        norm_type=2.0,
        scale_grad_by_freq=False,
        mode="mean",
        *,
        _weight=None,
        include_last_offset=False,
        padding_idx=None,
        dtype="float32",
    ):
        super().__init__(
            num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, _weight, dtype
        )
        self.mode = one_of(mode, "mode", ("sum", "mean", "max"))
        self.include_last_offset = bool(include_last_offset)

    @classmethod
    def from_pretrained(
        cls,
        embeddings,
        freeze=True,
        max_norm=None,
        norm_type=2.0,
        scale_grad_by_freq=False,
        mode="mean",
        *,
        include_last_offset=False,
        padding_idx=None,
    ):
        """An EmbeddingBag with a copy of a table [V, D]; `freeze` keeps it as it is, the rest is as the class's.

        >>> import nncore
        >>> from nncore import nn
        >>> bag = nn.EmbeddingBag.from_pretrained(nncore.tensor([[1.0], [3.0]]))
        >>> bag(nncore.tensor([[0, 1]])).tolist()
        [[2.0]]
        """
        return cls._from_pretrained(
            embeddings,
            freeze,
            max_norm=max_norm,
            norm_type=norm_type,
            scale_grad_by_freq=scale_grad_by_freq,
            mode=mode,
            include_last_offset=include_last_offset,
            padding_idx=padding_idx,
        )

    def forward(self, input, offsets=None, per_sample_weights=None):
        return F.embedding_bag(
            input,
            self.weight,
            offsets,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.mode,
            per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset,
            padding_idx=self.padding_idx,
        )

    def extra_repr(self):
        return f"{super().extra_repr()}, mode={self.mode!r}"
