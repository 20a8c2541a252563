"""The command line, mostly in this process."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nncore
from nncore import cli, data, train
from nncore._core import runtime


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(capsys, *argv):
    """(exit code, stdout, stderr)."""
    code = cli.main([str(a) for a in argv])
    return code, *capsys.readouterr()


def refused(capsys, *argv):
    """The message of a command that must fail with one line."""
    code, out, err = run(capsys, *argv)
    assert code == 2
    assert out == ""
    assert re.fullmatch(r"nncore: error: [^\n]+\n", err)
    return err


def flowers(path="flowers.csv", n=90, seed=0, **changes):
    """A csv of three separable kinds; changes: {line number: text instead}."""
    rng = np.random.default_rng(seed)
    kinds = ["rose", "tulip, wild", "weed"]
    lines = ['length,"width ""mm""",kind']
    for i in range(n):
        a, b = rng.normal(size=2) * 0.3 + [(0, 0), (3, 0), (0, 3)][i % 3]
        lines.append(f'{a:.6f},{b:.6f},"{kinds[i % 3]}"')
    for line, text in changes.items():
        lines[int(line[1:]) - 1] = text
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")
    return path


def numbers(path="numbers.npz", n=300):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, 3)) * [1, 100, 0.01] + [5, 0, 0]
    y = 1000 + 30 * x[:, 0] - 2 * x[:, 1] + 500 * x[:, 2] * (x[:, 2] > 0)
    np.savez(path, x=x, y=y)
    return path, x, y


# ---- training ----


def test_digits_without_arguments(capsys):
    code, out, err = run(capsys, "train")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    epochs = [line for line in lines if line.startswith("epoch")]
    assert len(epochs) == 30
    assert re.fullmatch(
        r"epoch  1/30  loss \d\.\d{4}  accuracy \d\.\d{4}  held-out loss \d\.\d{4}  held-out accuracy \d\.\d{4}"
        r"  [\d,]+ samples/s",
        epochs[0],
    )
    accuracy, right, of = re.fullmatch(r"held-out accuracy (\S+) \((\d+) of (\d+)\)", lines[-2]).groups()
    assert lines[-1] == "model written to nncore-model.safetensors"
    assert os.listdir() == ["nncore-model.safetensors"]
    model = train.load_model("nncore-model.safetensors")
    x, y = data.load_digits()
    _, held = data.stratified_split(y, 0.2, seed=0)
    assert (model.predict(x[held]) == y[held]).sum() == int(right)
    assert len(held) == int(of)
    assert float(accuracy) >= 0.975
    assert model.training["result"]["right"] == int(right)


def test_median_accuracy_over_seeds(capsys):
    found = []
    for seed in range(5):
        _, out, _ = run(capsys, "train", "--quiet", "--seed", seed)
        assert len(out.splitlines()) == 2
        found.append(float(out.split()[2]))
    assert sorted(found)[2] >= 0.98


def test_same_seed_same_file_on_any_threads(capsys):
    for name, seed, threads in (("a", 1, 1), ("b", 1, 2), ("c", 2, 2)):
        runtime.set_parallel_threshold(0 if threads == 2 else -1)
        before = nncore.get_num_threads()
        options = ("--epochs", 2, "--dropout", 0.2, "--seed", seed, "--threads", threads, "--output", name)
        assert run(capsys, "train", *options)[0] == 0
        assert nncore.get_num_threads() == before
    a, b, c = (Path(name).read_bytes() for name in "abc")
    assert a == b != c


def test_history_and_statistics(capsys):
    flowers()
    options = ("--data", "flowers.csv", "--target", "kind", "--epochs", 3, "--quiet", "--history", "h.json")
    assert run(capsys, "train", *options)[0] == 0
    with open("h.json") as file:
        history = json.load(file)
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy", "samples_per_second"}
    assert all(len(v) == 3 for v in history.values())
    run(capsys, "train", *options, "--statistics")
    with open("h.json") as file:
        assert len(json.load(file)["0.weight/grad_norm"]) == 3
    assert sorted(os.listdir()) == ["flowers.csv", "h.json", "nncore-model.safetensors"]


def test_csv_with_strings_quotes_bom_and_blank_lines(capsys):
    flowers()
    text = Path("flowers.csv").read_text()
    with open("flowers.csv", "wb") as file:
        file.write(b"\xef\xbb\xbf" + text.replace("\n", "\r\n\r\n").encode())
    options = ("--target", "kind", "--hidden", 8, "--activation", "tanh", "--lr", 0.01)
    code, out, _ = run(capsys, "train", "--data", "flowers.csv", *options)
    assert code == 0
    assert "72 samples to train, 18 held out" in out
    assert "network 2-8-3, tanh" in out
    assert "held-out accuracy 1.0000 (18 of 18)" in out
    model = train.load_model("nncore-model.safetensors")
    assert model.features == ["length", 'width "mm"']
    assert model.classes == ["rose", "tulip, wild", "weed"]
    assert model.target == "kind"


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_regression_from_npz(capsys, optimizer):
    path, x, y = numbers()
    code, out, err = run(capsys, "train", "--data", path, "--hidden", 32, "--lr", 0.01, "--optimizer", optimizer)
    assert (code, err) == (0, "")
    assert out.startswith("regression of numbers.npz: 240 samples to train, 60 held out\n")
    assert float(re.search(r"held-out r2 (\S+), rmse", out)[1]) > 0.9
    found = train.load_model("nncore-model.safetensors").predict(x)
    assert 1 - ((found - y) ** 2).sum() / ((y - y.mean()) ** 2).sum() > 0.9
    assert re.search(r"epoch 30/30  loss \S+  r2 \S+  held-out loss \S+  held-out r2 \S+  \S+ samples/s", out)


def test_task_follows_the_target(capsys):
    for values, task in (("0 1", "classification"), ("0.5 1", "regression"), ("a 1", "classification")):
        with open("t.csv", "w") as file:
            file.write("a,b\n" + "".join(f"{i},{values.split()[i % 2]}\n" for i in range(20)))
        options = ("--data", "t.csv", "--target", "b", "--epochs", 1)
        assert run(capsys, "train", *options)[1].startswith(task)
        if task != "regression" and "a" not in values:
            assert run(capsys, "train", *options, "--regression")[1].startswith("regression")
    np.savez("t.npz", inputs=np.zeros((8, 2, 2)), labels=np.array(["u", "v"] * 4))
    options = ("--data", "t.npz", "--x-name", "inputs", "--y-name", "labels", "--epochs", 1)
    assert run(capsys, "train", *options)[1].startswith("classification of t.npz")
    assert train.load_model("nncore-model.safetensors").classes == ["u", "v"]


def test_scaling_comes_from_the_training_samples(capsys):
    _, x, y = numbers()
    x[:, 1] = 0.1  # constant, and not exact in binary
    np.savez("numbers.npz", x=x, y=y)
    assert run(capsys, "train", "--data", "numbers.npz", "--epochs", 1)[0] == 0
    model = train.load_model("nncore-model.safetensors")
    rows, _ = data.plain_split(300, 0.2, seed=0)
    np.testing.assert_allclose(model.input_mean, x[rows].mean(0), rtol=1e-12)
    assert model.input_std[1] == 1
    np.testing.assert_allclose(model.input_std[[0, 2]], x[rows].std(0)[[0, 2]], rtol=1e-12)
    assert model.target_std == pytest.approx(y[rows].std())


def test_no_held_out_samples(capsys):
    flowers()
    _, out, _ = run(capsys, "train", "--data", "flowers.csv", "--target", "kind", "--test-fraction", 0, "--epochs", 1)
    assert "training accuracy" in out
    assert "held-out " not in out


# ---- prediction ----


def test_predictions_as_csv(capsys):
    flowers()
    options = ("--target", "kind", "--lr", 0.01, "--quiet")
    assert run(capsys, "train", "--data", "flowers.csv", *options)[0] == 0
    with open("new.csv", "w") as file:
        file.write('note,"width ""mm""",length\nfirst,0.0,3.0\nsecond,3.0,0.0\n')
    code, out, err = run(capsys, "predict", "nncore-model.safetensors", "new.csv")
    assert (code, err) == (0, "")
    assert out == 'kind\n"tulip, wild"\nweed\n'
    code, out, err = run(capsys, "predict", "nncore-model.safetensors", "flowers.csv", "--proba", "--output", "out.csv")
    assert (code, out) == (0, "")
    assert err == "nncore: accuracy 1.0000 (90 of 90)\n"
    with open("out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 90
    assert [float(rows[1]["p_tulip, wild"]) > 0.5, rows[1]["kind"]] == [True, "tulip, wild"]
    assert sum(float(v) for k, v in rows[0].items() if k.startswith("p_")) == pytest.approx(1, abs=1e-5)


def test_predictions_from_npz(capsys):
    path, x, _ = numbers()
    run(capsys, "train", "--data", path, "--hidden", 32, "--lr", 0.01, "--quiet")
    code, out, err = run(capsys, "predict", "nncore-model.safetensors", path)
    assert code == 0
    assert re.fullmatch(r"nncore: rmse \S+ \(300 rows\)\n", err)
    lines = out.splitlines()
    assert lines[0] == "prediction"
    found = np.array(lines[1:], np.float64)
    assert (found == train.load_model("nncore-model.safetensors").predict(x)).all()  # every digit is written
    np.savez("x.npz", x=x)
    assert run(capsys, "predict", "nncore-model.safetensors", "x.npz") == (0, out, "")


def test_names_of_arrays_are_not_for_csv(capsys):
    flowers()
    run(capsys, "train", "--data", "flowers.csv", "--target", "kind", "--epochs", 1, "--quiet")
    for option in ("--x-name", "--y-name"):
        assert option in refused(capsys, "predict", "nncore-model.safetensors", "flowers.csv", option, "a")


def test_labels_are_compared_exactly(capsys):
    """Integers above 2^53, and float32 numbers, whose shortest text is another double."""
    x = np.repeat([[-1.0], [1.0]], 20, 0)
    for labels in (np.array([10**17 + 1, 10**17 + 3]), np.array([0.1, 0.2], np.float32)):
        np.savez("l.npz", x=x, y=labels.repeat(20))
        with open("l.csv", "w") as file:
            file.write("x,y\n" + "".join(f"{a},{b}\n" for (a,), b in zip(x.tolist(), labels.repeat(20).tolist())))
        for data_of in (("l.npz",), ("l.csv", "--target", "y")):
            options = ("--task", "classification", "--lr", 0.1, "--quiet")
            assert run(capsys, "train", "--data", *data_of, *options)[0] == 0
            _, _, err = run(capsys, "predict", "nncore-model.safetensors", data_of[0])
            assert err == "nncore: accuracy 1.0000 (40 of 40)\n"


def test_rows_without_a_target_are_predicted_and_not_scored(capsys):
    flowers()
    run(capsys, "train", "--data", "flowers.csv", "--target", "kind", "--lr", 0.01, "--quiet")
    flowers("some.csv", n=6, _3="0,0,")
    code, out, err = run(capsys, "predict", "nncore-model.safetensors", "some.csv")
    assert code == 0
    assert len(out.splitlines()) == 7
    assert "of 5)" in err


def test_prediction_errors(capsys):
    flowers()
    run(capsys, "train", "--data", "flowers.csv", "--target", "kind", "--epochs", 1, "--quiet")
    model = "nncore-model.safetensors"
    with open("other.csv", "w") as file:
        file.write("length,height\n1,2\n")
    assert """no column 'width "mm"'; the columns are length, height""" in refused(
        capsys, "predict", model, "other.csv"
    )
    np.savez("x.npz", x=np.zeros((3, 5)))
    assert "takes 2 features, the file has 5" in refused(capsys, "predict", model, "x.npz")
    assert "flowers.csv: not a safetensors" in refused(capsys, "predict", "flowers.csv", "other.csv")
    assert "none.csv: No such file" in refused(capsys, "predict", model, "none.csv")
    assert "one file" in refused(capsys, "predict", model, "flowers.csv", "--output", "flowers.csv")


# ---- bad input ----


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"_5": "1.0,,rose"}, "line 5: missing value in column 'width \"mm\"'"),
        ({"_7": "NA,1,rose"}, "line 7: missing value in column 'length'"),
        ({"_9": "1,2"}, "line 9: expected 3 values as in the header, got 2"),
        ({"_9": "1,2,rose,4"}, "line 9: expected 3 values as in the header, got 4"),
        ({"_4": "\n\n1,long,rose"}, "line 6: expected a finite number in column 'width \"mm\"', got 'long'"),
        ({"_4": "inf,1,rose"}, "line 4: expected a finite number"),
        ({"_4": "1_0,1,rose"}, "line 4: expected a finite number"),
        ({"_6": "1,2,"}, "line 6: missing value in the target column 'kind'"),
        ({"_3": '"1\n",2,"a\nb"', "_8": "x,2,rose"}, "line 10: expected a finite number"),  # quoted line breaks count
        ({"_1": "a,kind,a"}, "line 1: two columns are named 'a'"),
        ({"_1": ",b,kind"}, "line 1: column 1 has no name"),
        ({"_1": "a,b,c"}, "no column 'kind'; the columns are a, b, c"),
        ({"_91": '1,2,"open'}, "unexpected end of data"),
    ],
)
def test_csv_errors_name_the_line(capsys, changes, words):
    flowers(**changes)
    message = refused(capsys, "train", "--data", "flowers.csv", "--target", "kind")
    assert "flowers.csv" in message
    assert words in message
    assert os.listdir() == ["flowers.csv"]


def test_files_that_are_no_csv(capsys):
    for name, content, words in (
        ("empty.csv", b"", "empty"),
        ("header.csv", b"a,b\n", "no samples"),
        ("latin.csv", b"a,b\n1,\xe9\n", "not UTF-8"),
        ("one.csv", b"b\n1\n", "no columns besides"),
        ("same.csv", b"a,b\n1,x\n2,x\n", "at least two classes"),
        ("huge.csv", b"a,b\n1e308,x\n-1e308,y\n1e308,x\n", "too large"),
        ("data.txt", b"", "expected a .csv or .npz"),
    ):
        with open(name, "wb") as file:
            file.write(content)
        assert words in refused(capsys, "train", "--data", name, "--target", "b")


def test_npz_errors(capsys):
    for arrays, words in (
        ({"a": np.zeros(3)}, "no array 'x'; the arrays are a"),
        ({"x": np.zeros((3, 2))}, "no array 'y'"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(2)}, "y: expected numbers or strings of shape (3,)"),
        ({"x": np.zeros(3), "y": np.zeros(3)}, "x: expected numbers of shape [N, features]"),
        ({"x": np.full((3, 2), np.nan), "y": np.zeros(3)}, "x: NaN or infinite values in row 0"),
        ({"x": np.zeros((3, 2)), "y": np.array([1, 2, np.inf])}, "y: NaN or infinite value in row 2"),
        ({"x": np.array([["a"]]), "y": np.zeros(1)}, "x: expected numbers"),
    ):
        np.savez("d.npz", **arrays)
        message = refused(capsys, "train", "--data", "d.npz")
        assert "d.npz: " in message
        assert words in message
    with open("d.npz", "wb") as file:
        np.save(file, np.zeros(3))
    assert "d.npz" in refused(capsys, "train", "--data", "d.npz")
    np.savez("d.npz", x=np.array([[object()]]), y=np.zeros(1), allow_pickle=True)
    assert "d.npz" in refused(capsys, "train", "--data", "d.npz")  # nothing is unpickled


@pytest.mark.parametrize(
    "argv, words",
    [
        ([], "command|required"),
        (["fly"], "fly"),
        (["train", "--epoch", "3"], "--epoch"),
        (["train", "--epochs", "x"], "--epochs.*'x'"),
        (["train", "--epochs", "0"], "epochs: .*0"),
        (["train", "--batch-size", "-1"], "batch_size: .*-1"),
        (["train", "--hidden", "8", "0"], "sizes: .*0"),
        (["train", "--dropout", "1.5"], "dropout: .*1.5"),
        (["train", "--lr", "-1"], "lr: .*-1"),
        (["train", "--lr", "nan"], "lr: .*nan"),
        (["train", "--seed", "-1"], "seed: .*-1"),
        (["train", "--threads", "0"], "--threads: .*0"),
        (["train", "--test-fraction", "1"], "test_fraction: .*1"),
        (["train", "--momentum", "0.5"], "--momentum: only for --optimizer sgd"),
        (["train", "--statistics"], "--history"),
        (["train", "--target", "a"], "--target: only together with --data"),
        (["train", "--data", "none.csv", "--target", "a"], "none.csv: No such file"),
        (["train", "--output", "none/m"], "none/m: .*does not exist"),
        (["train", "--output", "."], "directory"),
        (["train", "--output", "m", "--history", "m"], "one file, m"),
        (["train", "--lr", "1e30", "--epochs", "3"], "diverged; lower lr"),
        (["predict", "none", "none.csv"], "none: No such file"),
    ],
)
def test_bad_arguments_give_one_line(capsys, argv, words):
    code, _, err = run(capsys, *argv)
    assert code == 2
    assert re.fullmatch(r"nncore: error: [^\n]+\n", err)
    assert re.search(words, err)
    assert os.listdir() == []


def test_csv_needs_a_target(capsys):
    flowers()
    assert 'The columns are length, width "mm", kind' in refused(capsys, "train", "--data", "flowers.csv")


def test_many_integer_classes_bring_a_hint(capsys):
    with open("t.csv", "w") as file:
        file.write("a,b\n" + "".join(f"{i},{100 + i}\n" for i in range(12)))
    code, _, err = run(capsys, "train", "--data", "t.csv", "--target", "b", "--epochs", 1)
    assert code == 0
    assert "12 classes in 12 samples; --regression" in err


# ---- the process ----


def test_ctrl_c_leaves_the_old_model(capsys, monkeypatch):
    run(capsys, "train", "--epochs", 1, "--quiet")
    before = Path("nncore-model.safetensors").read_bytes()

    def interrupt(*args):
        raise KeyboardInterrupt

    for place in ((cli._Report, "on_epoch_end"), (os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(*place, interrupt)
            code, _, err = run(capsys, "train", "--epochs", 2)
        assert (code, err) == (130, "nncore: interrupted\n")
        assert Path("nncore-model.safetensors").read_bytes() == before
        assert os.listdir() == ["nncore-model.safetensors"]


def test_progress_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    _, out, err = run(capsys, "train", "--epochs", 2)
    assert "batch" in err
    assert out.count("epoch ") == 2
    for option in ("--no-progress", "--quiet"):
        assert run(capsys, "train", "--epochs", 2, option)[2] == ""


def test_version_help_and_config(capsys):
    assert run(capsys, "--version") == (0, f"nncore {nncore.__version__}\n", "")
    code, out, _ = run(capsys, "train", "--help")
    assert code == 0
    assert "--hidden" in out
    code, out, _ = run(capsys, "config")
    assert code == 0
    assert runtime.get_isa() in out


def process(*argv, **kwargs):
    kwargs = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | kwargs
    return subprocess.Popen([sys.executable, "-m", "nncore", *argv], **kwargs)


def test_as_a_process():
    with process("train", "--epochs", "1") as p:
        out, err = p.communicate(timeout=60)
    assert (p.returncode, err) == (0, "")
    assert out.endswith("model written to nncore-model.safetensors\n")
    with process("predict", "nncore-model.safetensors", "none.csv") as p:
        out, err = p.communicate(timeout=60)
    assert (p.returncode, out) == (2, "")
    assert err == "nncore: error: none.csv: No such file or directory\n"


def test_a_closed_pipe_is_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    with process("train", "--epochs", "1", stdout=writer) as p:
        os.close(writer)
        _, err = p.communicate(timeout=60)
    assert p.returncode == 141
    assert err == ""
