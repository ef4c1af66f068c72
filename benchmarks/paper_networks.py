"""Regressions and networks of the paper's figures; paper_figures.py runs them."""

import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
from measure import cost, fit
from paper_pictures import SEED, fits, records, save_picture, smooth
from problems.targets import breast_cancer, wine
from scipy.special import softmax
from sklearn.datasets import load_diabetes, load_digits

import pymc_isomix as pmi


def network(hidden=10):
    """A network of one hidden layer on the diabetes data, d = 122."""
    x, y = load_diabetes(return_X_y=True)
    x, y = (x - x.mean(axis=0)) / x.std(axis=0), (y - y.mean()) / y.std()
    rows = np.random.RandomState(42).permutation(len(y))
    train, test = rows[:265], rows[265:]

    def model():
        with pm.Model() as model:
            inner = pm.Normal("inner", 0, 1, shape=(x.shape[1], hidden))
            shift = pm.Normal("shift", 0, 1, shape=hidden)
            outer = pm.Normal("outer", 0, 1 / np.sqrt(hidden), shape=hidden)
            level, log_noise = pm.Normal("level", 0, 1), pm.Normal("log_noise", -0.3, 0.5)
            mean = level + pm.math.tanh(x[train] @ inner + shift) @ outer
            pm.Normal("y", mean, pm.math.exp(log_noise), observed=y[train])
        return model

    def test_score(approx):
        draws = {k: v.values[0] for k, v in approx.sample(1000, random_seed=1).posterior.items()}
        units = np.tanh(x[test] @ draws["inner"] + draws["shift"][:, None])
        mean = draws["level"][:, None] + (units @ draws["outer"][..., None])[..., 0]
        sd = np.exp(draws["log_noise"])[:, None]
        log_p = -0.5 * ((y[test] - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)
        rmse = np.sqrt(np.mean((mean.mean(axis=0) - y[test]) ** 2))
        return {"test_log_score": float(np.log(np.exp(log_p).mean(axis=0)).mean()), "rmse": rmse}

    return model, test_score


def figure_4():
    """Two regressions and a network, K = 10: -ELBO by step, less the log evidence where known."""
    rows = []
    figure, axes = plt.subplots(1, 3, figsize=(8, 3), layout="constrained")
    for axis, target in zip(axes, (breast_cancer(), wine()), strict=False):
        found = fits(target, 10, box=False)
        rows += records(target, 10, found)
        for k, (label, (approx, _)) in enumerate(found.items()):
            evidence = target.log_density(np.zeros((1, target.n_dim)))
            shift = evidence - approx_log_density(target)
            axis.plot(smooth(approx.hist) - shift, f"C{k}", lw=1.2, label=label)
        axis.set(yscale="log", xlabel="step", title=target.name)
    axes[0].set_ylabel("KL(q‖p), nats")
    axes[0].legend()
    model, test_score = network()
    for k, (label, options) in enumerate(
        {
            "mirror descent": {"variance_update": "mirror"},
            "Bures": {"variance_update": "bures"},
            "IsoMix()": None,
        }.items()
    ):
        if options is None:
            approx = fit(model(), SEED, n_components=10)
        else:
            settings = {"step_size": 0.0003, "start_sigma": 0.1, "random_seed": SEED}
            inference = pmi.IsoMix.paper(10, **options, **settings, model=model())
            approx = inference.fit(6000, backend="jax", progressbar=False)
        elbo = -float(np.mean(approx.hist[-100:]))
        rows.append(
            {"target": "network", "K": 10, "fit": label, "elbo": elbo, **test_score(approx)}
            | cost(approx)
        )
        axes[2].plot(smooth(approx.hist), f"C{k}", lw=1.2, label=label)
    axes[2].set(xlabel="step", title="network, d = 122", ylabel="-ELBO, nats", ylim=(290, 600))
    save_picture(figure, "figure_4")
    return {"fits": rows}


def approx_log_density(target):
    """Log density of the model at zero, which has no evidence taken off."""
    model = target.model()
    point = {name: np.zeros_like(value) for name, value in model.initial_point(0).items()}
    return float(model.compile_logp(mode="FAST_COMPILE")(point))


def images(hidden=160):
    """A network of 12 010 weights on scikit-learn's digits, K = 1 and 5, by minibatches."""
    x, y = load_digits(return_X_y=True)
    x, rows = (x - x.mean(axis=0)) / 4, np.random.RandomState(42).permutation(len(y))
    train, test = np.split(rows, [int(0.8 * len(y))])

    def network(batch_size):
        with pm.Model() as model:
            inner = pm.Normal("inner", 0, 1, shape=(64, hidden))
            shift = pm.Normal("shift", 0, 1, shape=hidden)
            outer = pm.Normal("outer", 0, 1, shape=(hidden, 10))
            level = pm.Normal("level", 0, 1, shape=10)
            seen = x[train], y[train].astype("int32")
            of_x, of_y = pm.Minibatch(*seen, batch_size=batch_size) if batch_size else seen
            logits = pm.math.maximum(of_x @ inner + shift, 0) @ outer + level
            pm.Categorical("digit", logit_p=logits, observed=of_y, total_size=len(train))
        return model

    def probabilities(approx, chosen):
        values, total = approx.space.with_model(model), 0.0
        for point in approx.mixture.draw(200, np.random.default_rng(1))[0]:
            one = values.unflatten(point)
            units = np.maximum(x[chosen] @ one["inner"] + one["shift"], 0)
            total = total + softmax(units @ one["outer"] + one["level"], axis=1) / 200
        return total

    def paper(n_components, **options):
        start = {"start_sigma": 0.1, "init_width": 0.1, "n_samples": 1, "step_size": 2e-4}
        options |= {"model": model, "random_seed": SEED}
        return pmi.IsoMix.paper(n_components, **start, **options), 6000

    model = network(batch_size=128)
    fits = {
        "mirror descent, K = 1": paper(1),
        "mirror descent, K = 5": paper(5),
        "Bures, K = 5": paper(5, variance_update="bures"),
        "mirror descent, K = 5, diagonal": paper(5, component_variances="diagonal"),
        "IsoMix(1), all rows": (
            pmi.IsoMix(1, n_samples=5, random_seed=SEED, model=network(None)),
            3000,
        ),
    }
    found, means = [], {}
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    for k, (label, (inference, steps)) in enumerate(fits.items()):
        approx = inference.fit(steps, backend="jax", progressbar=False)
        record = {"fit": label, "d": approx.mixture.n_dim, "elbo": -float(approx.hist[-50:].mean())}
        for part, chosen in (("train", train), ("test", test)):
            p = probabilities(approx, chosen)
            record[f"{part}_accuracy"] = float(np.mean(p.argmax(axis=1) == y[chosen]))
            record[f"{part}_log_score"] = float(np.log(p[np.arange(len(p)), y[chosen]]).mean())
        found.append(record | {"weights": approx.mixture.weights.tolist()} | cost(approx))
        axes[0].plot(smooth(approx.hist), f"C{k}", lw=1.2, label=label)
        means[label] = approx.mixture.means
    axes[0].set(xlabel="step", yscale="log", ylabel="-ELBO, nats", title="digits, d = 12 010")
    axes[0].legend()
    every = np.concatenate(list(means.values()))
    plane = np.linalg.svd(every - every.mean(axis=0), full_matrices=False)[2][:2]
    for k, (label, own) in enumerate(means.items()):
        axes[1].plot(*(plane @ (own - every.mean(axis=0)).T), f"C{k}o", alpha=0.7, label=label)
    axes[1].set(title="means of the components", xlabel="first", ylabel="second principal axis")
    save_picture(figure, "images")
    return {"fits": found}
