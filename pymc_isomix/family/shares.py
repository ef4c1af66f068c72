"""Shares that densities have in a distribution of which there are weighted draws, by EM."""

import numpy as np

STEPS, CHANGE = 300, 1e-7


def balance(log_q: np.ndarray, weight: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """Shares (U,) of densities that maximise the mean log density of their mixture.

    Parameters
    ----------
    log_q : (S, U) array
        Log densities at the draws.
    weight : (S,) array
        Of the draws; they sum to one.
    """
    log_shares = np.full(log_q.shape[1], -np.log(log_q.shape[1]))
    counts = weight > 0
    log_q, weight = log_q[counts], weight[counts]
    for _ in range(steps):
        shares = weight @ responsibilities(log_q, log_shares)
        with np.errstate(divide="ignore"):
            new = np.log(shares / shares.sum())
        change = np.abs(np.exp(new) - np.exp(log_shares)).max()
        log_shares = new
        if change < CHANGE:
            break
    return np.exp(log_shares)


def responsibilities(log_q: np.ndarray, log_shares: np.ndarray) -> np.ndarray:
    """Probability (S, U) of each density given a draw; zero where all are."""
    log_joint = log_q + log_shares
    largest = log_joint.max(axis=1, keepdims=True)
    joint = np.exp(log_joint - np.where(np.isfinite(largest), largest, 0.0))
    total = joint.sum(axis=1, keepdims=True)
    return joint / np.where(total > 0, total, 1.0)
