"""What a fit is worth: pictures of Firefly with layers in mixed types against float32, beside uniform types and the hand rule.

    python benchmarks/fit.py [prompts] [side] [file.json] [curve.svg]

Sensitivities come from STARRY_HOME/cache, or are measured first (minutes). Every picture's error is stored there too, so a
run that was killed goes on. Printed: bits a weight, predicted PSNR, and the mean and the worst of the held-out pictures.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from starrynight.fitting import curve, formats, layout, measure, table
from starrynight.fitting.fit import CurvePoint
from starrynight.folding import calibrate
from starrynight.folding.cache import CalibrationSample
from starrynight.i18n import Text
from starrynight.models import catalogue
from starrynight.models.load import load
from starrynight.progress import ProgressCounter

PROMPTS = (
    "a sunflower field at noon, oil painting",
    "江雪，孤舟，水墨",
    "a castle on a cliff at dusk, watercolour",
    "春日樱花树下的小桥，吉卜力风格",
    "a sailing boat in a storm, thick brush strokes",
    "雪山下的湖，清晨，彩色铅笔",
    "a city street at night, neon lights, cyberpunk",
    "沙漠里的绿洲，黄昏，油画",
    "a lighthouse by the sea under a full moon",
    "竹林里的小屋，雨，水墨",
    "rolling hills with a windmill, van gogh style",
    "秋天的枫林与瀑布，浮世绘",
    "a panda in a bamboo grove, ink",
    "长城，雪，油画",
    "a red balloon over green hills, watercolour",
    "古塔与飞鸟，黄昏，水墨",
    "a train crossing a stone bridge in autumn, monet",
    "海上的鲸鱼，月夜，浮世绘",
    "an owl on a bare branch, pencil sketch",
    "荷塘里的锦鲤，清晨，水彩",
    "a village under the northern lights, pastel",
    "雨中撑伞的女子，油画",
    "a volcano at sunset, ghibli style",
    "茶馆门前的灯笼，夜，铅笔",
)
BITS = (6.5, 4.2, 5.5, 8.0, 5.0, 8.5)


def main(prompts: int = 12, side: int = 256, out: Path | None = None, drawing: Path | None = None) -> None:
    model = catalogue.resolve("firefly")
    pipeline = load(model, calibrate.uniform(model, "float32"))
    subject = measure.Subject(model, pipeline, layout.of_model(model, pipeline), {})
    meter, path = measure.meter(subject), table.path_of(model)
    before = table.stored(path)
    found = measure.weighed(subject, before) if before else measure.empty_table(subject, meter.how)
    measure.measure(subject, meter, found, path, ProgressCounter(None, measure.stages(found.signature)))
    judge = measure.Judge(
        subject,
        [CalibrationSample(p, side, side, model.spec.steps, model.spec.guidance, 1000 + n) for n, p in enumerate(PROMPTS[:prompts])],
        found,
        path,
    )  # fmt: skip
    weights = sum(rows * columns for rows, columns in found.signature.values())
    known = formats.references(found.signature, found.plain)
    series = {name: (each, found.predicted(each, by_others=True)) for name, each in known.items()}
    same = (formats.HAND, "Q6_K", "Q4_0")  # at their bytes, too
    for bits in dict.fromkeys([*(found.bits(known[name]) for name in same), *BITS]):
        series[f"fit {bits:.2f}"] = found.best(int(weights * bits / 8))
    series["fit 8.00 INT8"] = found.best(int(weights * 8.0 / 8), "folder")
    points: list[CurvePoint] = []
    for name, (assigned, predicted) in series.items():
        how = measure.published if name in known else measure.rounded
        each = [table.decibels(error) for error in judge.errors(assigned, how)]
        points.append(CurvePoint(name, name.startswith("fit"), found.bits(assigned), found.bytes(assigned), predicted, sum(each) / len(each), min(each)))  # fmt: skip
        print("{name:12} {bits:6.3f} bits  predicted {predicted:5.1f}  mean {measured:5.1f}  worst {worst:5.1f} dB".format(**vars(points[-1])), flush=True)  # fmt: skip
    if out is not None:
        rows = [point.to_dict() for point in points]
        out.write_text(json.dumps({"side": side, "pictures": prompts, "rows": rows}, indent=1), "utf-8")
    if drawing is not None:
        title = Text("Firefly: the fit and the usual formats", "萤火：适配与常用格式")
        note = Text(f"{prompts} held-out prompts at {side}×{side}, PSNR against float32",
                    f"{prompts} 条未参与测量的提示词，{side}×{side}，与 float32 相比的 PSNR")  # fmt: skip
        drawing.write_text(curve.draw(points, title, note, lambda en, zh: en), "utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = sys.argv[1:]
    main(*(int(n) for n in given[:2]), *(Path(name) for name in given[2:4]))
