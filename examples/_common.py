"""What the examples share: their arguments, and figures where matplotlib is installed."""

import argparse
import io
import sys
from pathlib import Path


def arguments(file, doc, argv=None, **flags):
    """The arguments of an example.

    Args:
        file, doc: the example's __file__ and __doc__.
        argv: the command line, or None for the program's.
        **flags: an example's own: what it does.

    Returns:
        Namespace: quick and flags (bool), seed (int), figures (folder), name (of the example).
    """
    name = Path(file).stem
    parser = argparse.ArgumentParser(
        prog=f"python examples/{name}.py", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="run everything, but too briefly to learn much")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (default: 0)")
    parser.add_argument("--figures", type=Path, default=Path(file).parent / "figures", help="where figures are written")
    for flag, text in flags.items():
        parser.add_argument(f"--{flag}", action="store_true", help=text)
    args = parser.parse_args(argv)
    args.name = name
    return args


def draw(args, plot, size=(6, 4)):
    """Writes <figures>/<name>.png; without matplotlib it says so on stderr and goes on.

    Args:
        args: from `arguments`.
        plot: function of a matplotlib Figure, which draws on it.
        size: width and height in inches, of 80 pixels each.
    """
    try:
        from matplotlib.figure import Figure
        from PIL import Image  # which matplotlib needs, too
    except ImportError:
        print("no figure: matplotlib is not installed", file=sys.stderr)
        return
    figure = Figure(figsize=size, dpi=80, layout="constrained")
    plot(figure)
    args.figures.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    figure.savefig(file)
    image = Image.open(file).convert("RGB").quantize(256, kmeans=1, dither=Image.Dither.NONE)  # half the size
    image.save(args.figures / f"{args.name}.png", optimize=True)
