"""Bambi fits with any inference of PyMC's; this runs where it is installed."""

import numpy as np
import pandas as pd
import pytest

from pymc_isomix import IsoMix

bmb = pytest.importorskip("bambi")


@pytest.mark.filterwarnings("default")  # of Bambi and what it uses
def test_a_model_with_group_specific_effects():
    rng = np.random.default_rng(0)
    group, x = np.repeat(np.arange(8), 20), rng.normal(size=160)
    effect = rng.normal(0, 1, size=8)[group]
    data = pd.DataFrame({"y": effect + 2 * x + rng.normal(size=160), "x": x, "group": group})
    model = bmb.Model("y ~ x + (1|group)", data)
    model.build()
    inference = IsoMix(10, random_seed=1, model=model.backend.model)
    approx = model.fit(inference_method="vi", method=inference, n=3000)
    draws = approx.sample(1000, random_seed=1).posterior
    assert draws["1|group"].sizes["group__factor_dim"] == 8
    assert float(draws["x"].mean()) == pytest.approx(2.0, abs=0.3)  # four standard deviations
