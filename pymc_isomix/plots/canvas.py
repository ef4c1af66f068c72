"""The use of arviz-plots."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

SAMPLED = 4000  # draws from an approximation that was given in place of a DataTree
TICKS = 25  # labels that an axis has room for
MOST_LOG_TICKS = 7


def import_arviz_plots() -> Any:
    """Import arviz-plots with its visuals, or raise an error that names the extra."""
    try:
        import arviz_plots
        import arviz_plots.backend.matplotlib
        import arviz_plots.visuals
    except ImportError as error:
        raise ImportError(
            "plots need arviz-plots and Matplotlib; install them with "
            "python -m pip install 'pymc-isomix[plots]'"
        ) from error
    return arviz_plots


def figure_options(pc_kwargs: dict, **defaults: Any) -> dict:
    """Return the options of the figure, with room outside the axes."""
    from arviz_base import rcParams

    backend = pc_kwargs.get("backend") or rcParams["plot.backend"]
    layout = {"layout": "constrained"} if backend == "matplotlib" else {}
    return {**defaults, **layout, **pc_kwargs.get("figure_kwargs", {})}


def visual_options(visuals: dict, name: str, **defaults: Any) -> Any:
    """Return the options of a visual, or False if the user switched it off."""
    given = visuals.get(name, {})
    return given if given is False else {**defaults, **({} if given is True else given)}


def group_of(dt: xr.DataTree, name: str) -> xr.Dataset:
    """Return a group of a DataTree, or of draws from an approximation, as a dataset."""
    if not isinstance(dt, xr.DataTree) and hasattr(dt, "draw_unconstrained"):
        dt = dt.sample(SAMPLED, random_seed=0)
    if not isinstance(dt, xr.DataTree):
        raise TypeError(
            f"dt must be a DataTree, as IsotropicMixture.sample and pymc_isomix.fit return it, or "
            f"an approximation; got {type(dt).__name__}"
        )
    if name not in dt.children:
        has_fit = "isomix" in dt.children and "diagnostics" not in dt.children
        why = "pass what IsotropicMixture.sample or pymc_isomix.fit returned"
        if name == "diagnostics" and has_fit:
            why = (
                "the draws have no weights, as with minibatches: sample inside `with full_model:`, "
                "a model of the same variables with all the data"
            )
        raise ValueError(
            f"dt has no group {name!r}; {why}. Its groups are {', '.join(dt.children)}"
        )
    return dt[name].to_dataset()


def sparse(positions: np.ndarray, most: int = TICKS) -> np.ndarray:
    """Drop positions evenly until there are few enough to label."""
    return positions[:: int(np.ceil(len(positions) / most))]


def log_ticks(da: Any, target: Any, *, low: float, high: float) -> None:
    """Label a logarithmic horizontal axis at 1, 2 and 5, or at powers of ten, in plain numbers."""
    from arviz_plots.plot_collection import backend_from_object

    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    ticks = np.outer(decades, [1, 2, 5]).ravel()
    inside = ticks[(ticks >= low) & (ticks <= high)]
    if len(inside) > MOST_LOG_TICKS:
        inside = sparse(decades[(decades >= low) & (decades <= high)], MOST_LOG_TICKS)
    backend_from_object(target).xticks(inside, [f"{tick:g}" for tick in inside], target)
    if hasattr(
        target, "minorticks_off"
    ):  # Matplotlib labels minor ticks, too, if there are few others
        target.tick_params(axis="x", which="minor", labelbottom=False)


class Plot:
    """A PlotCollection of one plot, with the user's options of its visuals."""

    def __init__(
        self,
        azp: Any,
        data: xr.Dataset,
        visuals: Any,
        pc_kwargs: dict,
        *,
        figsize: tuple[float, float],
        **aes: Any,
    ) -> None:
        options = {
            **pc_kwargs,
            "figure_kwargs": figure_options(pc_kwargs, figsize=figsize),
            "aes": {**aes, **pc_kwargs.get("aes", {})},
        }
        self._visuals = visuals or {}
        self._azp = azp
        self.collection = azp.PlotCollection.wrap(data, **options)
        panels = {dim: data[dim] for dim in pc_kwargs.get("cols", ()) if dim in data.dims}
        self.anywhere = points(0, 0).expand_dims(panels)

    def draw(
        self,
        name: str,
        visual: Callable,
        data: xr.Dataset,
        *,
        ignore_aes: Any = "all",
        **defaults: Any,
    ) -> None:
        """Draw a visual with these options, unless the user switched it off."""
        if (options := visual_options(self._visuals, name, **defaults)) is not False:
            self.collection.map(visual, name, data=data, ignore_aes=ignore_aes, **options)

    def label(self, name: str, visual: Callable, text: str) -> None:
        """Write a label."""
        self.draw(name, visual, self.anywhere, text=text)

    def set_axes(self, visual: Callable, **options: Any) -> None:
        """Set limits, ticks or a scale."""
        self.collection.map(
            visual, data=self.anywhere, ignore_aes="all", store_artist=False, **options
        )

    def limits(self, *, x: tuple[float, float], y: tuple[float, float]) -> None:
        """Set the limits of both axes."""
        self.set_axes(self._azp.visuals.set_xlim, limits=x)
        self.set_axes(self._azp.visuals.set_ylim, limits=y)

    def legend(self, dim: str, **defaults: Any) -> None:
        """Add the legend of a dimension, unless the user switched it off."""
        if (options := visual_options(self._visuals, "legend", **defaults)) is not False:
            self.collection.add_legend(dim, **options)


def points(x: Any, y: Any = None, **more: Any) -> xr.Dataset:
    """Arrange coordinates as the visuals take them, by ``plot_axis``."""
    parts = {"x": x, **({} if y is None else {"y": y}), **more}
    values = np.array([np.atleast_1d(part) for part in parts.values()], dtype=float)
    coords = {"plot_axis": list(parts)}
    return xr.Dataset({"value": (("plot_axis", "point"), values)}, coords=coords)
