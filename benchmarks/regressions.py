"""Bayesian regressions on data that scikit-learn bundles, and their log joints in NumPy."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pymc as pm
from scipy.special import expit, log_expit, log_softmax, softmax
from scipy.stats import norm
from sklearn.datasets import load_breast_cancer, load_wine

SPLIT_SEED = 42
TRAINING_SHARE = 0.6


@dataclass(frozen=True)
class Regression:
    """A posterior, its log evidence, and rows held out of it."""

    name: str
    n_dim: int
    log_evidence: float
    start_variance: float
    start_width: float
    model: Callable[[], pm.Model]
    log_joint: Callable[[np.ndarray], np.ndarray]  # (S, d) -> (S,)
    predict: Callable[[np.ndarray], tuple[float, float]]  # draws -> accuracy, mean log density

    def log_density(self, z):
        """Log posterior density, normalised by the evidence."""
        return self.log_joint(z) - self.log_evidence


def split(features, labels):
    """Return training and held-out rows, 60 to 40, features standardised on the training part."""
    order = np.random.RandomState(SPLIT_SEED).permutation(len(labels))
    n_training = int(TRAINING_SHARE * len(labels))
    training, held_out = order[:n_training], order[n_training:]
    centre, scale = features[training].mean(axis=0), features[training].std(axis=0)
    features = (features - centre) / scale
    return (features[training], labels[training]), (features[held_out], labels[held_out])


def breast_cancer():
    """Logistic regression without intercept, prior N(0, I), d = 30."""
    (x, y), (x_new, y_new) = split(*load_breast_cancer(return_X_y=True))
    sign, sign_new = 2 * y - 1, 2 * y_new - 1

    def model():
        with pm.Model() as model:
            beta = pm.Normal("beta", 0, 1, shape=x.shape[1])
            pm.Bernoulli("y", logit_p=x @ beta, observed=y)
        return model

    def log_joint(beta):
        return norm.logpdf(beta).sum(axis=1) + log_expit(sign * (beta @ x.T)).sum(axis=1)

    def predict(beta):
        density = expit(sign_new * (beta @ x_new.T)).mean(axis=0)
        return (density > 0.5).mean(), np.log(density).mean()

    return Regression("breast cancer, logistic", 30, -36.52, 1.0, 2.0, model, log_joint, predict)


def wine():
    """Multinomial regression without intercept, 13 weights a class, prior N(0, 10 I), d = 39."""
    (x, y), (x_new, y_new) = split(*load_wine(return_X_y=True))
    n_features, n_classes, sigma = x.shape[1], 3, np.sqrt(10)

    def model():
        with pm.Model() as model:
            beta = pm.Normal("beta", 0, sigma, shape=(n_features, n_classes))
            pm.Categorical("y", logit_p=x @ beta, observed=y)
        return model

    def logits(rows, beta):
        return rows @ beta.reshape(-1, n_features, n_classes)  # (S, rows, classes)

    def log_joint(beta):
        likelihood = log_softmax(logits(x, beta), axis=2)[:, np.arange(len(y)), y].sum(axis=1)
        return norm(0, sigma).logpdf(beta).sum(axis=1) + likelihood

    def predict(beta):
        density = softmax(logits(x_new, beta), axis=2).mean(axis=0)
        accuracy = (density.argmax(axis=1) == y_new).mean()
        return accuracy, np.log(density[np.arange(len(y_new)), y_new]).mean()

    return Regression("wine, multinomial", 39, -20.15, 1.0, 2.0, model, log_joint, predict)
