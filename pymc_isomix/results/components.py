"""The components as a table: the ``isomix`` group of a DataTree."""

import numpy as np
import xarray as xr

from pymc_isomix.family import modes
from pymc_isomix.model.compiled import CompiledModel
from pymc_isomix.model.space import FlatSpace, axis_labels
from pymc_isomix.sites.blocks import BlockMixture

SD_PAIRS = 50  # antithetic pairs per component, for its moments in unconstrained space
DUPLICATE_OVERLAP = 0.95  # Bhattacharyya coefficient; 1 for equal components


def to_dataset(
    space: FlatSpace,
    mixture: BlockMixture,
    compiled: CompiledModel,
    responsibilities: np.ndarray,
    weight: np.ndarray | None = None,
) -> xr.Dataset:
    """Build the ``isomix`` group.

    Parameters
    ----------
    compiled : CompiledModel
        Maps the mixture's coordinates to unconstrained space and to model space.
    responsibilities : (S, K) array
        At draws from the mixture.
    weight : (S,) array, optional
        Their importance weights.

    Returns
    -------
    xarray.Dataset
        A name or dim that the model uses, too, gets the prefix ``isomix_`` here.
    """
    model, sketch = space.model, mixture.sketch
    taken = {*model.named_vars, *model.coords}

    def own(name):
        return f"isomix_{name}" if name in taken else name

    component, dimension = own("component"), own("unconstrained")
    table = {
        **_places(mixture, compiled, (component, dimension)),
        "log_variance": ((component, dimension)[: sketch.log_variances.ndim], sketch.log_variances),
        "weight": (component, mixture.weights),
        "responsibility_mass": (component, responsibilities.mean(axis=0)),
        "dead": (component, modes.is_dead(mixture)),
        "mode": (component, mixture.mode_labels),
        "metric": ((dimension, f"{dimension}_bis")[: sketch.metric.ndim], sketch.metric),
    }
    has_sites = bool(compiled.coordinates and compiled.coordinates.names)
    if has_sites:
        table["share"] = (own("pseudo_observation"), compiled.shares(mixture))
    if weight is not None:
        table["evidence_share"] = (component, weight @ responsibilities)
    table |= {name: (component, column) for name, column in _neighbours(sketch).items()}
    coords = {component: np.arange(mixture.n_components), dimension: space.labels}
    if has_sites:
        coords[own("pseudo_observation")] = compiled.coordinates.labels
    if sketch.metric.ndim == 2:
        coords[f"{dimension}_bis"] = space.labels
    dataset = xr.Dataset({own(name): column for name, column in table.items()}, coords)
    means = compiled.constrained(compiled.to_unconstrained(sketch.means)[0])
    return dataset.assign(_model_space_means(model, means, component))


def _places(mixture, compiled, dims):
    """Mean and standard deviation of each component, in z and, if that differs, in y."""
    if not compiled.coordinates:
        places = {"mean": mixture.sketch.means, "sd": mixture.standard_deviations}
        return {f"unconstrained_{name}": (dims, values) for name, values in places.items()}
    half = np.random.default_rng(0).normal(size=(SD_PAIRS * mixture.n_components, mixture.n_dim))
    component = np.repeat(np.arange(mixture.n_components), 2 * SD_PAIRS)
    noise = np.stack([half, -half], axis=1).reshape(len(component), -1)
    points = mixture.at(noise, component)
    draws = compiled.to_unconstrained(points)[0].reshape(mixture.n_components, -1, mixture.n_dim)
    return {
        "unconstrained_mean": (dims, draws.mean(axis=1)),
        "unconstrained_sd": (dims, draws.std(axis=1)),
        "coordinate_mean": (dims, mixture.sketch.means),
        "coordinate_sd": (dims, mixture.standard_deviations),
    }


def _model_space_means(model, means, component):
    """Each free variable at the components' means, mapped to model space."""
    arrays = {}
    for rv in model.free_RVs:
        value = means[rv.name]
        named = model.named_vars_to_dims.get(rv.name) or (None,) * (value.ndim - 1)
        dims = [dim or f"{rv.name}_dim_{axis}" for axis, dim in enumerate(named)]
        coords = {
            dim: axis_labels(model, dim, length)
            for dim, length in zip(dims, value.shape[1:], strict=True)
        }
        arrays[rv.name] = xr.DataArray(value, dims=[component, *dims], coords=coords)
    return arrays


def _neighbours(mixture):
    """Nearest component of each, its distance in pooled standard deviations, and duplicates."""
    n_components = mixture.n_components
    sd = mixture.whitened_deviations  # (K, 1) or (K, d)
    n_repeats = mixture.n_dim / sd.shape[1]
    distance = modes.squared_distances(mixture, lambda own, other: 0.5 * (own + other))
    np.fill_diagonal(distance, np.inf)
    nearest = distance.argmin(axis=1) if n_components > 1 else np.full(1, -1)
    shapes = np.stack([np.log(2 * one * sd / (one**2 + sd**2)).sum(axis=1) for one in sd])
    overlap = np.exp(-distance / 8 + n_repeats / 2 * shapes)  # Bhattacharyya's coefficient
    order = np.argsort(-mixture.log_weights, kind="stable")
    rank = np.argsort(order)
    heavier = rank[None, :] < rank[:, None]
    shortest = np.sqrt(distance.min(axis=1))
    return {
        "nearest_component": nearest,
        "nearest_distance": np.where(np.isfinite(shortest), shortest, np.nan),
        "duplicate": ((overlap > DUPLICATE_OVERLAP) & heavier).any(axis=1),
    }
