"""The pair plot of components: marginals of the mixture, and their ellipses."""

import textwrap
from typing import Any, NamedTuple

import numpy as np
import scipy  # which loads its parts when they are used
import xarray as xr
from pymc.util import get_untransformed_name, is_transformed_name

from pymc_isomix.plots.canvas import figure_options, visual_options

COLUMNS = (
    "unconstrained_mean",
    "unconstrained_sd",
    "coordinate_mean",
    "coordinate_sd",
    "log_variance",
    "weight",
    "mode",
    "dead",
    "metric",
)
SHOWN = 5  # dimensions in a pair plot, at most
DRAWS = 1000
CIRCLE = np.linspace(0, 2 * np.pi, 61)
DEVIATIONS = np.linspace(-3.5, 3.5, 36)  # points around each mean where the density is drawn
LABEL_WIDTH = 18  # characters
MOST_COLOURS = 10  # modes in a legend, at most
SAME_PLACE = 1e-3  # standard deviations, for rounding errors of means of antithetic draws
FAINTEST = 0.15  # opacity of the lightest component


class Marginal(NamedTuple):
    """The mixture along some dimensions; component k is N(means[k], factors[k] factors[k]^T)."""

    names: list
    means: np.ndarray  # (K, n)
    factors: np.ndarray  # (K, n, n)
    weights: np.ndarray  # (K,)
    modes: np.ndarray  # (K,)
    standardised: list  # the names of those that are seen given the rest, by their prior's scale

    @property
    def mode_names(self) -> np.ndarray:
        """Labels of the modes, each once."""
        return np.unique(self.modes)


def draw(azp: Any, group: xr.Dataset, var_names: Any, visuals: dict, pc_kwargs: dict) -> Any:
    """Draw the plot; see :func:`pymc_isomix.plot_components`."""
    group = own_columns(group)
    chosen, title = choose_dimensions(group, var_names)
    mixture = marginal(group, chosen)
    n_modes = mixture.mode_names.size
    several, single_plot = n_modes > 1, len(chosen) == 1
    size = max(3.5, 2.0 * len(chosen))
    matrix_options = {
        "facet_dims": ["__variable__"],
        **pc_kwargs,
        "figure_kwargs": figure_options(pc_kwargs, figsize=(size, size), sharex="col"),
        "aes": {**({"color": ["mode"]} if several else {}), **pc_kwargs.get("aes", {})},
    }
    matrix = azp.PlotMatrix(draws(mixture), **matrix_options)
    strength = np.sqrt(mixture.weights / mixture.weights.max())
    scatter = {"triangle": "lower", "ignore_aes": matrix.aes_set, "color": "0.75", "alpha": 0.6}
    ellipse = {"triangle": "lower", "artist_dims": {"component": len(strength)}}
    label = {"ignore_aes": "all", "subset_info": True, "labeller": _labeller(mixture)}
    color = {} if several else {"color": "C0"}

    def draw_visual(name, how, visual, **defaults):
        if (options := visual_options(visuals, name, **defaults)) is not False:
            how(visual, name, **options)

    see = azp.visuals
    draw_visual("scatter", matrix.map_triangle, see.scatter_couple, size=4, width=0, **scatter)
    draw_visual("dist", matrix.map, see.line_xy, data=densities(mixture), **color)
    ellipse |= {"data": _components(mixture), "strength": strength}
    draw_visual("ellipse", matrix.map_triangle, _ellipses, **ellipse, **color)
    draw_visual("xlabel", matrix.map_row, see.labelled_x, index=-1, **label)
    draw_visual("ylabel", matrix.map_col, see.labelled_y, index=0, **label)
    _align_axes(azp, matrix, mixture)
    if several and n_modes <= MOST_COLOURS:
        # the upper triangle has room for a legend, a single plot has none
        place = {} if single_plot else {"loc": "upper right"}
        if (options := visual_options(visuals, "legend", **place)) is not False:
            matrix.add_legend("mode", **options)
    if title and (options := visual_options(visuals, "title", text=title)) is not False:
        matrix.add_title(**options)
    return matrix


def _labeller(mixture):
    """Break long names into lines of the width of a plot, and mark standardised ones."""
    from arviz_base.labels import MapLabeller

    labels = {name: textwrap.fill(name, LABEL_WIDTH) for name in mixture.names}
    return MapLabeller(
        {n: f"{s}\n(standardised)" if n in mixture.standardised else s for n, s in labels.items()}
    )


def _align_axes(azp, matrix, mixture):
    """Give every plot of a dimension the same limits, and only the first of a row tick labels."""
    shown = draws(mixture)
    sd = np.linalg.norm(mixture.factors, axis=2)  # (K, n)
    limits = {}
    for i, name in enumerate(mixture.names):
        low = min(float(shown[name].min()), (mixture.means - sd)[:, i].min())
        high = max(float(shown[name].max()), (mixture.means + sd)[:, i].max())
        margin = 0.05 * (high - low)
        limits[name] = low - margin, high + margin
    first = mixture.names[0]

    def align(da_x, da_y, target):
        azp.visuals.set_xlim(da_x, target, limits[da_x.name])
        azp.visuals.set_ylim(da_y, target, limits[da_y.name])
        if da_x.name != first:
            azp.visuals.set_ticklabel_visibility(da_y, target, axis="y", visible=False)

    def bare(da, target):
        azp.visuals.set_xlim(da, target, limits[da.name])
        azp.visuals.remove_axis(da, target, axis="y")
        azp.visuals.labelled_y(da, target, text="")  # a density, not the dimension

    def blank(da_x, da_y, target):
        azp.visuals.remove_matrix_axis(da_x, da_y, target, axis="both")

    common = {"data": shown, "store_artist": False, "ignore_aes": matrix.aes_set}
    matrix.map_triangle(align, triangle="lower", **common)
    matrix.map_triangle(blank, triangle="upper", **common)
    matrix.map(bare, **common)


def choose_dimensions(group: xr.Dataset, var_names: Any) -> tuple[list[int], str | None]:
    """Return the dimensions to show, in order, and a title if some are left out."""
    labels = [str(label) for label in group["unconstrained"].values]
    if var_names is not None:
        names = [var_names] if isinstance(var_names, str) else list(var_names)
        matches = [_matching(labels, name) for name in names]
        return list(dict.fromkeys(place for places in matches for place in places)), None
    if len(labels) <= SHOWN:
        return list(range(len(labels))), None
    weights = group["weight"].values
    means = group[_place(group)].values
    between = weights @ (means - weights @ means) ** 2
    within = weights @ group[_place(group).replace("mean", "sd")].values ** 2
    chosen = np.sort(np.argsort(-between / (between + within), kind="stable")[:SHOWN])
    title = f"{SHOWN} of {len(labels)} dimensions: those along which the components differ most"
    return [int(place) for place in chosen], title


def _matching(labels, name):
    """Places of the labels of a variable, by the name of its value variable or its own."""

    def answers_to(label):
        variable = label.split("[")[0]
        own = get_untransformed_name(variable) if is_transformed_name(variable) else variable
        return name in (label, variable, own, own + label[len(variable) :])

    places = [place for place, label in enumerate(labels) if answers_to(label)]
    if not places:
        some = ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")
        raise ValueError(f"var_names has {name!r}, which is not one of the dimensions: {some}")
    return places


def own_columns(group: xr.Dataset) -> xr.Dataset:
    """Return our columns of group ``isomix`` by their plain names.

    They have a prefix there if the model has a variable or dim of the same name.
    """
    columns = (f"isomix_{name}" if f"isomix_{name}" in group else name for name in COLUMNS)
    ours = group[[name for name in columns if name in group]]
    names = {str(name) for name in (*ours.variables, *ours.dims)}
    prefixed = [name for name in names if name.startswith("isomix_")]
    return ours.rename({name: name.removeprefix("isomix_") for name in prefixed})


def _place(group):
    """Name the columns of the components' means in y, or in z for a model without sites."""
    return "coordinate_mean" if "coordinate_mean" in group else "unconstrained_mean"


def marginal(group: xr.Dataset, chosen: list[int]) -> Marginal:
    """Return the living components of group ``isomix`` along the chosen dimensions."""
    group = group.isel(component=np.flatnonzero(~group["dead"].values.astype(bool)))
    metric, log_variances = group["metric"].values, group["log_variance"].values
    n_components, n_dim = group[_place(group)].shape
    # (K, 1) or (K, d): of isotropic components or diagonal ones
    own = np.exp(0.5 * log_variances.reshape(n_components, -1))
    if metric.ndim == 2:
        rows = np.tril(metric)[chosen] * own[:, None]  # (K, n, d)
        factors = np.linalg.cholesky(rows @ rows.swapaxes(1, 2))
    else:
        sd = (own * np.broadcast_to(metric, (n_dim,)))[:, chosen]
        factors = sd[:, :, None] * np.eye(len(chosen))
    labels = [str(label) for label in group["unconstrained"].values[chosen]]
    elsewhere = np.zeros(len(labels), bool)
    if (
        "coordinate_sd" in group
    ):  # for dimensions of no site, y and z agree up to the error of the quadrature
        seen, itself = (group[f"{kind}_mean"] for kind in ("coordinate", "unconstrained"))
        apart = np.abs(seen.values - itself.values)[:, chosen]
        elsewhere = (apart > SAME_PLACE * group["coordinate_sd"].values[:, chosen]).any(axis=0)
    return Marginal(
        names=labels,
        means=group[_place(group)].values[:, chosen],
        factors=factors,
        weights=group["weight"].values,
        modes=group["mode"].values,
        standardised=[name for name, is_site in zip(labels, elsewhere, strict=True) if is_site],
    )


def draws(mixture: Marginal, n_draws: int = DRAWS) -> xr.Dataset:
    """Draw from the mixture with a fixed seed: (mode, draw) by dimension, NaN in other modes."""
    rng = np.random.default_rng(0)
    probability = mixture.weights / mixture.weights.sum()
    component = rng.choice(len(probability), size=n_draws, p=probability)
    noise = rng.normal(size=(n_draws, len(mixture.names)))
    points = mixture.means[component] + np.einsum("sij,sj->si", mixture.factors[component], noise)
    return _by_mode(mixture, points.T, mixture.modes[component], ["draw"])


def densities(mixture: Marginal) -> xr.Dataset:
    """Exact marginal density of each mode's part: (mode, plot_axis, point) by dimension."""
    parts = (mixture.modes == mixture.mode_names[:, None]) * mixture.weights  # (modes, K)
    lines = {}
    for i, name in enumerate(mixture.names):
        mean, sd = mixture.means[:, i], np.linalg.norm(mixture.factors[:, i], axis=1)
        grid = np.sort(np.ravel(mean + sd * DEVIATIONS[:, None]))
        density = parts @ scipy.stats.norm.pdf(grid, mean[:, None], sd[:, None])
        x = np.broadcast_to(grid, density.shape)
        lines[name] = (("mode", "plot_axis", "point"), np.stack([x, density], axis=1))
    coords = {"mode": mixture.mode_names, "plot_axis": ["x", "y"]}
    return _without_single_mode(xr.Dataset(lines, coords=coords))


def _components(mixture):
    """Mean and row of the factor of each component: (mode, component, column) by dimension."""
    means = mixture.means.T[:, :, None]  # (n, K, 1)
    columns = np.concatenate([means, np.moveaxis(mixture.factors, 1, 0)], axis=2)
    return _by_mode(mixture, columns, mixture.modes, ["component", "column"])


def _by_mode(mixture, values, modes, dims):
    """Spread values (n, ...) over modes, with NaN in other modes."""
    own = modes == mixture.mode_names[:, None]  # (modes, ...)
    own = own.reshape(own.shape + (1,) * (len(dims) - 1))
    by_mode = {
        name: (("mode", *dims), np.where(own, value, np.nan))
        for name, value in zip(mixture.names, values, strict=True)
    }
    return _without_single_mode(xr.Dataset(by_mode, coords={"mode": mixture.mode_names}))


def _without_single_mode(dataset):
    return dataset.isel(mode=0, drop=True) if dataset.sizes["mode"] == 1 else dataset


def _ellipses(da_x, da_y, target, *, strength, **options):
    """Draw one standard deviation of each component, with width and darkness by its weight."""
    from arviz_plots.plot_collection import backend_from_object

    backend = backend_from_object(target)
    lines = np.full(len(strength), None)
    for k, (x, y) in enumerate(zip(da_x.values, da_y.values, strict=True)):
        if np.isnan(x[0]):
            continue
        rows = np.stack([x[1:], y[1:]])
        across = np.linalg.cholesky(rows @ rows.T) @ [np.cos(CIRCLE), np.sin(CIRCLE)]
        style = {
            "alpha": FAINTEST + (1 - FAINTEST) * strength[k],
            "width": 0.6 + 1.2 * strength[k],
            **options,
        }
        lines[k] = backend.line(x[0] + across[0], y[0] + across[1], target, **style)
    return lines
