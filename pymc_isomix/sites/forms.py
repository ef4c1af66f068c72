"""The interface of forms: the map between y and z of one site, given the rest of z."""

from typing import Any

from pymc_isomix.backend.arrays import Values


class Form:
    """The map of one site, with pseudo-observations that it learns.

    ``given`` are the site's expressions at points, and further results of :meth:`forward`. ``own``,
    ``old`` and ``new`` are pairs of log c and m.

    Attributes
    ----------
    n_dim, n_pseudo : int
        Number of elements of z, and of pseudo-observations.
    n_learned_from : int
        Number of given values that a regression needs.
    pseudo_names : str, optional
        What pseudo-observations belong to, if not to the elements of z.
    is_elementwise : bool
        Whether elements are independent in a constant basis.
    is_dense : bool
        Whether the map takes more than linear time.
    is_chain : bool
        Whether elements are steps in time.
    """

    n_dim: int
    n_pseudo: int
    n_learned_from: int
    pseudo_names: str | None = None
    is_elementwise = is_dense = is_chain = False

    def run_on_jax(self) -> None:
        """Compute with JAX what has to do with arrays, where that is worth its compiling."""

    def to_unconstrained(
        self, y: Values, given: Any, log_precision: Values, value: Values
    ) -> tuple[Values, Values]:
        """Map y (..., n) to z (..., n); with the log absolute determinant (...)."""
        raise NotImplementedError

    def forward(
        self, y: Values, given: Any, log_precision: Values, value: Values
    ) -> tuple[Values, Values, Any]:
        """Map one point, and return what is given, with intermediate results for later uses."""
        return *self.to_unconstrained(y, given, log_precision, value), given

    def to_coordinates(self, z: Values, given: Any, log_precision: Values, value: Values) -> Values:
        """Map z (..., n) back to y (..., n)."""
        raise NotImplementedError

    def share(self, given: Any, log_precision: Values, value: Values) -> Values:
        """Share of each pseudo-observation in the precision of its effect, 0 to 1."""
        raise NotImplementedError

    def deviation(self, given: Any, log_precision: Values, value: Values) -> Values:
        """Return the standard deviations of the effects given the pseudo-observations."""
        raise NotImplementedError

    def typical(self, given: Any) -> tuple[Any, Any]:
        """Typical location and log scale of the effects, (P,) arrays each, from K points."""
        raise NotImplementedError

    def learn(self, y: Any, gradient: Any, given: Any, own: Any, damping: float) -> Any:
        """Learn log c and m, (P,) arrays, from draws y (S, n) and gradients there."""
        raise NotImplementedError

    def moved(self, y: Any, given: Any, old: Any, new: Any) -> Any:
        """Map y (S, n), an array, to y of the same z under other pseudo-observations."""
        raise NotImplementedError

    def unit_change(self, given: Any, old: Any, new: Any) -> Any:
        """Typical factor (n,) by which the units of y shrink."""
        raise NotImplementedError
