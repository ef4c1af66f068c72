"""Draws of a step spread over several devices, here four that one processor plays."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import json, re, sys
import jax, numpy as np, pymc as pm
import pymc_isomix as pmi

x = np.random.default_rng(0).normal(size=(50, 3))
y = (x @ [1.0, -1.0, 0.5] > 0).astype(int)
with pm.Model() as model:
    scale = pm.HalfNormal("scale")
    slope = pm.Normal("slope", 0, scale, shape=3)
    pm.Bernoulli("y", logit_p=x @ slope, observed=y)

def fitted(**options):
    inference = pmi.IsoMix(4, n_samples=3, schedule="constant", random_seed=1, model=model)
    approx = inference.fit(20, backend="jax", progressbar=False, **options)
    step = inference.state.step
    inputs = [storage[0] for storage in step.storage]
    text = jax.jit(step.loop.step).lower(*inputs).compile().as_text()
    return {
        "means": approx.mixture.means.tolist(),
        "elbo": approx.history.elbo.tolist(),
        "partitions": int((re.findall(r"num_partitions=(\\d+)", text) or [1])[0]),
        "a_device_s_draws": len(re.findall(r"f64\\[3,50\\]", text)),
        "all_draws": len(re.findall(r"f64\\[12,50\\]", text)),
    }

errors = []
for wrong in ({"n_devices": 5}, {"n_devices": 8}):
    try:
        fitted(**wrong)
    except ValueError as error:
        errors.append(str(error))
print(json.dumps({"one": fitted(), "four": fitted(n_devices=4), "errors": errors}))
"""


@pytest.mark.slow
def test_four_devices_take_the_steps_of_one():
    flags = "--xla_force_host_platform_device_count=6"
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    found = json.loads(answer.stdout.splitlines()[-1])
    one, four = found["one"], found["four"]
    assert (one["partitions"], four["partitions"]) == (1, 4)
    assert one["all_draws"]
    assert four["a_device_s_draws"]
    assert not four["all_draws"]  # the model is nowhere evaluated at all draws
    np.testing.assert_allclose(four["elbo"], one["elbo"], rtol=1e-6)
    np.testing.assert_allclose(four["means"], one["means"], rtol=1e-5, atol=1e-7)
    assert "must divide" in found["errors"][0]
    assert "at most the 6" in found["errors"][1]
