"""An approximation in a netCDF file: parameters, history, and the state of random numbers.

Nothing in it is executed when it is read.
"""

import hashlib
import json
import logging
import os
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from pymc_isomix.family.mixture import NAMES, Mixture
from pymc_isomix.fitting.record import History
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.sites.blocks import Block, BlockMixture
from pymc_isomix.sites.coordinates import SHAPE, CoordinateMap

logger = logging.getLogger(__name__)

FORMAT = 3
LIBRARIES = ("h5netcdf", "netCDF4")  # one of them writes and reads
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


class SavedBlock(NamedTuple):
    """The contents of a file about one block."""

    mixture: Mixture
    coordinates: dict  # parameters of the coordinates, arrays by name
    log_weight: float = 0.0
    source: int = 0  # number of the fit that it comes from


class Saved(NamedTuple):
    """The contents of a file: one block for a fit, several for joined fits."""

    blocks: tuple[SavedBlock, ...]
    structure: dict  # of the coordinates except shapes, from CoordinateMap.describe
    variables: list  # from FlatSpace.describe
    labels: np.ndarray  # (d,)
    history: History
    hist: np.ndarray
    random_state: dict  # of a RandomState
    table: xr.Dataset | None = None  # of the pieces of joined fits
    data: dict | None = None  # shape and digest of the fit's data, by name, if known

    @classmethod
    def of(
        cls,
        density: BlockMixture,
        space: FlatSpace,
        history: History,
        hist: np.ndarray,
        rng: np.random.RandomState,
        table: xr.Dataset | None = None,
        data: dict | None = None,
    ) -> "Saved":
        """Collect the contents of a file from a :class:`BlockMixture` and its record."""
        pairs = zip(density.blocks, density.log_block_weights, strict=True)
        blocks = tuple(
            SavedBlock(block.mixture, block.coordinates.parameters, float(log_weight), block.source)
            for block, log_weight in pairs
        )
        structure, state = (
            density.coordinates.map.without_shape.describe(),
            rng.get_state(legacy=False),
        )
        return cls(
            blocks, structure, space.describe(), space.labels, history, hist, state, table, data
        )

    @property
    def mixture(self) -> Mixture:
        """The mixture of the first block."""
        return self.blocks[0].mixture

    def density(self, coordinate_map: CoordinateMap) -> BlockMixture:
        """Return the blocks in coordinates of a map of this structure."""
        blocks = [
            Block(block.mixture, coordinate_map.of(block.coordinates), block.source)
            for block in self.blocks
        ]
        return BlockMixture.of(blocks, [block.log_weight for block in self.blocks])


def write(path: str | Path, saved: Saved) -> None:
    """Write an approximation; see :meth:`pymc_isomix.IsotropicMixture.save`."""
    state = {"hist": (DIMS["hist"], saved.hist)}
    groups = {
        "/state": xr.Dataset(state, coords={"unconstrained": saved.labels}),
        "/fit": saved.history.to_dataset(),
    }
    for j, block in enumerate(saved.blocks):
        groups[f"/block_{j}"] = _block_to_dataset(block)
    if saved.table is not None:
        groups["/ensemble"] = saved.table
    attrs = {
        "format": FORMAT,
        "variables": json.dumps(saved.variables),
        "structure": json.dumps(saved.structure),
        "random_state": pack(saved.random_state),
        "generators": json.dumps(saved.history.generators),
        "data": json.dumps(saved.data or {}),
    }
    attrs["checksum"] = _checksum(groups, attrs)
    write_tree(path, {"/": xr.Dataset(attrs=attrs), **groups})


def _block_to_dataset(block):
    arrays = {**block.mixture.as_dict(), **block.coordinates}
    columns = {}
    for name, value in arrays.items():
        unnamed = tuple(f"{name}_{axis}" for axis in range(np.ndim(value)))
        columns[name] = (DIMS.get(name, unnamed)[: np.ndim(value)], value)
    attrs = {"log_weight": block.log_weight, "source": block.source}
    return xr.Dataset(columns, attrs={**attrs, "parameters": json.dumps([*block.coordinates])})


def _block_from_dataset(dataset):
    attrs = dataset.attrs
    return SavedBlock(
        Mixture(**{name: dataset[name].values for name in NAMES}),
        {name: dataset[name].values for name in json.loads(attrs["parameters"])},
        float(attrs["log_weight"]),
        int(attrs["source"]),
    )


def write_tree(path: str | Path, groups: dict) -> None:
    """Write datasets by group to a file, completely or not at all."""
    path, tree = checked_path(path), xr.DataTree.from_dict(groups)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"path must be in an existing folder; there is no {str(path.parent)!r}: create it first"
        )
    # in the same folder, because renaming needs one file system
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        tree.to_netcdf(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: str | Path) -> Saved:
    """Read what :func:`write` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, holds no approximation, or has an unknown format.
    """
    path = checked_path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    try:
        with xr.open_datatree(path) as file:
            tree = file.load()
    except Exception as error:  # the libraries that read files raise different errors
        raise ValueError(_not_whole(path)) from error
    if "format" not in tree.attrs:
        listed = f", with groups {', '.join(tree.children)}" if tree.children else ""
        raise ValueError(
            f"{path} was not written by approx.save: it is another DataTree or dataset{listed}. "
            "Use arviz.from_netcdf for draws that ArviZ saved"
        )
    if (version := tree.attrs["format"]) != FORMAT:
        raise ValueError(
            f"{path} has format {version}; this version of pymc-isomix reads {FORMAT}: use the "
            "version that saved it"
        )
    try:
        groups = {f"/{name}": child.to_dataset() for name, child in tree.children.items()}
        if tree.attrs["checksum"] == _checksum(groups, tree.attrs):
            return _saved(groups, tree.attrs)
    except Exception as error:
        raise ValueError(_not_whole(path)) from error
    raise ValueError(_not_whole(path))


def _saved(groups, attrs):
    history = History.from_dataset(groups["/fit"])
    history.generators = json.loads(attrs["generators"])
    n_blocks = sum("/block_" in name for name in groups)
    return Saved(
        blocks=tuple(_block_from_dataset(groups[f"/block_{j}"]) for j in range(n_blocks)),
        structure=json.loads(attrs["structure"]),
        variables=json.loads(attrs["variables"]),
        labels=groups["/state"]["unconstrained"].values,
        history=history,
        hist=groups["/state"]["hist"].values,
        random_state=unpack(attrs["random_state"]),
        table=groups.get("/ensemble"),
        data=json.loads(attrs["data"]),
    )


def refuse_other_variables(saved: list[dict], here: list[dict]) -> None:
    """Raise ValueError unless a file has the variables of the model."""
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
        f"the model's free variables differ from those of the file: {listed}. Pass the model "
        "that was fitted"
    )


def warn_of_other_data(saved: dict | None, here: dict) -> None:
    """Warn of data of the model that differ from those of the saved fit, by digests."""
    others = [
        f"{name} (shape {tuple(shape)} then, {tuple(here[name][0])} now)"
        if shape != here[name][0]
        else f"{name} (other values)"
        for name, (shape, digest) in (saved or {}).items()
        if name in here and [shape, digest] != here[name]
    ]
    if others:
        logger.warning(
            f"the model's data differ from those of the saved fit: {', '.join(others)}. Weights "
            "and diagnostics will use the model's data. To use the data of the fit, load before "
            "pm.set_data"
        )


def refuse_other_sites(saved: Saved, coordinate_map: CoordinateMap) -> None:
    """Raise ValueError unless the coordinates of a file have the structure found in the model."""
    if saved.structure != coordinate_map.without_shape.describe():
        raise ValueError(
            f"the sites of the file ({', '.join(saved.structure['sites'])}) are not those of the "
            f"model ({', '.join(coordinate_map.names)}): pass the model that was fitted"
        )


def checked_path(path: str | Path) -> Path:
    """Return the path; raise unless it can be written."""
    path = Path(path)
    if path.suffix != ".nc":
        raise ValueError(f"path must end in .nc (netCDF); got {str(path)!r}")
    if not any(map(find_spec, LIBRARIES)):
        raise ImportError(
            f"a netCDF file needs {' or '.join(LIBRARIES)}: `pip install {LIBRARIES[0]}`, or "
            "`pip install pymc-isomix[files]`"
        )
    return path


def _checksum(groups, attrs):
    """Return the checksum of the contents, because netCDF does not detect all damage."""
    texts = [attrs[name] for name in ("variables", "structure", "random_state", "generators")]
    texts.append(groups["/fit"].attrs["settings"])
    for name in sorted(name for name in groups if name.startswith("/block_")):
        own = groups[name].attrs
        texts.append(f"{float(own['log_weight'])!r} {int(own['source'])} {own['parameters']}")
    digest = hashlib.sha256("\n".join(texts).encode())
    for group in sorted(groups):
        for name in sorted(groups[group].data_vars):
            values = groups[group][name].values
            if values.dtype.kind in "fiub":
                digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _not_whole(path):
    return (
        f"{path} is not a whole file of an approximation: it was cut short, changed, or written by "
        "something else. Save it again, or load an older copy"
    )


def pack(state: dict) -> str:
    """Turn the state of a RandomState into JSON."""
    key = state["state"]["key"].tolist()
    return json.dumps({**state, "state": {**state["state"], "key": key}})


def unpack(text: str) -> dict:
    """Undo :func:`pack`."""
    state = json.loads(text)
    return {**state, "state": {**state["state"], "key": np.array(state["state"]["key"], "uint32")}}
