"""The files of an environment for pictures without a place: from a folder of them to a pretrained model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from a2mae.commands.environment import flow, of_every_environment, plain
from a2mae.config import TO_STATE
from a2mae.errors import InputError
from a2mae.stssd.recognise.facts import Fact, Recognition
from a2mae.tasks.datasets.task_data import SPLITS
from a2mae.tasks.recognise.facts import picture_facts
from a2mae.tasks.recognise.look import look_at_images

_LABELS = ("masks", "values", "labels", "label", "label1", "label2")
"""Folders of a task whose images are labels."""
_FEWEST_SCORED, _MOST_SCORED = 100, 5000
"""Fewer tell nothing, more pictures make the scores no surer than they need to be for a first look."""
_PRETRAIN = """\
# The recipe that pays on pictures (docs/recipe.md). 1,000 steps are a quarter of an hour of one core; 4,500 are an
# hour, and better.
pretrain:
  method: mae
  model:
    options:
      stem: rcf
      rcf_weight: 1.0
      pixel_weight: 0.3
      contrast_weight: 1.0
      decoder_dim: 96
      decoder_num_heads: 4
      decoder_depth: 1
  sampling:
    images: 1
    bands: {bands}
    whole_probability: 0.5
    crop_fraction_min: 0.45
    flips: true
  optimizer:
    steps: 1000
    batch_size: 96
    base_learning_rate: 2.7e-3
"""


@dataclass(frozen=True)
class ProposedPictures:
    """What an environment for pictures will be.

    Attributes:
        facts: By key of the group `pictures`.
        classes: Into how many classes their folders sort them; 0 where they do not.
        files: Name -> text.
    """

    facts: Mapping[str, Fact]
    classes: int
    files: Mapping[str, str]


def propose_pictures(recognition: Recognition, name: str) -> ProposedPictures:
    """Propose an environment that pretrains on pictures, and scores the encoder by the classes of their folders.

    Args:
        recognition: What the folder holds: rasters without a place.
        name: Of the environment.

    Raises:
        InputError: If no picture can be read, or labels lie among them.
    """
    root = recognition.root.resolve()
    above = [PurePath(path).parts[:-1] for path in recognition.unplaced]
    above = [parts[1:] if parts[:1] and parts[0] in SPLITS else parts for parts in above]
    if labels := sorted({parts[0] for parts in above if parts and parts[0] in _LABELS}):
        raise InputError(f"{root} holds labels beside pictures ({', '.join(labels)}/): name the folder of the pictures")
    classes = len(set(above)) if all(len(parts) == 1 for parts in above) else 0
    facts = picture_facts(look_at_images([root / path for path in recognition.unplaced]))
    colours = facts["format"].value == "rgb_bytes"
    scored = classes > 1 and colours and len(above) >= _FEWEST_SCORED
    chain = ["pictures", "pretrain", *(["evaluate"] if scored else []), "report"]
    files = {
        **of_every_environment(name, f"From the pictures of {root.name} to a pretrained model"),
        "parameters_chain.yml": "# The stages that `kedro run` chains; with labels add classify.\n"
        f"chain: [{', '.join(chain)}]\n",
        "parameters_pictures.yml": _pictures(str(root), facts),
        "parameters_pretrain.yml": _PRETRAIN.format(bands="rgb" if colours else "draw"),
    }
    if scored:
        count = min(len(recognition.unplaced), _MOST_SCORED)
        files["parameters_evaluate.yml"] = (
            "# What the encoder is worth for the classes of the folders, beside random weights and plain features.\n"
            f"evaluate:\n  folder: {flow(str(root))}\n  folder_samples: {count}\n  relative_gsd: [1.0]\n"
        )
    return ProposedPictures(facts, classes, files)


def _pictures(folder: str, facts: Mapping[str, Fact]) -> str:
    lines = ["# Pictures to pretrain on, as `a2mae init` found them; yours to change.", "pictures:"]
    lines.append(f"  folder: {flow(folder)}")
    for key, fact in facts.items():
        told = flow(fact.value) if fact.known else TO_STATE
        lines.append(f"  {key}: {told}   # {plain(fact.evidence)}")
    return "\n".join(lines) + "\n"
