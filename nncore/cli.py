"""The command line: `nncore train`, `nncore predict`, `nncore config` (also `python -m nncore ...`).

`nncore train` without arguments trains on the handwritten digits that come with the library. Exit codes: 0, 2 for bad
input (with one line on stderr), 130 after Ctrl-C.
"""

import argparse
import csv
import dataclasses
import io
import json
import math
import os
import re
import sys
import zipfile
import zlib

import numpy as np

import nncore
from nncore import data, train
from nncore._model_file import ACTIVATIONS, check_output, standardize, write_atomically
from nncore._ops._check import integer

MODEL_FILE = "nncore-model.safetensors"
LEARNING_RATES = {"adam": 1e-3, "adamw": 1e-3, "sgd": 0.02}
MISSING = {"", "?", "na", "n/a", "nan", "none", "null"}
SPLIT_SEED = 0  # the held-out samples stay the same whatever --seed is


# ---- reading data ----


@dataclasses.dataclass
class Samples:
    """x [N, features] float64; y [N] labels or numbers, or None; names where the file has them."""

    x: np.ndarray
    y: np.ndarray | list | None
    task: str | None
    features: list | None
    target: str | None


def _suffix(path):
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in (".csv", ".npz"):
        raise ValueError(f"{path}: expected a .csv or .npz file")
    return suffix


def _is_missing(text):
    return text.lower() in MISSING


def _float(text):
    """The number that a cell holds, or None."""
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None


def _number(text):
    """The number that a cell holds, integers exactly, or None."""
    return int(text) if re.fullmatch(r"[+-]?\d{1,20}", text) else _float(text)


class _Csv:
    """A csv file with a header: `names`, and an iteration over (line number, stripped cells)."""

    def __init__(self, path):
        self.path = path
        self._file = open(path, encoding="utf-8-sig", newline="")  # noqa: SIM115 - closed by __exit__
        self._reader = csv.reader(self._file, strict=True)

    def __enter__(self):
        try:
            self.names = next(self._rows(), (0, []))[1]
            if not self.names:
                raise ValueError(f"{self.path}: empty; expected a header line with the names of the columns")
            for i, name in enumerate(self.names):
                if not name:
                    raise ValueError(f"{self.path}, line 1: column {i + 1} has no name")
                if name in self.names[:i]:
                    raise ValueError(f"{self.path}, line 1: two columns are named {name!r}")
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *exc):
        self._file.close()

    def _rows(self):
        try:
            for cells in self._reader:
                cells = [c.strip() for c in cells]
                if cells and cells != [""]:
                    yield self._reader.line_num, cells
        except csv.Error as e:
            raise ValueError(f"{self.path}, line {self._reader.line_num}: {e}") from None
        except UnicodeDecodeError as e:
            raise ValueError(f"{self.path}, after line {self._reader.line_num}: not UTF-8 text ({e.reason})") from None

    def __iter__(self):
        for line, cells in self._rows():
            if len(cells) != len(self.names):
                raise ValueError(
                    f"{self.path}, line {line}: expected {len(self.names)} values as in the header, got {len(cells)}"
                )
            yield line, cells

    def number(self, line, column, text):
        """The finite number in a cell."""
        if _is_missing(text):
            raise ValueError(f"{self.path}, line {line}: missing value in column {self.names[column]!r}")
        value = _float(text)
        if value is None or not math.isfinite(value):
            raise ValueError(
                f"{self.path}, line {line}: expected a finite number in column {self.names[column]!r}, got {text!r}"
            )
        return value

    def columns(self, names):
        """Their positions."""
        missing = [n for n in names if n not in self.names]
        if missing:
            raise ValueError(
                f"{self.path}: no column {', '.join(map(repr, missing))}; the columns are {', '.join(self.names)}"
            )
        return [self.names.index(n) for n in names]

    def read(self, features, target):
        """(x [N, features], target cells or None, line numbers)."""
        values, cells_of_target, lines = [], [], []
        for line, cells in self:
            values.append(np.array([self.number(line, c, cells[c]) for c in features], np.float64))
            lines.append(line)
            if target is not None:
                cells_of_target.append(cells[target])
        if not lines:
            raise ValueError(f"{self.path}: no samples below the header")
        return np.stack(values), cells_of_target if target is not None else None, lines


def _read_csv(path, target, task):
    """Samples of a csv file, with the task that its target column asks for."""
    with _Csv(path) as table:
        if target is None:
            raise ValueError(f"--target: which column of {path} to predict? The columns are {', '.join(table.names)}")
        (at,) = table.columns([target])
        features = [i for i in range(len(table.names)) if i != at]
        if not features:
            raise ValueError(f"{path}: no columns besides the target {target!r}")
        x, cells, lines = table.read(features, at)
        for line, text in zip(lines, cells):
            if _is_missing(text):
                raise ValueError(f"{path}, line {line}: missing value in the target column {target!r}")
        integers = all(re.fullmatch(r"[+-]?\d{1,18}", c) for c in cells)
        numbers = [_float(c) for c in cells]
        numeric = all(v is not None and math.isfinite(v) for v in numbers)
        if task == "auto":
            task = "regression" if numeric and not integers else "classification"
        if task == "regression":
            y = np.array([table.number(line, at, c) for line, c in zip(lines, cells)])
        else:
            y = np.array([int(c) for c in cells] if integers else numbers if numeric else cells)
        return Samples(x, y, task, [table.names[i] for i in features], target)


def _read_npz(path, x_name, y_name, need_y=True):
    """Samples of an npz file; the task is left open."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for name in [x_name, y_name] if need_y else [x_name]:
                if name not in arrays.files:
                    raise ValueError(f"no array {name!r}; the arrays are {', '.join(arrays.files)}")
            x = arrays[x_name]
            y = arrays[y_name] if y_name in arrays.files else None
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, TypeError) as e:  # TypeError: a .npy by this name
        raise ValueError(f"{path}: {e}") from None
    if x.dtype.kind not in "fiub" or x.ndim < 2 or 0 in x.shape:
        raise ValueError(f"{path}: {x_name}: expected numbers of shape [N, features], got {x.dtype} of shape {x.shape}")
    x = x.reshape(len(x), -1).astype(np.float64)
    finite = np.isfinite(x).all(1)
    if not finite.all():
        raise ValueError(f"{path}: {x_name}: NaN or infinite values in row {int(np.argmin(finite))}")
    if y is not None:
        y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        if y.dtype.kind not in "fiubU" or y.shape != (len(x),):
            raise ValueError(
                f"{path}: {y_name}: expected numbers or strings of shape ({len(x)},), got {y.dtype} of shape {y.shape}"
            )
        if y.dtype.kind == "f" and not np.isfinite(y).all():
            raise ValueError(f"{path}: {y_name}: NaN or infinite value in row {int(np.argmin(np.isfinite(y)))}")
    return Samples(x, y, None, None, None)


def _training_samples(args):
    if args.data is None:
        for option in ("target", "x_name", "y_name"):
            if getattr(args, option) is not None:
                raise ValueError(f"--{option.replace('_', '-')}: only together with --data")
        x, y = data.load_digits()
        names = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
        task = "classification" if args.task == "auto" else args.task
        return Samples(x.astype(np.float64), y.astype(np.float64) if task == "regression" else y, task, names, "digit")
    if _suffix(args.data) == ".csv":
        if args.x_name is not None or args.y_name is not None:
            raise ValueError("--x-name, --y-name: only for .npz files; a .csv file has --target")
        return _read_csv(args.data, args.target, args.task)
    if args.target is not None:
        raise ValueError("--target: only for .csv files; a .npz file has --y-name")
    samples = _read_npz(args.data, args.x_name or "x", args.y_name or "y")
    kind = samples.y.dtype.kind
    samples.task = args.task if args.task != "auto" else ("regression" if kind == "f" else "classification")
    if samples.task == "regression":
        if kind == "U":
            raise ValueError(f"{args.data}: {args.y_name or 'y'}: regression needs numbers, got strings")
        samples.y = samples.y.astype(np.float64)
    return samples


# ---- train ----


def _scaling(x):
    """Mean and standard deviation of each column; the standard deviation of a constant column counts as 1."""
    t = nncore.from_numpy(np.ascontiguousarray(x))
    mean, std = t.mean(0).numpy().copy(), t.std(0, correction=0).numpy().copy()
    constant = x.min(0) == x.max(0)
    mean[constant], std[constant] = x[0][constant], 1.0
    std[std == 0] = 1.0  # differences too small to square
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise ValueError("the data: values too large to scale")
    return mean, std


def _distinct_paths(**paths):
    """Raises if two options name one file."""
    seen = {}
    for option, path in paths.items():
        if path is not None:
            other = seen.setdefault(os.path.realpath(path), option)
            if other != option:
                raise ValueError(f"{other} and {option}: one file, {path}; expected two")


class _Report:
    """Writes a line per epoch."""

    def __init__(self, epochs, bar):
        self.epochs, self.bar = epochs, bar

    def on_epoch_end(self, epoch, logs):
        width = len(str(self.epochs))
        parts = [f"epoch {epoch + 1:{width}}/{self.epochs}"]
        for name in ("loss", "accuracy", "r2"):
            if name in logs:
                parts.append(f"{name} {logs[name]:.4f}")
        for name in ("loss", "accuracy", "r2"):
            if "val_" + name in logs:
                parts.append(f"held-out {name} {logs['val_' + name]:.4f}")
        parts.append(f"{logs['samples_per_second']:,.0f} samples/s")
        _say("  ".join(parts), self.bar)


def _say(line, bar=False):
    """A line on stdout, above the progress bar if there is one."""
    if bar:
        from tqdm import tqdm

        tqdm.write(line, file=sys.stdout)
    else:
        print(line)
    if sys.stdout is not None:
        sys.stdout.flush()


def _figures(trained, x, y):
    """The final figures on raw samples: those of the model as it is written to the file."""
    found = trained.predict(x)
    if trained.spec.task == "classification":
        right = int((found == y).sum())
        return {"accuracy": right / len(y), "right": right, "of": len(y)}
    return {
        "r2": train.r2(nncore.tensor(found), nncore.tensor(y)),
        "rmse": float((nncore.tensor(found) - nncore.tensor(y)).square().mean().sqrt()),
        "of": len(y),
    }


@dataclasses.dataclass
class _Prepared:
    """What a network learns: x [N, features] scaled, y [N] classes or [N, 1] scaled numbers, and the two parts."""

    x: nncore.Tensor
    y: np.ndarray
    rows: np.ndarray
    held: np.ndarray
    scaling: dict
    classes: list | None


def _prepare(samples, test_fraction):
    """Splits and scales; the scaling comes from the training samples alone."""
    if samples.task == "classification":
        labels, y = np.unique(samples.y, return_inverse=True)
        classes, y = labels.tolist(), y.reshape(-1).astype(np.int64)
        if len(classes) < 2:
            raise ValueError(f"the target: expected at least two classes, got only {classes[0]!r}")
        if len(classes) > len(y) // 2 and not isinstance(classes[0], str):
            _warn(f"{len(classes)} classes in {len(y)} samples; --regression takes the target as a number")
        rows, held = data.stratified_split(y, test_fraction, SPLIT_SEED)
        scaling = {}
    else:
        classes = None
        rows, held = data.plain_split(len(samples.y), test_fraction, SPLIT_SEED)
        mean, std = _scaling(samples.y[rows, None])
        y = standardize(samples.y[:, None], mean, std).numpy()
        scaling = {"target_mean": float(mean[0]), "target_std": float(std[0])}
    mean, std = _scaling(samples.x[rows])
    scaling |= {"input_mean": mean, "input_std": std}
    return _Prepared(standardize(samples.x, mean, std).float(), y, rows, held, scaling, classes)


def _run_train(args):
    _distinct_paths(data=args.data, output=args.output, history=args.history)
    for path in (args.output, args.history):
        if path is not None:
            check_output(path)  # before the work, not after it
    if args.statistics and args.history is None:
        raise ValueError("--statistics: goes into the file of --history, which is missing")
    if args.momentum is not None and args.optimizer != "sgd":
        raise ValueError(f"--momentum: only for --optimizer sgd, not for {args.optimizer}")
    samples = _training_samples(args)
    d = _prepare(samples, args.test_fraction)
    classification = samples.task == "classification"
    sizes = (d.x.shape[1], *args.hidden, len(d.classes) if classification else 1)
    spec = train.NetworkSpec(samples.task, sizes, args.activation, args.dropout)

    nncore.manual_seed(args.seed)
    model = spec.build()
    options = {"lr": LEARNING_RATES[args.optimizer] if args.lr is None else args.lr}
    if args.weight_decay is not None:
        options["weight_decay"] = args.weight_decay
    if args.optimizer == "sgd":
        options["momentum"] = 0.9 if args.momentum is None else args.momentum
    optimizer = train.make_optimizer(args.optimizer, model.parameters(), **options)
    progress = not args.no_progress and not args.quiet and sys.stderr is not None and sys.stderr.isatty()
    if not args.quiet:
        source = args.data or "the UCI handwritten digits"
        _say(f"{samples.task} of {source}: {len(d.rows)} samples to train, {len(d.held)} held out")
        layers, chosen = "-".join(map(str, sizes)), ", ".join(f"{k} {v:g}" for k, v in options.items())
        _say(f"network {layers}, {args.activation}; {args.optimizer}, {chosen}; batches of {args.batch_size}")
    history = train.fit(
        model,
        d.x[d.rows],
        d.y[d.rows],
        loss="cross_entropy" if classification else "mse",
        optimizer=optimizer,
        epochs=args.epochs,
        batch_size=args.batch_size,
        validation_data=(d.x[d.held], d.y[d.held]) if len(d.held) else None,
        metrics="accuracy" if classification else "r2",
        callbacks=() if args.quiet else _Report(args.epochs, progress),
        statistics=args.statistics,
        progress=progress,
    )
    summary = {
        "train_samples": len(d.rows),
        "held_out_samples": len(d.held),
        "epochs": history.epochs,
        "batch_size": args.batch_size,
        "optimizer": {"name": args.optimizer, **options},
    }
    trained = train.TrainedModel(
        spec,
        model,
        **d.scaling,
        classes=d.classes,
        features=samples.features,
        target=samples.target,
        seed=args.seed,
        training=summary,
    )
    which, final = ("held-out", d.held) if len(d.held) else ("training", d.rows)
    figures = _figures(trained, samples.x[final], samples.y[final])
    summary["result"] = {"samples": which, **figures}
    train.save_model(args.output, trained)
    if args.history is not None:
        finite = {k: [v if v is None or math.isfinite(v) else None for v in values] for k, values in history.items()}
        write_atomically(args.history, json.dumps(finite, indent=1, allow_nan=False).encode())
    if classification:
        _say(f"{which} accuracy {figures['accuracy']:.4f} ({figures['right']} of {figures['of']})")
    else:
        _say(f"{which} r2 {figures['r2']:.4f}, rmse {figures['rmse']:.6g} ({figures['of']} samples)")
    _say(f"model written to {args.output}")


# ---- predict ----


def _samples_for(model, args):
    """(x, targets or None) of the file to predict."""
    if _suffix(args.file) == ".npz":
        samples = _read_npz(args.file, args.x_name or "x", args.y_name or "y", need_y=False)
        return samples.x, samples.y
    if args.x_name is not None or args.y_name is not None:
        raise ValueError("--x-name, --y-name: only for .npz files; the columns of a .csv file have the model's names")
    with _Csv(args.file) as table:
        target = table.names.index(model.target) if model.target in table.names else None
        if model.features is not None:
            features = table.columns(model.features)
        else:
            features = [i for i in range(len(table.names)) if i != target]
        x, cells, _ = table.read(features, target)
        return x, cells


def _score(model, found, targets):
    """A line about the predictions where the target is known, or None."""
    texts = list(map(str, targets.tolist() if isinstance(targets, np.ndarray) else targets))
    if model.spec.task == "classification":
        read = str if isinstance(model.classes[0], str | bool) else _number
        pairs = [read(text) == read(str(guess)) for guess, text in zip(found.tolist(), texts) if not _is_missing(text)]
        return f"accuracy {sum(pairs) / len(pairs):.4f} ({sum(pairs)} of {len(pairs)})" if pairs else None
    errors = [guess - y for guess, y in zip(found.tolist(), map(_float, texts)) if y is not None]
    errors = [e for e in errors if math.isfinite(e)]
    return (
        f"rmse {math.sqrt(math.fsum(e * e for e in errors) / len(errors)):.6g} ({len(errors)} rows)" if errors else None
    )


def _run_predict(args):
    _distinct_paths(model=args.model, file=args.file, output=args.output)
    if args.output is not None:
        check_output(args.output)
    model = train.load_model(args.model)
    x, targets = _samples_for(model, args)
    if x.shape[1] != model.spec.sizes[0]:
        raise ValueError(f"{args.file}: the model takes {model.spec.sizes[0]} features, the file has {x.shape[1]}")
    found = model.predict(x)
    columns = [
        [model.target or "prediction", *(map(repr, found.tolist()) if found.dtype.kind == "f" else found.tolist())]
    ]
    if args.proba:
        for label, p in zip(model.classes or (), model.predict_proba(x).T):
            columns.append([f"p_{label}", *(f"{v:.7g}" for v in p.tolist())])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(zip(*columns))
    if args.output is None:
        print(text.getvalue(), end="")
    else:
        write_atomically(args.output, text.getvalue().encode())
    score = _score(model, found, targets) if targets is not None else None
    if score:
        _warn(score)


# ---- the command ----


class _Parser(argparse.ArgumentParser):
    """Errors are raised, for `main` to print in one line."""

    def error(self, message):
        raise ValueError(message)


def _parser():
    parser = _Parser(prog="nncore", description="Neural networks on CPUs.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"nncore {nncore.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{train,predict,config}")

    p = commands.add_parser(
        "train",
        allow_abbrev=False,
        help="train a network",
        description="Trains a feed-forward network and writes it to a file. Without arguments: on the UCI handwritten "
        "digits that come with the library. A fixed part of the samples is held out to test it.",
    )
    p.set_defaults(run=_run_train)
    p.add_argument("--data", metavar="FILE", help="a .csv file with a header, or a .npz file")
    p.add_argument("--target", metavar="NAME", help="csv: the column to predict; all others are inputs")
    p.add_argument("--x-name", metavar="NAME", help="npz: the array of inputs [N, features] (default: x)")
    p.add_argument("--y-name", metavar="NAME", help="npz: the array of targets [N] (default: y)")
    p.add_argument(
        "--task",
        choices=("auto", "classification", "regression"),
        default="auto",
        help="auto: regression for fractional targets, classification for integers and strings (default)",
    )
    p.add_argument("--regression", dest="task", action="store_const", const="regression", help="--task regression")
    p.add_argument(
        "--hidden", type=int, nargs="*", default=[128, 64], metavar="N", help="hidden layers (default: 128 64)"
    )
    p.add_argument("--activation", choices=tuple(ACTIVATIONS), default="relu", help="default: relu")
    p.add_argument("--dropout", type=float, default=0.0, metavar="P", help="after each hidden layer (default: 0)")
    p.add_argument("--optimizer", choices=tuple(LEARNING_RATES), default="adam", help="default: adam")
    p.add_argument("--lr", type=float, help="learning rate (default: 0.001; sgd 0.02)")
    p.add_argument("--momentum", type=float, help="of sgd (default: 0.9)")
    p.add_argument("--weight-decay", type=float, help="default: the optimizer's")
    p.add_argument("--epochs", type=int, default=30, metavar="N", help="passes over the samples (default: 30)")
    p.add_argument("--batch-size", type=int, default=32, metavar="N", help="samples per step (default: 32)")
    p.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of initialization, shuffling, dropout (default: 0)"
    )
    p.add_argument("--test-fraction", type=float, default=0.2, metavar="F", help="share held out (default: 0.2)")
    p.add_argument("--threads", type=int, metavar="N", help="threads to use; results do not depend on it")
    p.add_argument("--no-progress", action="store_true", help="no progress bar (there is one if stderr is a terminal)")
    p.add_argument("--quiet", action="store_true", help="print the result only")
    p.add_argument("--history", metavar="FILE.json", help="write the figures of every epoch to this file")
    p.add_argument("--statistics", action="store_true", help="with --history: also those of parameters and gradients")
    p.add_argument("--output", default=MODEL_FILE, metavar="FILE", help=f"the model file (default: {MODEL_FILE})")

    p = commands.add_parser(
        "predict",
        allow_abbrev=False,
        help="predict with a trained network",
        description="Writes a csv of predictions. Columns of a .csv file are found by the names that the model was "
        "trained with. Where the file has the target too, its accuracy or error goes to stderr.",
    )
    p.set_defaults(run=_run_predict, threads=None)
    p.add_argument("model", metavar="MODEL", help="what `nncore train` wrote")
    p.add_argument("file", metavar="FILE", help="a .csv file with a header, or a .npz file")
    p.add_argument("--x-name", metavar="NAME", help="npz: the array of inputs (default: x)")
    p.add_argument("--y-name", metavar="NAME", help="npz: the array of targets, if any (default: y)")
    p.add_argument("--output", metavar="FILE.csv", help="write there instead of stdout")
    p.add_argument("--proba", action="store_true", help="also the probability of each class")

    p = commands.add_parser("config", allow_abbrev=False, help="print what was built and chosen")
    p.set_defaults(run=lambda args: nncore.show_config(), threads=None)
    return parser


def _warn(message):
    print("nncore: " + " ".join(message.split()), file=sys.stderr)


def _reason(error):
    """An exception in words."""
    if isinstance(error, MemoryError):
        return f"out of memory ({error})" if str(error) else "out of memory"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return str(error)


def main(argv=None):
    """Runs the command line.

    Args:
        argv: arguments without the program's name; None: those of the process.

    Returns:
        Exit code: 0, 2 for bad input, 130 after Ctrl-C, 141 if whoever read the output has gone.

    >>> main(["train", "--epochs", "none"])
    2
    """
    threads = nncore.get_num_threads()
    try:
        args = _parser().parse_args(argv)
        if args.threads is not None:
            nncore.set_num_threads(integer(args.threads, "--threads", 1))
        args.run(args)
        if sys.stdout is not None:
            sys.stdout.flush()
        return 0
    except SystemExit as e:  # --help and --version
        return e.code or 0
    except KeyboardInterrupt:
        _warn("interrupted")
        return 130
    except BrokenPipeError:
        # The interpreter flushes stdout once more when it exits: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ArithmeticError, MemoryError) as e:
        _warn("error: " + _reason(e))
        return 2
    finally:
        nncore.set_num_threads(threads)
