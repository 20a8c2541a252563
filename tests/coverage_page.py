"""docs/coverage.md, from the code: `python -m tests.coverage_page` writes it (`make docs`), test_coverage compares.

What each name is and where it comes from stands in its docstring; whether its gradient is checked, in test_gradients.
"""

import inspect
import re
from pathlib import Path

import nncore
from nncore import data, nn, optim, train
from nncore.data import augment
from nncore.nn import functional, init

from . import reference, test_gradients

PAGE = Path(__file__).resolve().parents[1] / "docs" / "coverage.md"

# How a name is written, the module, and torch's module for its names.
MODULES = {
    "nn": (nn, "torch.nn"),
    "F": (functional, "torch.nn.functional"),
    "optim": (optim, "torch.optim"),
    "lr_scheduler": (optim.lr_scheduler, "torch.optim.lr_scheduler"),
    "utils": (nn.utils, "torch.nn.utils"),
    "utils.rnn": (nn.utils.rnn, "torch.nn.utils.rnn"),
    "init": (init, "torch.nn.init"),
    "train": (train, ""),
    "data": (data, ""),
    "data.augment": (augment, ""),
}
# What torch has elsewhere, or not.
TORCH = {
    "nn.Heaviside": "torch.heaviside",
    "F.heaviside": "torch.heaviside",
    "F.flatten": "torch.flatten",
    "nn.DBN": "",
    "nn.GaussianNoise": "",
    "F.gaussian_noise": "",
    "utils.l1_penalty": "",
    "utils.max_norm_": "torch.renorm",
    "nn.Maxout": "",
    "F.maxout": "",
    "nn.Perceptron": "",
    "nn.RBM": "",
    "nn.RMSELoss": "",
    "F.rmse_loss": "",
    "optim.AdaSecant": "",
    "optim.Lion": "",
    "init.default_": "",
    **{
        f"data.{n}": f"torch.utils.data.{n}"
        for n in ("DataLoader", "Dataset", "Subset", "TensorDataset", "random_split")
    },
    **{
        f"data.augment.{n}": f"torchvision.transforms.v2.{n}"
        for n in ("Compose", "GaussianNoise", "MixUp", "Normalize", "RandomAffine", "RandomCrop")
        + ("RandomHorizontalFlip", "RandomRotation", "RandomVerticalFlip")
    },
}
GROUPS = {
    "nn.linear": "Neurons",
    "nn.activation": "Activations, as layers",
    "nn.loss": "Losses, as layers",
    "nn.conv": "Convolutions, as layers",
    "nn.pooling": "Pooling, as layers",
    "nn.norm": "Normalization, as layers",
    "nn.rnn": "Recurrent layers",
    "nn.dropout": "Dropout, as layers",
    "nn.embedding": "Embeddings",
    "nn.padding": "Padding, as layers",
    "nn.upsampling": "Interpolation, as layers",
    "nn.shape": "Shapes, as layers",
    "nn.distance": "Distances, as layers",
    "nn.container": "Containers",
    "nn.module": "Modules and parameters",
    "nn.parameter": "Modules and parameters",
    "nn.rbm": "Restricted Boltzmann machines",
    "F": "Functions (`nncore.nn.functional`)",
    "optim": "Optimizers",
    "lr_scheduler": "Schedules of the learning rate",
    "utils": "`nncore.nn.utils`",
    "utils.rnn": "Sequences of different lengths (`nncore.nn.utils.rnn`)",
    "init": "Initialization (`nncore.nn.init`)",
    "train": "Training (`nncore.train`)",
    "data": "Data (`nncore.data`)",
    "data.augment": "Augmentation (`nncore.data.augment`)",
}
YEAR = re.compile(r"\b(18|19|20)\d\d\b|arXiv")


def public(module):
    """(name, value) of what a module offers."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__]
    values = ((n, getattr(module, n)) for n in names if not n.startswith("_"))
    return sorted((n, v) for n, v in values if callable(v))


def everything():
    """(written name, value) of all that is on the page."""
    return [(f"{prefix}.{n}", v) for prefix, (module, _) in MODULES.items() for n, v in public(module)]


def sentences(text):
    return re.split(r'(?<=[^A-Z]\.) (?=["A-Z(])', " ".join(text.split()))


def formula_and_source(value):
    """The first paragraph of a docstring without its sources; all sentences with a year in front of the arguments."""
    doc = inspect.getdoc(value) or ""
    doc = re.split(r"\n\n(?:Args|Returns|Shape|Attributes|Raises|Inputs|Outputs):|\n\n?>>>", doc)[0]
    paragraphs = doc.split("\n\n")
    first, *others = sentences(paragraphs[0])
    formula = [first, *(s for s in others if not YEAR.search(s))]
    source = [s for p in paragraphs for s in sentences(p) if YEAR.search(s)]
    return " ".join(formula), " ".join(source)


def checks():
    """How many gradient checks each name has."""
    counts = {}
    for entry in [*test_gradients.CASES, *test_gradients.MODULES, *test_gradients.UTILITIES]:
        name = entry.split(" ")[0].replace("nn.utils.", "utils.")
        counts[name] = counts.get(name, 0) + 1
    return counts


def gradient(name, value, counts):
    """How the gradient of what has this name is checked, or why not; '' is a gap."""
    if name in counts:
        return f"{counts[name]} checks" if counts[name] > 1 else "1 check"
    if name in test_gradients.EXEMPT:
        return test_gradients.EXEMPT[name]
    prefix, short = name.rsplit(".", 1)
    if prefix == "optim":
        tested = short in reference.OPTIMIZERS or short in ("LBFGS", "Optimizer")
        return "its update is checked: test_optim" if tested else ""
    return NO_GRADIENT.get(name) or NO_GRADIENT.get(prefix, "")


# Names, or all of a module, that nothing is differentiated through.
NO_GRADIENT = {
    "nn.Parameter": "a leaf",
    "lr_scheduler": "its rates are checked: test_lr_scheduler",
    "init": "draws numbers",
    "train": "runs the loop",
    "data": "no operation",
    "data.augment": "no gradient flows through",
    "utils.clip_grad_norm_": "changes gradients: test_nn_utils",
    "utils.clip_grad_value_": "changes gradients: test_nn_utils",
    "utils.get_total_norm": "reads gradients: test_nn_utils",
    "utils.fuse_conv_bn_eval": "makes a layer: test_norm",
    "utils.fuse_linear_bn_eval": "makes a layer: test_norm",
    "utils.max_norm_": "writes leaves: test_nn_utils",
    "utils.remove_weight_norm": "makes a layer: test_nn_utils",
    "utils.remove_spectral_norm": "makes a layer: test_nn_utils",
    "utils.vector_to_parameters": "writes leaves: test_nn_utils",
}


def torch_name(name):
    prefix, short = name.rsplit(".", 1)
    module = MODULES[prefix][1]
    return TORCH.get(name, f"{module}.{short}" if module else "")


def group(name, value):
    prefix = name.rsplit(".", 1)[0]
    return value.__module__.removeprefix("nncore.") if prefix == "nn" else prefix


def cell(text):
    """Text for a table of Markdown; what stands between backticks stays."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*_<\\])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts).replace("|", "\\|")


def page():
    """The text of docs/coverage.md."""
    counts, tables = checks(), {}
    for name, value in everything():
        formula, source = formula_and_source(value)
        torchs = torch_name(name)
        columns = [cell(formula), cell(source), gradient(name, value, counts), f"`{torchs}`" if torchs else ""]
        tables.setdefault(GROUPS[group(name, value)], []).append(f"| `{name}` | {' | '.join(columns)} |")
    total, checked = sum(map(len, tables.values())), sum(n in counts for n, _ in everything())
    lines = [
        "# What is here",
        "",
        "<!-- written by `make docs`; do not edit -->",
        "",
        f"{total} names; gradients of {checked} are checked in float64 against SciPy's central differences, in",
        f"{sum(counts.values())} checks with those of tensors' methods (`tests/test_gradients.py`). What a name is,",
        "and its source, are from its docstring: `help(nncore.nn.Maxout)`. F is `nncore.nn.functional`.",
        "What can be done with them: [examples](../examples/README.md).",
    ]
    for title in dict.fromkeys(GROUPS.values()):
        if title in tables:
            lines += [
                "",
                f"## {title}",
                "",
                "| name | what it is | source | gradient | torch |",
                "|---|---|---|---|---|",
            ]
            lines += tables[title]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"nncore {nncore.__version__}: {PAGE}")
