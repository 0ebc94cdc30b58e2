"""The `pretrain` stage: image sets → a pretrained model."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from a2mae.pipelines.pretrain.nodes import pretrain


def create_pipeline() -> Pipeline:
    """The stage as a pipeline."""
    return Pipeline(
        [
            node(
                pretrain,
                inputs={
                    **{
                        name: name
                        for name in ("images", "pruned_sets", "band_statistics", "image_sets", "pretrain_run")
                    },
                    "parameters": "params:pretrain",
                },
                outputs=["pretrained_model", "pretrain_metrics", "pretrain_curves"],
                name="pretrain",
                tags="pretrain",
            )
        ]
    )
