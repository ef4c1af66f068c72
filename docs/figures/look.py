"""How the pictures of the pages look: legible on white and on black, and small.

    python docs/figures/front.py       # draws docs/_static/front.svg; so for each script beside it

Text and lines have tones between white and black, and nothing is painted behind them. The seeds are
fixed, and the same versions give the same file.
"""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

STATIC = Path(__file__).parents[1] / "_static"
INK, FAINT = "#78828e", "#a3abb5"
BLUE, ORANGE, GREEN, ROSE, GOLD = "#3c86de", "#e07b28", "#26a085", "#cf5b88", "#b5942a"
CYCLE = (BLUE, ORANGE, GREEN, ROSE, GOLD, INK)

mpl.use("Agg")
mpl.rcParams.update(
    {
        "font.family": ["DejaVu Sans"],
        "font.size": 11.5,
        "axes.titlesize": 11.5,
        "legend.fontsize": 10.5,
        "axes.prop_cycle": mpl.cycler(color=CYCLE),
        "axes.spines.top": False,
        "axes.spines.right": False,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor"), INK),
        **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), FAINT),
        **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), INK),
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
        "legend.frameon": False,
        "grid.alpha": 0.35,
        "savefig.transparent": True,
        "svg.fonttype": "path",
        "svg.hashsalt": "pymc-isomix",
    }
)


def save(figure, name):
    """Write a picture to docs/_static, ``.svg`` or ``.png``, and say how large it is."""
    path = STATIC / name
    options = {"bbox_inches": "tight", "pad_inches": 0.04}
    if path.suffix == ".svg":
        figure.savefig(path, metadata={"Date": None}, **options)
    else:
        figure.savefig(path, dpi=190, **options)
        with Image.open(path) as image:  # 64 colours, each with its transparency
            image.quantize(64, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)
    plt.close(figure)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def panels(rows, columns, width=6.6, height=2.5, **options):
    """Make a figure of panels; width and height in inches, of all and of a row."""
    return plt.subplots(
        rows, columns, figsize=(width, height * rows), layout="constrained", **options
    )


def ellipse(mean, root, deviation=1.0):
    """Outline (2, 100) of one standard deviation of a Gaussian with covariance root root^T."""
    angle = np.linspace(0, 2 * np.pi, 100)
    return np.asarray(mean)[:, None] + deviation * root @ np.array([np.cos(angle), np.sin(angle)])


def draw_components(axis, mixture, *, to_plane=lambda points: points, color=ORANGE):
    """Draw the components of a mixture of two dimensions, the stronger the more weight each has.

    ``to_plane`` maps coordinates of the mixture (n, 2) to those of the axis.
    """
    strength = mixture.weights / mixture.weights.max()
    deviations = mixture.whitened_deviations[:, 0]
    for mean, deviation, alpha in zip(mixture.means, deviations, strength, strict=True):
        if alpha > 0.02:
            outline = to_plane(ellipse(mean, mixture.root, deviation).T)
            axis.plot(*outline.T, color=color, lw=1, alpha=0.15 + 0.85 * alpha)


def areas(axis, x, y, p, color=BLUE):
    """Fill the areas that hold 50, 80 and 98 % of a density (n, m)."""
    ordered = np.sort(p.ravel())[::-1]
    mass = ordered.cumsum() / p.sum()
    for share in (0.98, 0.8, 0.5):
        level = ordered[np.searchsorted(mass, share)]
        axis.contourf(x, y, p, [level, p.max() * 1.01], colors=[color], alpha=0.24)
