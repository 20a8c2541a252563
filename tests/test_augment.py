"""Affine resampling against its oracle, bit for bit; the random transforms."""

import math

import numpy as np
import pytest
from nncore._core.elementwise import channels_last

import nncore
from nncore import nn
from nncore._core import runtime, tensor
from nncore.data import augment
from nncore.nn import functional as F

from . import reference, shapes, tolerance

from_array = tensor.from_array


def numbers(rng, shape, dtype=np.float32):
    return rng.standard_normal(shape).astype(dtype)


def matrices(rng, n):
    """Turns, zooms, shears and shifts; whole pixels; far outside; the identity."""
    m = rng.standard_normal((n, 2, 3)) * [1, 1, 3]
    m[1::4] = np.round(m[1::4])
    m[2::4] = [[1, 0, 0], [0, 1, 0]]
    m[3::8] *= 1e200
    return m


GEOMETRIES = [  # images, size of the result
    ((8, 3, 9, 11), (9, 11)),
    ((5, 1, 1, 1), (3, 4)),
    ((4, 17, 5, 70), (6, 131)),
    ((4, 2, 30, 7), (1, 64)),
    ((0, 2, 3, 3), (2, 2)),
    ((3, 0, 3, 3), (2, 2)),
]


@pytest.mark.parametrize("fill", [0.0, 2.5, "edge"])
def test_affine(fill, isa, dtype, rng):
    """The oracle's bits in both layouts; nothing is written beyond the result."""
    for shape, size in GEOMETRIES:
        x, m = numbers(rng, shape, dtype), matrices(rng, shape[0])
        for hole in (None, rng.integers(-3, 9, (shape[0], 4))):
            want = reference.affine(x, m, size, fill, hole)
            shapes.prime(want.shape, dtype)
            y = augment.affine(from_array(x), m, size, fill, hole)
            shapes.check_slack(y, f"{shape} {size}")
            tolerance.same_bits(y, want, f"{shape} {size}")
            y = augment.affine(channels_last(from_array(x)), m, size, fill, hole)
            assert y.channels_last
            tolerance.same_bits(y, want, f"{shape} {size}")


def test_the_oracle():
    """Numbers that can be checked by eye."""
    x = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    half = [[[1, 0, 0.5], [0, 1, 0.5]]]
    assert reference.affine(x, half, (2, 2)).tolist() == [[[[2.5, 1.5], [1.75, 1.0]]]]
    assert reference.affine(x, half, (2, 2), 8.0).tolist() == [[[[2.5, 5.5], [5.75, 7.0]]]]
    assert reference.affine(x, half, (2, 2), "edge").tolist() == [[[[2.5, 3.0], [3.5, 4.0]]]]
    assert reference.affine(x, [[[0.5, 0, 0], [0, 0.5, 0]]], (2, 2)).tolist() == [[[[1.75, 2.25], [2.75, 3.25]]]]
    assert reference.affine(x, [[[1, 0, 0], [0, 1, 0]]], (2, 2), 7.0, [[0, 1, 1, 9]]).tolist() == [[[[1, 7], [3, 4]]]]


def test_against_scipy(rng):
    """Where the four pixels lie inside, SciPy's bilinear interpolation."""
    ndimage = pytest.importorskip("scipy.ndimage")
    x, angle = numbers(rng, (1, 1, 20, 24), np.float64), 0.4
    c, s = math.cos(angle), math.sin(angle)
    y = augment.affine(x, [[[c, s, 0], [-s, c, 0]]], (8, 9)).numpy()[0, 0]
    turn = np.array([[c, s], [-s, c]])
    offset = np.array([9.5, 11.5]) - turn @ np.array([3.5, 4.0])
    want = ndimage.affine_transform(x[0, 0], turn, offset, (8, 9), order=1)
    np.testing.assert_allclose(y, want, atol=1e-13)


def test_whole_pixels_copy_bits(isa, dtype):
    """Zeros keep their signs; NaN and infinity stay where they are, and reach no neighbour."""
    x = np.array([[[[1.0, -0.0, np.nan], [np.inf, 2.0, -np.inf]]]], dtype)
    for rows, columns in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        y = augment.affine(x, [[[rows, 0, 0], [0, columns, 0]]])
        tolerance.same_bits(y, np.ascontiguousarray(x[:, :, ::rows, ::columns]))
    y = augment.affine(x, [[[1, 0, 0], [0, 1, -1]]], fill=5.0)
    tolerance.same_bits(y, np.array([[[[5.0, 1.0, -0.0], [5.0, np.inf, 2.0]]]], dtype))
    y = augment.affine(x, [[[1, 0, 0], [0, 1, 0.5]]], fill="edge").numpy()[0, 0]
    assert np.isnan(y[0, 1:]).all()
    assert (y[0, 0], y[1, 0], y[1, 2]) == (0.5, np.inf, -np.inf)


def test_layouts(isa, dtype, rng):
    x, m = numbers(rng, (4, 3, 5, 6), dtype), matrices(rng, 4)
    want = reference.affine(x, m, (5, 6))
    for name, layout in shapes.LAYOUTS.items():
        z = layout(x)
        tolerance.same_bits(augment.affine(from_array(z), layout(m)), want, name)
        np.testing.assert_array_equal(z, x)


def test_threads_and_batches(isa, dtype, rng):
    """1, 2, 3 and 7 threads give the same bits, all take part, and an image alone has those it has in a batch."""
    x, m = numbers(rng, (9, 3, 40, 33), dtype), matrices(rng, 9)
    want = reference.affine(x, m, (40, 33))
    runtime.set_parallel_threshold(0.0)
    for threads in (1, 2, 3, 7):
        runtime.set_num_threads(threads)
        runtime.threads_used(True)
        tolerance.same_bits(augment.affine(from_array(x), m), want, f"{threads} threads")
        assert runtime.threads_used(True) >= min(threads, 2)
    for i in (0, 5):
        tolerance.same_bits(augment.affine(x[i : i + 1], m[i : i + 1]), want[i : i + 1])


# ---- transforms ----


TRANSFORMS = {
    "rotation": lambda g: augment.RandomRotation(20, generator=g),
    "affine": lambda g: augment.RandomAffine((-10, 30), (0.1, 0.2), (0.8, 1.2), "edge", generator=g),
    "shift": lambda g: augment.RandomShift(2, generator=g),
    "crop": lambda g: augment.RandomCrop((7, 6), 2, generator=g),
    "horizontal": lambda g: augment.RandomHorizontalFlip(generator=g),
    "vertical": lambda g: augment.RandomVerticalFlip(generator=g),
    "cutout": lambda g: augment.Cutout(4, 0.7, generator=g),
    "noise": lambda g: augment.GaussianNoise(0.3, generator=g),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_are_the_generator_s(name, rng):
    """The same numbers for the same seed, on any layout, from the default generator too; others for another."""
    x, y = numbers(rng, (6, 3, 8, 9)), nncore.arange(6)
    make = TRANSFORMS[name]
    want = make(nncore.Generator(5))(x).numpy()
    state = nncore.get_rng_state()
    for images in (nncore.tensor(x), channels_last(from_array(x)), np.asfortranarray(x)):
        tolerance.same_bits(make(nncore.Generator(5))(images), want)
    assert nncore.get_rng_state() == state
    nncore.manual_seed(5)
    tolerance.same_bits(make(None)(x), want)
    assert (make(nncore.Generator(6))(x).numpy() != want).any()
    images, targets = make(nncore.Generator(5))(x, y)
    tolerance.same_bits(images, want)
    assert targets is y
    assert make(nncore.Generator(5))(x.astype(np.float64)).dtype == np.float64
    assert not make(None)(nncore.tensor(x, requires_grad=True)).requires_grad
    assert make(None)(x[:0]).shape[0] == 0


def changes(transform, x, n=400):
    """The results for n copies of one image, as {bytes: how many}."""
    y = transform(np.repeat(x[None], n, 0)).numpy()
    found = {}
    for image in y:
        found[image.tobytes()] = found.get(image.tobytes(), 0) + 1
    return found


def expected(images, x, n=400):
    """Each of the images comes, and about as often as the others: within 6 standard deviations."""
    share = n / len(images)
    assert x.keys() == {np.ascontiguousarray(i, np.float32).tobytes() for i in images}
    assert max(abs(v - share) for v in x.values()) < 6 * math.sqrt(share)


def test_shifts_crops_and_flips_are_all_there_are(rng):
    x = numbers(rng, (2, 3, 4))
    wide = np.pad(x, [(0, 0), (1, 1), (1, 1)])
    near = np.pad(x, [(0, 0), (1, 1), (1, 1)], mode="edge")
    generator = nncore.Generator(1)
    for source, fill in ((wide, 0.0), (near, "edge")):
        shifted = [source[:, a : a + 3, b : b + 4] for a in range(3) for b in range(3)]
        expected(shifted, changes(augment.RandomShift(1, fill, generator), x))
        cropped = [source[:, a : a + 4, b : b + 3] for a in range(2) for b in range(4)]
        expected(cropped, changes(augment.RandomCrop((4, 3), 1, fill, generator), x))
    expected([x, x[:, :, ::-1]], changes(augment.RandomHorizontalFlip(generator=generator), x))
    expected([x, x[:, ::-1]], changes(augment.RandomVerticalFlip(generator=generator), x))
    for p, image in ((0.0, x), (1.0, x[:, :, ::-1])):
        expected([image], changes(augment.RandomHorizontalFlip(p), x))
    expected([x], changes(augment.RandomCrop((3, 4)), x))


def test_cutouts_are_squares_around_every_pixel():
    x = np.ones((1, 4, 5), np.float32)
    want = []
    for r in range(4):
        for c in range(5):
            image = x.copy()
            image[:, max(0, r - 1) : r + 2, max(0, c - 1) : c + 2] = 7
            want.append(image)
    expected(want, changes(augment.Cutout(3, fill=7.0, generator=nncore.Generator(3)), x))
    assert len(changes(augment.Cutout(3, 0.0), x)) == 1
    even = augment.Cutout(2, generator=nncore.Generator(0))(np.ones((500, 1, 4, 4), np.float32)).numpy()
    assert set((even == 0).sum((1, 2, 3)).tolist()) == {1, 2, 4}


def test_rotations_turn_counterclockwise(rng):
    x = numbers(rng, (3, 2, 5, 5), np.float64)
    for k in range(-3, 4):
        y = augment.RandomRotation((90 * k, 90 * k))(x).numpy()
        np.testing.assert_allclose(y, np.rot90(x, k, (2, 3)), atol=1e-14)


def test_zoom_and_translation():
    """A disc keeps its middle and grows; a translation by whole pixels shifts right and down."""
    r = np.hypot(*np.mgrid[-20:21, -20:21])
    x = np.repeat((r < 8)[None, None].astype(np.float32), 200, 0)
    y = augment.RandomAffine(180, scale=(0.5, 2.0), generator=nncore.Generator(0))(x).numpy()
    radius = np.sqrt(y.sum((1, 2, 3)) / math.pi)
    assert (radius > 7.9 * 0.5 - 0.2).all()
    assert (radius < 8 * 2 + 0.2).all()
    assert radius.std() > 2
    x = np.zeros((300, 1, 21, 41))
    x[:, :, 10, 20] = 1
    y = augment.RandomAffine(0, translate=(0.25, 0.1), generator=nncore.Generator(0))(x).numpy()
    columns, rows = (y.sum((1, 2)) * np.arange(41)).sum(1) - 20, (y.sum((1, 3)) * np.arange(21)).sum(1) - 10
    for found, limit in ((columns, 0.25 * 41), (rows, 0.1 * 21)):
        assert np.abs(found).max() < limit
        assert abs(found.mean()) < 6 * limit / math.sqrt(3 * 300)
        assert found.std() == pytest.approx(limit / math.sqrt(3), rel=0.2)


def test_noise_and_values(rng):
    x = numbers(rng, (50, 3, 16, 16), np.float64)
    noise = augment.GaussianNoise(0.5, nncore.Generator(2))(x).numpy() - x
    assert noise.std() == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(2 * noise.size))
    assert augment.GaussianNoise(0.0)(x).tolist() == x.tolist()
    pixels = rng.integers(0, 256, (2, 3, 4, 4)).astype(np.uint8)
    y = augment.ToFloat()(pixels)
    assert y.dtype == np.float32
    tolerance.same_bits(y, pixels.astype(np.float32) / np.float32(255))
    z = augment.Normalize((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))(x).numpy()
    np.testing.assert_allclose(
        z, (x - np.reshape([0.1, 0.2, 0.3], (3, 1, 1))) / np.reshape([1, 2, 4], (3, 1, 1)), rtol=1e-15
    )


def test_mixup(rng):
    x, y = numbers(rng, (8, 1, 2, 2), np.float64), np.arange(8)
    mixed, targets = augment.MixUp(1.0, 8, nncore.Generator(4))(x, y)
    targets = targets.numpy()
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-15)
    np.testing.assert_allclose(mixed.numpy().reshape(8, -1), targets @ x.reshape(8, -1), atol=1e-15)
    shares = {round(v, 12) for v in np.diag(targets)}
    assert len(shares - {1.0}) == 1  # one share for the batch; 1 where a sample met itself
    again = augment.MixUp(1.0, 8, nncore.Generator(4))(x, y)
    tolerance.same_bits(again[0], mixed.numpy())
    _, soft = augment.MixUp(1.0, generator=nncore.Generator(4))(x, np.eye(8))
    np.testing.assert_allclose(soft.numpy(), targets, rtol=1e-15)
    assert F.cross_entropy(nncore.zeros(8, 8, dtype="float64"), soft).item() == pytest.approx(math.log(8))


@pytest.mark.parametrize("alpha", [0.2, 0.4, 1.0, 5.0])
def test_shares_are_of_the_beta_distribution(alpha):
    """Kolmogorov and Smirnov's test."""
    stats = pytest.importorskip("scipy.stats")
    generator = nncore.Generator(7)
    found = [augment._beta(alpha, generator) for _ in range(1500)]
    assert stats.kstest(found, stats.beta(alpha, alpha).cdf).pvalue > 1e-4


def test_an_image_set_is_learned_with_augmentation(rng):
    """Shifted digits: a network that saw shifts knows them."""
    x, y = nncore.data.load_digits()
    images = (x / 16).reshape(-1, 1, 8, 8)
    rows, held = nncore.data.stratified_split(y)
    shifted = augment.RandomShift(1, generator=nncore.Generator(9))(images[held])
    scores = []
    for transform in (None, augment.RandomShift(1)):
        nncore.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        pairs = nncore.data.TensorDataset(images[rows], y[rows])
        loader = nncore.data.DataLoader(pairs, 64, shuffle=True, transform=transform, prefetch=1)
        nncore.train.fit(net, loader, lr=0.01, epochs=12, seed=1)
        scores.append(nncore.train.evaluate(net, shifted, y[held], metrics="accuracy")["accuracy"])
    assert scores[1] > scores[0] + 0.1


image = np.ones((2, 3, 4, 4), np.float32)
identity = [[[1, 0, 0], [0, 1, 0]]] * 2


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: augment.affine(image[0], identity), ValueError, r"input: .*\(3, 4, 4\)"),
        (lambda: augment.affine(image[:, :, :0], identity), ValueError, "input: "),
        (lambda: augment.affine(image.astype(int), identity), TypeError, "input: "),
        (lambda: augment.affine(nncore.tensor(image, requires_grad=True), identity), ValueError, "input: no gradient"),
        (lambda: augment.affine(image, identity[:1]), ValueError, r"matrix: .*\(2, 2, 3\).*\(1, 2, 3\)"),
        (lambda: augment.affine(image, [[[1, 0, math.nan], [0, 1, 0]]] * 2), ValueError, "matrix: .*finite"),
        (lambda: augment.affine(image, nncore.ones(2, 2, 3)), TypeError, "matrix: .*float64"),
        (lambda: augment.affine(image, identity, 0), ValueError, "size: .*0"),
        (lambda: augment.affine(image, identity, (1, 2, 3)), ValueError, "size: "),
        (lambda: augment.affine(image, identity, fill="nearest"), TypeError, "fill: "),
        (lambda: augment.affine(image, identity, fill=math.inf), ValueError, "fill: "),
        (lambda: augment.affine(image, identity, hole=[[0, 1, 0, 1]]), ValueError, r"hole: .*\(1, 4\)"),
        (lambda: augment.affine(image, identity, hole=np.ones((2, 4))), TypeError, "hole: .*float64"),
        (lambda: augment.RandomShift(1)(image[0]), ValueError, r"x: expected images .*\(3, 4, 4\)"),
        (lambda: augment.RandomShift(-1), ValueError, "pixels: .*-1"),
        (lambda: augment.RandomShift(1.5), TypeError, "pixels: .*float"),
        (lambda: augment.RandomShift(1, fill=math.nan), ValueError, "fill: "),
        (lambda: augment.RandomShift(1, generator=3), TypeError, "generator: .*int"),
        (lambda: augment.RandomCrop(0), ValueError, "size: .*0"),
        (lambda: augment.RandomCrop((1, 2, 3)), ValueError, "size: "),
        (lambda: augment.RandomCrop(5)(image), ValueError, r"size: \(5, 5\) is larger"),
        (lambda: augment.RandomCrop(5, -1), ValueError, "padding: .*-1"),
        (lambda: augment.RandomHorizontalFlip(1.5), ValueError, "p: .*1.5"),
        (lambda: augment.RandomRotation(-5), ValueError, "degrees: .*-5"),
        (lambda: augment.RandomRotation((5, 1)), ValueError, "degrees: .*1"),
        (lambda: augment.RandomRotation((5, 1, 2)), ValueError, "degrees: "),
        (lambda: augment.RandomAffine(0, translate=0.5), ValueError, "translate: "),
        (lambda: augment.RandomAffine(0, translate=(0.5, 2)), ValueError, "translate: .*2"),
        (lambda: augment.RandomAffine(0, scale=2.0), ValueError, "scale: "),
        (lambda: augment.RandomAffine(0, scale=(0.0, 1.0)), ValueError, "scale: "),
        (lambda: augment.Cutout(0), ValueError, "size: .*0"),
        (lambda: augment.Cutout(2, fill="edge"), ValueError, "fill: "),
        (lambda: augment.GaussianNoise(-0.1), ValueError, "std: .*-0.1"),
        (lambda: augment.GaussianNoise()(image.astype(int)), TypeError, "x: "),
        (lambda: augment.Normalize(0, 0), ValueError, "std: "),
        (lambda: augment.Normalize((0, 0), 1)(image), ValueError, "mean: expected 1 number or 3, got 2"),
        (lambda: augment.Compose(3), TypeError, "transforms: "),
        (lambda: augment.Compose([3]), TypeError, "transforms: "),
        (lambda: augment.MixUp(0), ValueError, "alpha: .*0"),
        (lambda: augment.MixUp(1, 0), ValueError, "num_classes: .*0"),
        (lambda: augment.MixUp()(image, [0, 1]), ValueError, "num_classes: needed"),
        (lambda: augment.MixUp(1, 2)(image, [0]), ValueError, "y: expected 2 targets"),
        (lambda: augment.MixUp(1, 2)(image, [0, 5]), ValueError, "expected indices from 0 to 1, got 5"),
    ],
)
def test_bad_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


COVERS = {"affine": test_affine}
