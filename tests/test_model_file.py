"""Model files: round trip, atomic writing, and damaged files."""

import errno
import json
import os
import stat

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

import nncore
from nncore import _model_file, train


def classifier(dtype="float32", dropout=0.0, labels=("x", "y", "z"), seed=0):
    nncore.manual_seed(seed)
    spec = train.NetworkSpec("classification", (4, 5, len(labels)), "tanh", dropout, dtype)
    return train.TrainedModel(
        spec,
        spec.build(),
        input_mean=[0.1, 1 / 3, -2e-7, 5e11],
        input_std=[1.0, 1 / 7, 3e-5, 1e10],
        classes=list(labels),
        features=["a", "b", "c", 'ü"'],
        target="kind",
        seed=seed,
        training={"epochs": 3},
    )


def regressor():
    spec = train.NetworkSpec("regression", (4, 3, 1))
    return train.TrainedModel(
        spec, spec.build(), input_mean=[0] * 4, input_std=[1] * 4, target_mean=7, target_std=1 / 3
    )


RAW = np.random.default_rng(0).normal(size=(50, 4)) * [1, 1, 1e-4, 1e11] + [0, 0, 0, 5e11]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_round_trip_keeps_everything(tmp_path, dtype, dropout):
    path = tmp_path / "m.safetensors"
    model = classifier(dtype, dropout)
    train.save_model(path, model)
    again = train.load_model(path)
    assert again.spec == model.spec
    for name in ("classes", "features", "target", "seed", "training"):
        assert getattr(again, name) == getattr(model, name)
    assert (again.input_mean == model.input_mean).all()
    assert (again.input_std == model.input_std).all()
    assert (again.predict(RAW) == model.predict(RAW)).all()
    assert (again.predict_proba(RAW) == model.predict_proba(RAW)).all()
    assert len(set(again.predict(RAW))) > 1
    assert not again.model.training


def test_regression_round_trip_and_units(tmp_path):
    path = tmp_path / "m.safetensors"
    model = regressor()
    train.save_model(path, model)
    again = train.load_model(path)
    assert again.classes is None
    assert (again.predict(RAW) == model.predict(RAW)).all()
    scaled = train.predict(model.model, RAW).double().numpy()[:, 0]
    np.testing.assert_allclose(again.predict(RAW), scaled / 3 + 7, rtol=1e-14)
    with pytest.raises(ValueError, match="regression"):
        again.predict_proba(RAW)


def test_predictions_are_those_of_the_formula():
    model = classifier("float64")
    w = model.model.state_dict()
    hidden = np.tanh((RAW - model.input_mean) / model.input_std @ w["0.weight"].T + w["0.bias"])
    logits = hidden @ w["2.weight"].T + w["2.bias"]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(RAW), p, rtol=1e-10)
    assert model.predict(RAW).tolist() == [model.classes[i] for i in p.argmax(1)]
    assert (model.predict(RAW.reshape(50, 2, 2)) == model.predict(RAW)).all()
    assert (model.predict(nncore.from_numpy(RAW)) == model.predict(RAW)).all()


def test_prediction_ignores_dropout_and_keeps_the_mode():
    model = classifier(dropout=0.5)
    model.model.train()
    assert (model.predict_proba(RAW) == model.predict_proba(RAW)).all()
    assert model.model.training


@pytest.mark.parametrize("labels", [(3, 5, 7), (0.5, 1.5, 2.5), ("a", "b", "c"), (False, True)])
def test_labels_keep_their_type(tmp_path, labels):
    path = tmp_path / "m.safetensors"
    train.save_model(path, classifier(labels=labels))
    again = train.load_model(path)
    assert again.classes == list(labels)
    assert {type(v) for v in again.predict(RAW).tolist()} == {type(labels[0])}


def test_the_file_is_plain_safetensors_and_reproducible(tmp_path):
    model = classifier()
    for name in ("a", "b"):
        train.save_model(tmp_path / name, model)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with safe_open(tmp_path / "a", framework="np") as file:
        assert set(file.keys()) == set(model.model.state_dict())
        described = json.loads(file.metadata()["nncore"])
    assert described["network"]["sizes"] == [4, 5, 3]
    assert described["nncore_version"] == nncore.__version__


def test_loading_takes_no_random_numbers(tmp_path):
    train.save_model(tmp_path / "m", classifier())
    state = nncore.get_rng_state()
    train.load_model(tmp_path / "m")
    assert nncore.get_rng_state() == state


# ---- atomic writing ----


class _Fails:
    """Raises in place of a function."""

    def __init__(self, error):
        self.error = error

    def __call__(self, *args, **kwargs):
        raise self.error


@pytest.mark.parametrize("where", ["fsync", "replace", "fchmod"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, where, error):
    path = tmp_path / "m.safetensors"
    train.save_model(path, classifier(seed=1))
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(_model_file.os, where, _Fails(error))
        with pytest.raises(type(error)):
            train.save_model(path, classifier(seed=2))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.safetensors"]
    train.save_model(path, classifier(seed=2))
    assert path.read_bytes() != before


def test_a_failed_first_save_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(_model_file.os, "fsync", _Fails(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output"):
        train.save_model(tmp_path / "m", classifier())
    assert os.listdir(tmp_path) == []


def test_links_and_permissions_survive(tmp_path):
    path, link = tmp_path / "m.safetensors", tmp_path / "link"
    train.save_model(path, regressor())
    os.chmod(path, 0o640)
    link.symlink_to(path)
    train.save_model(link, classifier())
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert train.load_model(path).spec.task == "classification"


def test_new_files_follow_the_umask(tmp_path):
    former = os.umask(0o027)
    try:
        train.save_model(tmp_path / "m", regressor())
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o640


def test_only_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in (("pipe", "regular"), ("", "directory"), ("missing/m", "does not exist")):
        with pytest.raises(ValueError, match=words):
            train.save_model(tmp_path / path, regressor())
    with pytest.raises(TypeError, match=r"trained: .*dict"):
        train.save_model(tmp_path / "m", {})


# ---- damaged and foreign files ----


def rewritten(path, edit=None, weights=None):
    """Writes a classifier's file with an edited description or other weights."""
    model = classifier()
    train.save_model(path, model)
    with safe_open(path, framework="np") as file:
        described = json.loads(file.metadata()["nncore"])
    if edit is not None:
        edit(described)
    state = model.model.state_dict() | (weights or {})
    path.write_bytes(save({k: v for k, v in state.items() if v is not None}, {"nncore": json.dumps(described)}))


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated_files_are_refused(tmp_path, keep):
    path = tmp_path / "m.safetensors"
    train.save_model(path, classifier())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"m\.safetensors: not a safetensors file, or a damaged one"):
        train.load_model(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"not a model, but longer than a header of eight bytes")
    with pytest.raises(ValueError, match=r"m\.safetensors: not a safetensors file"):
        train.load_model(path)
    path.write_bytes(save({"a": np.zeros(2)}))
    with pytest.raises(ValueError, match=r"m\.safetensors: .*no 'nncore' entry"):
        train.load_model(path)
    path.write_bytes(save({"a": np.zeros(2)}, {"nncore": "{"}))
    with pytest.raises(ValueError, match=r"m\.safetensors: .*not JSON"):
        train.load_model(path)
    with pytest.raises(FileNotFoundError):
        train.load_model(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        train.load_model(tmp_path)


def put(*keys, value):
    """An edit of the description."""

    def edit(described):
        for k in keys[:-1]:
            described = described[k]
        described[keys[-1]] = value

    return edit


@pytest.mark.parametrize(
    "edit, words",
    [
        (put("format", value="other"), "format"),
        (put("version", value=2), "format version 2; this nncore reads version 1"),
        (lambda d: d.pop("classes"), "'classes'"),
        (lambda d: d.pop("input_mean"), "'input_mean'"),
        (put("network", value=[]), "'network'"),
        (put("network", "extra", value=1), "extra"),
        (put("network", "task", value="ranking"), "task: .*ranking"),
        (put("network", "sizes", value=[4, 6, 3]), r"0\.weight: .*\(6, 4\).*\(5, 4\)"),
        (put("network", "sizes", value=[4, 10**12, 3]), r"0\.weight: "),
        (put("network", "sizes", value=[4, 3]), "unexpected"),
        (put("network", "sizes", value=[4, "5", 3]), "sizes: .*str"),
        (put("network", "activation", value="__import__"), "activation: "),
        (put("network", "dropout", value=2), "dropout: .*2"),
        (put("network", "dropout", value=0.5), "missing"),
        (put("network", "dtype", value="float64"), "float64"),
        (put("classes", value=["x", "y"]), "classes: .*3"),
        (put("classes", value=["x", "x", "y"]), "classes: .*distinct"),
        (put("classes", value=["x", 1, None]), "classes: "),
        (put("features", value=["a"]), "features: .*4.*1"),
        (put("input_std", value=[1, 1, 1, 0]), "input_std"),
        (put("input_mean", value=[1, 1, 1]), "input_mean: .*4"),
        (put("input_mean", value=[1, 1, 1, float("nan")]), "input_mean: .*finite"),
        (put("input_mean", value=[1, 1, 1, 10**400]), "valid model file"),
        (put("target_mean", value="0"), "'target_mean'"),
        (put("seed", value=-1), "seed: "),
    ],
)
def test_bad_descriptions_are_refused(tmp_path, edit, words):
    path = tmp_path / "m.safetensors"
    rewritten(path, edit)
    with pytest.raises(ValueError, match=rf"(?s)m\.safetensors: .*{words}"):
        train.load_model(path)


@pytest.mark.parametrize(
    "weights, words",
    [
        ({"2.bias": None}, "missing .*2.bias"),
        ({"9.bias": np.zeros(3, np.float32)}, "unexpected .*9.bias"),
        ({"2.bias": np.zeros(4, np.float32)}, r"2\.bias: .*\(3,\).*\(4,\)"),
        ({"2.bias": np.zeros(3, np.float64)}, r"2\.bias: .*float64"),
        ({"2.bias": np.zeros(3, np.int32)}, r"2\.bias: .*I32"),
    ],
)
def test_weights_that_do_not_match_are_refused(tmp_path, weights, words):
    path = tmp_path / "m.safetensors"
    rewritten(path, weights=weights)
    with pytest.raises(ValueError, match=rf"m\.safetensors: .*{words}"):
        train.load_model(path)


def test_an_unchanged_rewrite_is_accepted(tmp_path):
    rewritten(tmp_path / "m")  # so that the refusals above are due to their edits
    assert train.load_model(tmp_path / "m").predict(RAW).tolist() == classifier().predict(RAW).tolist()


@pytest.mark.parametrize(
    "x, error, words",
    [
        (np.zeros((3, 5)), ValueError, r"x: .*\[N, 4\].*\(3, 5\)"),
        (np.zeros(4), ValueError, r"x: .*\(4,\)"),
        ([[1, 2, 3, np.nan]], ValueError, "x: .*row 0"),
        ([["a", "b", "c", "d"]], TypeError, "x: "),
    ],
)
def test_bad_inputs_are_named(x, error, words):
    with pytest.raises(error, match=words):
        classifier().predict(x)


def test_specs_and_models_check_their_arguments():
    for change, words in (
        ({"task": "other"}, "task: "),
        ({"sizes": (4,)}, "sizes: "),
        ({"sizes": (4, 0, 3)}, "sizes: .*0"),
        ({"task": "regression"}, "sizes: .*3"),
        ({"activation": "gelu"}, "activation: .*gelu"),
        ({"dropout": 1.0}, "dropout: "),
        ({"dtype": "float16"}, "dtype: "),
    ):
        with pytest.raises(ValueError, match=words):
            train.NetworkSpec(**({"task": "classification", "sizes": (4, 3)} | change))
    with pytest.raises(ValueError, match=r"0\.weight"):
        train.TrainedModel(
            train.NetworkSpec("regression", (3, 1)),
            train.NetworkSpec("regression", (2, 1)).build(),
            input_mean=[0] * 3,
            input_std=[1] * 3,
        )
