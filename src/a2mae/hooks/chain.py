"""Which stages `kedro run` chains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kedro.framework.hooks import hook_impl

from a2mae import pipeline_registry

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext


class DefaultChain:
    """Lets each configuration environment say which stages `kedro run` chains, in `parameters_chain.yml`.

    The demo simulates its scenes; a folder of real scenes has no simulated truth to cut task data from. Both are one
    `kedro run`, so the chain is configuration. It is read here because the registry is asked before nodes see
    parameters.
    """

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Hand the environment's `chain` to the registry before the pipelines are first asked for."""
        parameters = context.config_loader["parameters"]
        pipeline_registry.use_chain(tuple(parameters["chain"]))
