"""The components as a table: the ``isomix`` group of a DataTree."""

import numpy as np
import xarray as xr

from pymc_isomix.family import mixture as parameters
from pymc_isomix.family import modes

DUPLICATE_OVERLAP = 0.95  # Bhattacharyya coefficient; 1 for equal components


def unconstrained_labels(model, ordering):
    """Label each unconstrained dimension, ``tau_log__`` or ``beta[Intercept]``, (d,) strings.

    By the value variable's name and the model's coords; by position where a transform changes the
    shape.
    """
    dims_of = {model.rvs_to_values[rv].name: _dims(model, rv) for rv in model.free_RVs}
    labels = []
    for name, _, shape, _ in ordering.values():
        axes = [
            _axis_labels(model, dim, length)
            for dim, length in zip(dims_of[name] or (None,) * len(shape), shape, strict=False)
        ]
        if len(axes) != len(shape):
            axes = [np.arange(length) for length in shape]
        for index in np.ndindex(*shape):
            place = ", ".join(str(axis[i]) for axis, i in zip(axes, index, strict=True))
            labels.append(f"{name}[{place}]" if shape else name)
    return np.array(labels)


def to_dataset(model, ordering, values, constrained, responsibilities, weight=None):
    """Build the ``isomix`` group.

    Parameters
    ----------
    model : pymc.Model
    ordering : mapping
        As in ``pymc.variational.opvi.Group.ordering``.
    values : dict of arrays
        Parameters of the mixture.
    constrained : callable
        From unconstrained points (S, d) to {name: (S, ...)} in model space.
    responsibilities : (S, K) array
        At draws from the mixture.
    weight : (S,) array, optional
        Their importance weights.

    Returns
    -------
    xarray.Dataset
        A name or dim that the model uses itself gets the prefix ``isomix_`` here, and the
        model's keeps its own.
    """
    taken = {*model.named_vars, *model.coords}

    def own(name):
        return f"isomix_{name}" if name in taken else name

    component, dimension = own("component"), own("unconstrained")
    sd = np.exp(0.5 * values["log_variances"])
    table = {
        "unconstrained_mean": ((component, dimension), values["means"]),
        "unconstrained_sd": ((component, dimension), parameters.standard_deviations(values)),
        "log_variance": (component, values["log_variances"]),
        "weight": (component, np.exp(values["log_weights"])),
        "responsibility_mass": (component, responsibilities.mean(axis=0)),
        "dead": (component, modes.is_dead(values)),
        "mode": (component, modes.label_modes(values)),
        "metric": ((dimension, f"{dimension}_bis")[: values["metric"].ndim], values["metric"]),
    }
    if weight is not None:
        table["evidence_share"] = (component, weight @ responsibilities)
    squared = modes.squared_distances(values)
    table |= {
        name: (component, column) for name, column in _neighbours(values, squared, sd).items()
    }
    labels = unconstrained_labels(model, ordering)
    coords = {component: np.arange(len(sd)), dimension: labels}
    if values["metric"].ndim == 2:
        coords[f"{dimension}_bis"] = labels
    dataset = xr.Dataset({own(name): column for name, column in table.items()}, coords)
    return dataset.assign(_model_space_means(model, constrained(values["means"]), component))


def _model_space_means(model, means, component):
    """Each free variable at the components' means, as the image under its transform."""
    arrays = {}
    for rv in model.free_RVs:
        value = means[rv.name]
        named = _dims(model, rv) or (None,) * (value.ndim - 1)
        dims = [dim or f"{rv.name}_dim_{axis}" for axis, dim in enumerate(named)]
        coords = {
            dim: _axis_labels(model, dim, length)
            for dim, length in zip(dims, value.shape[1:], strict=True)
        }
        arrays[rv.name] = xr.DataArray(value, dims=[component, *dims], coords=coords)
    return arrays


def _neighbours(values, squared, sd):
    """Nearest component of each, its distance in pooled standard deviations, and duplicates."""
    n_components, n_dim = values["means"].shape
    pooled = 0.5 * (sd[:, None] ** 2 + sd**2)
    distance = squared / pooled
    np.fill_diagonal(distance, np.inf)
    nearest = distance.argmin(axis=1) if n_components > 1 else np.full(1, -1)
    overlap = np.exp(-distance / 8) * (sd[:, None] * sd / pooled) ** (n_dim / 2)
    order = np.argsort(-values["log_weights"], kind="stable")
    rank = np.argsort(order)
    heavier = rank[None, :] < rank[:, None]
    shortest = np.sqrt(distance.min(axis=1))
    return {
        "nearest_component": nearest,
        "nearest_distance": np.where(np.isfinite(shortest), shortest, np.nan),
        "duplicate": ((overlap > DUPLICATE_OVERLAP) & heavier).any(axis=1),
    }


def _dims(model, rv):
    return model.named_vars_to_dims.get(rv.name)


def _axis_labels(model, dim, length):
    labels = model.coords.get(dim)
    return np.arange(length) if labels is None or len(labels) != length else np.asarray(labels)
