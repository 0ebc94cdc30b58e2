"""The tasks: what the other rooms need to know of each, without torch.

A task is an entry here. Pipelines, parameters, scores, cards and pages ask these attributes instead of names, so a
further task brings its entry and the module that makes its samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self


@dataclass(frozen=True)
class TaskKind:
    """What a task is.

    Attributes:
        title: For people.
        purpose: What the model is taught, for somebody who does not know the project.
        heads: That it can have, the plainest first (`tasks/finetune/heads.py`).
        metrics: That it is scored by, the main one first, of which 1 is the best (`tasks/metrics/`).
        losses: That it can be trained by, the usual one first (`tasks/finetune/losses.py`).
        label_metrics: Metrics where an image has any number of classes; empty where it cannot.
        dates: Images of one place that a sample has.
        per_pixel: Whether a label is a map of the ground; then a whole raster can be mapped, too.
        image_heads: Of a task with labels per pixel: heads that answer once per image instead, from such labels.
        values: Whether a label is a value with units; else it is a class.
        transitions: Whether a label is the class before and the class after (`tasks/transitions.py`).
        hub_task: `pipeline_tag` of a model card.
    """

    title: str
    purpose: str
    heads: tuple[str, ...]
    metrics: tuple[str, ...]
    losses: tuple[str, ...] = ("cross_entropy", "focal", "dice", "cross_entropy_dice")
    label_metrics: tuple[str, ...] = ()
    dates: int = 1
    per_pixel: bool = True
    image_heads: tuple[str, ...] = ()
    values: bool = False
    transitions: bool = False
    hub_task: str = "image-segmentation"

    def answers_pixels(self, head: str) -> bool:
        """Whether a head answers for every pixel; else it answers once per image."""
        return self.per_pixel and head not in self.image_heads


class Task(StrEnum):
    """What is predicted; the value names the stage, its namespace and its parameter group."""

    kind: TaskKind

    def __new__(cls, name: str, kind: TaskKind | None = None) -> Self:
        """Make a member of a name and a kind; `Task(name)` finds one and never comes here."""
        assert kind is not None
        member = str.__new__(cls, name)
        member._value_ = name
        member.kind = kind
        return member

    CLASSIFY = (
        "classify",
        TaskKind(
            title="Classification",
            purpose="The pretrained model is finetuned to classify images.",
            heads=("linear", "mean", "attentive", "rcf"),
            metrics=("top1", "mean_class_accuracy"),
            label_metrics=("micro_f1", "macro_f1"),
            per_pixel=False,
            hub_task="image-classification",
        ),
    )
    SEGMENT = (
        "segment",
        TaskKind(
            title="Segmentation",
            purpose="The pretrained model is finetuned to classify every pixel of an image.",
            heads=("linear", "rcf", "conv", "upernet", "detail"),
            metrics=("miou", "pixel_accuracy"),
        ),
    )
    DETECT_CHANGE = (
        "detect_change",
        TaskKind(
            title="Change detection",
            purpose="The pretrained model is finetuned to mark what changed between two dates.",
            heads=("linear", "rcf", "conv", "upernet", "detail"),
            metrics=("f1", "iou", "precision", "recall"),
            dates=2,
        ),
    )
    ESTIMATE = (
        "estimate",
        TaskKind(
            title="Regression",
            purpose="The pretrained model is finetuned to estimate a value, of every pixel or of an image.",
            heads=("linear", "rcf", "conv", "upernet", "detail", "mean", "attentive"),
            metrics=("r2", "rmse", "mae", "bias"),
            losses=("huber", "mse"),
            image_heads=("mean", "attentive"),
            values=True,
            hub_task="other",
        ),
    )
    DETECT_TRANSITIONS = (
        "detect_transitions",
        TaskKind(
            title="Semantic change",
            purpose="The pretrained model is finetuned to say what changed between two dates, and from what to what.",
            heads=("linear", "rcf", "conv", "upernet", "detail"),
            metrics=("f_scd", "sek", "change_miou"),
            dates=2,
            transitions=True,
        ),
    )
