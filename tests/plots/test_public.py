"""What the plots show, read back from the figures; the DataTree is made by hand."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pymc as pm
import pytest
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from scipy import stats

import pymc_isomix as pmi
from pymc_isomix.plots import pair_plot


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def mixture_group(
    n_components=5, n_dim=3, n_modes=1, *, metric="dense", labels=None, dead=(), seed=1
):
    """Group ``isomix`` of a random mixture; mode m is at 20 m along each dimension."""
    rng = np.random.default_rng(seed)
    lower = np.tril(0.4 * rng.normal(size=(n_dim, n_dim)), -1)
    lower += np.diag(rng.uniform(0.5, 1.5, n_dim))
    kept = {"dense": lower, "diag": np.diagonal(lower), "identity": np.array(1.3)}[metric]
    factor = kept if kept.ndim == 2 else kept * np.eye(n_dim)
    mode = np.arange(n_components) % n_modes
    log_variance = np.log(rng.uniform(0.2, 1, n_components))
    weight = rng.dirichlet(np.full(n_components, 2.0))
    if labels is None:
        labels = ["tau_log__", *(f"beta[x{i}]" for i in range(n_dim - 1))]
    sd = np.exp(0.5 * log_variance)[:, None] * np.linalg.norm(factor, axis=1)
    means = rng.normal(size=(n_components, n_dim)) + 20 * mode[:, None]
    per_dimension = ("component", "unconstrained")
    return xr.Dataset(
        {
            "unconstrained_mean": (per_dimension, means),
            "unconstrained_sd": (per_dimension, sd),
            "log_variance": ("component", log_variance),
            "weight": ("component", weight),
            "mode": ("component", mode),
            "dead": ("component", np.isin(np.arange(n_components), dead)),
            "metric": (("unconstrained", "unconstrained_bis")[: kept.ndim], kept),
        },
        coords={"component": np.arange(n_components), "unconstrained": labels},
    )


def tree(**groups):
    return xr.DataTree(children={name: xr.DataTree(group) for name, group in groups.items()})


def fit_group(elbo, phases, first=1):
    steps = np.arange(first, first + len(elbo))
    return xr.Dataset(
        {"elbo": ("step", np.asarray(elbo)), "phase": ("step", np.array(phases))},
        coords={"step": steps},
    )


def weights_group(log_weight):
    return xr.Dataset({"log_weight": (("chain", "draw"), np.atleast_2d(log_weight))})


def only_axes(collection):
    return collection.viz["plot"].item()


def panel(matrix, row, column):
    return matrix.viz["plot"].values[row, column]


def ellipses(matrix, row, column):
    """Lines of a panel, closed ones only: a panel off the diagonal has no others."""
    return [line.get_xydata() for line in panel(matrix, row, column).get_lines()]


# plot_components


@pytest.mark.parametrize("metric", ["identity", "diag", "dense"])
def test_every_component_is_an_ellipse_of_one_standard_deviation(metric):
    group = mixture_group(metric=metric)
    matrix = pmi.plot_components(tree(isomix=group))
    kept = group["metric"].values
    factor = kept if kept.ndim == 2 else kept * np.eye(3)
    for row, column in [(1, 0), (2, 0), (2, 1)]:
        drawn = ellipses(matrix, row, column)
        assert len(drawn) == group.sizes["component"]
        pair = [column, row]
        for k, points in enumerate(drawn):
            offset = points - group["unconstrained_mean"].values[k, pair]
            covariance = np.exp(group["log_variance"].values[k]) * (factor @ factor.T)
            inverse = np.linalg.inv(covariance[np.ix_(pair, pair)])
            distance = np.einsum("pi,ij,pj->p", offset, inverse, offset)
            np.testing.assert_allclose(distance, 1, rtol=1e-9)


def test_heavier_components_have_stronger_lines():
    group = mixture_group()
    lines = panel(pmi.plot_components(tree(isomix=group)), 1, 0).get_lines()
    order = np.argsort(group["weight"].values)
    for strength in (
        [line.get_alpha() for line in lines],
        [line.get_linewidth() for line in lines],
    ):
        assert np.all(np.diff(np.array(strength)[order]) > 0)
    assert max(line.get_alpha() for line in lines) == 1
    assert min(line.get_alpha() for line in lines) > pair_plot.FAINTEST


@pytest.mark.usefixtures("fast_compile")
def test_axes_without_units_say_so(eight_schools):
    """A site is seen in coordinates of its own, standardised; what is no site, as it is."""
    approx = pmi.IsotropicMixture(
        n_components=2, coordinates="auto", random_seed=1, model=eight_schools
    )
    matrix = pmi.plot_components(approx.sample(30), var_names=["mu", "tau", "theta[A]"])
    labels = [panel(matrix, -1, column).get_xlabel() for column in range(3)]
    assert labels == ["mu", "tau_log__", "theta[A]\n(standardised)"]


def test_dead_components_are_left_out():
    group = mixture_group(dead=[1, 3])
    matrix = pmi.plot_components(tree(isomix=group))
    assert len(ellipses(matrix, 1, 0)) == 3


def test_colours_tell_modes():
    group = mixture_group(6, 2, n_modes=3)
    matrix = pmi.plot_components(tree(isomix=group))
    legend = matrix.viz["figure"].item().legends[0]
    assert legend.get_title().get_text() == "mode"
    assert [text.get_text() for text in legend.get_texts()] == ["0", "1", "2"]
    colour_of = [to_hex(line.get_color()) for line in legend.get_lines()]
    assert len(set(colour_of)) == 3
    centres = {}
    for line in panel(matrix, 1, 0).get_lines():
        centres.setdefault(to_hex(line.get_color()), []).append(line.get_xdata().mean())
    for mode, colour in enumerate(colour_of):
        assert len(centres[colour]) == 2
        assert np.all(np.round(np.array(centres[colour]) / 20) == mode)


@pytest.mark.parametrize("n_modes", [1, 11])
def test_there_is_no_legend_for_one_mode_or_too_many(n_modes):
    matrix = pmi.plot_components(tree(isomix=mixture_group(11, 2, n_modes=n_modes)))
    assert not matrix.viz["figure"].item().legends
    assert len(ellipses(matrix, 1, 0)) == 11


@pytest.mark.parametrize("n_modes", [1, 2])
def test_the_diagonal_is_the_exact_marginal_density(n_modes):
    group = mixture_group(4, 2, n_modes=n_modes)
    matrix = pmi.plot_components(tree(isomix=group))
    lines = panel(matrix, 1, 1).get_lines()
    assert len(lines) == n_modes
    means, sds = group["unconstrained_mean"].values[:, 1], group["unconstrained_sd"].values[:, 1]
    for mode, line in enumerate(lines):
        x, density = line.get_xydata().T
        own = (group["mode"].values == mode) * group["weight"].values
        np.testing.assert_allclose(density, stats.norm.pdf(x[:, None], means, sds) @ own)
        assert abs(np.trapezoid(density, x) - own.sum()) < 0.01


def test_all_of_a_dimension_s_plots_have_its_limits_and_hold_every_component():
    group = mixture_group(8, 3, n_modes=2)
    matrix = pmi.plot_components(tree(isomix=group))
    for row, column in [(1, 0), (2, 0), (2, 1)]:
        axes = panel(matrix, row, column)
        assert axes.get_ylim() == panel(matrix, row, row).get_xlim()
        assert axes.get_xlim() == panel(matrix, column, column).get_xlim()
        for points in ellipses(matrix, row, column):
            assert axes.get_xlim()[0] < points[:, 0].min()
            assert points[:, 0].max() < axes.get_xlim()[1]
    figure = matrix.viz["figure"].item()
    figure.canvas.draw()
    labelled = [
        any(label.get_visible() for label in panel(matrix, 2, column).get_yticklabels())
        for column in range(3)
    ]
    assert labelled == [True, False, False]


def test_few_dimensions_are_all_shown():
    matrix = pmi.plot_components(tree(isomix=mixture_group(3, 5)))
    assert matrix.viz["plot"].shape == (5, 5)
    assert matrix.viz["figure"].item().get_suptitle() == ""


def test_of_many_dimensions_those_that_tell_components_apart_are_shown():
    group = mixture_group(50, 30, n_modes=4)
    told_apart = [3, 7, 11, 20, 29]
    others = np.setdiff1d(np.arange(30), told_apart)
    group["unconstrained_mean"][:, others] = 0.0
    matrix = pmi.plot_components(tree(isomix=group))
    labels = group["unconstrained"].values
    assert list(matrix.viz["plot"].coords["var_name_x"].values) == list(labels[told_apart])
    title = matrix.viz["figure"].item().get_suptitle()
    assert title == "5 of 30 dimensions: those along which the components differ most"
    assert len(ellipses(matrix, 4, 0)) == 50
    bottom = [panel(matrix, 4, column).get_xlabel() for column in range(5)]
    assert bottom == list(labels[told_apart])


@pytest.mark.parametrize(
    ("var_names", "expected"),
    [
        ("tau", ["tau_log__"]),
        ("tau_log__", ["tau_log__"]),
        ("beta", ["beta[x0]", "beta[x1]"]),
        (["beta[x1]", "tau"], ["beta[x1]", "tau_log__"]),
        (["p[1]", "p"], ["p_simplex__[1]", "p_simplex__[0]"]),
    ],
)
def test_var_names_may_be_variables_or_elements(var_names, expected):
    labels = ["tau_log__", "beta[x0]", "beta[x1]", "p_simplex__[0]", "p_simplex__[1]"]
    group = mixture_group(3, 5, labels=labels)
    matrix = pmi.plot_components(tree(isomix=group), var_names=var_names)
    assert list(matrix.viz["plot"].coords["var_name_x"].values) == expected


def test_a_model_may_use_our_names():
    """A variable `weight` by a dim `component`: ours have a prefix beside them."""
    group = mixture_group(n_components=4, n_dim=2)
    ours = {"weight": "isomix_weight", "component": "isomix_component"}
    model_s_own = xr.DataArray(np.zeros((4, 7)), dims=["isomix_component", "component"])
    clashing = group.rename(ours).assign(weight=model_s_own)
    seen = pair_plot.own_columns(clashing)
    for name in set(pair_plot.COLUMNS) & set(group):
        xr.testing.assert_equal(seen[name], group[name])


def test_an_unknown_name_is_an_error_that_lists_the_dimensions():
    with pytest.raises(ValueError, match=r"'gamma', which is not one of .* tau_log__, beta\[x0\]"):
        pmi.plot_components(tree(isomix=mixture_group()), var_names=["tau", "gamma"])


def test_long_labels_are_broken_into_lines():
    group = mixture_group(2, 2, labels=["beta[fractal dimension error]", "s"])
    matrix = pmi.plot_components(tree(isomix=group))
    assert panel(matrix, 1, 0).get_xlabel() == "beta[fractal\ndimension error]"


def test_one_component_in_one_dimension():
    matrix = pmi.plot_components(tree(isomix=mixture_group(1, 1)))
    axes = panel(matrix, 0, 0)
    assert len(axes.get_lines()) == 1
    assert axes.get_xlabel() == "tau_log__"


def test_visuals_can_be_left_out_and_changed():
    group = mixture_group(4, 2, n_modes=2)
    visuals = {"scatter": False, "dist": False, "legend": False, "ellipse": {"color": "red"}}
    matrix = pmi.plot_components(tree(isomix=group), visuals=visuals)
    axes = panel(matrix, 1, 0)
    assert not axes.collections
    assert not panel(matrix, 0, 0).get_lines()
    assert not matrix.viz["figure"].item().legends
    assert {line.get_color() for line in axes.get_lines()} == {"red"}


def test_draws_are_those_of_the_mixture():
    group = mixture_group(4, 2)
    matrix = pmi.plot_components(tree(isomix=group))
    points = panel(matrix, 1, 0).collections[0].get_offsets().data
    means, weight = group["unconstrained_mean"].values, group["weight"].values
    mean = weight @ means
    variance = weight @ (group["unconstrained_sd"].values ** 2 + (means - mean) ** 2)
    assert points.shape == (pair_plot.DRAWS, 2)
    assert np.all(np.abs(points.mean(axis=0) - mean) < 4 * np.sqrt(variance / len(points)))


# plot_elbo


def test_an_early_elbo_far_below_does_not_flatten_the_rest():
    rng = np.random.default_rng(1)
    elbo = -100 + rng.normal(size=1000)
    elbo[:50] = -(10.0 ** np.linspace(12, 3, 50))
    collection = pmi.plot_elbo(tree(fit=fit_group(elbo, ["exploring"] * 600 + ["settling"] * 400)))
    axes = only_axes(collection)
    low, high = axes.get_ylim()
    assert -120 < low < elbo[50:].min()
    assert elbo.max() < high < -90
    assert axes.get_title() == "50 of 1,000 steps are below the axis"
    assert axes.get_xlim() == (0.5, 1000.5)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "ELBO (nats)")


def test_the_whole_of_an_ordinary_elbo_shows_without_a_title():
    elbo = np.r_[np.linspace(-12, -10, 50), np.full(50, -10.0)]
    axes = only_axes(pmi.plot_elbo(tree(fit=fit_group(elbo, ["scheduled"] * 100))))
    low, high = axes.get_ylim()
    assert low < -12
    assert high > -10
    assert axes.get_title() == ""


def test_phases_are_shaded_where_they_ran():
    phases = ["exploring"] * 30 + ["respawned"] * 10 + ["exploring"] * 20 + ["settling"] * 40
    collection = pmi.plot_elbo(tree(fit=fit_group(np.zeros(100), phases, first=101)))
    spans = sorted(
        (patch.get_x(), patch.get_x() + patch.get_width(), to_hex(patch.get_facecolor()))
        for patch in only_axes(collection).patches
    )
    assert [span[:2] for span in spans] == [
        (100.5, 130.5),
        (130.5, 140.5),
        (140.5, 160.5),
        (160.5, 200.5),
    ]
    colours = [span[2] for span in spans]
    assert colours[0] == colours[2]
    assert len(set(colours)) == 3
    legend = collection.viz["figure"].item().legends[0]
    assert [t.get_text() for t in legend.get_texts()] == ["exploring", "respawned", "settling"]
    assert [to_hex(line.get_color()) for line in legend.get_lines()] == [
        colours[0],
        colours[1],
        colours[3],
    ]


def test_the_running_median_follows_the_elbo_past_steps_that_failed():
    elbo = np.arange(200.0)
    elbo[50] = np.nan
    lines = only_axes(pmi.plot_elbo(tree(fit=fit_group(elbo, ["exploring"] * 200)))).get_lines()
    raw, median = (line.get_xydata() for line in lines)
    np.testing.assert_array_equal(raw[:, 1], elbo)
    np.testing.assert_allclose(median[10:-10, 1], median[10:-10, 0] - 1, atol=1)


@pytest.mark.parametrize("elbo", [[], [np.nan, -np.inf]])
def test_no_elbo_is_an_error(elbo):
    with pytest.raises(ValueError, match="no finite elbo"):
        pmi.plot_elbo(tree(fit=fit_group(np.array(elbo, dtype=float), ["exploring"] * len(elbo))))


def test_one_step_is_enough():
    low, high = only_axes(pmi.plot_elbo(tree(fit=fit_group([-3.0], ["scheduled"])))).get_ylim()
    assert low < -3 < high


# plot_modes


def modes_group(mass, error):
    return xr.Dataset(
        {"mode_mass": ("mode", np.array(mass)), "mode_mass_se": ("mode", np.array(error))},
        coords={"mode": np.arange(len(mass))},
    )


def test_masses_have_errors_that_stay_between_zero_and_one():
    group = modes_group([0.6, 0.35, 0.05], [0.02, 0.01, 0.04])
    axes = only_axes(pmi.plot_modes(tree(diagnostics=group)))
    np.testing.assert_allclose(axes.collections[0].get_offsets(), [[0, 0.6], [1, 0.35], [2, 0.05]])
    segments = [line.get_xydata() for line in axes.get_lines()]
    np.testing.assert_allclose(
        segments,
        [[[0, 0.56], [0, 0.64]], [[1, 0.33], [1, 0.37]], [[2, 0.0], [2, 0.13]]],
        atol=1e-12,
    )
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2"]
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > 0.64
    assert axes.get_ylabel() == "mass ± 2 standard errors"


def test_an_error_that_is_unknown_leaves_the_mass():
    group = modes_group([0.7, 0.3], [np.nan, 0.1])
    axes = only_axes(pmi.plot_modes(tree(diagnostics=group)))
    np.testing.assert_allclose(axes.collections[0].get_offsets(), [[0, 0.7], [1, 0.3]])
    assert 0.7 < axes.get_ylim()[1] < 1


def test_the_labels_of_many_modes_are_thinned():
    axes = only_axes(pmi.plot_modes(tree(diagnostics=modes_group([0.01] * 100, [0.001] * 100))))
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        str(mode) for mode in range(0, 100, 4)
    ]


def test_one_mode_says_so_and_what_is_outside():
    group = modes_group([1.0], [0.0])
    assert only_axes(pmi.plot_modes(tree(diagnostics=group))).get_title() == (
        "one mode holds the whole mixture"
    )
    group = modes_group([0.6, 0.4], [0.01, 0.01])
    assert only_axes(pmi.plot_modes(tree(diagnostics=group))).get_title() == ""
    group = group.assign(n_ascents=20, n_ascents_at_modes=19, missing_mass=0.0312)
    assert only_axes(pmi.plot_modes(tree(diagnostics=group))).get_title() == (
        "19 of 20 ascents ended at a mode\nmissing mass 0.031"
    )


# plot_khat


def pareto_log_weights(shape, n_draws=4000, seed=1):
    """Log weights whose tail is Pareto of this shape."""
    return shape * np.random.default_rng(seed).exponential(size=n_draws)


@pytest.mark.parametrize("shape", [0.3, 1.2])
def test_khat_is_that_of_the_tail(shape):
    log_weight = pareto_log_weights(shape) - 800
    collection = pmi.plot_khat(tree(sample_stats=weights_group(log_weight.reshape(2, -1))))
    legend = collection.viz["figure"].item().legends[0]
    names = [text.get_text() for text in legend.get_texts()]
    khat = float(names[0].removeprefix("k-hat "))
    n_tail = 3 * np.sqrt(log_weight.size)
    assert abs(khat - shape) < 4 * (1 + shape) / np.sqrt(n_tail)
    assert names[1:] == ["good up to 0.70", "bad from 1.00"]


def test_the_tail_is_an_exceedance_curve_on_log_scales():
    log_weight = pareto_log_weights(0.4, n_draws=1000)
    axes = only_axes(pmi.plot_khat(tree(sample_stats=weights_group(log_weight))))
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    weight, share = axes.collections[0].get_offsets().T
    relative = np.exp(log_weight) / np.exp(log_weight).mean()
    assert len(weight) == 501  # down to the median
    np.testing.assert_allclose(share, [np.mean(relative >= w * (1 - 1e-12)) for w in weight])
    low, high = axes.get_xlim()
    assert low < weight.min()
    assert weight.max() < high


def test_lines_of_reference_are_pareto_tails_from_the_same_start():
    log_weight = pareto_log_weights(0.4, n_draws=1000)
    lines = only_axes(pmi.plot_khat(tree(sample_stats=weights_group(log_weight)))).get_lines()
    assert len(lines) == 3
    starts = [line.get_xydata()[0] for line in lines]
    np.testing.assert_allclose(starts, np.tile(starts[0], (3, 1)))
    for line, shape in zip(lines[1:], [1 - 1 / 3, 1.0], strict=True):
        x, share = line.get_xydata().T
        scale = (x[50] - x[0]) / stats.genpareto(shape).ppf(1 - share[50] / share[0])
        survival = stats.genpareto(shape, loc=x[0], scale=scale).sf(x)
        np.testing.assert_allclose(share, share[0] * survival, rtol=1e-8)


@pytest.mark.parametrize(
    ("shape", "labels"),
    [(0.05, ["1", "2"]), (0.4, ["1", "2", "5", "10", "20", "50"]), (4.0, ["1e-09", "1e-07"])],
)
def test_ticks_are_plain_numbers_that_do_not_overlap(shape, labels):
    log_weight = pareto_log_weights(shape, n_draws=1000)
    axes = only_axes(pmi.plot_khat(tree(sample_stats=weights_group(log_weight))))
    axes.figure.canvas.draw()
    ticks = [tick for tick in axes.get_xticklabels(which="both") if tick.get_visible()]
    boxes = sorted((box.x0, box.x1) for box in (tick.get_window_extent() for tick in ticks))
    boxes = [box for box in boxes if box[0] < box[1]]
    assert all(right < left for (_, right), (left, _) in pairwise(boxes))
    assert [tick.get_text() for tick in ticks][: len(labels)] == labels


def test_weights_that_hardly_differ_say_so():
    for shape, title in [
        (0.05, "all weights are nearly equal:\nk-hat is not informative"),
        (0.4, ""),
    ]:
        group = weights_group(pareto_log_weights(shape, n_draws=1000))
        assert only_axes(pmi.plot_khat(tree(sample_stats=group))).get_title() == title


def test_draws_that_are_not_finite_are_left_out():
    log_weight = pareto_log_weights(0.4, n_draws=1000)
    log_weight[:10] = -np.inf
    log_weight[10] = np.nan
    axes = only_axes(pmi.plot_khat(tree(sample_stats=weights_group(log_weight))))
    assert axes.collections[0].get_offsets()[:, 1].min() == pytest.approx(1 / 989)


def test_one_draw_may_have_all_the_weight():
    log_weight = np.r_[0.0, -2000.0 - np.arange(99)]
    axes = only_axes(pmi.plot_khat(tree(sample_stats=weights_group(log_weight))))
    np.testing.assert_allclose(axes.collections[0].get_offsets(), [[100, 0.01]])
    axes.figure.canvas.draw()


def test_equal_weights_have_no_tail():
    axes = only_axes(pmi.plot_khat(tree(sample_stats=weights_group(np.full(100, -3.0)))))
    np.testing.assert_allclose(axes.collections[0].get_offsets()[:, 0], 1)


def test_too_few_weights_are_an_error():
    with pytest.raises(ValueError, match=r"at least 25 finite values of log_weight .* got 24"):
        pmi.plot_khat(tree(sample_stats=weights_group(np.r_[np.zeros(24), np.inf])))
    with pytest.raises(ValueError, match="got 0"):
        pmi.plot_khat(tree(sample_stats=xr.Dataset()))


# all


PLOTS = {
    "isomix": pmi.plot_components,
    "fit": pmi.plot_elbo,
    "diagnostics": pmi.plot_modes,
    "sample_stats": pmi.plot_khat,
}


@pytest.mark.parametrize(("group", "plot"), PLOTS.items())
def test_a_missing_group_is_named(group, plot):
    with pytest.raises(ValueError, match=f"no group '{group}'.*posterior"):
        plot(tree(posterior=xr.Dataset()))


@pytest.mark.parametrize("plot", PLOTS.values())
def test_without_arviz_plots_the_error_names_the_extra(plot, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_plots", None)
    with pytest.raises(ImportError, match=r"pymc-isomix\[plots\]"):
        plot(tree())


def test_plots_of_a_saved_file_are_the_same(tmp_path):
    phases = ["exploring"] * 30 + ["settling"] * 20
    made = tree(isomix=mixture_group(dead=[2]), fit=fit_group(np.linspace(-9, -1, 50), phases))
    made.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "fit.nc", engine="h5netcdf") as loaded:
        for one, other in zip(
            ellipses(pmi.plot_components(made), 2, 1),
            ellipses(pmi.plot_components(loaded), 2, 1),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)
        legend = pmi.plot_elbo(loaded).viz["figure"].item().legends[0]
        assert [text.get_text() for text in legend.get_texts()] == ["exploring", "settling"]


def test_figure_options_reach_the_figure():
    group = modes_group([1.0], [0.0])
    collection = pmi.plot_modes(tree(diagnostics=group), figure_kwargs={"figsize": (3, 2)})
    np.testing.assert_allclose(collection.viz["figure"].item().get_size_inches(), (3, 2))


def test_importing_the_package_imports_no_plots():
    code = "import pymc_isomix; assert callable(pymc_isomix.plot_elbo)"
    blocked = "import sys; sys.modules['arviz_plots'] = None; sys.modules['matplotlib'] = None; "
    subprocess.run([sys.executable, "-c", blocked + code], check=True, timeout=120)


def test_an_approximation_may_stand_for_its_draws():
    with pm.Model() as model:
        pm.Normal("x")
    approx = pmi.IsotropicMixture(n_components=2, random_seed=1, model=model)
    assert type(pmi.plot_modes(approx)).__name__ == "PlotCollection"
    with pytest.raises(TypeError, match=r"dt must be a DataTree, .* or an approximation; got dict"):
        pmi.plot_modes({})


def test_modes_of_a_minibatch_say_what_to_do():
    with pm.Model() as model:
        x = pm.Normal("x")
        rows = pm.Minibatch(np.arange(20.0), batch_size=5)
        pm.Normal("y", x, observed=rows, total_size=20)
    approx = pmi.IsotropicMixture(n_components=2, random_seed=1, model=model)
    with pytest.raises(
        ValueError, match="no weights, as with minibatches: sample inside `with full"
    ):
        pmi.plot_modes(approx)


@pytest.mark.parametrize("metric", ["identity", "diag", "dense"])
def test_ellipses_of_diagonal_components_are_their_own(metric):
    group = mixture_group(3, 4, metric=metric)
    own = np.random.default_rng(5).uniform(0.2, 3, (3, 4))
    group["log_variance"] = (("component", "unconstrained"), np.log(own))
    marginal = pair_plot.marginal(group, [0, 2])
    values = group["metric"].values
    root = values if values.ndim == 2 else values * np.eye(4)
    for factor, variances in zip(marginal.factors, own, strict=True):
        covariance = (root @ np.diag(variances) @ root.T)[np.ix_([0, 2], [0, 2])]
        np.testing.assert_allclose(factor @ factor.T, covariance, rtol=1e-12, atol=1e-15)
