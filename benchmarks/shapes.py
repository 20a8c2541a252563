"""The shapes that are measured, and where they come from."""

from typing import NamedTuple

# ---- products: (form, M, N, K); C[M, N] = A B, the form says whether A and B are stored transposed ----

SQUARES = [(form, n, n, n) for n in (32, 64, 128, 256, 512, 1024, 2048) for form in ("NN", "NT", "TN")]
SKINNY = [("packed", m, 1024, 1024) for m in (1, 2, 4, 6, 8, 12, 16, 32, 64, 128)]

# DeepBench (Baidu, github.com/baidu-research/DeepBench at da81ba7, code/kernels/gemm_problems.h), training and
# inference, row-major. Of its 243 distinct products, the 135 of at most 20 GFLOP whose matrices take at most 128 MB,
# sorted by FLOPs; of these, 40 at equal distances, from the first to the last.
# fmt: off
DEEPBENCH_GEMM = [
    ("NN", 1, 64, 1216), ("NN", 1, 512, 512), ("NN", 1, 4224, 128), ("NN", 4, 1024, 512), ("NN", 2, 3072, 1024),
    ("NN", 32, 512, 512), ("NN", 4, 3072, 1024), ("TN", 32, 1024, 512), ("NN", 2, 6144, 2048), ("NN", 16, 1760, 1760),
    ("NN", 4, 6144, 2048), ("NN", 16, 2048, 2048), ("NN", 4, 8448, 2816), ("NT", 32, 3072, 1024),
    ("NN", 1500, 35, 2048), ("NT", 32, 2048, 2048), ("NT", 64, 1760, 1760), ("NT", 16, 6144, 2048),
    ("NN", 32, 4608, 1536),
    ("NN", 16, 4096, 4096), ("NN", 16, 7680, 2560), ("NT", 700, 1024, 512), ("NN", 128, 1760, 1760),
    ("NN", 128, 3072, 1024), ("NN", 64, 2560, 2560), ("NN", 32, 4096, 4096), ("NT", 128, 2048, 2048),
    ("NN", 32, 7680, 2560), ("NT", 8457, 35, 2560), ("NT", 128, 2560, 2560), ("NN", 1500, 4224, 176),
    ("NN", 1500, 512, 2048), ("NT", 128, 4096, 4096), ("NN", 3000, 512, 1536), ("NN", 3000, 512, 2048),
    ("NN", 1500, 1024, 2816), ("NN", 6000, 512, 1536), ("NN", 700, 5124, 2048), ("NN", 6000, 512, 2816),
    ("NN", 6000, 1024, 1536),
]
# fmt: on

# ---- convolutions ----


class Conv(NamedTuple):
    """A layer of a network; `count` is how often the network has it."""

    net: str
    n: int
    c: int
    h: int
    w: int
    k: int
    r: int
    s: int
    stride: int
    padding: int
    groups: int = 1
    count: int = 1

    @property
    def out(self):
        """Height and width of the result."""
        return tuple((i + 2 * self.padding - f) // self.stride + 1 for i, f in ((self.h, self.r), (self.w, self.s)))

    @property
    def flops(self):
        """Of one direction: a multiplication and an addition per weight and point."""
        p, q = self.out
        return 2 * self.n * p * q * self.k * (self.c // self.groups) * self.r * self.s

    def __str__(self):
        size = f"{self.h}" if self.h == self.w else f"{self.h}x{self.w}"
        more = (f" s{self.stride}" if self.stride > 1 else "") + (f" p{self.padding}" if self.padding else "")
        groups = "" if self.groups == 1 else f" g{self.groups}"
        return f"{self.net} {self.n}x{self.c}x{size} k{self.k} {self.r}x{self.s}{more}{groups}"


def _resnet50():
    """He et al., "Deep residual learning", CVPR 2016, 50 layers: its 20 distinct convolutions (c, k, size, kernel,
    stride, padding, how often), batch 8."""
    # fmt: off
    layers = [
        (3, 64, 224, 7, 2, 3, 1), (64, 256, 56, 1, 1, 0, 4), (64, 64, 56, 1, 1, 0, 1), (64, 64, 56, 3, 1, 1, 3),
        (256, 64, 56, 1, 1, 0, 2), (256, 512, 56, 1, 2, 0, 1), (256, 128, 56, 1, 2, 0, 1), (128, 128, 28, 3, 1, 1, 4),
        (128, 512, 28, 1, 1, 0, 4), (512, 128, 28, 1, 1, 0, 3), (512, 1024, 28, 1, 2, 0, 1), (512, 256, 28, 1, 2, 0, 1),
        (256, 256, 14, 3, 1, 1, 6), (256, 1024, 14, 1, 1, 0, 6), (1024, 256, 14, 1, 1, 0, 5),
        (1024, 2048, 14, 1, 2, 0, 1), (1024, 512, 14, 1, 2, 0, 1), (512, 512, 7, 3, 1, 1, 3),
        (512, 2048, 7, 1, 1, 0, 3), (2048, 512, 7, 1, 1, 0, 2),
    ]
    # fmt: on
    return [Conv("ResNet-50", 8, c, i, i, k, r, r, s, p, count=n) for c, k, i, r, s, p, n in layers]


def _net(name, n, *layers):
    return [Conv(name, n, c, i, i, k, r, r, s, p) for c, i, k, r, s, p in layers]


RESNET50 = _resnet50()
# Krizhevsky, Sutskever, Hinton, 2012, in the one-tower form of 2014 (torchvision's).
ALEXNET = _net(
    "AlexNet",
    16,
    (3, 224, 64, 11, 4, 2),
    (64, 27, 192, 5, 1, 2),
    (192, 13, 384, 3, 1, 1),
    (384, 13, 256, 3, 1, 1),
    (256, 13, 256, 3, 1, 1),
)
# LeCun et al., 1998, on 28 x 28 images padded by 2.
LENET5 = _net("LeNet-5", 64, (1, 28, 6, 5, 1, 2), (6, 14, 16, 5, 1, 0))
# A small net for 32 x 32 images: pairs of 3x3 layers with 32, 64, 128 channels, halved in between.
CONVNET = _net(
    "convnet",
    64,
    (3, 32, 32, 3, 1, 1),
    (32, 32, 32, 3, 1, 1),
    (32, 16, 64, 3, 1, 1),
    (64, 16, 64, 3, 1, 1),
    (64, 8, 128, 3, 1, 1),
    (128, 8, 128, 3, 1, 1),
)
# DeepBench, conv_problems.h, training and inference: one of each kind of kernel and size, at a batch of 1 to 4 GFLOP.
DEEPBENCH_CONV = [
    Conv("DeepBench", *shape)
    for shape in (
        (4, 1, 161, 700, 32, 5, 20, 2, 0),
        (4, 32, 79, 341, 32, 5, 10, 2, 0),
        (16, 1, 48, 480, 16, 3, 3, 1, 1),
        (16, 16, 24, 240, 32, 3, 3, 1, 1),
        (16, 64, 6, 60, 128, 3, 3, 1, 1),
        (8, 3, 108, 108, 64, 3, 3, 2, 1),
        (8, 64, 54, 54, 64, 3, 3, 1, 1),
        (8, 256, 7, 7, 512, 3, 3, 1, 1),
        (16, 192, 28, 28, 32, 5, 5, 1, 2),
        (16, 832, 7, 7, 128, 5, 5, 1, 2),
        (16, 3, 224, 224, 64, 7, 7, 2, 3),
        (16, 1, 161, 700, 64, 5, 5, 2, 1),
        (1, 64, 80, 350, 128, 5, 5, 2, 1),
        (1, 256, 20, 84, 512, 5, 5, 2, 1),
    )
]
# Howard et al., "MobileNets", 2017: the depthwise 3x3 layers, batch 8.
MOBILENET = [
    Conv("MobileNet", 8, c, i, i, c, 3, 3, s, 1, groups=c, count=n)
    for c, i, s, n in (
        (32, 112, 1, 1),
        (64, 112, 2, 1),
        (128, 56, 1, 1),
        (128, 56, 2, 1),
        (256, 28, 1, 1),
        (256, 28, 2, 1),
        (512, 14, 1, 5),
        (512, 14, 2, 1),
        (1024, 7, 1, 1),
    )
]
CONVS = RESNET50 + ALEXNET + LENET5 + CONVNET + DEEPBENCH_CONV

# ---- pooling: (module, arguments, shape of the input) ----

POOLS = [
    ("MaxPool2d", {"kernel_size": 2}, (64, 32, 32, 32)),
    ("MaxPool2d", {"kernel_size": 3, "stride": 2, "padding": 1}, (8, 64, 112, 112)),
    ("MaxPool2d", {"kernel_size": 3, "stride": 2}, (16, 192, 27, 27)),
    ("AvgPool2d", {"kernel_size": 2}, (64, 6, 28, 28)),
    ("AvgPool2d", {"kernel_size": 2}, (64, 64, 32, 32)),
    ("AvgPool2d", {"kernel_size": 7}, (8, 2048, 7, 7)),
    ("MaxPool2d", {"kernel_size": 2}, (64, 6, 28, 28)),
    ("MaxPool2d", {"kernel_size": 2}, (64, 16, 10, 10)),
    ("AdaptiveAvgPool2d", {"output_size": 1}, (8, 512, 14, 14)),
    ("AdaptiveAvgPool2d", {"output_size": 6}, (16, 256, 13, 13)),
    ("AdaptiveMaxPool2d", {"output_size": 1}, (8, 512, 14, 14)),
]

# ---- interpolation: (arguments of Upsample, shape of the input) ----

UPSAMPLES = [
    ({"scale_factor": 2, "mode": "nearest"}, (8, 256, 28, 28)),
    ({"scale_factor": 2, "mode": "bilinear"}, (8, 256, 28, 28)),
    ({"scale_factor": 2, "mode": "bicubic"}, (8, 64, 56, 56)),
    ({"size": 256, "mode": "bilinear"}, (8, 3, 320, 320)),
    ({"size": 32, "mode": "bilinear"}, (256, 1, 8, 8)),
]

# ---- normalization: (module, arguments, shape, bytes moved per element forward and backward, at least) ----
# Statistics need a first pass over the batch: batch norm reads x twice and writes y; backward reads x and dy twice and
# writes dx. Layer norm keeps its row in L1.

NORMS = [
    ("BatchNorm2d", (64,), (64, 64, 32, 32), 12, 20),
    ("BatchNorm2d", (64,), (8, 64, 56, 56), 12, 20),
    ("BatchNorm2d", (1024,), (8, 1024, 14, 14), 12, 20),
    ("BatchNorm1d", (512,), (256, 512), 12, 20),
    ("LayerNorm", (768,), (8192, 768), 8, 12),
    ("LayerNorm", (64,), (65536, 64), 8, 12),
    ("GroupNorm", (32, 256), (8, 256, 56, 56), 12, 20),
    ("InstanceNorm2d", (64,), (8, 64, 56, 56), 12, 20),
    ("RMSNorm", (768,), (8192, 768), 8, 12),
]

# ---- recurrent layers: (layer, input size, hidden size, batch, steps) ----

RECURRENT = [
    ("LSTM", 64, 128, 16, 50),
    ("LSTM", 128, 128, 16, 50),
    ("GRU", 128, 128, 16, 50),
    ("LSTM", 256, 512, 32, 64),
    ("LSTM", 16, 16, 1, 200),
    ("GRU", 64, 64, 1, 100),
    ("LSTM", 64, 256, 1, 50),
    ("GRU", 64, 512, 1, 50),
    ("RNN", 64, 512, 1, 50),
]
# DeepBench, rnn_problems.h, training and inference: those that take less than a second. Inputs are as wide as states.
RECURRENT += [
    ("RNN", 1760, 1760, 16, 50),
    ("LSTM", 256, 256, 16, 150),
    ("LSTM", 512, 512, 16, 25),
    ("LSTM", 512, 512, 32, 25),
    ("LSTM", 512, 512, 64, 25),
    ("LSTM", 1024, 1024, 16, 25),
    ("LSTM", 1024, 1024, 32, 25),
    ("GRU", 512, 512, 32, 1),
    ("LSTM", 256, 256, 1, 150),
    ("LSTM", 512, 512, 1, 25),
    ("LSTM", 512, 512, 4, 25),
    ("LSTM", 1024, 1024, 1, 25),
    ("LSTM", 1536, 1536, 1, 50),
    ("LSTM", 2048, 2048, 1, 25),
]
