"""One posterior of two numbers, fitted in four ways. Needs blackjax."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pymc as pm
from front import NOISE, OBSERVED, make_model, panel, points
from look import panels, save

import pymc_isomix as pmi


def pathfinder(draws=1500):
    """Draws (2, draws) of BlackJAX's Pathfinder over paths, resampled by their weights."""

    def log_density(x):
        misfit = ((x[0] * x[1] - jnp.array(OBSERVED)) / NOISE) ** 2
        return -0.5 * (jnp.sum(x**2) + jnp.sum(misfit))

    first, second, third = jax.random.split(jax.random.key(1), 3)
    algorithm = blackjax.multipathfinder(log_density)
    state, _ = algorithm.init(first, 2 * jax.random.normal(second, (8, 2)), 1000)
    return np.asarray(algorithm.sample(third, state, draws)).T


def main():
    """Fit and draw."""
    with make_model():
        found = {}
        for title, method in (("mean-field ADVI", "advi"), ("full-rank ADVI", "fullrank_advi")):
            adam = pm.adam(learning_rate=0.01)
            options = {"method": method, "random_seed": 1, "obj_optimizer": adam}
            found[title] = points(pm.fit(30_000, progressbar=False, **options))
        found["multi-path Pathfinder"] = pathfinder()
        found["IsoMix"] = points(pm.fit(method=pmi.IsoMix(random_seed=1), progressbar=False))
    figure, axes = panels(1, 4, height=2.1)
    for axis, (title, draws) in zip(axes, found.items(), strict=True):
        panel(axis, title, draws)
    save(figure, "coming_from.png")


if __name__ == "__main__":
    main()
