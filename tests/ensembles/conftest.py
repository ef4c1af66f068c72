import pymc as pm
import pytest


@pytest.fixture(scope="module")
def model():
    with pm.Model() as model:
        pm.NormalMixture("x", w=[0.7, 0.3], mu=[-8, 8], sigma=[1.0, 0.3])
        pm.Normal("y", 0, 2)
    return model
