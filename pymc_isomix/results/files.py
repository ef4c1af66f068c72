"""An approximation in a file, netCDF or zarr: parameters, history, and the state of random numbers.

Nothing in it is executed when it is read.
"""

import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path

import numpy as np
import pymc as pm
import xarray as xr

from pymc_isomix.family import mixture as parameters
from pymc_isomix.fitting.record import History
from pymc_isomix.interface.approximation import IsotropicMixture
from pymc_isomix.results import components

FORMAT = 1
DIMS = {
    "means": ("component", "unconstrained"),
    "log_variances": ("component",),
    "log_weights": ("component",),
    "metric": ("unconstrained", "unconstrained_bis"),
    "hist": ("iteration",),
}


def save(approx, path):
    """Write an approximation to a file; see :meth:`pymc_isomix.IsotropicMixture.save`."""
    path = _checked_path(path)
    arrays = {**approx.parameter_values(), "hist": np.asarray(getattr(approx, "hist", ()))}
    history = approx.history or History()
    labels = components.unconstrained_labels(approx.model, approx.ordering)
    state = xr.Dataset(
        {name: (DIMS[name][: value.ndim], value) for name, value in arrays.items()},
        coords={"unconstrained": labels},
    )
    fit = history.to_dataset()
    attrs = {
        "format": FORMAT,
        "variables": json.dumps(describe_variables(approx.model, approx.ordering)),
        "random_state": json.dumps(_pack(approx.rng.get_state(legacy=False))),
        "generators": json.dumps(history.generators),
        "checksum": _checksum(state, fit),
    }
    tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), "/state": state, "/fit": fit})
    # beside the file, so that renaming stays within its file system
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        if path.suffix == ".nc":
            tree.to_netcdf(temporary)
        else:
            tree.to_zarr(temporary)
        _put_in_place(temporary, path)
    finally:
        _remove(temporary)


def load(path, model=None):
    """Read an approximation that :meth:`IsotropicMixture.save` wrote.

    Parameters
    ----------
    path : str or Path
        Ends in ``.nc`` or ``.zarr``.
    model : pymc.Model, optional
        With the same free variables; the model of the context when not given.

    Returns
    -------
    IsotropicMixture
        With the same parameters, ``hist`` and ``history``. It samples and diagnoses as before, with
        the same random numbers; :func:`pymc_isomix.resume` fits it further.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no whole file of an approximation, or the model's free variables differ in name,
        shape or transform.
    """
    path = _checked_path(path)
    model = pm.modelcontext(model)
    if not path.exists():
        if not _set_aside(path).exists():
            raise FileNotFoundError(f"no file {path}")
        path = _set_aside(path)
    try:
        with xr.open_datatree(path) as opened:
            tree = opened.load()
        attrs, state, fit = tree.attrs, tree["state"].to_dataset(), tree["fit"].to_dataset()
        whole = attrs["checksum"] == _checksum(state, fit)
    except Exception as error:  # each library that reads has errors of its own
        raise ValueError(_not_whole(path)) from error
    if not whole:
        raise ValueError(_not_whole(path))
    if attrs["format"] != FORMAT:
        raise ValueError(
            f"{path} has format {attrs['format']}; this version reads {FORMAT}: use the version of "
            "pymc-isomix that saved it"
        )
    values = {name: state[name].values for name in parameters.NAMES}
    _refuse_other_variables(json.loads(attrs["variables"]), model)
    approx = IsotropicMixture(values=values, model=model)
    approx.rng.set_state(_unpack(json.loads(attrs["random_state"])))
    approx.hist = state["hist"].values
    approx.history = History.from_dataset(fit)
    approx.history.generators = json.loads(attrs["generators"])
    return approx


def describe_variables(model, ordering=None):
    """Describe the free variables as they lie in a flat point: name, value name, shape, transform.

    Parameters
    ----------
    model : pymc.Model
    ordering : mapping, optional
        For the order of the variables; the model's own when not given.
    """
    rvs = {model.rvs_to_values[rv].name: rv for rv in model.free_RVs}
    shapes = {name: np.shape(value) for name, value in model.initial_point(0).items()}
    return [
        {
            "name": rvs[name].name,
            "shape": [int(length) for length in shapes[name]],
            "transform": type(model.rvs_to_transforms[rvs[name]]).__name__,
        }
        for name in (ordering or rvs)
    ]


def _refuse_other_variables(saved, model):
    here = describe_variables(model)
    if saved == here:
        return
    by_name = [{variable["name"]: variable for variable in side} for side in (saved, here)]
    differences = []
    for name in dict.fromkeys([*by_name[0], *by_name[1]]):
        in_file, in_model = (side.get(name) for side in by_name)
        if in_model is None:
            differences.append(f"{name} is only in the file")
        elif in_file is None:
            differences.append(f"{name} is only in the model")
        else:
            differences += [
                f"{name} has {key} {in_file[key]} in the file and {in_model[key]} in the model"
                for key in ("shape", "transform")
                if in_file[key] != in_model[key]
            ]
    listed = "; ".join(differences) or "their order"
    raise ValueError(
        f"the model's free variables differ from those of the file: {listed}. Load with the model "
        "that was fitted"
    )


def _checked_path(path):
    path = Path(path)
    if path.suffix not in (".nc", ".zarr"):
        raise ValueError(f"path must end in .nc (netCDF) or .zarr; got {str(path)!r}")
    return path


def _put_in_place(temporary, path):
    """Rename over the old file. A folder cannot be replaced at once: the old one goes aside."""
    if not path.is_dir():
        os.replace(temporary, path)
        return
    aside = _set_aside(path)
    _remove(aside)
    os.replace(path, aside)
    os.replace(temporary, path)
    _remove(aside)


def _set_aside(path):
    """Where the old folder is for the moment of a replacement; read if that was interrupted."""
    return path.with_name(f".{path.stem}.old{path.suffix}")


def _remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _checksum(state, fit):
    """Checksum of all numbers: zarr reads a chunk that is missing as zeros, without a word."""
    digest = hashlib.sha256()
    for dataset, names in ((state, (*parameters.NAMES, "hist")), (fit, ("elbo", "step_size"))):
        for name in names:
            digest.update(np.ascontiguousarray(dataset[name].values).tobytes())
    return digest.hexdigest()


def _not_whole(path):
    return (
        f"{path} is not a whole file of an approximation: it was cut short, changed, or written by "
        "something else. Save it again, or load an older copy"
    )


def _pack(state):
    """Turn the state of a RandomState into what JSON can hold."""
    key = state["state"]["key"].tolist()
    return {**state, "state": {**state["state"], "key": key}}


def _unpack(state):
    return {**state, "state": {**state["state"], "key": np.array(state["state"]["key"], "uint32")}}
