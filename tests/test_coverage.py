"""docs/coverage.md is what the code says, and nothing that a course on neural networks names is missing from it."""

import pytest

from . import coverage_page

# What introductions to neural networks teach, by chapter.
TAUGHT = {
    "neurons": "nn.Perceptron nn.Linear nn.Sequential",
    "activations": """
        nn.Heaviside nn.Sigmoid nn.Tanh nn.ReLU nn.LeakyReLU nn.PReLU nn.RReLU nn.ReLU6 nn.ELU nn.CELU nn.SELU nn.GELU
        nn.SiLU nn.Mish nn.Softplus nn.Softsign nn.Hardsigmoid nn.Hardtanh nn.Hardswish nn.LogSigmoid nn.Tanhshrink
        nn.Softshrink nn.Hardshrink nn.Threshold nn.GLU nn.Softmax nn.Softmin nn.LogSoftmax nn.Maxout F.heaviside
        F.sigmoid F.tanh F.relu F.leaky_relu F.prelu F.rrelu F.relu6 F.elu F.celu F.selu F.gelu F.silu F.mish F.softplus
        F.softsign F.hardsigmoid F.hardtanh F.hardswish F.logsigmoid F.tanhshrink F.softshrink F.hardshrink F.threshold
        F.glu F.softmax F.softmin F.log_softmax F.maxout
    """,
    "losses": """
        nn.L1Loss nn.MSELoss nn.RMSELoss nn.CrossEntropyLoss nn.NLLLoss nn.BCELoss nn.BCEWithLogitsLoss nn.KLDivLoss
        nn.SmoothL1Loss nn.HuberLoss nn.HingeEmbeddingLoss nn.MarginRankingLoss nn.TripletMarginLoss
        nn.CosineEmbeddingLoss nn.PoissonNLLLoss nn.GaussianNLLLoss nn.SoftMarginLoss nn.MultiMarginLoss
        nn.MultiLabelMarginLoss nn.MultiLabelSoftMarginLoss
    """,
    "gradient descent": """
        train.fit optim.SGD optim.Adagrad optim.RMSprop optim.Adadelta optim.Adam optim.AdamW optim.Adamax optim.NAdam
        optim.RAdam optim.Rprop optim.ASGD optim.Lion optim.LBFGS optim.AdaSecant utils.clip_grad_norm_
        utils.clip_grad_value_ lr_scheduler.LinearLR lr_scheduler.StepLR lr_scheduler.CosineAnnealingLR
        lr_scheduler.OneCycleLR lr_scheduler.ReduceLROnPlateau lr_scheduler.SequentialLR
    """,
    "regularization": """
        nn.Dropout nn.Dropout1d nn.Dropout2d nn.Dropout3d nn.AlphaDropout nn.BatchNorm2d nn.LayerNorm nn.GaussianNoise
        utils.l1_penalty utils.max_norm_ train.EarlyStopping train.MaxNorm data.augment.RandomShift
        data.augment.RandomHorizontalFlip data.augment.RandomCrop data.augment.RandomRotation data.augment.GaussianNoise
        data.augment.Cutout data.augment.MixUp
    """,
    "containers and shapes": """
        nn.Sequential nn.ModuleList nn.ModuleDict nn.ParameterList nn.Identity nn.Flatten nn.Unflatten nn.Bilinear
        nn.Embedding nn.EmbeddingBag nn.Upsample nn.PixelShuffle nn.ZeroPad2d nn.ReflectionPad2d nn.ReplicationPad2d
        nn.CircularPad2d nn.ConstantPad2d utils.weight_norm utils.spectral_norm utils.parameters_to_vector
    """,
    "restricted Boltzmann machines": "nn.RBM nn.DBN",
    "data": "data.Dataset data.DataLoader data.stratified_split data.load_mnist data.load_cifar10 data.ImageFolder",
    "convolutional and recurrent": "nn.Conv2d nn.MaxPool2d nn.AvgPool2d nn.LocalResponseNorm nn.RNN nn.LSTM nn.GRU",
}


def test_the_page_is_current():
    """`make docs` writes it anew."""
    if not coverage_page.PAGE.exists():
        pytest.skip("no documentation beside the tests")
    assert coverage_page.PAGE.read_text(encoding="utf-8") == coverage_page.page(), "stale: run `make docs`"


def test_every_name_has_a_gradient_check():
    """Or a reason why it has none."""
    counts = coverage_page.checks()
    assert [n for n, v in coverage_page.everything() if not coverage_page.gradient(n, v, counts)] == []


def test_every_name_says_what_it_is():
    assert [n for n, v in coverage_page.everything() if len(coverage_page.formula_and_source(v)[0]) < 5] == []


@pytest.mark.parametrize("chapter", TAUGHT)
def test_what_is_taught_is_there(chapter):
    there = {n for n, _ in coverage_page.everything()}
    assert sorted(set(TAUGHT[chapter].split()) - there) == []


def test_tables_name_what_exists():
    names = {n for n, _ in coverage_page.everything()}
    prefixes = {n.rsplit(".", 1)[0] for n in names}
    assert sorted(coverage_page.TORCH.keys() - names) == []
    assert sorted(coverage_page.NO_GRADIENT.keys() - names - prefixes) == []
