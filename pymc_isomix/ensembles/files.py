"""Joined mixtures and checkpoints in files; nothing in them is executed when they are read."""

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from pymc_isomix.family.mixture import NAMES, Mixture
from pymc_isomix.fitting.record import History
from pymc_isomix.results import files
from pymc_isomix.results.files import checked_path, pack, unpack, write_tree
from pymc_isomix.sites.coordinates import PARAMETERS

FORMAT = "joined 1"


class SavedBlock(NamedTuple):
    """What a file holds of a block."""

    mixture: Mixture
    coordinates: dict
    log_weight: float
    source: int


class SavedJoined(NamedTuple):
    """What a file holds of a joined mixture."""

    blocks: list[SavedBlock]
    sites: list
    variables: list
    table: xr.Dataset
    history: History
    random_state: dict


def write(path, approx):
    """Write a joined mixture; see :meth:`pymc_isomix.JoinedMixture.save`."""
    joined = approx.mixture
    log_weights = np.log(joined.block_weights)
    groups = {
        f"/block_{j}": _to_dataset(block, log_weight)
        for j, (block, log_weight) in enumerate(zip(joined.blocks, log_weights, strict=True))
    }
    groups |= {"/ensemble": approx.table, "/fit": approx.history.to_dataset()}
    attrs = {
        "format": FORMAT,
        "variables": json.dumps(approx.space.describe()),
        "sites": json.dumps(approx.coordinates.names),
        "random_state": pack(approx.rng.get_state(legacy=False)),
    }
    attrs["checksum"] = _checksum(groups)
    write_tree(path, {"/": xr.Dataset(attrs=attrs), **groups})


def read(path):
    """Read what :func:`write` wrote; None where the file is of anything else.

    Raises
    ------
    ValueError
        If it is not whole.
    """
    path = checked_path(path)
    try:
        with xr.open_datatree(path) as opened:
            if opened.attrs.get("format") != FORMAT:
                return None
            tree = opened.load()
    except Exception:  # what is wrong with it, the reader of single fits says
        return None
    groups = {f"/{name}": child.to_dataset() for name, child in tree.children.items()}
    if tree.attrs["checksum"] != _checksum(groups):
        raise ValueError(
            f"{path} is not a whole file of a joined mixture: it was cut short or changed. Save it "
            "again, or load an older copy"
        )
    blocks = [name for name in groups if name.startswith("/block_")]
    return SavedJoined(
        [_from_dataset(groups[f"/block_{j}"]) for j in range(len(blocks))],
        json.loads(tree.attrs["sites"]),
        json.loads(tree.attrs["variables"]),
        groups["/ensemble"],
        History.from_dataset(groups["/fit"]),
        unpack(tree.attrs["random_state"]),
    )


class Checkpoints:
    """A folder of what restarts ended with: one file each, whole or not there at all.

    Parameters
    ----------
    folder : str or Path
        Made where it is not there.
    about : dict
        What the fits depend on, fit for JSON. A folder with another one is refused, but for a seed
        of None, which takes that of the folder.

    Raises
    ------
    ValueError
        If the folder is that of other fits.
    """

    def __init__(self, folder, about):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path_of(0)
        head = self.folder / "ensemble.json"
        if head.exists():
            there = json.loads(head.read_text(encoding="utf-8"))
            if about["random_seed"] is None:
                about = {**about, "random_seed": there["random_seed"]}
            about = json.loads(json.dumps(about))
            if differing := sorted(k for k in {*about, *there} if about.get(k) != there.get(k)):
                raise ValueError(
                    f"checkpoint {str(self.folder)!r} is of other fits: they differ in "
                    f"{', '.join(differing)}. Use another folder, or the same arguments"
                )
        else:
            if about["random_seed"] is None:
                about = {**about, "random_seed": np.random.SeedSequence().entropy}
            temporary = head.with_suffix(".tmp")
            temporary.write_text(json.dumps(about), encoding="utf-8")
            os.replace(temporary, head)
        self.random_seed = about["random_seed"]

    def path_of(self, number):
        """File of a restart; also tells whether files can be written."""
        return checked_path(self.folder / f"restart_{number:05d}.nc")

    def write(self, number, saved):
        """Keep what a restart ended with."""
        files.write(self.path_of(number), saved)

    def read(self, n_restarts):
        """Read what is there, {number: Saved}; a file that is not whole counts as none."""
        found = {}
        for number in range(n_restarts):
            if self.path_of(number).exists():
                try:
                    found[number] = files.read(self.path_of(number))
                except ValueError:
                    continue
        return found


def _to_dataset(block, log_weight):
    arrays = {**block.mixture.as_dict(), **block.coordinates.parameters}
    columns = {
        name: (tuple(f"{name}_{axis}" for axis in range(np.ndim(value))), value)
        for name, value in arrays.items()
    }
    return xr.Dataset(columns, attrs={"log_weight": float(log_weight), "source": block.source})


def _from_dataset(dataset):
    return SavedBlock(
        Mixture(**{name: dataset[name].values for name in NAMES}),
        {name: dataset[name].values for name in PARAMETERS if name in dataset},
        dataset.attrs["log_weight"],
        int(dataset.attrs["source"]),
    )


def _checksum(groups):
    """Checksum of all numbers: zarr reads a chunk that is missing as zeros, without a word."""
    digest = hashlib.sha256()
    for group in sorted(groups):
        for name in sorted(groups[group].data_vars):
            values = groups[group][name].values
            if values.dtype.kind in "fiub":
                digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
