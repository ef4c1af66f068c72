"""What the loop says of a step that fails."""

from types import SimpleNamespace

import numpy as np
import pytest

from pymc_isomix.fitting.loop import describe_fault
from pymc_isomix.step.objective import StepInfo


@pytest.mark.parametrize(
    ("coordinates", "named"),
    [
        (False, "the weights, the metric, which"),
        (True, "the weights, the metric or the coordinates, which"),
    ],
)
def test_a_fault_of_what_components_share_names_no_component(coordinates, named):
    info = StepInfo.allocate(2, 1, "float64")
    info.n_finite.set_value(np.ones(2, int))
    space = SimpleNamespace(ordering={"x": ("x", slice(0, 1), (1,), "x")})
    operator = SimpleNamespace(
        group=SimpleNamespace(coordinates=coordinates, space=space), info=info
    )
    message = describe_fault(operator, 11)
    assert message.startswith(f"iteration 11: {named} the components share, would not be finite")
    assert "component ," not in message
    info.finite_components.set_value(np.array([True, False]))
    info.finite_dimensions.set_value(np.array([False]))
    assert "component 1 would not be finite, at variable x" in describe_fault(operator, 11)
