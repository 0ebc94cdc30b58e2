"""What tests of STAC items share: the real items' folder, and a parser that asks for no network."""

from __future__ import annotations

from pathlib import Path

from a2mae.remote.policy import HrefPolicy
from a2mae.stssd.ingest.checks import SensorTable
from a2mae.stssd.ingest.stac_item import parse_item
from a2mae.stssd.ingest.stac_profiles import Recogniser

ITEMS = Path(__file__).parents[2] / ".." / "shared" / "data" / "stac_items"
POLICY = HrefPolicy(frozenset({"file", "https", "http", "s3"}), (ITEMS,))


def parse(item, recogniser=None, base="https://example.com/item.json"):
    return parse_item(item, recogniser=recogniser or Recogniser(SensorTable({})), policy=POLICY, base=base)
