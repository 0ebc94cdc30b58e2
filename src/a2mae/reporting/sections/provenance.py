"""What it was made from: hashes and the configuration."""

from __future__ import annotations

import json

from a2mae.privacy import without_places
from a2mae.reporting import text
from a2mae.reporting.blocks import Block, Code, Section, Table
from a2mae.reporting.inputs import ReportInputs

_SHOWN = ("format_version", "model", "model_name", "method", "data_manifest_hash", "data_manifest", "code_commit")


def provenance(inputs: ReportInputs) -> Section:
    """Identity of the data and the model, and every parameter of the run."""
    rows: list[tuple[str, str]] = [("stages", ", ".join(inputs.stages))]
    if inputs.simulation is not None:
        rows += [
            (f"simulation, {key.replace('_', ' ')}", str(inputs.simulation[key]))
            for key in ("seed", "content_hash")
            if key in inputs.simulation
        ]
    if inputs.store is not None:
        rows.append(("image-set store, sha256 of its content", inputs.store.manifest_hash))
        rows.append(("sensors", text.listed(inputs.store.sensors)))
    if inputs.model_dir is not None and (inputs.model_dir / "config.json").exists():
        config = json.loads((inputs.model_dir / "config.json").read_text("utf-8"))
        rows += [(f"model, {key.replace('_', ' ')}", _short(config[key])) for key in _SHOWN if key in config]
    blocks: list[Block] = [Table("Identity of what went in and came out", ("what", "value"), tuple(rows))]
    if inputs.configuration:
        shown = without_places(inputs.configuration)
        blocks.append(
            Code(
                "The configuration of this run",
                json.dumps(shown, indent=2, sort_keys=True, default=str, ensure_ascii=False),
            )
        )
    return Section(
        "provenance",
        "Provenance",
        "The same scenes, configuration and code give the same bytes: these hashes say whether two reports are about"
        " the same data.",
        tuple(blocks),
    )


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
