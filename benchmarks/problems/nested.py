"""Rows in forty schools in eight regions: data, and draws of the posterior by quadrature.

NUTS misses part of the tail in which the schools' deviation goes to zero: 10,000 draws with an
R-hat of 1.002 had .38 as the standard deviation of its logarithm, which is .46.
"""

import numpy as np
from scipy.special import logsumexp
from scipy.stats import halfnorm

N_REGIONS, N_SCHOOLS = 8, 40
REGION = np.repeat(np.arange(N_REGIONS), N_SCHOOLS // N_REGIONS)  # of a school
GRID = {"region": (-12, 1.5, 120), "school": (-12, 0.7, 240), "sigma": (-0.3, 0.35, 50)}


def nested_data():
    """Values (n,) and the school of each."""
    rng = np.random.default_rng(9)
    school = np.repeat(np.arange(N_SCHOOLS), rng.integers(2, 7, N_SCHOOLS))
    rng.normal(size=len(school))  # a covariate that is not used
    truth = rng.normal(0, 0.7, N_REGIONS)[REGION] + rng.normal(0, 0.4, N_SCHOOLS)
    return truth[school] + rng.normal(size=len(school)), school


def sums(region, school, sigma):
    """Precisions and means of regions (..., 8) and schools (..., 40), and what is left of log p.

    ``region``, ``school`` and ``sigma`` are logarithms of deviations, of one shape.
    """
    y, of = nested_data()
    size = np.bincount(of)
    mean = np.bincount(of, y) / size
    within = (y**2).sum() - (size * mean**2).sum()
    p = 1 / (np.exp(2 * school)[..., None] + np.exp(2 * sigma)[..., None] / size)
    by_region = p.reshape(*p.shape[:-1], N_REGIONS, -1)
    p_region = by_region.sum(-1)
    mean_region = (by_region * mean.reshape(N_REGIONS, -1)).sum(-1) / p_region
    off = mean.reshape(N_REGIONS, -1) - mean_region[..., None]
    log_p = 0.5 * (
        np.log(p).sum(-1) - np.log(p_region).sum(-1) - (by_region * off**2).sum((-1, -2))
    )
    log_p -= (len(y) - N_SCHOOLS) * sigma + 0.5 * within / np.exp(2 * sigma)
    log_p -= 0.5 * (np.log(size).sum() + (len(y) - N_REGIONS) * np.log(2 * np.pi))
    return 1 / (np.exp(2 * region)[..., None] + 1 / p_region), mean_region, p, mean, log_p


def exact_nested(n):
    """Draws by name, and the log evidence; effects and mu are Gaussian given the deviations."""
    rng, axes = np.random.default_rng(0), [np.linspace(*limits) for limits in GRID.values()]
    joint = []
    for sigma in axes[2]:
        logs = np.broadcast_arrays(axes[0][:, None], axes[1][None], sigma)
        w, m, *_, log_p = sums(*logs)
        log_p = log_p + 0.5 * (np.log(w).sum(-1) - N_REGIONS * np.log(2 * np.pi))
        centre = (w * m).sum(-1) / (1 + w.sum(-1))  # of mu, whose prior is a standard normal
        log_p -= 0.5 * ((w * m**2).sum(-1) - (1 + w.sum(-1)) * centre**2 + np.log1p(w.sum(-1)))
        joint.append(log_p + sum(halfnorm.logpdf(np.exp(log)) + log for log in logs))
    joint = np.stack(joint, axis=-1)
    steps = [axis[1] - axis[0] for axis in axes]
    evidence = logsumexp(joint) + np.log(steps).sum()
    at = rng.choice(joint.size, n, p=np.exp(joint - logsumexp(joint)).ravel())
    cells = np.unravel_index(at, joint.shape)
    region, school, sigma = (
        axis[cell] + step * rng.uniform(-0.5, 0.5, n)
        for axis, cell, step in zip(axes, cells, steps, strict=True)
    )
    w, m, p, mean, _ = sums(region, school, sigma)
    mu = rng.normal((w * m).sum(-1) / (1 + w.sum(-1)), (1 + w.sum(-1)) ** -0.5)
    to_region = 1 / (1 / w - np.exp(2 * region)[:, None])  # precision of the schools' for a region
    var = 1 / (np.exp(-2 * region)[:, None] + to_region)
    regions = rng.normal(var * ((mu * np.exp(-2 * region))[:, None] + to_region * m), var**0.5)
    precision = np.exp(-2 * school)[:, None]
    data = 1 / (1 / p - 1 / precision)  # of a school's rows
    var = 1 / (precision + data)
    schools = rng.normal(var * (regions[:, REGION] * precision + data * mean), var**0.5)
    scales = {"sigma_region": region, "sigma_school": school, "sigma": sigma}
    effects = {"mu": mu, "regions": regions, "schools": schools}
    return effects | {name: np.exp(log) for name, log in scales.items()}, float(evidence)
