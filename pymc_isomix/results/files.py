"""An approximation in a file, netCDF or zarr: parameters, history, and the state of random numbers.

Nothing in it is executed when it is read.
"""

import hashlib
import json
import os
import shutil
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from pymc_isomix.family.mixture import NAMES, Mixture
from pymc_isomix.fitting.record import History
from pymc_isomix.sites.coordinates import PARAMETERS, SHAPE

FORMAT = 2
READABLE = (1, 2)
READERS = {".nc": ("h5netcdf", "netCDF4"), ".zarr": ("zarr",)}  # one of them
DIMS = {
    "means": ("component", "unconstrained"),
    "log_variances": ("component", "unconstrained"),
    "log_weights": ("component",),
    "metric": ("unconstrained", "unconstrained_bis"),
    "log_precisions": ("pseudo_observation",),
    "values": ("pseudo_observation",),
    **dict.fromkeys(SHAPE.values(), ("unconstrained",)),
    "hist": ("iteration",),
}


class Saved(NamedTuple):
    """What a file holds of an approximation."""

    mixture: Mixture
    coordinates: dict  # parameters of the coordinates, arrays by name
    sites: list  # their names, in order
    variables: list  # as FlatSpace.describe gives them
    labels: np.ndarray  # (d,)
    history: History
    hist: np.ndarray
    random_state: dict  # of a RandomState


def write(path, saved):
    """Write an approximation; see :meth:`pymc_isomix.IsotropicMixture.save`."""
    arrays = {**saved.mixture.as_dict(), **saved.coordinates, "hist": saved.hist}
    state = xr.Dataset(
        {name: (DIMS[name][: value.ndim], value) for name, value in arrays.items()},
        coords={"unconstrained": saved.labels},
    )
    fit = saved.history.to_dataset()
    attrs = {
        "format": FORMAT,
        "variables": json.dumps(saved.variables),
        "sites": json.dumps(saved.sites),
        "random_state": pack(saved.random_state),
        "generators": json.dumps(saved.history.generators),
    }
    attrs["checksum"] = _checksum(state, fit, attrs)
    write_tree(path, {"/": xr.Dataset(attrs=attrs), "/state": state, "/fit": fit})


def write_tree(path, groups):
    """Write datasets by group to a file, whole or not at all."""
    path, tree = checked_path(path), xr.DataTree.from_dict(groups)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"path must be in a folder that exists; there is no {str(path.parent)!r}: make it first"
        )
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


def read(path):
    """Read what :func:`write` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no whole file of an approximation, or of a format that is not known.
    """
    path = checked_path(path)
    if not path.exists():
        if not _set_aside(path).exists():
            raise FileNotFoundError(f"no file {path}")
        path = _set_aside(path)
    try:
        with xr.open_datatree(path) as opened:
            tree = opened.load()
        attrs = tree.attrs
        if "format" not in attrs and "state" not in tree.children:
            raise ForeignFile
        version = int(attrs["format"])
    except ForeignFile:
        groups = f", with groups {', '.join(tree.children)}" if tree.children else ""
        raise ValueError(
            f"{path} was not written by approx.save: it is another DataTree or dataset{groups}. "
            "Draws that ArviZ saved are read by arviz.from_netcdf or arviz.from_zarr"
        ) from None
    except Exception as error:  # each library that reads has errors of its own
        raise ValueError(_not_whole(path)) from error
    if version not in READABLE:
        raise ValueError(
            f"{path} has format {version}; this version of pymc-isomix reads "
            f"{' and '.join(map(str, READABLE))}: use the version that saved it"
            + (", or a newer one than this" if version > FORMAT else "")
        )
    try:
        state, fit = tree["state"].to_dataset(), tree["fit"].to_dataset()
        whole = attrs["checksum"] == _checksum(state, fit, attrs)
    except Exception as error:
        raise ValueError(_not_whole(path)) from error
    if not whole:
        raise ValueError(_not_whole(path))
    history = History.from_dataset(fit)
    history.generators = json.loads(attrs["generators"])
    return Saved(
        mixture=Mixture(**{name: state[name].values for name in NAMES}),
        coordinates={name: state[name].values for name in PARAMETERS if name in state},
        sites=json.loads(attrs.get("sites", "[]")),
        variables=json.loads(attrs["variables"]),
        labels=state["unconstrained"].values,
        history=history,
        hist=state["hist"].values,
        random_state=unpack(attrs["random_state"]),
    )


def refuse_other_variables(saved, here):
    """Raise ValueError unless a file's variables are the model's, as FlatSpace describes them."""
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


def refuse_other_sites(saved, coordinates):
    """Raise ValueError unless a file's sites are those found in the model."""
    n_saved = len(saved.coordinates.get("values", ()))
    if saved.sites != coordinates.names or n_saved != coordinates.map.n_pseudo:
        raise ValueError(
            f"the effects that the file sees by their own scales ({', '.join(saved.sites)}) are "
            f"not those of the model ({', '.join(coordinates.names)}): load with the model that "
            "was fitted"
        )


def checked_path(path):
    """Return the path, of a kind that can be written."""
    path = Path(path)
    if path.suffix not in (".nc", ".zarr"):
        raise ValueError(f"path must end in .nc (netCDF) or .zarr; got {str(path)!r}")
    libraries = READERS[path.suffix]
    if not any(map(find_spec, libraries)):
        raise ImportError(
            f"path ends in {path.suffix}, which needs {' or '.join(libraries)}: "
            f"`pip install {libraries[0]}`, or `pip install pymc-isomix[files]`"
        )
    return path


class ForeignFile(ValueError):
    """A file that can be read, but that another program wrote."""


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


def _checksum(state, fit, attrs):
    """Checksum of all that counts: zarr reads a chunk that is missing as zeros, without a word."""
    digest = hashlib.sha256()
    if int(attrs["format"]) > 1:
        texts = (
            attrs["variables"],
            attrs["random_state"],
            attrs["generators"],
            fit.attrs["settings"],
        )
        digest.update("\n".join(texts).encode())
    pseudo = [name for name in PARAMETERS if name in state]
    for dataset, names in ((state, (*NAMES, *pseudo, "hist")), (fit, ("elbo", "step_size"))):
        for name in names:
            digest.update(np.ascontiguousarray(dataset[name].values).tobytes())
    return digest.hexdigest()


def _not_whole(path):
    return (
        f"{path} is not a whole file of an approximation: it was cut short, changed, or written by "
        "something else. Save it again, or load an older copy"
    )


def pack(state):
    """Turn the state of a RandomState into JSON."""
    key = state["state"]["key"].tolist()
    return json.dumps({**state, "state": {**state["state"], "key": key}})


def unpack(text):
    """Read back what :func:`pack` gave."""
    state = json.loads(text)
    return {**state, "state": {**state["state"], "key": np.array(state["state"]["key"], "uint32")}}
