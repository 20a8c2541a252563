"""Collections of images from local files: the embedded digits, MNIST and its like, CIFAR-10, folders of pictures.

Nothing is downloaded. Pixels come as the files have them, uint8 of 0 to 255 in shape [N, C, H, W]; `augment.ToFloat`,
or `x.astype(np.float32) / 255`, makes numbers from 0 to 1 of them.
"""

import contextlib
import gzip
import hashlib
import io
import math
import os
import tarfile
import zlib
from importlib import resources

import numpy as np

from nncore._ops._check import integer, one_of
from nncore.data.dataset import Dataset


def load_digits():
    """The UCI handwritten digits: 1,797 images of 8 x 8 pixels. Source and license: DIGITS.md beside this file.

    Returns:
        (x, y): x float32 [1797, 64], pixel values 0 to 16, row by row; y int64 [1797], the digit, 0 to 9.

    >>> x, y = load_digits()
    >>> x.shape, y.shape, float(x.max()), int(y.max())
    ((1797, 64), (1797,), 16.0, 9)
    """
    with resources.files("nncore.data").joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
        return arrays["x"].astype(np.float32), arrays["y"].astype(np.int64)


# ---- reading ----

_HASHES = {32: "md5", 40: "sha1", 64: "sha256"}  # by the length of their hexadecimal digits


def _checksum(digest, name):
    """A checksum of the caller's, or None."""
    if digest is not None and (not isinstance(digest, str) or len(digest) not in _HASHES):
        raise ValueError(f"{name}: expected an MD5, SHA-1 or SHA-256 in hexadecimal digits, got {digest!r}")
    return digest


def _verify(path, content, digest):
    """Raises unless the content has this checksum; None: any content will do."""
    if digest is None:
        return
    name = _HASHES[len(digest)]
    found = hashlib.new(name, content, usedforsecurity=False).hexdigest()
    if found != digest.lower():
        raise ValueError(f"{path}: its {name} is {found}, expected {digest.lower()}; damaged, or another file")


def _digest(verify, name, published):
    """The checksum to hold a file to: the published one, one of the caller's, or none."""
    if isinstance(verify, dict):
        return _checksum(verify.get(name), "verify")
    if not isinstance(verify, bool):
        raise TypeError(f"verify: expected a bool or a dict of checksums by file name, got {type(verify).__name__}")
    return published if verify else None


def _content(path):
    """The bytes of a file, unpacked if they are a gzip."""
    with open(path, "rb") as file:
        content = file.read()
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as e:
        raise ValueError(f"{path}: damaged or truncated gzip file ({e})") from None


def _found(folder, *names):
    """The path of the one of these files that is there."""
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    raise FileNotFoundError(f"{os.fspath(folder)}: there is no file {' or '.join(names)}")


_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_AXES = 32  # of arrays in NumPy 1


def read_idx(path, checksum=None):
    """An array in the IDX format of the MNIST files, as it is or packed by gzip.

    Two zero bytes, a type (8: uint8, 9: int8, 11: int16, 12: int32, 13: float32, 14: float64), the number of axes,
    their sizes as 32-bit integers, the elements in row-major order; all big-endian (LeCun, Cortes, Burges, "The MNIST
    database").

    Args:
        path: file name.
        checksum: MD5, SHA-1 or SHA-256 of the unpacked file, in hexadecimal digits, or None.

    Returns:
        NumPy array.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no IDX file, it is too short or too long, or it has another checksum; the message names it.
    """
    path, checksum = os.fspath(path), _checksum(checksum, "checksum")
    content = _content(path)
    _verify(path, content, checksum)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_TYPES:
        raise ValueError(f"{path}: not an IDX file (it begins with {content[:4].hex(' ') or 'nothing'})")
    kind, ndim = np.dtype(_IDX_TYPES[content[2]]), content[3]
    if ndim > _MAX_AXES:
        raise ValueError(f"{path}: {ndim} axes, expected at most {_MAX_AXES}")
    start = 4 + 4 * ndim
    if len(content) < start:
        raise ValueError(
            f"{path}: truncated within its header: {len(content)} bytes, expected {start} and the elements"
        )
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4))
    expected = start + math.prod(shape) * kind.itemsize
    if len(content) != expected:
        what = "truncated" if len(content) < expected else "too long"
        raise ValueError(f"{path}: {what}: {len(content)} bytes, expected {expected} for {kind.name} of shape {shape}")
    return np.frombuffer(content, kind, offset=start).reshape(shape).astype(kind.newbyteorder("="))


# ---- MNIST and Fashion-MNIST ----

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_MNIST = {  # MD5 of the unpacked files
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
_FASHION_MNIST = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}


def _read_mnist(folder, train, verify, published):
    arrays, paths = [], []
    for name in (n for n in published if n.startswith("train" if train else "t10k")):
        path = _found(folder, name, name + ".gz", name.replace("-idx", ".idx"))
        arrays.append(read_idx(path, _digest(verify, name, published[name])))
        paths.append(path)
    (x, y), (images, labels) = arrays, paths
    if x.ndim != 3 or x.dtype != np.uint8:
        raise ValueError(f"{images}: expected uint8 images of shape [N, H, W], got {x.dtype} of shape {x.shape}")
    if y.shape != x.shape[:1] or y.dtype != np.uint8:
        raise ValueError(f"{labels}: expected {len(x)} labels of uint8, got {y.dtype} of shape {y.shape}")
    _check_labels(labels, y)
    return x[:, None], y.astype(np.int64)


def _check_labels(path, labels):
    beyond = np.flatnonzero(labels > 9)
    if beyond.size:
        raise ValueError(f"{path}: expected labels 0 to 9, got {labels[beyond[0]]} at position {beyond[0]}")


def load_mnist(folder, train=True, *, verify=True):
    """The handwritten digits of the MNIST database, 28 x 28 pixels, from its IDX files, packed by gzip or not. LeCun,
    Bottou, Bengio, Haffner, Proceedings of the IEEE 86, 1998.

    Args:
        folder: where train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
            t10k-labels-idx1-ubyte are, or these with .gz.
        train: the 60,000 images for training, or else the 10,000 for testing.
        verify: True: the unpacked files must have the published MD5. False: any IDX files of images and labels will do.
            Or a dict of your own checksums: {name without .gz: MD5, SHA-1 or SHA-256}.

    Returns:
        (x, y): x uint8 [N, 1, 28, 28], 0 the background and 255 the ink; y int64 [N], the digit.

    Raises:
        OSError: a file is not there or cannot be read.
        ValueError: a file is damaged, truncated or another one; the message names it and says what is wrong.
    """
    return _read_mnist(folder, train, verify, _MNIST)


def load_fashion_mnist(folder, train=True, *, verify=True):
    """Fashion-MNIST: articles of clothing in the format and with the file names of MNIST. Xiao, Rasul, Vollgraf,
    arXiv:1708.07747, 2017.

    Args, returns, raises: as `load_mnist`. The names of the classes: `FASHION_MNIST_CLASSES`.
    """
    return _read_mnist(folder, train, verify, _FASHION_MNIST)


# ---- CIFAR-10 ----

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
_RECORD = 1 + 3 * 32 * 32
_PER_FILE = 10000


def load_cifar10(path, train=True, *, verify=True):
    """CIFAR-10 in its binary version: photographs of ten kinds of things, 32 x 32 pixels in color. Krizhevsky,
    "Learning multiple layers of features from tiny images", 2009.

    Args:
        path: the archive cifar-10-binary.tar.gz, or a folder with data_batch_1.bin to data_batch_5.bin and
            test_batch.bin.
        train: the 50,000 images for training, or else the 10,000 for testing.
        verify: True: the archive must have the published MD5; of the files in a folder, for which none is published,
            each must have 10,000 images. False: any number of images. Or a dict of your own checksums: {name of a file
            in the folder, or of the archive: MD5, SHA-1 or SHA-256}.

    Returns:
        (x, y): x uint8 [N, 3, 32, 32], red, green and blue; y int64 [N], numbers of `CIFAR10_CLASSES`.

    Raises:
        OSError: a file is not there or cannot be read.
        ValueError: a file is damaged, truncated or another one; the message names it and says what is wrong.
    """
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] if train else ["test_batch.bin"]
    if os.path.isdir(path):
        folder, contents = os.fspath(path), []
        if os.path.isdir(os.path.join(folder, "cifar-10-batches-bin")):
            folder = os.path.join(folder, "cifar-10-batches-bin")
        for name in names:
            file = _found(folder, name)
            contents.append((file, _content(file)))
            _verify(file, contents[-1][1], _digest(verify, name, None))
    else:
        contents = _members(os.fspath(path), names, _digest(verify, os.path.basename(path), _CIFAR10_MD5))
    images, labels = [], []
    for file, content in contents:
        n, rest = divmod(len(content), _RECORD)
        if rest or n == 0 or (verify is True and n != _PER_FILE):
            raise ValueError(
                f"{file}: {len(content)} bytes, expected {_RECORD} for each of "
                f"{_PER_FILE if verify is True else 'its'} images; truncated, or no file of CIFAR-10"
            )
        records = np.frombuffer(content, np.uint8).reshape(n, _RECORD)
        _check_labels(file, records[:, 0])
        labels.append(records[:, 0])
        images.append(records[:, 1:].reshape(n, 3, 32, 32))
    return np.concatenate(images), np.concatenate(labels).astype(np.int64)


def _members(path, names, digest):
    """(name, bytes) of files in an archive."""
    with open(path, "rb") as file:
        content = file.read()
    _verify(path, content, digest)
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if name in names and member.isfile():
                    found[name] = archive.extractfile(member).read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as e:
        raise ValueError(f"{path}: damaged or truncated archive ({e})") from None
    missing = [n for n in names if n not in found]
    if missing:
        raise ValueError(f"{path}: there is no {missing[0]} in it")
    return [(f"{path}: {n}", found[n]) for n in names]


# ---- folders ----

_PICTURES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class ImageFolder(Dataset):
    """Pictures in folders named by their classes: root/class/any/name.png. Sample i is (uint8 [C, H, W], number of the
    class). torchvision's; the pictures are read by Pillow (`pip install nncore-cpu[images]`) when they are asked for.

    Args:
        root: folder with one folder for each class.
        size: (height, width), or one number for both, to which pictures are resized (bilinear); None: as they are,
            which must then be one size for batches.
        mode: 'RGB' or 'L' (gray: C = 1).
        checksums: {path below root, with /: MD5, SHA-1 or SHA-256} of files that are checked when they are read.

    Attributes:
        classes: names, sorted.
        class_to_idx: {name: number}.
        samples: list of (path, number of the class), sorted.

    Raises:
        OSError: root cannot be read.
        ValueError: there is no class, a class has no picture, a file is no picture, is damaged or has another checksum.
        ImportError: Pillow is not installed.
    """

    def __init__(self, root, size=None, mode="RGB", checksums=None):
        self.root, self.mode = os.fspath(root), one_of(mode, "mode", ("RGB", "L"))
        if size is not None:
            size = tuple(size) if isinstance(size, tuple | list) else (size, size)
            if len(size) != 2:
                raise ValueError(f"size: expected (height, width), got {size}")
            size = tuple(integer(s, "size", 1) for s in size)
        if checksums is not None and not isinstance(checksums, dict):
            raise TypeError(f"checksums: expected a dict by path, got {type(checksums).__name__}")
        checksums = {} if checksums is None else {path: _checksum(c, "checksums") for path, c in checksums.items()}
        self.size, self._checksums = size, checksums
        self._draws = False
        self.classes = sorted(e.name for e in os.scandir(self.root) if e.is_dir())
        if not self.classes:
            raise ValueError(f"{self.root}: expected a folder for each class, found none")
        self.class_to_idx = {name: i for i, name in enumerate(self.classes)}
        self.samples = []
        for name, number in self.class_to_idx.items():
            found = [
                (os.path.join(folder, file), number)
                for folder, _, files in os.walk(os.path.join(self.root, name))
                for file in files
                if file.lower().endswith(_PICTURES)
            ]
            if not found:
                raise ValueError(
                    f"{os.path.join(self.root, name)}: expected pictures ({' '.join(_PICTURES)}), found none"
                )
            self.samples += sorted(found)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        try:
            from PIL import Image
        except ImportError:
            raise ImportError("ImageFolder reads pictures with Pillow: pip install nncore-cpu[images]") from None
        path, number = self.samples[index]
        with open(path, "rb") as file:
            content = file.read()
        with contextlib.suppress(KeyError):
            _verify(path, content, self._checksums[os.path.relpath(path, self.root).replace(os.sep, "/")])
        try:
            with Image.open(io.BytesIO(content)) as picture:
                picture = picture.convert(self.mode)
                if self.size is not None:
                    picture = picture.resize(self.size[::-1], Image.Resampling.BILINEAR)
                pixels = np.array(picture)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
            raise ValueError(f"{path}: not a picture, or a damaged one ({e})") from None
        return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), number
