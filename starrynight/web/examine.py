"""Measures this machine in a process of its own, so that the server never holds torch, nor a GPU's memory:
``python -m starrynight.web.examine`` prints what rooms/device.py shows, as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict


def main() -> None:
    from starrynight.numerics.device import probe
    from starrynight.painting import catalogue, plans

    device = probe()
    found = {"device": asdict(device), "model": catalogue.default()}
    found["plan"] = plans.choose(catalogue.resolve(found["model"]), device=None, asked="auto").as_dict()
    json.dump(found, sys.stdout, default=str)


if __name__ == "__main__":
    main()
