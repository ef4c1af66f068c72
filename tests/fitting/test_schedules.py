import numpy as np
import pytest

from pymc_isomix.fitting.schedules import NAMED, check_schedule, step_sizes


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 0.5, 0.5, 0.5]),
        ("sqrt", [0.5, 0.5 / np.sqrt(2), 0.5 / np.sqrt(3), 0.25]),
        ("linear", [0.5, 0.375, 0.25, 0.125]),
    ],
)
def test_named_schedules(schedule, expected):
    np.testing.assert_allclose(step_sizes(0.5, schedule, 4), expected, rtol=1e-14)


@pytest.mark.parametrize("schedule", NAMED)
@pytest.mark.parametrize("n", [1, 2, 1000])
def test_named_schedules_start_at_the_step_size_stay_positive_and_never_rise(schedule, n):
    sizes = step_sizes(0.3, schedule, n)
    assert sizes.shape == (n,)
    assert sizes[0] == 0.3
    assert np.all(sizes > 0)
    assert np.all(np.diff(sizes) <= 0)


def test_a_function_of_the_iteration_gets_integers_from_zero():
    seen = []

    def schedule(iteration):
        seen.append(iteration)
        return 2.0**-iteration

    np.testing.assert_array_equal(step_sizes(0.5, schedule, 3), [0.5, 0.25, 0.125])
    assert seen == [0, 1, 2]
    assert all(type(iteration) is int for iteration in seen)


@pytest.mark.parametrize(
    ("schedule", "offender"),
    [
        (lambda t: 1.0 - t, "iteration 1 has 0.0"),
        (lambda t: -1.0 if t == 2 else 1.0, "iteration 2 has -0.1"),
        (lambda t: np.nan if t == 3 else 1.0, "iteration 3 has nan"),
        (lambda t: np.inf, "iteration 0 has inf"),
    ],
)
def test_a_step_that_is_not_positive_and_finite_is_named(schedule, offender):
    with pytest.raises(ValueError, match=offender):
        step_sizes(0.1, schedule, 5)


@pytest.mark.parametrize("step_size", [0.0, -0.1, np.nan, np.inf, [0.1], None, "fast"])
def test_check_refuses_a_step_size_that_is_no_positive_number(step_size):
    with pytest.raises(ValueError, match="step_size must be a positive finite number"):
        check_schedule(step_size, "constant")


@pytest.mark.parametrize(
    "schedule",
    [
        "cosine",
        None,
        0.5,
        ["sqrt"],
    ],
)
def test_check_refuses_an_unknown_schedule(schedule):
    with pytest.raises(ValueError, match="schedule must be a function of the iteration or one of"):
        check_schedule(0.1, schedule)


def test_check_tries_the_first_step():
    with pytest.raises(ValueError, match=r"iteration 0 has 0\.0"):
        check_schedule(0.1, lambda t: 0.0)


@pytest.mark.parametrize("schedule", ["auto", *NAMED, lambda t: 1.0])
def test_check_accepts_what_is_documented(schedule):
    check_schedule(1e-6, schedule)
    check_schedule(np.float32(0.5), schedule)
