"""Model files: a feed-forward network with all that turns raw inputs into labels or numbers, in one safetensors file.

The weights stand under their state_dict names, so that any safetensors reader can use them. The one metadata entry,
'nncore', is a JSON object (one entry, sorted keys: the same model gives the same bytes):

    format          "nncore-model"
    version         1
    nncore_version  the library that wrote the file
    network         task, sizes, activation, dropout, dtype
    classes         labels in the order of the outputs, or null (regression)
    features        names of the inputs, or null
    target          name of the target, or null
    input_mean, input_std    one number per input: the network sees (x - mean) / std
    target_mean, target_std  regression: the result is output * std + mean
    seed, training  what the training was, for the reader
"""

import contextlib
import dataclasses
import json
import math
import os
import secrets
import stat

import numpy as np

from nncore import nn
from nncore._grad import no_grad
from nncore._ops._check import as_array, as_tensor, integer, number, one_of
from nncore._ops.shape import cat
from nncore._random import get_rng_state, set_rng_state
from nncore._tensor import Tensor

FORMAT, VERSION = "nncore-model", 1
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
_SAFETENSORS_NAMES = {"float32": "F32", "float64": "F64"}
_BATCH = 1024  # samples per forward pass; results do not depend on it


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """A feed-forward network: linear layers with an activation, and dropout if any, between them.

    Args:
        task: 'classification' (outputs are logits) or 'regression' (one output).
        sizes: inputs, hidden layers, outputs: at least two integers >= 1.
        activation: 'relu', 'tanh' or 'sigmoid'.
        dropout: probability, 0 <= p < 1, after each activation.
        dtype: 'float32' or 'float64'.

    Raises:
        ValueError, TypeError: a field is not as described.

    >>> NetworkSpec("classification", (4, 8, 3)).build()
    Sequential(
      (0): Linear(in_features=4, out_features=8, bias=True)
      (1): ReLU()
      (2): Linear(in_features=8, out_features=3, bias=True)
    )
    """

    task: str
    sizes: tuple
    activation: str = "relu"
    dropout: float = 0.0
    dtype: str = "float32"

    def __post_init__(self):
        one_of(self.task, "task", ("classification", "regression"))
        if not isinstance(self.sizes, tuple | list) or len(self.sizes) < 2:
            raise ValueError(f"sizes: expected at least the numbers of inputs and outputs, got {self.sizes!r}")
        object.__setattr__(self, "sizes", tuple(integer(n, "sizes", 1) for n in self.sizes))
        if self.task == "regression" and self.sizes[-1] != 1:
            raise ValueError(f"sizes: regression has 1 output, got {self.sizes[-1]}")
        one_of(self.activation, "activation", tuple(ACTIVATIONS))
        object.__setattr__(self, "dropout", number(self.dropout, "dropout", 0, 1, high_open=True))
        one_of(self.dtype, "dtype", tuple(_SAFETENSORS_NAMES))

    def build(self):
        """A new network, initialized from the default generator."""
        layers = []
        for inputs, outputs in zip(self.sizes, self.sizes[1:]):
            if layers:
                layers.append(ACTIVATIONS[self.activation]())
                layers += [nn.Dropout(self.dropout)] if self.dropout else []
            layers.append(nn.Linear(inputs, outputs, dtype=self.dtype))
        return nn.Sequential(*layers)

    def shapes(self):
        """{state_dict name: shape} of the network, without building it.

        >>> NetworkSpec("regression", (4, 1)).shapes()
        {'0.weight': (1, 4), '0.bias': (1,)}
        """
        step = 3 if self.dropout else 2
        found = {}
        for i, (inputs, outputs) in enumerate(zip(self.sizes, self.sizes[1:])):
            found[f"{i * step}.weight"], found[f"{i * step}.bias"] = (outputs, inputs), (outputs,)
        return found


class TrainedModel:
    """A network with the scaling and the names around it: raw inputs in, labels or numbers out.

    Args:
        spec: NetworkSpec.
        model: the network that `spec.build()` gave, trained.
        input_mean, input_std: [sizes[0]] numbers; the network sees (x - input_mean) / input_std, computed in float64.
        target_mean, target_std: regression: its output y means y * target_std + target_mean.
        classes: classification: the labels (integers, floats, strings or bools), one per output.
        features: names of the inputs, or None.
        target: name of the target, or None.
        seed: what the training was seeded with, or None.
        training: summary of the training, a dict that JSON can hold.

    Raises:
        ValueError, TypeError: an argument does not fit the description.

    >>> import numpy as np
    >>> spec = NetworkSpec("classification", (2, 2))
    >>> net = spec.build()
    >>> _ = net.load_state_dict({"0.weight": np.eye(2), "0.bias": np.zeros(2)})
    >>> m = TrainedModel(spec, net, input_mean=[0, 0], input_std=[1, 1], classes=["left", "right"])
    >>> m.predict([[3.0, 1.0], [0.0, 2.0]]).tolist()
    ['left', 'right']
    >>> m.predict_proba([[1.0, 1.0]]).tolist()
    [[0.5, 0.5]]
    """

    def __init__(
        self,
        spec,
        model,
        *,
        input_mean,
        input_std,
        target_mean=0.0,
        target_std=1.0,
        classes=None,
        features=None,
        target=None,
        seed=None,
        training=None,
    ):
        if not isinstance(spec, NetworkSpec):
            raise TypeError(f"spec: expected a NetworkSpec, got {type(spec).__name__}")
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected a Module, got {type(model).__name__}")
        _check_state(spec, {k: (t.shape, str(t.dtype)) for k, t in model._named_state()})
        n = spec.sizes[0]
        self.spec, self.model = spec, model
        self.input_mean, self.input_std = _numbers(input_mean, "input_mean", n), _numbers(input_std, "input_std", n)
        self.target_mean, self.target_std = number(target_mean, "target_mean"), number(target_std, "target_std")
        if not (self.input_std > 0).all() or not self.target_std > 0:
            raise ValueError("input_std, target_std: expected numbers > 0")
        if not math.isfinite(self.target_mean) or not math.isfinite(self.target_std):
            raise ValueError("target_mean, target_std: expected finite numbers")
        self.classes = _labels(classes, spec)
        self.features = None if features is None else _strings(features, "features", n)
        self.target = None if target is None else _strings([target], "target", 1)[0]
        self.seed = None if seed is None else integer(seed, "seed", 0)
        self.training = {} if training is None else training
        if not isinstance(self.training, dict):
            raise TypeError(f"training: expected a dict, got {type(training).__name__}")

    def _outputs(self, x):
        x = x.detach().numpy() if isinstance(x, Tensor) else as_array(x, "x")
        n = self.spec.sizes[0]
        if x.ndim < 2 or math.prod(x.shape[1:]) != n:
            raise ValueError(f"x: expected shape [N, {n}], got {x.shape}")
        finite = np.isfinite(x).reshape(len(x), -1).all(1)
        if not finite.all():
            raise ValueError(f"x: NaN or infinite values in row {int(np.argmin(finite))}")
        was_training = self.model.training
        self.model.eval()
        try:
            with no_grad():
                scaled = standardize(x.reshape(len(x), n), self.input_mean, self.input_std).to(self.spec.dtype)
                return cat([self.model(scaled[i : i + _BATCH]) for i in range(0, max(len(x), 1), _BATCH)])
        finally:
            self.model.train(was_training)

    def predict(self, x):
        """Labels or numbers for raw inputs.

        Args:
            x: array or Tensor [N, inputs] (or [N, ...] with as many elements per sample).

        Returns:
            NumPy array [N]: labels of `classes`, or numbers (float64).

        Raises:
            ValueError: x has another shape, or holds NaN or infinite values.
        """
        y = self._outputs(x)
        if self.spec.task == "classification":
            return np.asarray(self.classes)[y.argmax(1).numpy()]
        return (y.double().reshape(-1) * self.target_std + self.target_mean).numpy()

    def predict_proba(self, x):
        """Probability of each class for raw inputs: the softmax of the network's outputs.

        Args:
            x: as `predict`'s.

        Returns:
            NumPy array [N, classes], in the order of `classes`.

        Raises:
            ValueError: the model is a regression, or x is not as described.
        """
        if self.spec.task != "classification":
            raise ValueError("predict_proba: the model is a regression; it has no classes")
        return self._outputs(x).softmax(1).numpy()

    def __repr__(self):
        return f"TrainedModel({self.spec!r}, target={self.target!r})"


def standardize(x, mean, std):
    """(x - mean) / std of each column, in float64, as a Tensor."""
    x = as_tensor(np.ascontiguousarray(x, np.float64), "x")
    return (x - as_tensor(mean, "mean")) / as_tensor(std, "std")


# ---- checks ----


def _numbers(values, name, n):
    """n finite float64 numbers."""
    try:
        a = np.array(values, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected {n} numbers, got {values!r}") from None
    if a.shape != (n,):
        raise ValueError(f"{name}: expected {n} numbers, got shape {a.shape}")
    if not np.isfinite(a).all():
        raise ValueError(f"{name}: expected finite numbers")
    return a


def _strings(values, name, n):
    """A list of n strings."""
    if not isinstance(values, tuple | list) or not all(isinstance(v, str) for v in values):
        raise TypeError(f"{name}: expected strings, got {values!r}")
    if len(values) != n:
        raise ValueError(f"{name}: expected {n} names, got {len(values)}")
    return list(values)


def _labels(classes, spec):
    """The labels as a list of one Python type."""
    if spec.task == "regression":
        if classes is not None:
            raise ValueError("classes: a regression has none")
        return None
    if not isinstance(classes, tuple | list | np.ndarray):
        raise TypeError(f"classes: expected a list of labels, got {type(classes).__name__}")
    classes = [c.item() if isinstance(c, np.generic) else c for c in classes]
    if not all(isinstance(c, bool | int | float | str) for c in classes) or len({type(c) for c in classes}) > 1:
        raise TypeError("classes: expected integers, floats, strings or bools, all of one type")
    if len(classes) != spec.sizes[-1] or len(set(classes)) != len(classes):
        raise ValueError(f"classes: expected {spec.sizes[-1]} distinct labels, one per output, got {len(classes)}")
    return classes


def _check_state(spec, found):
    """Raises unless {name: (shape, dtype)} is what the description gives."""
    expected = spec.shapes()
    missing, unexpected = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or unexpected:
        raise ValueError(f"weights do not match the network: missing {missing}, unexpected {unexpected}")
    for name, shape in expected.items():
        got, dtype = found[name]
        if (got, dtype) != (shape, spec.dtype):
            raise ValueError(f"{name}: the network has {spec.dtype} of shape {shape}, got {dtype} of shape {got}")


# ---- files ----


def check_output(path):
    """Raises ValueError, naming the path, unless a file can be created or replaced there."""
    if os.path.isdir(path):
        raise ValueError(f"{path}: is a directory; expected a file name")
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path}: not a regular file, which alone can be replaced")
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise ValueError(f"{path}: the directory {folder} does not exist")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{path}: no permission to write into {folder}")


def write_atomically(path, data):
    """Writes bytes to a file so that at every moment the path holds the old contents or all of the new.

    The bytes go to a temporary file beside it, reach the disk, and the file is then renamed. Whatever fails before,
    the temporary file is removed. An existing file keeps its permissions; a symbolic link keeps pointing to it.

    Raises:
        ValueError: the path is no place for a file.
        OSError: writing failed.
    """
    path = os.fspath(path)
    check_output(path)
    final = os.path.realpath(path)
    folder = os.path.dirname(final)
    temporary = os.path.join(folder, f".nncore-{secrets.token_hex(8)}.tmp")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            if os.path.exists(final):
                os.fchmod(file.fileno(), stat.S_IMODE(os.stat(final).st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, final)
    except BaseException:  # KeyboardInterrupt too leaves nothing behind
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)  # the new name reaches the disk as well
    finally:
        os.close(directory)


def save_model(path, trained):
    """Writes a trained model to a safetensors file, atomically: a failure leaves the old file whole.

    Args:
        path: file name.
        trained: TrainedModel.

    Raises:
        TypeError: trained is no TrainedModel, or its training summary is not for JSON.
        ValueError: the path is no place for a file.
        OSError: writing failed.

    >>> import os, tempfile
    >>> spec = NetworkSpec("regression", (2, 4, 1))
    >>> m = TrainedModel(spec, spec.build(), input_mean=[0, 0], input_std=[1, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "m.safetensors")
    ...     save_model(path, m)
    ...     bool((load_model(path).predict([[1.0, 2.0]]) == m.predict([[1.0, 2.0]])).all())
    True
    """
    from safetensors.numpy import save

    from nncore import __version__

    if not isinstance(trained, TrainedModel):
        raise TypeError(f"trained: expected a TrainedModel, got {type(trained).__name__}")
    description = {
        "format": FORMAT,
        "version": VERSION,
        "nncore_version": __version__,
        "network": dataclasses.asdict(trained.spec),
        "classes": trained.classes,
        "features": trained.features,
        "target": trained.target,
        "input_mean": trained.input_mean.tolist(),
        "input_std": trained.input_std.tolist(),
        "target_mean": trained.target_mean,
        "target_std": trained.target_std,
        "seed": trained.seed,
        "training": trained.training,
    }
    write_atomically(path, save(trained.model.state_dict(), {"nncore": json.dumps(description, sort_keys=True)}))


def save_weights(path, model):
    """Writes a module's parameters and buffers to a safetensors file, under their state_dict names, atomically: a
    failure leaves the old file whole.

    Args:
        path: file name.
        model: Module.

    Raises:
        TypeError: model is no Module.
        ValueError: the path is no place for a file.
        OSError: writing failed.

    >>> import os, tempfile
    >>> a, b = nn.Linear(3, 2), nn.Linear(3, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "a.safetensors")
    ...     save_weights(path, a)
    ...     load_weights(path, b)
    ([], [])
    >>> bool((a.weight == b.weight).numpy().all())
    True
    """
    from safetensors.numpy import save

    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a Module, got {type(model).__name__}")
    write_atomically(path, save(model.state_dict()))


def load_weights(path, model, strict=True):
    """Reads a safetensors file of `save_weights`, or any with the module's state_dict names, into a module.

    Args:
        path: file name.
        model: Module.
        strict: as `Module.load_state_dict`'s.

    Returns:
        (names missing in the file, names that the module does not have).

    Raises:
        TypeError: model is no Module.
        OSError: the file cannot be opened.
        ValueError: it is no safetensors file, is damaged, has tensors of a type that NumPy lacks (BF16, F8), or its
            names or shapes are not the module's; the message names the file, and nothing has been written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a Module, got {type(model).__name__}")
    path = os.fspath(path)
    with open(path, "rb") as file:
        content = file.read()
    try:
        found = load(content)
    except SafetensorError as e:
        raise ValueError(f"{path}: not a safetensors file, or a damaged one ({e})") from None
    except KeyError as e:  # a type that NumPy does not have, such as BF16
        raise ValueError(f"{path}: tensors of type {e.args[0]} cannot be read; convert them to F32") from None
    try:
        return model.load_state_dict(found, strict)
    except (ValueError, TypeError) as e:
        raise ValueError(f"{path}: {e}") from None


def load_model(path):
    """Reads a model file. No code from the file is run, and everything in it is checked.

    Args:
        path: file name.

    Returns:
        TrainedModel, in evaluation mode.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is no model file, is damaged, or was written by a later format; the message names the file.
    """
    from safetensors import SafetensorError, safe_open

    path = os.fspath(path)
    open(path, "rb").close()  # a missing file or a directory gives the usual OSError, with the name
    try:
        with safe_open(path, framework="np") as file:
            description = _description(file.metadata())
            spec = NetworkSpec(**_fields(description, "network", dict))
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            names = {code: name for name, code in _SAFETENSORS_NAMES.items()}
            state = {k: (tuple(s.get_shape()), names.get(s.get_dtype(), s.get_dtype())) for k, s in found.items()}
            _check_state(spec, state)  # before anything of the described size is allocated
            weights = {name: file.get_tensor(name) for name in found}
        random_state = get_rng_state()
        model = spec.build().eval()
        set_rng_state(random_state)  # reading a file takes no random numbers
        model.load_state_dict(weights)
        return TrainedModel(
            spec,
            model,
            input_mean=_fields(description, "input_mean", list),
            input_std=_fields(description, "input_std", list),
            target_mean=_fields(description, "target_mean", float | int),
            target_std=_fields(description, "target_std", float | int),
            classes=_fields(description, "classes", list | None),
            features=_fields(description, "features", list | None),
            target=_fields(description, "target", str | None),
            seed=_fields(description, "seed", int | None),
            training=_fields(description, "training", dict),
        )
    except SafetensorError as e:
        raise ValueError(f"{path}: not a safetensors file, or a damaged one ({e})") from None
    except (ValueError, TypeError, OverflowError) as e:
        raise ValueError(f"{path}: not a valid model file: {e}") from None


def _description(metadata):
    """The JSON object of the metadata, of a format that this version reads."""
    if not metadata or "nncore" not in metadata:
        raise ValueError("its metadata has no 'nncore' entry; it was not written by save_model")
    try:
        description = json.loads(metadata["nncore"])
    except (ValueError, RecursionError) as e:
        raise ValueError(f"its metadata is not JSON ({e})") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(f"its metadata does not say format {FORMAT!r}")
    if description.get("version") != VERSION:
        raise ValueError(f"format version {description.get('version')!r}; this nncore reads version {VERSION}")
    return description


def _fields(description, name, kind):
    """An entry of the description, of a kind."""
    if name not in description:
        raise ValueError(f"its metadata has no {name!r}")
    if not isinstance(description[name], kind):
        raise ValueError(f"its metadata: {name!r} is not as expected, got {description[name]!r:.80}")
    return description[name]
