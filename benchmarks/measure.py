"""What the benchmarks share: the divergence of a fit, the environment, and where results go."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from scipy.special import logsumexp

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("pymc", "pytensor", "numpy", "scipy", "jax", "numba", "scikit-learn")


def whitened(parameters, vectors):
    """L^{-1} v for rows v, and log |det L|."""
    metric, n_dim = parameters["metric"], parameters["means"].shape[1]
    if metric.ndim == 2:
        lower = np.tril(metric)
        return np.linalg.solve(lower, vectors.T).T, np.linalg.slogdet(lower)[1]
    return vectors / metric, np.log(np.abs(metric) * np.ones(n_dim)).sum()


def mixture_log_density(parameters, z):
    """log q at points z (S, d), component by component."""
    n_dim = z.shape[1]
    joint = []
    rows = zip(*(parameters[key] for key in ("means", "log_variances", "log_weights")), strict=True)
    for mean, log_variance, log_weight in rows:
        offset, log_determinant = whitened(parameters, z - mean)
        quadratic = (offset**2).sum(axis=1) * np.exp(-log_variance)
        normaliser = 0.5 * n_dim * (np.log(2 * np.pi) + log_variance) + log_determinant
        joint.append(log_weight - normaliser - 0.5 * quadratic)
    return logsumexp(joint, axis=0)


def draw_stratified(parameters, n_draws, seed):
    """Draw as often from each component: (K, n_draws / K, d)."""
    n_components, n_dim = parameters["means"].shape
    shape = (n_components, n_draws // n_components, n_dim)
    noise = np.random.default_rng(seed).standard_normal(shape)
    noise *= np.exp(0.5 * parameters["log_variances"])[:, None, None]
    metric = parameters["metric"]
    offset = noise @ np.tril(metric).T if metric.ndim == 2 else noise * metric
    return parameters["means"][:, None] + offset


def divergence(parameters, log_density, *, n_draws=40_000, seed=0):
    """KL(q || p) by stratified draws, and its standard error; ``log_density`` is normalised."""
    draws = draw_stratified(parameters, n_draws, seed)
    n_components, n_each, n_dim = draws.shape
    flat = draws.reshape(-1, n_dim)
    log_ratio = mixture_log_density(parameters, flat) - log_density(flat)
    log_ratio = log_ratio.reshape(n_components, n_each)
    weights = np.exp(parameters["log_weights"])
    error = np.sqrt((weights**2 * log_ratio.var(axis=1) / n_each).sum())
    return float(weights @ log_ratio.mean(axis=1)), float(error)


def environment():
    """Versions and the kind of machine, without anything that names it."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "packages": versions,
        "processor": platform.processor() or platform.machine(),
        "system": platform.system(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
    }


def save(name, settings, **tables):
    """Write ``results/<name>.json``: each table a list of records, one a line."""
    RESULTS.mkdir(exist_ok=True)
    head = {"environment": environment(), "settings": settings}
    parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    for key, records in tables.items():
        lines = ",\n  ".join(json.dumps(record) for record in records)
        parts.append(f"{json.dumps(key)}: [\n  {lines}\n ]")
    (RESULTS / f"{name}.json").write_text("{\n " + ",\n ".join(parts) + "\n}\n")
