"""Modes: groups of components with no deep valley of the mixture between them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy  # which loads its parts when they are used

# nats; between two equal components 5 standard deviations apart there are 2.4, and 6 apart 3.8
VALLEY = 3.0
POINTS = np.linspace(0, 1, 17)[1:-1]  # where to look for a saddle between two points
POINTS_AT_ONCE = 20_000  # along the edges between components
NEIGHBOURS = 10  # with fewer, straight lines would miss the ridge of a bent mode
DEAD_SHARE = 0.02  # of 1/K: a component with less weight is put to better use


def squared_distances(mixture: Any, unit: Callable) -> np.ndarray:
    """Squared distances (K, K) between the component means, in a unit of each pair.

    Parameters
    ----------
    unit : callable
        From the whitened variances of one component and of another to those that measure the
        distance between them, elementwise.
    """
    means = mixture.whiten(mixture.means - mixture.means.mean(0))
    variances = np.exp(mixture.log_variances)
    if variances.ndim == 2:  # a row at a time: (K, d) numbers
        rows = zip(means, variances, strict=True)
        return np.stack([((m - means) ** 2 / unit(v, variances)).sum(axis=1) for m, v in rows])
    norms = (means**2).sum(axis=1)
    squared = np.maximum(norms[:, None] + norms - 2 * means @ means.T, 0.0)
    np.fill_diagonal(squared, 0.0)
    return squared / unit(variances[:, None], variances)


def squared_mean_deviation(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Square of the mean of two standard deviations, of their variances."""
    return (0.5 * (np.sqrt(own) + np.sqrt(other))) ** 2


def is_dead(mixture: Any) -> np.ndarray:
    """Tell which components have next to no weight, (K,) booleans."""
    return mixture.weights < DEAD_SHARE / mixture.n_components


def label_modes(mixture: Any, *, log_density: Callable | None = None) -> np.ndarray:
    r"""Label the mode of each component.

    The saddle between two components is the lowest log q on the segment between their means.
    Saddles are computed between each component and its ten nearest, in units of their standard
    deviations, and along the minimum spanning tree. From the highest saddle to the lowest, the two
    groups at its ends join if it lies at most 3 nats below the lower of their peaks. A
    component in the valley between two modes therefore joins one of them and does not unite them.
    Dead components join the mode of the nearest live one.

    Distances on a segment come from those between the means, each in units of component l,

    .. math:: |m_i + t (m_j - m_i) - m_l|_l^2
        = (1 - t) |m_i - m_l|_l^2 + t |m_j - m_l|_l^2 - t (1 - t) |m_i - m_j|_l^2,

    so the number of points costs nothing.

    Parameters
    ----------
    log_density : callable, optional
        Log q (S,) at points (S, d), if the mixture is only a sketch of q.

    Returns
    -------
    (K,) integer array
        Modes are numbered by falling weight.
    """
    weights = mixture.weights
    distance = np.sqrt(squared_distances(mixture, squared_mean_deviation))
    alive = np.flatnonzero(~is_dead(mixture))
    start, end = _neighbours(distance[np.ix_(alive, alive)])
    start, end = alive[start], alive[end]
    if log_density is None:
        peak, saddle = peaks_and_saddles(mixture, start, end)
    else:
        peak, saddle = evaluated_peaks_and_saddles(log_density, mixture.means, start, end)
    groups = scipy.cluster.hierarchy.DisjointSet(range(len(weights)))
    for edge in np.argsort(-saddle, kind="stable"):
        one, other = groups[start[edge]], groups[end[edge]]
        if saddle[edge] >= min(peak[one], peak[other]) - VALLEY:
            groups.merge(one, other)
            peak[groups[one]] = max(peak[one], peak[other])
    labels = np.array([groups[k] for k in range(len(weights))])
    nearest = alive[np.argmin(distance[:, alive], axis=1)]
    labels = np.where(is_dead(mixture), labels[nearest], labels)
    present = np.unique(labels)
    masses = [weights[labels == label].sum() for label in present]
    order = present[np.argsort(masses, kind="stable")[::-1]]
    return np.array([int(np.flatnonzero(order == label)[0]) for label in labels])


def _neighbours(distance):
    """Pairs of components between which to look for a saddle, (edges,) each."""
    # a constant on all edges keeps the tree; without it, edges of length zero would be dropped
    tree = scipy.sparse.csgraph.minimum_spanning_tree(1 + distance).tocoo()
    n_nearest = min(NEIGHBOURS + 1, len(distance))  # with itself
    nearest = np.argpartition(distance, n_nearest - 1, axis=1)[:, :n_nearest]
    pairs = np.concatenate(
        [
            np.column_stack([tree.row, tree.col]),
            np.column_stack([np.repeat(np.arange(len(distance)), n_nearest), nearest.ravel()]),
        ]
    )
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    return pairs[pairs[:, 0] != pairs[:, 1]].T


def peaks_and_saddles(mixture: Any, start: Any, end: Any) -> tuple[np.ndarray, np.ndarray]:
    """Log q at the means (K,), and at its lowest along each edge (edges,), up to a constant."""
    own_deviations = mixture.whitened_deviations
    isotropic = mixture.log_variances.ndim == 1
    n_repeats = mixture.n_dim if isotropic else 1
    log_peak = mixture.log_weights - n_repeats * np.log(own_deviations).sum(axis=1)
    squared = squared_distances(mixture, lambda own, other: other)
    means = mixture.whiten(mixture.means - mixture.means.mean(0))
    t = POINTS[:, None]

    def log_q(distances):
        return np.logaddexp.reduce(log_peak - 0.5 * distances, axis=-1)

    peaks, saddles = log_q(squared), []
    for i, j in zip(start, end, strict=True):  # one edge at a time: K distances at each point
        between = (means[i] - means[j]) ** 2
        if isotropic:
            between = between.sum(keepdims=True)
        length = (between / own_deviations**2).sum(axis=1)  # (K,)
        along = (1 - t) * squared[i] + t * squared[j] - t * (1 - t) * length  # (points, K)
        saddles.append(min(log_q(along).min(), peaks[i], peaks[j]))
    return peaks, np.array(saddles)


def evaluated_peaks_and_saddles(
    log_density: Callable, means: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return peaks and saddles by evaluating log q at the means (K, d) and along each edge."""
    peaks = log_density(means)
    n_edges = max(1, POINTS_AT_ONCE // len(POINTS))
    t = POINTS[:, None, None]
    saddles = [np.zeros(0)]
    for first in range(0, len(start), n_edges):
        here = slice(first, first + n_edges)
        one, other = means[start[here]], means[end[here]]
        along = ((1 - t) * one + t * other).reshape(-1, means.shape[1])
        lowest = log_density(along).reshape(len(POINTS), -1).min(axis=0)
        ends = np.minimum(peaks[start[here]], peaks[end[here]])
        saddles.append(np.minimum(lowest, ends))
    return peaks, np.concatenate(saddles)


def mode_masses(
    labels: np.ndarray,
    weights: np.ndarray,
    responsibilities: np.ndarray,
    importance_weight: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Estimate the mass of each mode from weighted draws.

    The estimate is :math:`w_m + \sum_s (W_s - 1/S) R_m(z_s)`, with the responsibility :math:`R_m`
    of the mode and its mass :math:`w_m` in the mixture, which is exact and acts as a control
    variate.

    Parameters
    ----------
    importance_weight : (S,) array
        W, sums to 1.

    Returns
    -------
    own, reweighted, standard_error : (M,) array
    """
    membership = np.eye(labels.max() + 1)[labels]  # (K, M)
    own, of_mode = weights @ membership, responsibilities @ membership  # (M,), (S, M)
    excess = importance_weight - 1 / len(of_mode)
    reweighted = own + excess @ of_mode
    return own, reweighted, np.sqrt(excess**2 @ (of_mode - reweighted) ** 2)


def within_mode_covariance(mixture: Any, labels: np.ndarray) -> np.ndarray:
    r"""Covariance within the modes, averaged over them by mass, unconstrained space.

    .. math:: \sum_k w_k \left[L \operatorname{diag}(\epsilon_k) L^T + (\mu_k - \bar\mu_{m(k)})
        (\mu_k - \bar\mu_{m(k)})^T\right]

    Returns
    -------
    (d, d) array for a dense metric, else its diagonal (d,)
    """
    weights, metric = mixture.weights, mixture.typical_metric
    membership = (labels == np.arange(labels.max() + 1)[:, None]) * weights  # (M, K)
    mass = membership.sum(axis=1, keepdims=True)
    # a mode without weight has no mean and does not count
    mode_means = membership @ mixture.means / np.where(mass > 0, mass, 1)
    offsets = mixture.means - mode_means[labels]
    if metric.ndim == 2:
        return metric @ metric.T + (weights[:, None] * offsets).T @ offsets
    return metric**2 + weights @ offsets**2
