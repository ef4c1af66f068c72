"""The plot of the shares of the data."""

from typing import Any

import numpy as np
import xarray as xr

from pymc_isomix.plots.canvas import Plot, group_of, import_arviz_plots, points, sparse
from pymc_isomix.results.table import LONGEST_NAME, shorten

PANELS = 3  # in a row
MANY = 50  # elements of a site
HEIGHT, LINE = 1.4, 0.19  # inches: of a panel without elements, and of one of them


def plot_shares(dt: Any, *, visuals: dict | None = None, **pc_kwargs: Any) -> Any:
    r"""Plot the share of the data of each effect, with one panel per site.

    A *site* is an effect that the fit represents by the scale that the model gives it. At share 0
    the data say nothing about an element, and the fit treats it as non-centred. At share 1 the data
    alone determine it, and the fit treats it as centred. The fit learns one share per element. If a
    matrix makes the effect, it learns one share per row, and the title of the panel says so. A row
    is one value of the effect; a Gaussian process has one per input, in their order.

    Parameters
    ----------
    dt : DataTree or IsotropicMixture
        With the group ``isomix``: of :func:`fit` or :meth:`IsotropicMixture.sample`.
    visuals : mapping of {str : mapping or bool}, optional
        Options of each visual, False to leave it out: ``share`` (points), ``title`` (the site's
        name), ``xlabel``.
    **pc_kwargs
        Passed to :meth:`arviz_plots.PlotCollection.wrap`; ``col_wrap`` is the number of panels in a
        row.

    Returns
    -------
    PlotCollection

    Raises
    ------
    ImportError
        Without arviz-plots; the extra ``plots`` has it.
    ValueError
        If there is no group ``isomix``, or the fit had no sites.

    Examples
    --------
    >>> import pymc as pm, pymc_isomix as pmi
    >>> with pm.Model(coords={"group": ["a", "b", "c"]}):
    ...     tau = pm.HalfNormal("tau")
    ...     theta = pm.Normal("theta", 0, tau, dims="group")
    ...     approx = pmi.IsoMix(2, random_seed=1).approx
    >>> collection = pmi.plot_shares(approx.sample(50, random_seed=1))
    """
    azp = import_arviz_plots()
    sites = shares_by_site(group_of(dt, "isomix"))
    data = _arranged(sites)
    options = {"cols": ["site"], "col_wrap": PANELS, **pc_kwargs}
    n_columns = min(len(sites), options["col_wrap"])
    n_rows = -(-len(sites) // n_columns)
    most = max(len(sparse(share)) for _, share in sites.values())
    size = (max(4.8, 3.8 * n_columns), n_rows * (HEIGHT + LINE * most))
    plot = Plot(azp, data, visuals, options, figsize=size)
    # fewer elements, larger points
    sizes = [8 if len(share) > MANY else 25 for _, share in sites.values()]
    look = {"size": xr.DataArray(sizes, {"site": list(sites)}), "width": 0}
    plot.draw("share", azp.visuals.scatter_xy, data, color="C0", **look)
    titles = {
        site: _titled(short, names)
        for short, (site, (names, _)) in zip(shorten(list(sites)), sites.items(), strict=True)
    }
    plot.draw("title", _title, plot.anywhere, names=titles)
    plot.label("xlabel", azp.visuals.labelled_x, "share of the data")
    plot.set_axes(azp.visuals.set_xlim, limits=(-0.04, 1.04))
    ticks = {"values": [0, 0.5, 1], "labels": ["0\nnon-centred", "0.5", "1\ncentred"]}
    plot.set_axes(azp.visuals.set_xticks, **ticks)
    plot.set_axes(_elements, names={site: names for site, (names, _) in sites.items()})
    return plot.collection


def shares_by_site(group: xr.Dataset) -> dict:
    """Return names of the elements and their shares by site, {site: (list of str, (n,) array)}.

    Raises
    ------
    ValueError
        If group ``isomix`` has no shares.
    """
    # with the prefix if the model uses the name
    ours = [group[name] for name in ("isomix_share", "share") if name in group]
    found = next((s for s in ours if str(s.dims[0]).endswith("pseudo_observation")), None)
    if found is None:
        raise ValueError(
            "group 'isomix' has no shares: the fit had no sites. Either no effect was recognised "
            "whose scale depends on other variables, or coordinates was 'affine'"
        )
    sites: dict = {}
    for label, share in zip(found[found.dims[0]].values, found.values, strict=True):
        site, element = _split(str(label))
        names, shares = sites.setdefault(site, ([], []))
        names.append(element)
        shares.append(share)
    return {site: (names, np.array(shares)) for site, (names, shares) in sites.items()}


def _split(label):
    """Site and element of a label: ``theta[A]``, ``theta`` or ``theta, row 3``."""
    site, bracket, element = label.partition("[")
    if bracket:
        return site, element.removesuffix("]")
    site, _, row = label.partition(", ")
    return site, row


def _arranged(sites):
    """Points (share, place) by site: (site, plot_axis, point), NaN beyond a site's own."""
    longest = max(len(share) for _, share in sites.values())
    of_each = [
        points(
            np.pad(share.astype(float), (0, longest - len(share)), constant_values=np.nan),
            np.arange(longest),
        )
        for _, share in sites.values()
    ]
    return xr.concat(of_each, dim=xr.DataArray(list(sites), dims="site", name="site"))


def _titled(name, elements):
    """Add to the name of a site that its elements are rows or directions."""
    kinds = {element.rpartition(", ")[2].partition(" ")[0] for element in elements}
    return f"{name}, by {kinds.pop()}" if kinds in ({"row"}, {"direction"}) else name


def _title(da, target, *, names, **options):
    """Write the name of the panel's site."""
    from arviz_plots.visuals import labelled_title

    return labelled_title(da, target, **{"text": names[da["site"].item()], **options})


def _elements(da, target, *, names):
    """Name the elements of the panel's site along the vertical axis, the first on top."""
    from arviz_plots.plot_collection import backend_from_object

    own = names[da["site"].item()]
    places = sparse(np.arange(len(own)))
    backend = backend_from_object(target)
    backend.yticks(places, _fitting([own[i] for i in places]), target)
    backend.ylim((len(own) - 0.4, -0.6), target)


def _fitting(names):
    """Cut long names where that keeps most of them distinct."""
    cut = [n if len(n) <= LONGEST_NAME else f"{n[: LONGEST_NAME - 1]}…" for n in names]
    in_the_middle = shorten(names)
    fits = max(map(len, in_the_middle)) <= LONGEST_NAME or len(set(cut)) < len(set(names))
    return in_the_middle if fits else cut
