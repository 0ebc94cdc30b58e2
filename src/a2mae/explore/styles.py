"""QGIS styles beside rasters and vectors: QGIS takes `map.qml` when it opens `map.tif`, and says what a value is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

from a2mae.files import write_bytes
from a2mae.tasks.palette import hex_colour

_DOCTYPE = b"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_RAMP = {0.0: (255, 255, 229), 0.25: (247, 252, 185), 0.5: (173, 221, 142), 0.75: (65, 171, 93), 1.0: (0, 90, 50)}
"""Probability from light to dark green."""
Rgb = tuple[int, int, int]


def write_class_style(path: Path, names: Mapping[int, str], colours: Mapping[int, Rgb]) -> None:
    """Write the style of a class map: each value in its colour, under its name.

    Args:
        path: Beside the raster, with its name and `.qml`.
        names: Of the classes, by value.
        colours: Likewise.
    """
    root, renderer = _raster("paletted")
    palette = ET.SubElement(renderer, "colorPalette")
    for value, name in names.items():
        ET.SubElement(
            palette, "paletteEntry", value=str(value), color=hex_colour(colours[value]), label=name, alpha="255"
        )
    _write(path, root)


def write_probability_style(path: Path) -> None:
    """Write the style of a raster of probabilities: from light to dark green.

    Args:
        path: Beside the raster, with its name and `.qml`.
    """
    root, renderer = _raster("singlebandpseudocolor")
    renderer.set("classificationMin", "0")
    renderer.set("classificationMax", "1")
    shader = ET.SubElement(ET.SubElement(renderer, "rastershader"), "colorrampshader")
    for key, text in {"colorRampType": "INTERPOLATED", "minimumValue": "0", "maximumValue": "1", "clip": "0"}.items():
        shader.set(key, text)
    for value, colour in _RAMP.items():
        ET.SubElement(shader, "item", value=f"{value:g}", color=hex_colour(colour), label=f"{value:.0%}", alpha="255")
    _write(path, root)


def write_polygon_style(path: Path, names: Mapping[int, str], colours: Mapping[int, Rgb]) -> None:
    """Write the style of polygons with the attribute `class`: each class in its colour.

    Args:
        path: Beside the vector file, with its name and `.qml`.
        names: Of the classes, by value.
        colours: Likewise.
    """
    root = ET.Element("qgis", version="3.28", styleCategories="Symbology")
    renderer = ET.SubElement(root, "renderer-v2", type="categorizedSymbol", attr="class", enableorderby="0")
    categories, symbols = ET.SubElement(renderer, "categories"), ET.SubElement(renderer, "symbols")
    for number, (value, name) in enumerate(names.items()):
        ET.SubElement(categories, "category", value=name, label=name, symbol=str(number), render="true", type="string")
        symbol = ET.SubElement(symbols, "symbol", type="fill", name=str(number), alpha="1", clip_to_extent="1")
        layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "pass": "0", "locked": "0"})
        options = ET.SubElement(layer, "Option", type="Map")
        red, green, blue = colours[value]
        fill = {"color": f"{red},{green},{blue},200", "outline_color": f"{red},{green},{blue},255"}
        for key, text in {**fill, "outline_width": "0.1", "outline_width_unit": "MM", "style": "solid"}.items():
            ET.SubElement(options, "Option", name=key, value=text, type="QString")
    _write(path, root)


def _raster(kind: str) -> tuple[ET.Element, ET.Element]:
    root = ET.Element("qgis", version="3.28", styleCategories="Symbology")
    pipe = ET.SubElement(root, "pipe")
    renderer = ET.SubElement(pipe, "rasterrenderer", type=kind, band="1", opacity="1", alphaBand="-1")
    return root, renderer


def _write(path: Path, root: ET.Element) -> None:
    ET.indent(root)
    write_bytes(path, _DOCTYPE + ET.tostring(root, encoding="utf-8") + b"\n")
