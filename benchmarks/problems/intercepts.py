"""Groups with intercepts of their own: data from the prior, and many groups with an exact truth."""

import numpy as np
import pymc as pm

from problems.hierarchies import effects, groups_of


def small_hierarchy(rng):
    """Eight groups, centred; simulate() gives a truth from the prior, and data."""
    error = np.array([1.5, 1.0, 1.6, 1.1, 0.9, 1.1, 1.0, 1.8])
    with pm.Model() as model:
        y = pm.Data("y_data", np.zeros(8))
        mu, tau = pm.Normal("mu", 0, 1), pm.HalfNormal("tau", 1)
        theta = pm.Normal("theta", mu, tau, shape=8)
        pm.Normal("y", theta, error, observed=y)

    def simulate():
        mu, tau = rng.normal(), abs(rng.normal())
        theta = rng.normal(mu, tau, size=8)
        return {"mu": mu, "tau": tau, "theta": theta}, rng.normal(theta, error)

    return model, simulate


TAU = 0.3  # of the data; sigma is 1


def intercepts_data(n_groups):
    """Rows and their groups, of 1 to 7 rows."""
    rng = np.random.default_rng(10)
    group, _ = groups_of(rng, rng.integers(1, 8, n_groups))
    return rng.normal(1, TAU, n_groups)[group] + rng.normal(size=len(group)), group


def varying_intercepts(n_groups, centred):
    """Many small groups, for the growth of cost."""
    y, group = intercepts_data(n_groups)
    with pm.Model() as model:
        mu, tau = pm.Normal("mu", 0, 2), pm.HalfNormal("tau", 1)
        theta = effects("theta", mu, tau, n_groups, centred)
        pm.Normal("y", theta[group], pm.HalfNormal("sigma", 1), observed=y)
    return model


def intercepts_truth(n_groups, n_grid=1200):
    """Mean and standard deviation of log tau and log sigma, by quadrature.

    The effects and mu are integrated out; groups of one size share their sums.
    """
    y, group = intercepts_data(n_groups)
    size = np.bincount(group)
    mean = np.bincount(group, y) / size
    within = (y**2).sum() - (size * mean**2).sum()
    width = 6 / n_groups**0.5
    log_tau, log_sigma = np.meshgrid(
        np.linspace(-14, np.log(TAU) + 5 * width, n_grid),
        np.linspace(-width, width, n_grid),
        indexing="ij",
    )
    tau, sigma = np.exp(log_tau), np.exp(log_sigma)
    log_p = -0.5 * tau**2 + log_tau - 0.5 * sigma**2 + log_sigma
    log_p -= (len(y) - n_groups) * log_sigma + 0.5 * within / sigma**2
    total, shift, square = 1 / 4, 0.0, 0.0  # of precision, precision y and precision y^2
    for n in np.unique(size):
        of_n, count = mean[size == n], (size == n).sum()
        precision = 1 / (tau**2 + sigma**2 / n)
        log_p += 0.5 * count * np.log(precision)
        total = total + count * precision
        shift, square = shift + of_n.sum() * precision, square + (of_n**2).sum() * precision
    log_p += 0.5 * shift**2 / total - 0.5 * square - 0.5 * np.log(total)
    weight = np.exp(log_p - log_p.max())
    weight /= weight.sum()
    moments = {}
    for name, value in (("tau", log_tau), ("sigma", log_sigma)):
        centre = (weight * value).sum()
        moments[name] = (float(centre), float((weight * (value - centre) ** 2).sum() ** 0.5))
    return moments
