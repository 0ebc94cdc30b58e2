"""What follows where somebody states what the files do not say."""

from __future__ import annotations

import dataclasses

from a2mae.sensors import Units
from a2mae.stssd.recognise.facts import Fact, Product, asked, known_sensors
from a2mae.stssd.recognise.measure import sentinel2_offset

_SCALES = {"sentinel-2": 1e-4, "landsat": 2.75e-5}


def state(product: Product, **values: object) -> Product:
    """Return a product with what somebody has stated of it, and with what follows from that.

    A known sensor says its units and, of Sentinel-2 and Landsat, what nodata is; its usual scale and band order are
    suggested. Reflectance without a mask is tested for clouds by brightness.

    Args:
        product: As the files tell it.
        values: Keys of the rule.
    """
    rule = {**product.rule, **{key: Fact(value, "stated") for key, value in values.items()}}
    sensor = known_sensors().get(str(values.get("sensor")))

    def follows(key: str, fact: Fact) -> None:
        if key not in values and key in rule and not rule[key].known:
            rule[key] = fact

    if sensor is not None:
        units = sensor.encoding.units
        radar = units is Units.BACKSCATTER_DB  # the store's: files may hold linear backscatter
        if not radar:
            follows("units", Fact(units.value, f"those of {sensor.id}"))
        if len(sensor.bands) == product.band_count:
            follows("bands", dataclasses.replace(rule["bands"], suggestion=list(sensor.band_names)))
        family = next((name for name in _SCALES if sensor.id.startswith(name)), None)
        if family is not None and sensor.id.endswith(("l1c", "l2a", "l2")):
            follows("scale", asked(rule["scale"].evidence if "scale" in rule else "", _SCALES[family]))
        if family == "sentinel-2":
            follows("offset", sentinel2_offset(product.darkest, is_integer=True))
        if family is not None and rule["nodata"].value == "none":
            rule["nodata"] = Fact(0, f"0 is nodata in products of {sensor.title.partition(',')[0]}")
    if rule["units"].known:
        reflects = rule["units"].value == Units.REFLECTANCE.value
        follows("cloud_test", Fact("brightness" if reflects else "none", "no cloud mask is known"))
    return dataclasses.replace(product, rule=rule)
