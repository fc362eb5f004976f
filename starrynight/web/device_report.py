"""Measures this machine in a process of its own, so that the server never holds torch, nor a GPU's memory:
``python -m starrynight.web.device_report`` prints what views/device.py shows, as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict


def main() -> None:
    from starrynight.models import catalogue, precision_plan
    from starrynight.numerics.device import probe

    device, model = probe(), catalogue.default()
    plan = precision_plan.choose(catalogue.resolve(model), device=None, asked="auto")
    json.dump({"device": asdict(device), "model": model, "plan": plan.to_dict()}, sys.stdout, default=str)


if __name__ == "__main__":
    main()
