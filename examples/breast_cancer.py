"""Bayesian logistic regression on real data: is a breast tumour malignant?

Fits scikit-learn's breast cancer data with a mixture of isotropic Gaussians in a learned metric,
prints the ArviZ summary and the ELBO, and draws a picture. Run it by ``make demo``, or
``python examples/breast_cancer.py [picture.png]``.
"""

import importlib.util
import logging
import sys
import time

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
from sklearn.datasets import load_breast_cancer

import pymc_isomix as pmi

SHOWN = ["mean concave points", "worst area", "worst concavity", "worst texture", "radius error"]


def load():
    """Standardised features and labels, 60 % to fit and 40 % held out."""
    data = load_breast_cancer()
    order = np.random.RandomState(42).permutation(len(data.target))
    fitted, held_out = np.split(order, [int(0.6 * len(order))])
    centre, scale = data.data[fitted].mean(0), data.data[fitted].std(0)
    features = (data.data - centre) / scale
    names = [str(name) for name in data.feature_names]
    split = (features[fitted], data.target[fitted], features[held_out], data.target[held_out])
    return names, *split


def make_model(names, features, labels):
    """Build the logistic regression with a standard normal prior on every coefficient."""
    with pm.Model(coords={"feature": names}) as model:
        x = pm.Data("x", features, dims=("patient", "feature"))
        beta = pm.Normal("beta", 0, 1, dims="feature")
        pm.Bernoulli("benign", logit_p=x @ beta, observed=labels, dims="patient")
    return model


def draw_picture(approx, posterior, path):
    """Draw the ELBO by iteration, a few marginals, and the mixture in two coefficients."""
    figure, axes = plt.subplots(
        1, 3, figsize=(13, 3.8), width_ratios=[1, 1.2, 1], layout="constrained"
    )
    elbo = -approx.hist
    axes[0].plot(np.arange(1, len(elbo) + 1), elbo, lw=0.8)
    axes[0].set(xlabel="iteration", ylabel="ELBO (nats)", title="ELBO")
    axes[0].set_ylim(elbo[-100:].mean() - 5, elbo[-100:].mean() + 1)

    draws = [posterior["beta"].sel(feature=name).to_numpy().ravel() for name in SHOWN]
    axes[1].violinplot(draws, orientation="horizontal", showextrema=False, widths=0.9)
    axes[1].axvline(0, color="0.6", lw=0.8, zorder=0)
    axes[1].set_yticks(np.arange(1, len(SHOWN) + 1), SHOWN)
    axes[1].set(xlabel="coefficient, per standard deviation", title="Above zero speaks for benign")

    pair = ["mean radius", "worst radius"]
    index = [list(posterior["feature"].values).index(name) for name in pair]
    mixture = approx.mixture
    axes[2].scatter(*(posterior["beta"].sel(feature=name) for name in pair), s=2, c="0.7")
    angle = np.linspace(0, 2 * np.pi, 100)
    metric = mixture.metric[index]
    circle = np.linalg.cholesky(metric @ metric.T) @ [np.cos(angle), np.sin(angle)]
    strength = np.clip(mixture.weights / mixture.weights.max(), 0.1, 1)
    for k, alpha in enumerate(strength):
        scale = np.exp(0.5 * mixture.log_variances[k])
        ellipse = mixture.means[k, index][:, None] + scale * circle
        axes[2].plot(*ellipse, c="C1", lw=1, alpha=float(alpha))
    axes[2].set(xlabel=pair[0], ylabel=pair[1], title="Draws and components (1 sd)")
    figure.savefig(path, dpi=120)


def main(path="breast_cancer.png"):
    """Fit, print and draw."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("pymc_isomix").setLevel(logging.INFO)
    names, x, y, x_held_out, y_held_out = load()
    model = make_model(names, x, y)
    began = time.perf_counter()
    with model:
        approx = pm.fit(
            method=pmi.IsoMix(random_seed=1),
            # compiles in seconds where PyMC's default takes a minute the first time
            backend="jax" if importlib.util.find_spec("jax") else None,
        )
    seconds = time.perf_counter() - began
    idata = approx.sample(2000, random_seed=1)
    print(az.summary(idata, var_names="beta"))

    logits = x_held_out @ idata.posterior["beta"].stack(draw_=("chain", "draw")).to_numpy()
    probability = (1 / (1 + np.exp(-logits))).mean(axis=1)
    print(f"\nELBO {-approx.hist[-100:].mean():.2f} nats after {len(approx.hist)} iterations")
    print(f"Held-out accuracy {np.mean((probability > 0.5) == y_held_out):.3f}")
    print(f"Fitted in {seconds:.1f} s, compilation included")
    draw_picture(approx, idata.posterior, path)
    print(f"Picture: {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
