"""The family as a registered Group of PyMC."""

from typing import Any, ClassVar

import numpy as np
import pytensor.tensor as pt
import xarray as xr
from pymc.variational.opvi import Group, VIState, node_property
from pytensor.gradient import disconnected_grad, zero_grad
from pytensor.graph.basic import Variable

from pymc_isomix.backend.arrays import Values
from pymc_isomix.backend.compilation import CHEAP, compiling
from pymc_isomix.backend.upstream import forget_expressions
from pymc_isomix.family import density
from pymc_isomix.family import metric as metrics
from pymc_isomix.family.mixture import NAMES, Mixture
from pymc_isomix.interface import parameters
from pymc_isomix.model import traces
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.sites.blocks import Block, BlockMixture
from pymc_isomix.sites.coordinates import SHAPE, CoordinateMap, Coordinates
from pymc_isomix.sites.find import find_coordinates

STATE_DRAWS = 2000  # draws for the model-space moments of ``state``
MOMENT_DRAWS = 2000  # draws for the moments of a mixture with sites, or 40 per component


@Group.register
class IsotropicMixtureGroup(Group):
    r"""Mixture of isotropic or diagonal Gaussians that share a metric, over a group of variables.

    .. math:: q(z) = \sum_k w_k \, \mathcal N(z; \mu_k, \epsilon_k L L^T)

    Here z in :math:`\mathbb R^d` is unconstrained space. With an identity metric and uniform
    weights this is the family of the paper.

    Parameters
    ----------
    group : list of variables or None
        The variables; None for all that no other group has.
    vfam : str, optional
        ``"isotropic_mixture"`` or ``"isomix"``, for :class:`pymc.variational.opvi.Group`.
    params : dict, optional
        Your own parameters: ``means`` (K, d) in unconstrained space; ``log_variances`` (K,), or (K,
        d) for diagonal components; ``log_weights`` (K,), which are normalised; and ``metric``, a
        scalar (a multiple of the identity), (d,) (diagonal) or (d, d) (lower triangular).
    n_components : int
        K.
    metric : {"identity", "diag", "dense", "auto"}
        Kind of metric of new parameters.
    component_variances, start, start_sigma, init, init_width
        See :class:`pymc_isomix.IsoMix`.
    random_seed : int, optional
    model : pymc.Model, optional

    Raises
    ------
    ParametrizationError
        If ``params`` do not have these keys and shapes, or a variable is discrete.

    References
    ----------
    .. [1] Petit-Talamon, Lambert and Korba (2025), arXiv:2506.13613.
    """

    __param_spec__: ClassVar[dict] = {
        "means": ("K", "d"),
        "log_variances": ("K",),  # or ("K", "d"), and the metric ("d",) or (): parameters.adopt
        "log_weights": ("K",),
        "metric": ("d", "d"),
    }
    short_name = "isotropic_mixture"
    alias_names = frozenset(["isomix"])
    include_transformed = False  # in ``state``; set by a fit

    @compiling(cxx="")
    def __init_group__(self, group):
        super().__init_group__(group)
        self.symbolic_component = pt.lvector(f"{type(self).__name__}_symbolic_component")
        if self.user_params is None:
            self.shared_params = self.create_shared_params(**self._kwargs)
        else:
            self.coordinate_map = CoordinateMap(self.space)
            self._user_params = parameters.adopt(self.user_params, self.ddim)
        self._finalize_init()

    def create_shared_params(
        self, *, coordinates: str = "affine", values: dict | None = None, **start: Any
    ) -> dict:
        """Allocate the variational parameters at their first values, or at ``values`` by name."""
        auto = coordinates == "auto"
        self.coordinate_map = find_coordinates(self.space) if auto else CoordinateMap(self.space)
        if values is None:
            values = parameters.first_values(self.coordinate_map, self.rng, **start)
        if set(SHAPE.values()) <= set(values):
            self.coordinate_map = self.coordinate_map.with_shape()
        return parameters.allocate(values)

    @property
    def coordinates(self) -> Coordinates:
        """The present coordinates y, :class:`Coordinates`; settable."""
        values = parameters.numbers(self.params_dict, self.coordinate_map.parameter_shapes)
        return Coordinates(self.coordinate_map, values)

    @coordinates.setter
    def coordinates(self, coordinates: Coordinates) -> None:
        if coordinates.map.key != self.coordinate_map.key:
            self._take_map(coordinates)
        for name, value in coordinates.parameters.items():
            shared = self.shared_params[name]
            shared.set_value(np.asarray(value, dtype=shared.dtype))

    def _take_map(self, coordinates):
        """Adopt coordinates with another shape, for which the step is compiled anew."""
        for name in set(self.coordinate_map.parameter_shapes) - set(coordinates.parameters):
            del self.shared_params[name]
        added = set(coordinates.parameters) - set(self.shared_params)
        values = {name: coordinates.parameters[name] for name in sorted(added)}
        self.shared_params |= parameters.allocate(values)
        self.coordinate_map = coordinates.map
        forget_expressions(self)

    @property
    def density(self) -> BlockMixture:
        """The approximation as numbers, of one block; a :class:`BlockMixture`."""
        return BlockMixture.of([Block(self.mixture.used, self.coordinates)])

    @property
    def space(self) -> FlatSpace:
        """The places of the group's variables in a flat point."""
        return FlatSpace(self.model, self.ordering)

    @node_property
    def means(self) -> Values:
        """Component means (K, d), coordinates y: unconstrained space without sites."""
        return self.params_dict["means"]

    @node_property
    def log_variances(self) -> Values:
        """Log variances (K,) or, of diagonal components, (K, d), whitened space."""
        return self.params_dict["log_variances"]

    @node_property
    def log_weights(self) -> Values:
        """Normalised log weights (K,), without gradient.

        The component of a draw is not differentiable in the weights.
        """
        return zero_grad(density.log_normalise(self.params_dict["log_weights"]))

    @node_property
    def metric(self) -> Values:
        """L, lower triangular (d, d), its diagonal (d,), or a scalar."""
        return metrics.differentiable(self.params_dict["metric"])

    @node_property
    def whitened_means(self) -> Values:
        """Component means (K, d) in whitened space, relative to the centre of the mixture."""
        return metrics.whiten(self.metric, self.means - self.centre)

    @node_property
    def centre(self) -> Values:
        """Mean of the mixture, (d,), coordinates y."""
        return density.mean(self.means, self.log_weights)

    @node_property
    def mean(self) -> Values:
        """Mean of the mixture, (d,), unconstrained space; with sites, see :attr:`moments`."""
        return self.moments[0] if self.coordinate_map else self.centre

    @node_property
    def cov(self) -> Values:
        """Covariance of the mixture, (d, d), unconstrained space."""
        if self.coordinate_map:
            _, offsets, weights = self.moments
            return (weights[:, None] * offsets).T @ offsets
        between = density.between_covariance(self.means, self.log_weights)
        return metrics.covariance(self.typical_metric, self.ddim) + between

    @node_property
    def std(self) -> Values:
        """Return the standard deviation of the mixture, (d,), unconstrained space."""
        if self.coordinate_map:
            _, offsets, weights = self.moments
            return pt.sqrt(weights @ offsets**2)
        between = density.between_variance(self.means, self.log_weights)
        return pt.sqrt(metrics.variance(self.typical_metric, self.ddim) + between)

    @property
    def typical_metric(self) -> Values:
        """Metric of a component with the mean variance."""
        return self.metric * pt.sqrt(density.within_variance(self.log_variances, self.log_weights))

    @node_property
    def whitened_deviations(self) -> Values:
        """Deviations of the components in whitened space, (K, 1), or (K, d) of diagonal ones."""
        return density.as_matrix(pt.exp(0.5 * self.log_variances))

    @property
    def moments(self) -> Any:
        """Mean (d,), and offsets and weights of the fixed draws behind the moments.

        Moments in z have no closed form. These come from 2000 fixed antithetic draws.
        """
        n_components, n_dim = self.means.type.shape
        pairs = max(20, MOMENT_DRAWS // (2 * n_components))
        half = np.random.default_rng(0).normal(size=(n_components, pairs, n_dim))
        half /= np.sqrt((half**2).mean(axis=1, keepdims=True))  # exact within a component
        noise = np.concatenate([half, -half], axis=1).astype(self.means.dtype)
        offsets = self.whitened_deviations[:, None] * noise
        offsets = offsets.reshape((n_components * 2 * pairs, n_dim))
        points = pt.repeat(self.means, 2 * pairs, axis=0)
        points += metrics.unwhiten(self.metric, offsets)
        unconstrained = self.coordinate_map.batched(points, self.params_dict)[0]
        weights = pt.repeat(pt.exp(self.log_weights), 2 * pairs) / (2 * pairs)
        mean = weights @ unconstrained
        return mean, unconstrained - mean, weights

    @node_property
    def symbolic_coordinates(self) -> Values:
        """Draws (s, d) from the noise and the components, coordinates y."""
        component = self.symbolic_component
        scale = self.whitened_deviations[component]
        noise = metrics.unwhiten(self.metric, scale * self.symbolic_initial)
        place = pt.switch((component < 0)[:, None], self.centre, self.means[component])
        # a scan over draws needs a static length of one
        return pt.specify_shape(place + noise, (None, self.ddim))

    @node_property
    def symbolic_random(self) -> Values:
        """Draws (s, d) from the noise and the components, unconstrained space."""
        if not self.coordinate_map:
            return self.symbolic_coordinates
        points = self.coordinate_map.batched(self.symbolic_coordinates, self.params_dict)[0]
        return pt.switch((self.symbolic_component < 0)[:, None], self.mean, points)

    @node_property
    def symbolic_logq_not_scaled(self) -> Values:
        """Log density (s,) of ``symbolic_random``, in unconstrained space."""
        points = metrics.whiten(self.metric, self.symbolic_coordinates - self.centre)
        log_q = density.log_density(
            points, self.whitened_means, self.log_variances, self.log_weights
        )
        log_q -= metrics.log_determinant(self.metric, self.ddim)  # (s,)
        if self.coordinate_map:
            log_q -= self.coordinate_map.batched(self.symbolic_coordinates, self.params_dict)[1]
        return log_q

    def make_size_and_deterministic_replacements(
        self, s: Values | None, d: Values, more_replacements: dict | None = None
    ) -> dict:
        """Replace the noise and the component of each draw; -1 is the mixture's mean."""
        replacements = super().make_size_and_deterministic_replacements(s, d, more_replacements)
        size = pt.as_tensor(1 if s is None else s)
        component = pt.full((size,), -1, dtype="int64")
        if isinstance(d, Variable) or not d:
            _, drawn = pt.random.categorical(
                pt.exp(self.log_weights),
                size=(size,),
                rng=pt.random.shared_rng(seed=None),
                return_next_rng=True,
            )
            drawn = drawn.astype("int64")
            component = pt.switch(d, component, drawn) if isinstance(d, Variable) else drawn
        # no gradient, because PyTensor's gradient of a categorical draw is undefined
        return {**replacements, self.symbolic_component: disconnected_grad(component)}

    @property
    def mixture(self) -> Mixture:
        """Parameters as a :class:`~pymc_isomix.family.mixture.Mixture`; settable."""
        if self.user_params is None:
            values = parameters.numbers(self.shared_params, NAMES)
        else:
            values = {name: getattr(self, name).eval(mode=CHEAP) for name in NAMES}
        return Mixture(**values).replace()

    @mixture.setter
    def mixture(self, mixture: Mixture) -> None:
        for name, value in mixture.as_dict().items():
            shared = self.shared_params[name]
            shared.set_value(np.asarray(value, dtype=shared.dtype))

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """Log density (S,) of the mixture at unconstrained points (S, d), a NumPy array."""
        return self.density.log_density_unconstrained(points)

    def var_to_data(self, shared: Values) -> xr.Dataset:
        """Map a flat vector to a dataset by variable, as PyMC does, with a cheap compilation."""
        return super().var_to_data(pt.as_tensor(shared.eval(mode=CHEAP)))

    @property
    def state(self) -> Any:
        """Mean and standard deviation of every variable in model space, from draws.

        Moments do not pass through a transform, so 2000 fixed draws give them. Variables of other
        groups stay at the model's initial point.
        """
        points, _ = self.density.draw_unconstrained(STATE_DRAWS, np.random.default_rng(0))
        draws = traces.constrained_draws(self.space, points)
        names = [rv.name for rv in self.group]
        if self.include_transformed:
            names += [name for name in self.ordering if name not in names]
        dataset = traces.to_dataset(self.model, {name: draws[name] for name in names})
        sample_dims = ("chain", "draw")
        return VIState(mean=dataset.mean(sample_dims), std=dataset.std(sample_dims))
