"""Files of image collections: written small by the tests, whole and damaged in every way."""

import gzip
import hashlib
import io
import tarfile

import numpy as np
import pytest

from nncore import data

NAMES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def idx(array, code=8):
    """Bytes of the IDX format."""
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, code, array.ndim]) + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


def mnist(folder, pack=False):
    """Four files of few images: {name: array}, with the checksums."""
    rng, found, sums = np.random.default_rng(0), {}, {}
    for name, shape in zip(NAMES, ((5, 28, 28), (5,), (3, 28, 28), (3,))):
        found[name] = rng.integers(0, 256 if len(shape) > 1 else 10, shape).astype(np.uint8)
        content = idx(found[name])
        sums[name] = hashlib.md5(content).hexdigest()
        (folder / (name + ".gz" * pack)).write_bytes(gzip.compress(content) if pack else content)
    return found, sums


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("load", [data.load_mnist, data.load_fashion_mnist])
def test_mnist(load, pack, tmp_path):
    arrays, sums = mnist(tmp_path, pack)
    for train, part in ((True, "train"), (False, "t10k")):
        for verify in (False, sums, {}):
            x, y = load(tmp_path, train, verify=verify)
            assert x.dtype == np.uint8
            assert y.dtype == np.int64
            assert x.shape == (len(y), 1, 28, 28)
            assert (x[:, 0] == arrays[f"{part}-images-idx3-ubyte"]).all()
            assert (y == arrays[f"{part}-labels-idx1-ubyte"]).all()
    x, _ = data.load_mnist(tmp_path, verify=False)
    x[:] = 0  # an array of one's own


def test_published_checksums_are_expected(tmp_path):
    mnist(tmp_path)
    with pytest.raises(
        ValueError, match=r"train-images-idx3-ubyte: its md5 is .*, expected 6bbc9ace898e44ae57da46a324031adb"
    ):
        data.load_mnist(tmp_path)
    with pytest.raises(
        ValueError, match=r"t10k-images-idx3-ubyte: its md5 is .*, expected 8181f5470baa50b63fa0f6fddb340f0a"
    ):
        data.load_fashion_mnist(str(tmp_path), train=False)


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_own_checksums(algorithm, tmp_path):
    mnist(tmp_path, pack=True)
    name = "train-labels-idx1-ubyte"
    content = gzip.decompress((tmp_path / (name + ".gz")).read_bytes())
    right = hashlib.new(algorithm, content).hexdigest()
    data.load_mnist(tmp_path, verify={name: right.upper()})
    wrong = ("0" if right[0] != "0" else "1") + right[1:]
    with pytest.raises(ValueError, match=f"{name}.gz: its {algorithm} is {right}, expected {wrong}"):
        data.load_mnist(tmp_path, verify={name: wrong})


@pytest.mark.parametrize("code, dtype", [(8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")])
def test_idx_types(code, dtype, tmp_path):
    a = np.arange(-6, 6).reshape(2, 3, 2).astype(dtype)
    (tmp_path / "a").write_bytes(idx(a, code))
    b = data.read_idx(tmp_path / "a")
    assert b.dtype == np.dtype(dtype)
    assert (a == b).all()


def damage(content):
    """{what: bytes}."""
    packed = gzip.compress(content)
    return {
        "empty": b"",
        "short magic": content[:3],
        "text": b"<html>not found</html>",
        "unknown type": content[:2] + b"\x0a" + content[3:],
        "no axes but bytes": b"\0\0\x08\0" + content,
        "header cut": content[:7],
        "too many axes": b"\0\0\x08\xff" + bytes(4 * 255),
        "truncated": content[:-1],
        "too long": content + b"\0",
        "packed, cut": packed[: len(packed) // 2],
        "packed, header only": packed[:2],
        "packed, other bits": packed[:-20] + bytes(b ^ 255 for b in packed[-20:]),
        "packed, truncated within": gzip.compress(content[:-5]),
    }


@pytest.mark.parametrize("what", damage(b"1234"))
def test_damaged_idx_files_are_named(what, tmp_path):
    arrays, _ = mnist(tmp_path)
    name = "train-images-idx3-ubyte"
    (tmp_path / name).write_bytes(damage(idx(arrays[name]))[what])
    words = {"truncated": "truncated: 3935 bytes, expected 3936", "too long": "too long: 3937 bytes, expected 3936"}
    words["too many axes"] = "255 axes"
    with pytest.raises(ValueError, match=f"{name}: .*{words.get(what, '')}"):
        data.load_mnist(tmp_path, verify=False)


def test_checksums_are_checked_by_name(tmp_path):
    mnist(tmp_path)
    name = "train-labels-idx1-ubyte"
    with pytest.raises(ValueError, match=r"checksum: expected an MD5.*'abc'"):
        data.read_idx(tmp_path / name, "abc")
    with pytest.raises(ValueError, match=r"verify: expected an MD5.*'abc'"):
        data.load_mnist(tmp_path, verify={name: "abc"})


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("train-images-idx3-ubyte", idx(np.zeros((5, 28), np.uint8)), r"uint8 images .*\(5, 28\)"),
        ("train-images-idx3-ubyte", idx(np.zeros((5, 4, 4), np.int16), 11), "uint8 images .*int16"),
        ("train-labels-idx1-ubyte", idx(np.zeros(4, np.uint8)), r"expected 5 labels .*\(4,\)"),
        ("train-labels-idx1-ubyte", idx(np.array([0, 1, 2, 3, 10], np.uint8)), "labels 0 to 9, got 10 at position 4"),
    ],
)
def test_files_must_fit_together(name, content, words, tmp_path):
    mnist(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: .*{words}"):
        data.load_mnist(tmp_path, verify=False)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file train-images-idx3-ubyte or"):
        data.load_mnist(tmp_path, verify=False)
    with pytest.raises(FileNotFoundError):
        data.load_cifar10(tmp_path / "nothing.tar.gz")
    with pytest.raises(FileNotFoundError, match=r"test_batch.bin"):
        data.load_cifar10(tmp_path, train=False)
    with pytest.raises(FileNotFoundError):
        data.read_idx(tmp_path / "nothing")


# ---- CIFAR-10 ----


def cifar(n=4):
    """{name: bytes}, {name: (images, labels)}."""
    rng, files, arrays = np.random.default_rng(1), {}, {}
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
        x, y = rng.integers(0, 256, (n, 3, 32, 32)).astype(np.uint8), rng.integers(0, 10, n).astype(np.uint8)
        arrays[name] = x, y
        files[name] = b"".join(bytes([label]) + image.tobytes() for image, label in zip(x, y))
    return files, arrays


def archive(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo("cifar-10-batches-bin/" + name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def test_cifar10(tmp_path):
    files, arrays = cifar()
    packed = tmp_path / "cifar-10-binary.tar.gz"
    packed.write_bytes(archive(files))
    inner = tmp_path / "cifar-10-batches-bin"
    inner.mkdir()
    for name, content in files.items():
        (inner / name).write_bytes(content)
    own = {"data_batch_3.bin": hashlib.sha256(files["data_batch_3.bin"]).hexdigest()}
    for path, verify in ((packed, False), (inner, False), (tmp_path, False), (inner, own)):
        x, y = data.load_cifar10(path, verify=verify)
        assert (x == np.concatenate([arrays[f"data_batch_{i}.bin"][0] for i in range(1, 6)])).all()
        assert y.tolist() == [v for i in range(1, 6) for v in arrays[f"data_batch_{i}.bin"][1]]
        assert (x.dtype, y.dtype) == (np.uint8, np.int64)
        x, y = data.load_cifar10(path, train=False, verify=verify)
        assert (x == arrays["test_batch.bin"][0]).all()
    assert (
        data.load_cifar10(packed, verify={packed.name: hashlib.md5(packed.read_bytes()).hexdigest()})[0].shape[0] == 20
    )
    with pytest.raises(ValueError, match=r"its md5 is .*, expected c32a1d4ab5d03f1284b67883e8d87530"):
        data.load_cifar10(packed)
    with pytest.raises(ValueError, match=r"data_batch_1.bin: 12292 bytes, expected 3073 for each of 10000"):
        data.load_cifar10(inner)
    with pytest.raises(ValueError, match=r"data_batch_3.bin: its sha256 is"):
        data.load_cifar10(inner, verify={"data_batch_3.bin": "0" * 64})


def test_damaged_cifar10_is_named(tmp_path):
    files, _ = cifar(1)
    for name, content, words in (
        ("data_batch_2.bin", files["data_batch_2.bin"][:-1], "3072 bytes, expected 3073"),
        ("data_batch_2.bin", b"", "0 bytes"),
        ("data_batch_2.bin", b"\x0b" + bytes(3072), "labels 0 to 9, got 11 at position 0"),
    ):
        damaged = files | {name: content}
        (tmp_path / "a.tar.gz").write_bytes(archive(damaged))
        for n, c in damaged.items():
            (tmp_path / n).write_bytes(c)
        for path in (tmp_path, tmp_path / "a.tar.gz"):
            with pytest.raises(ValueError, match=f"{name}: .*{words}"):
                data.load_cifar10(path, verify=False)
    whole = archive(files)
    for content in (whole[: len(whole) // 2], whole[:100], b"no archive", b"", whole[:50] + b"abc" + whole[53:]):
        (tmp_path / "b.tar.gz").write_bytes(content)
        with pytest.raises(ValueError, match=r"b.tar.gz: "):
            data.load_cifar10(tmp_path / "b.tar.gz", verify=False)
    del files["data_batch_5.bin"]
    (tmp_path / "c.tar.gz").write_bytes(archive(files))
    with pytest.raises(ValueError, match=r"c.tar.gz: there is no data_batch_5.bin in it"):
        data.load_cifar10(tmp_path / "c.tar.gz", verify=False)


@pytest.mark.parametrize("verify", [1, "md5", None])
def test_verify_is_a_bool_or_a_dict(verify, tmp_path):
    mnist(tmp_path)
    with pytest.raises(TypeError, match="verify: "):
        data.load_mnist(tmp_path, verify=verify)
    with pytest.raises(ValueError, match=r"verify: .*'abc'"):
        data.load_mnist(tmp_path, verify=dict.fromkeys(NAMES, "abc"))


# ---- folders ----


def pictures(root):
    image = pytest.importorskip("PIL.Image")
    rng, found = np.random.default_rng(2), {}
    for name in ("zebra/a.png", "zebra/more/b.PNG", "ant/c.bmp", "ant/notes.txt"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".txt":
            path.write_text("no picture")
            continue
        found[name] = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
        image.fromarray(found[name]).save(path)
    return found


def test_image_folder(tmp_path):
    arrays = pictures(tmp_path)
    folder = data.ImageFolder(tmp_path)
    assert folder.classes == ["ant", "zebra"]
    assert folder.class_to_idx == {"ant": 0, "zebra": 1}
    assert [y for _, y in folder.samples] == [0, 1, 1]
    for (x, y), name in zip(folder, ("ant/c.bmp", "zebra/a.png", "zebra/more/b.PNG")):
        assert (x == arrays[name].transpose(2, 0, 1)).all()
        assert y == (name[0] == "z")
    ((x, y),) = data.DataLoader(folder, None)
    assert x.shape == (3, 3, 5, 7)
    assert y.tolist() == [0, 1, 1]
    assert data.ImageFolder(tmp_path, size=(4, 6), mode="L")[0][0].shape == (1, 4, 6)
    assert data.ImageFolder(tmp_path, size=9)[0][0].shape == (3, 9, 9)


def test_image_folders_are_checked(tmp_path):
    pictures(tmp_path)
    path = tmp_path / "zebra" / "more" / "b.PNG"
    content = path.read_bytes()
    good = {"zebra/more/b.PNG": hashlib.md5(content).hexdigest()}
    assert len(list(data.ImageFolder(tmp_path, checksums=good))) == 3
    bad = {"zebra/more/b.PNG": "0" * 32}
    with pytest.raises(ValueError, match=r"b.PNG: its md5 is"):
        list(data.ImageFolder(tmp_path, checksums=bad))
    for damaged in (content[:60], b"", b"text", content[:40] + b"\0\0\0\0" + content[44:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"b.PNG: not a picture, or a damaged one"):
            list(data.ImageFolder(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: expected pictures"):
        data.ImageFolder(tmp_path)
    with pytest.raises(ValueError, match="expected a folder for each class"):
        data.ImageFolder(tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        data.ImageFolder(tmp_path / "nothing")


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"size": 0}, ValueError, "size: .*0"),
        ({"size": (1, 2, 3)}, ValueError, "size: "),
        ({"size": 1.5}, TypeError, "size: .*float"),
        ({"mode": "CMYK"}, ValueError, "mode: .*CMYK"),
        ({"checksums": 3}, TypeError, "checksums: .*int"),
        ({"checksums": {"a.png": "abc"}}, ValueError, "checksums: expected an MD5.*'abc'"),
    ],
)
def test_bad_arguments_are_named(options, error, words, tmp_path):
    with pytest.raises(error, match=words):
        data.ImageFolder(tmp_path, **options)
