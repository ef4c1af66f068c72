"""What the plot of the sites shows, read back from the figure; the DataTree is made by hand."""

import sys
from itertools import pairwise

import numpy as np
import pymc as pm
import pytest
import xarray as xr
from matplotlib import pyplot as plt

import pymc_isomix as pmi
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.plots.canvas import TICKS
from pymc_isomix.plots.shares import shares_by_site
from pymc_isomix.results.table import LONGEST_NAME
from pymc_isomix.sites.find import find_coordinates

SCHOOLS = [f"theta[{letter}]" for letter in "ABCDEFGH"]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def shares(labels, values=None, prefix=""):
    """Group ``isomix`` with these pseudo-observations."""
    values = np.linspace(0, 1, len(labels)) if values is None else values
    dim = f"{prefix}pseudo_observation"
    return xr.Dataset({f"{prefix}share": (dim, values)}, coords={dim: labels})


def tree(group):
    return xr.DataTree(children={"isomix": xr.DataTree(group)})


def panels(labels, **options):
    """Axes by the name of the site."""
    collection = pmi.plot_shares(tree(shares(labels)), **options)
    plots = collection.viz["plot"]
    return {str(site): plots.sel(site=site).item() for site in plots["site"].values}


def ticks(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def drawn(axes):
    """Points of a panel, in the order of the elements; NaN pads sites of fewer elements."""
    offsets = np.ma.filled(axes.collections[0].get_offsets(), np.nan)
    return offsets[~np.isnan(offsets).any(axis=1)]


def test_every_share_is_a_point_in_the_order_of_the_elements():
    values = np.random.default_rng(1).uniform(size=8)
    axes = pmi.plot_shares(tree(shares(SCHOOLS, values))).viz["plot"].item()
    np.testing.assert_allclose(drawn(axes), np.column_stack([values, np.arange(8)]))
    assert ticks(axes) == list("ABCDEFGH")
    bottom, top = axes.get_ylim()
    assert top < 0 < 7 < bottom  # the first is on top
    assert axes.get_title() == "theta"
    assert axes.get_xlabel() == "share of the data"
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "0\nnon-centred",
        "0.5",
        "1\ncentred",
    ]
    assert axes.get_xlim()[0] < 0 < 1 < axes.get_xlim()[1]


def test_every_site_has_a_panel_of_its_own():
    labels = [*SCHOOLS, "z", *(f"f, row {i}" for i in range(3)), "b[a, row 2]", "b[b, row 2]"]
    sites = panels(labels)
    assert list(sites) == ["theta", "z", "f", "b"]
    assert [axes.get_title() for axes in sites.values()] == [
        "theta",
        "z",
        "f, by row",
        "b, by row",
    ]
    assert [ticks(axes) for axes in sites.values()] == [
        list("ABCDEFGH"),
        [""],
        ["row 0", "row 1", "row 2"],
        ["a, row 2", "b, row 2"],
    ]
    together = np.concatenate([drawn(axes)[:, 0] for axes in sites.values()])
    np.testing.assert_allclose(together, np.linspace(0, 1, len(labels)))


def test_names_of_sites_are_those_of_the_labels_that_a_model_gives():
    with pm.Model(coords={"group": ["a", "b[1]", "c, row 7"]}) as model:
        scale = pm.HalfNormal("scale")
        pm.Normal("effect", 0.0, scale, dims="group")
        single = pm.Normal("single")
        lower = pm.math.stack([scale, 1 + scale]).reshape((2, 1)) @ pm.Normal("z", shape=(1, 1))
        pm.Normal("y", scale * single + lower.sum(), observed=0.0)
    coordinates = find_coordinates(FlatSpace.of(model))
    group = shares(coordinates.labels)
    assert {site: names for site, (names, _) in shares_by_site(group).items()} == {
        "effect": ["a", "b[1]", "c, row 7"],
        "single": [""],
        "z": ["row 0", "row 1"],
    }


def test_the_labels_of_many_elements_are_sparse_and_short():
    long = "of the state of Minnesota, which is long"
    for pattern in ("the county {} " + long, "county " + long + " {}"):
        (axes,) = panels([f"effect[{pattern.format(i)}]" for i in range(500)]).values()
        assert len(drawn(axes)) == 500
        assert len(set(ticks(axes))) == len(axes.get_yticks()) == TICKS
        assert max(map(len, ticks(axes))) <= LONGEST_NAME
        axes.figure.canvas.draw()
        boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
        # from top to bottom, none over the next
        assert all(below.y1 <= above.y0 + 1 for above, below in pairwise(boxes))


def test_many_sites_are_rows_of_panels():
    sites = panels([f"site{i}[{j}]" for i in range(7) for j in range(i + 1)])
    left = {round(axes.get_subplotspec().colspan.start) for axes in sites.values()}
    assert left == {0, 1, 2}
    assert [len(drawn(axes)) for axes in sites.values()] == list(range(1, 8))


def test_a_model_may_use_our_names():
    ours = shares(SCHOOLS, prefix="isomix_")
    own = xr.DataArray(np.zeros((4, 2)), dims=["component", "pseudo_observation"])
    assert list(shares_by_site(ours.assign(share=own))) == ["theta"]


@pytest.mark.parametrize(
    "group",
    [
        xr.Dataset({"weight": ("component", np.ones(2))}),
        xr.Dataset({"share": ("component", np.ones(2))}),  # a variable of the model's own
    ],
)
def test_a_fit_without_sites_is_an_error_that_says_why(group):
    with pytest.raises(ValueError, match=r"no sites.*no effect was recognised.*'affine'"):
        pmi.plot_shares(tree(group))


def test_a_missing_group_is_named():
    with pytest.raises(ValueError, match="no group 'isomix'"):
        pmi.plot_shares(xr.DataTree())


def test_without_arviz_plots_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_plots", None)
    with pytest.raises(ImportError, match=r"pymc-isomix\[plots\]"):
        pmi.plot_shares(tree(shares(SCHOOLS)))


def test_visuals_and_figure_are_the_user_s():
    visuals = {"title": {"text": "schools"}, "xlabel": False, "share": {"color": "red"}}
    (axes,) = panels(SCHOOLS, visuals=visuals, figure_kwargs={"figsize": (3, 2)}).values()
    assert axes.get_title() == "schools"
    assert axes.get_xlabel() == ""
    np.testing.assert_allclose(axes.collections[0].get_facecolor()[0, :3], [1, 0, 0])
    np.testing.assert_allclose(axes.figure.get_size_inches(), (3, 2))


@pytest.mark.usefixtures("fast_compile")
def test_a_sample_has_what_the_plot_needs(eight_schools):
    approx = pmi.IsoMix(n_components=2, random_seed=1, model=eight_schools).approx
    axes = pmi.plot_shares(approx.sample(30)).viz["plot"].item()
    assert axes.get_title() == "theta"
    assert np.all((drawn(axes)[:, 0] > 0) & (drawn(axes)[:, 0] < 1))
