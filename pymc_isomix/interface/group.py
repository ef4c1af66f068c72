"""The family as PyMC knows it: a registered Group."""

from typing import ClassVar

import numpy as np
import pytensor.tensor as pt
from pymc.variational.opvi import Group, VIState, node_property
from pytensor.gradient import disconnected_grad, zero_grad
from pytensor.graph.basic import Variable

from pymc_isomix.backend.compilation import CHEAP, compiling
from pymc_isomix.family import density
from pymc_isomix.family import metric as metrics
from pymc_isomix.family.mixture import NAMES, Mixture
from pymc_isomix.interface import parameters
from pymc_isomix.interface.settings import metric_kind
from pymc_isomix.target import starts, traces
from pymc_isomix.target.space import FlatSpace

STATE_DRAWS = 2000  # draws behind the model-space moments of ``state``


@Group.register
class IsotropicMixtureGroup(Group):
    r"""Mixture of isotropic Gaussians that share a metric, over a group of variables.

    .. math:: q(z) = \sum_k w_k \, \mathcal N(z; \mu_k, \epsilon_k L L^T)

    in unconstrained space, z in :math:`\mathbb R^d`. With an identity metric and uniform weights it
    is the family of the paper.

    Parameters
    ----------
    group : list of variables or None
        The variables, None for all that no other group has.
    vfam : str, optional
        ``"isotropic_mixture"`` or ``"isomix"``, when made through
        :class:`pymc.variational.opvi.Group`.
    params : dict, optional
        Parameters of your own instead of new ones: ``means`` (K, d) in unconstrained space,
        ``log_variances`` (K,), ``log_weights`` (K,), normalised here, and ``metric``: a scalar (a
        multiple of the identity), (d,) (diagonal) or (d, d) (lower triangular).
    n_components : int
        K.
    metric : {"identity", "diag", "dense", "auto"}
        Kind of metric that new parameters get.
    start, start_sigma, init, init_width
        Where the components start; see :class:`pymc_isomix.IsoMix`.
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
        "log_variances": ("K",),
        "log_weights": ("K",),
        "metric": ("d", "d"),  # or ("d",) or (): see parameters.adopt
    }
    short_name = "isotropic_mixture"
    alias_names = frozenset(["isomix"])

    @compiling(cxx="")
    def __init_group__(self, group):
        super().__init_group__(group)
        self.symbolic_component = pt.lvector(f"{type(self).__name__}_symbolic_component")
        if self.user_params is None:
            self.shared_params = self.create_shared_params(**self._kwargs)
        else:
            self._user_params = parameters.adopt(self.user_params, self.ddim)
        self._finalize_init()

    def create_shared_params(
        self,
        *,
        n_components=1,
        metric="identity",
        start=None,
        start_sigma=None,
        init="jitter",
        init_width=1.0,
        values=None,
        **_ignored,
    ):
        """Allocate the variational parameters at their first values, or at ``values`` by name."""
        if values is None:
            kind = metric_kind(metric, self.ddim)
            log_variance, metric = starts.starting_scale(self.space, kind, start_sigma)
            values = {
                "means": starts.starting_means(
                    self.space,
                    n_components,
                    start=start,
                    init=init,
                    init_width=init_width,
                    random_seed=self.rng.randint(2**30, dtype=np.int64),
                ),
                "log_variances": np.full(n_components, log_variance),
                "log_weights": np.full(n_components, -np.log(n_components)),
                "metric": metric,
            }
        return parameters.allocate(values)

    @property
    def space(self):
        """The places of the group's variables in a flat point."""
        return FlatSpace(self.model, self.ordering)

    @node_property
    def means(self):
        """Component means (K, d), unconstrained space."""
        return self.params_dict["means"]

    @node_property
    def log_variances(self):
        """Log variances (K,), whitened space."""
        return self.params_dict["log_variances"]

    @node_property
    def log_weights(self):
        """Normalised log weights (K,), without gradient.

        The component of a draw is no function of the weights that a gradient could follow.
        """
        return zero_grad(density.log_normalise(self.params_dict["log_weights"]))

    @node_property
    def metric(self):
        """L, lower triangular (d, d), its diagonal (d,), or a scalar."""
        return metrics.differentiable(self.params_dict["metric"])

    @node_property
    def whitened_means(self):
        """Component means (K, d) in whitened space, from the centre of the mixture."""
        return metrics.whiten(self.metric, self.means - self.mean)

    @node_property
    def mean(self):
        """Mean of the mixture, (d,), unconstrained space."""
        return density.mean(self.means, self.log_weights)

    @node_property
    def cov(self):
        """Covariance of the mixture, (d, d), unconstrained space."""
        within = density.within_variance(self.log_variances, self.log_weights)
        between = density.between_covariance(self.means, self.log_weights)
        return within * metrics.covariance(self.metric, self.ddim) + between

    @node_property
    def std(self):
        """Return the standard deviation of the mixture, (d,), unconstrained space."""
        within = density.within_variance(self.log_variances, self.log_weights)
        between = density.between_variance(self.means, self.log_weights)
        return pt.sqrt(within * metrics.variance(self.metric, self.ddim) + between)

    @node_property
    def symbolic_random(self):
        """Draws (s, d) from the noise and the components, unconstrained space."""
        component = self.symbolic_component
        scale = pt.exp(0.5 * self.log_variances)[component]
        noise = metrics.unwhiten(self.metric, scale[:, None] * self.symbolic_initial)
        place = pt.switch((component < 0)[:, None], self.mean, self.means[component])
        # a length of one that only rewrites find out is another type to a scan over draws
        return pt.specify_shape(place + noise, (None, self.ddim))

    @node_property
    def symbolic_logq_not_scaled(self):
        """Log density (s,) of ``symbolic_random``."""
        points = metrics.whiten(self.metric, self.symbolic_random - self.mean)
        log_q = density.log_density(
            points, self.whitened_means, self.log_variances, self.log_weights
        )
        return log_q - metrics.log_determinant(self.metric, self.ddim)  # (s,)

    def make_size_and_deterministic_replacements(self, s, d, more_replacements=None):
        """Replace the noise and, beside it, each draw's component; -1 is the mixture's mean."""
        replacements = super().make_size_and_deterministic_replacements(s, d, more_replacements)
        size = pt.as_tensor(1 if s is None else s)
        mean_instead = pt.full((size,), -1, dtype="int64")
        if isinstance(d, Variable) or not d:
            _, drawn = pt.random.categorical(
                pt.exp(self.log_weights),
                size=(size,),
                rng=pt.random.shared_rng(seed=None),
                return_next_rng=True,
            )
            drawn = drawn.astype("int64")
        component = mean_instead
        if isinstance(d, Variable):
            component = pt.switch(d, mean_instead, drawn)
        elif not d:
            component = drawn
        # no gradient: PyTensor would call that of a categorical draw undefined
        return {**replacements, self.symbolic_component: disconnected_grad(component)}

    @property
    def mixture(self):
        """The variational parameters as numbers, a :class:`Mixture`; set them with another."""
        if self.user_params is None:
            values = {
                name: np.array(shared.get_value()) for name, shared in self.params_dict.items()
            }
        else:
            values = {name: getattr(self, name).eval(mode=CHEAP) for name in NAMES}
        return Mixture(**values).replace()

    @mixture.setter
    def mixture(self, mixture):
        for name, value in mixture.as_dict().items():
            shared = self.shared_params[name]
            shared.set_value(np.asarray(value, dtype=shared.dtype))

    def draw_unconstrained(self, draws, rng):
        """Draw from the mixture with NumPy.

        Parameters
        ----------
        draws : int
        rng : numpy.random.Generator

        Returns
        -------
        points : (draws, d) array
            Unconstrained space.
        component : (draws,) integer array
        """
        return self.mixture.draw(draws, rng)

    def log_density(self, points):
        """Log density (S,) of the mixture at unconstrained points (S, d), a NumPy array."""
        return self.mixture.log_density(points)

    def var_to_data(self, shared):
        """Map a flat vector to a dataset by variable, as PyMC does, but compile it cheaply."""
        return super().var_to_data(pt.as_tensor(shared.eval(mode=CHEAP)))

    @property
    def state(self):
        """Mean and standard deviation of every variable of the group in model space, from draws.

        A moment does not pass through a transform (the standard deviation of ``log tau`` says
        little about that of ``tau``), so they are taken from 2000 draws, with the same seed each
        time. Variables of other groups, on which a transform may depend, stay at the model's
        initial point.
        """
        points, _ = self.draw_unconstrained(STATE_DRAWS, np.random.default_rng(0))
        draws = traces.constrained_draws(self.space, points)
        names = [rv.name for rv in self.group]
        if getattr(self, "include_transformed", False):
            names += [name for name in self.ordering if name not in names]
        dataset = traces.to_dataset(self.model, {name: draws[name] for name in names})
        sample_dims = ("chain", "draw")
        return VIState(mean=dataset.mean(sample_dims), std=dataset.std(sample_dims))
