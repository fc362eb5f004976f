"""Words for a scene, Chinese or English, the way people write prompts: short, varied, parts left out, always true.

Knows the scene, not the picture. Never returns an empty caption; the trainer drops captions itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from starrynight.firefly.scene import Scene

Rng = np.random.Generator

_STYLE_ZH = {
    "oil": (
        "梵高风格",
        "梵高风格，厚重的笔触",
        "梵高油画",
        "油画",
        "厚涂油画，旋转的笔触",
        "印象派油画，厚重笔触",
    ),
    "monet": ("莫奈风格", "莫奈风格，柔和的光", "莫奈", "印象派，莫奈", "莫奈印象派，细碎的笔触"),
    "dunhuang": ("敦煌壁画", "敦煌壁画风格", "敦煌", "敦煌莫高窟壁画，矿物颜料", "敦煌壁画，斑驳的岩彩"),
    "ink": ("水墨", "水墨画", "水墨风格", "中国水墨，留白", "写意水墨", "国画，淡墨"),
    "watercolor": ("水彩", "水彩画", "水彩风格", "清透的水彩", "水彩，湿润的晕染"),
    "cyberpunk": ("赛博朋克", "赛博朋克风格", "赛博朋克，霓虹", "霓虹赛博朋克，辉光", "未来感，赛博朋克"),
    "ukiyoe": ("浮世绘", "浮世绘风格", "浮世绘木版画", "日本浮世绘，平涂与墨线", "木版画，浮世绘"),
    "pointillism": ("点彩", "点彩派", "点彩画", "修拉点彩风格", "点彩，纯色的小点"),
    "pastel": ("粉彩", "粉彩画", "色粉画", "柔和的粉彩", "色粉笔，绵软的质感"),
    "papercut": ("剪纸", "剪纸风格", "剪纸艺术", "层叠剪纸", "纸雕剪纸，柔和的投影"),
}
_STYLE_EN = {
    "oil": (
        "van gogh style",
        "van gogh style, thick impasto",
        "in the style of Van Gogh, thick impasto",
        "oil painting",
        "impasto oil painting, swirling strokes",
        "oil painting in the style of van gogh",
    ),
    "monet": (
        "monet style",
        "in the style of Monet",
        "impressionist painting by monet",
        "impressionism, soft broken light",
        "monet, dabs of colour",
    ),
    "dunhuang": (
        "dunhuang mural",
        "dunhuang mural style",
        "cave mural from Dunhuang, mineral pigments",
        "Mogao cave fresco, faded",
        "dunhuang fresco",
    ),
    "ink": (
        "ink wash",
        "chinese ink wash painting",
        "sumi-e ink",
        "shuimo ink painting",
        "ink wash, much empty space",
    ),
    "watercolor": (
        "watercolor",
        "watercolour painting",
        "soft watercolor",
        "watercolor, wet edges",
        "loose watercolor",
    ),
    "cyberpunk": (
        "cyberpunk",
        "cyberpunk style",
        "neon cyberpunk, glow",
        "cyberpunk, neon lights",
        "futuristic cyberpunk",
    ),
    "ukiyoe": (
        "ukiyo-e",
        "ukiyo-e woodblock print",
        "japanese woodblock print",
        "in the style of ukiyo-e",
        "ukiyoe print, flat colours, bold outlines",
    ),
    "pointillism": (
        "pointillism",
        "pointillist painting",
        "in the style of Seurat",
        "pointillism, dots of pure colour",
    ),
    "pastel": ("pastel", "soft pastel drawing", "chalk pastel", "pastel painting", "pastel, velvety chalk"),
    "papercut": (
        "paper cut",
        "papercut art",
        "layered paper cut",
        "paper cut style, soft shadows",
        "paper craft, cut paper",
    ),
}
_THING_ZH = {
    "stars": ("繁星", "星星", "发光的星星", "满天星斗", "星空"),
    "swirls": ("旋涡状的天空", "旋转的天空", "流动的漩涡"),
    "moon": ("圆月", "明月", "满月", "月亮"),
    "crescent": ("弯月", "月牙", "新月", "月亮"),
    "sun": ("太阳", "一轮太阳", "日光"),
    "comet": ("彗星", "划过的彗星", "流星"),
    "aurora": ("极光", "绿色的极光", "舞动的极光"),
    "clouds": ("云", "云朵", "云彩"),
    "village": ("村庄", "小村", "村落", "屋舍"),
    "church": ("教堂", "教堂的尖顶", "小教堂"),
    "cypress": ("柏树", "丝柏", "高高的柏树"),
    "mountains": ("群山", "远山", "山峦", "山"),
    "river": ("河流", "蜿蜒的河", "小河"),
    "lake": ("湖", "湖水", "平静的湖面"),
    "sea": ("大海", "海面", "海"),
    "waves": ("波浪", "海浪", "起伏的浪"),
    "reflection": ("倒影", "水中倒影"),
    "lilies": ("睡莲", "莲叶", "荷花"),
    "bridge": ("拱桥", "小桥", "桥"),
    "boat": ("小船", "孤舟", "一叶小舟"),
    "pagoda": ("宝塔", "古塔", "塔"),
    "apsara": ("飞天", "飞天仙女", "飘带飞天"),
    "sunflowers": ("向日葵", "向日葵花田"),
    "wheat": ("麦田", "麦浪"),
    "crows": ("乌鸦", "鸦群", "飞鸟"),
    "skyline": ("都市", "城市天际线", "高楼", "城市"),
    "snow": ("雪", "白雪"),
    "rain": ("雨", "雨丝"),
    "trees": ("树", "树林"),
    "blossoms": ("花枝", "盛开的花枝", "梅花"),
}
_THING_EN = {
    "stars": ("stars", "glowing stars", "a starry sky", "bright stars"),
    "swirls": ("a swirling sky", "swirls in the sky", "swirling clouds"),
    "moon": ("full moon", "a round moon", "the moon", "moon"),
    "crescent": ("crescent moon", "a crescent", "the moon", "moon"),
    "sun": ("the sun", "sun", "a glowing sun"),
    "comet": ("a comet", "comet", "a shooting star"),
    "aurora": ("aurora", "northern lights", "green aurora"),
    "clouds": ("clouds", "soft clouds"),
    "village": ("a village", "village", "little houses", "a small village"),
    "church": ("a church", "church steeple", "a church spire"),
    "cypress": ("cypress", "a tall cypress", "cypress trees"),
    "mountains": ("mountains", "distant mountains", "hills and mountains"),
    "river": ("a river", "winding river", "a winding stream"),
    "lake": ("a lake", "calm lake", "still water"),
    "sea": ("the sea", "sea", "ocean"),
    "waves": ("waves", "rolling waves", "curling waves"),
    "reflection": ("reflections", "reflections in the water"),
    "lilies": ("water lilies", "lily pads", "lotus flowers"),
    "bridge": ("a bridge", "arched bridge", "a garden bridge"),
    "boat": ("a boat", "a little boat", "lone boat"),
    "pagoda": ("a pagoda", "pagoda", "an old pagoda"),
    "apsara": ("a flying apsara", "apsara with ribbons", "flying apsara"),
    "sunflowers": ("sunflowers", "a field of sunflowers"),
    "wheat": ("a wheat field", "wheat", "wheatfield"),
    "crows": ("crows", "crows flying", "a flock of birds"),
    "skyline": ("a city skyline", "skyline", "skyscrapers", "a city"),
    "snow": ("snow", "white snow"),
    "rain": ("rain", "falling rain"),
    "trees": ("trees", "some trees"),
    "blossoms": ("a blossoming branch", "blossoms", "flowering branch"),
}
_HOUR_ZH = {
    "night": ("夜晚", "夜", "深夜"),
    "dusk": ("黄昏", "傍晚", "日暮"),
    "dawn": ("清晨", "黎明", "拂晓"),
    "noon": ("白天", "正午", "日间"),
}
_HOUR_EN = {
    "night": ("night", "at night"),
    "dusk": ("dusk", "at dusk", "evening"),
    "dawn": ("dawn", "at dawn", "early morning"),
    "noon": ("daylight", "at noon", "day"),
}
_WEATHER_ZH = {
    "rain": ("雨中", "下雨", "细雨"),
    "snow": ("下雪", "飘雪", "雪花纷飞"),
    "mist": ("薄雾", "雾气", "烟雾朦胧"),
    "clear": (),
}
_WEATHER_EN = {
    "rain": ("rain", "in the rain", "rainy"),
    "snow": ("falling snow", "snowing"),
    "mist": ("mist", "misty", "in the fog"),
    "clear": (),
}

# Lines for a whole picture: what must be there ("night", "mist" … count as facts), then the lines.
_LINES_ZH: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("night stars village", ("星夜下的静谧村庄", "繁星照着小村", "星空下沉睡的村庄", "星月夜的村庄")),
    ("night village", ("静谧村庄的夜晚", "夜里亮着灯的村庄", "窗里有灯的小村，夜")),
    ("dusk village", ("黄昏的村庄", "暮色里的小村")),
    ("dawn village", ("清晨的村庄", "晨光里的村落")),
    ("noon village", ("白天的村庄", "日间的小村")),
    ("noon village clear", ("阳光下的小村",)),
    ("village snow", ("雪中的村庄", "白雪覆盖的小村", "雪村")),
    ("village snow night", ("雪夜的村庄", "雪夜里亮灯的小村")),
    ("lilies bridge", ("睡莲池上的拱桥", "小桥与睡莲", "莲池小桥")),
    ("lilies", ("睡莲池塘", "池塘里的睡莲", "一池荷花")),
    ("lilies dawn", ("清晨的睡莲池",)),
    ("lilies night", ("夜色中的睡莲池", "月夜荷塘")),
    ("mountains pagoda", ("山中古塔", "群山与宝塔")),
    ("mountains mist", ("雾中的群山", "烟雨远山", "云山雾罩")),
    ("mountains lake", ("山水之间", "群山与湖", "湖光山色")),
    ("mountains", ("群山", "远山如黛", "连绵的山")),
    ("sea boat", ("海上的小船", "孤帆远影", "大海与小舟")),
    ("sea waves", ("海浪翻涌", "起伏的海浪")),
    ("sea night", ("夜晚的大海", "夜海")),
    ("sea moon", ("海上生明月", "月照大海")),
    ("sea dusk", ("黄昏的海", "海上落日")),
    ("sea", ("大海", "辽阔的海")),
    ("apsara", ("飞天", "飞天飘带", "凌空飞舞的飞天", "飞天，彩带飘扬")),
    ("apsara night", ("夜空中的飞天",)),
    ("sunflowers", ("向日葵田", "盛开的向日葵", "一片向日葵")),
    ("sunflowers night", ("夜色下的向日葵",)),
    ("wheat crows", ("麦田上的乌鸦", "麦田群鸦", "麦田与飞鸟")),
    ("wheat cypress", ("麦田与柏树", "柏树旁的麦田")),
    ("wheat", ("金色的麦田", "麦浪", "一片麦田")),
    ("skyline rain night", ("雨夜的霓虹都市", "雨夜都市", "雨夜的城市灯火")),
    ("skyline night", ("夜晚的都市", "霓虹都市之夜", "城市夜景", "万家灯火的城市")),
    ("skyline", ("城市天际线", "高楼林立的都市")),
    ("snow boat lake", ("江雪，孤舟", "孤舟，雪", "独钓寒江雪", "雪中孤舟")),
    ("snow mountains", ("雪山", "群山积雪", "雪落群山")),
    ("snow", ("雪景", "白茫茫的雪")),
    ("river mountains", ("山谷里的河", "群山间蜿蜒的河流", "河谷")),
    ("river boat", ("河上的小船", "河中一叶舟")),
    ("stars swirls night", ("旋转的星空", "星夜，流动的天空")),
    ("aurora", ("极光之夜", "极光下的天空")),
    ("comet night", ("彗星划过夜空",)),
)
_LINES_EN: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "night stars village",
        (
            "a starry night over a quiet village",
            "quiet village under the stars",
            "a village asleep under a starry sky",
            "starry night, village",
        ),
    ),
    ("night village", ("a quiet village at night", "village at night with lit windows")),
    ("dusk village", ("a village at dusk", "evening in a small village")),
    ("dawn village", ("a village at dawn", "morning light over a village")),
    ("noon village", ("a village by day",)),
    ("noon village clear", ("a sunny little village",)),
    ("village snow", ("a snowy village", "a village in the snow")),
    ("village snow night", ("a snowy village at night", "winter night in the village")),
    ("lilies bridge", ("an arched bridge over a lily pond", "water lilies and a bridge")),
    ("lilies", ("a pond of water lilies", "water lilies", "lily pond")),
    ("lilies dawn", ("lily pond in the morning",)),
    ("lilies night", ("lily pond at night",)),
    ("mountains pagoda", ("a pagoda in the mountains", "mountains and a pagoda")),
    ("mountains mist", ("misty mountains", "mountains in the fog")),
    ("mountains lake", ("mountains by a lake", "mountain lake")),
    ("mountains", ("mountains", "a range of mountains")),
    ("sea boat", ("a boat on the sea", "a lone boat at sea")),
    ("sea waves", ("waves on the sea", "rolling sea")),
    ("sea night", ("the sea at night", "night sea")),
    ("sea moon", ("moon over the sea", "moonrise over the ocean")),
    ("sea dusk", ("sea at dusk", "evening sea")),
    ("sea", ("the wide sea", "seascape")),
    (
        "apsara",
        (
            "a flying apsara",
            "apsara dancing in the sky",
            "flying apsara with long ribbons",
            "heavenly apsara",
        ),
    ),
    ("apsara night", ("apsara in the night sky",)),
    ("sunflowers", ("a field of sunflowers", "sunflowers in bloom", "sunflower field")),
    ("sunflowers night", ("sunflowers at night",)),
    ("wheat crows", ("wheat field with crows", "crows over a wheatfield")),
    ("wheat cypress", ("wheat field with cypress",)),
    ("wheat", ("a golden wheat field", "wheat field")),
    ("skyline rain night", ("rainy night in a neon city", "city in the rain at night")),
    ("skyline night", ("city skyline at night", "city lights at night", "neon city at night")),
    ("skyline", ("a city skyline", "tall city towers")),
    ("snow boat lake", ("a lone boat in the snow", "river snow, solitary boat")),
    ("snow mountains", ("snowy mountains", "mountains in snow")),
    ("snow", ("a snow scene", "winter landscape")),
    ("river mountains", ("a river valley", "a river winding through mountains")),
    ("river boat", ("a boat on the river",)),
    ("stars swirls night", ("a swirling starry night",)),
    ("aurora", ("aurora in the sky", "northern lights")),
    ("comet night", ("a comet across the night sky",)),
)


# What a kind of scene is about: lines that name it are told more often.
_ABOUT = {
    "pond": "lilies",
    "mountain": "mountains",
    "city": "skyline",
    **{kind: kind for kind in ("village", "sea", "apsara", "sunflowers", "wheat", "snow", "river")},
}


def caption(scene: Scene, rng: Rng) -> str:
    """A short true description of the scene, about half Chinese, half English, now and then both."""
    draw = rng.uniform()
    if draw < 0.5:
        return _write(scene, rng, chinese=True)
    if draw < 0.95:
        return _write(scene, rng, chinese=False)
    style = _pick(rng, _STYLE_EN[scene.style])
    if draw < 0.975:
        return f"{_line(scene, rng, _LINES_ZH)[0]}，{style}"
    return f"{_line(scene, rng, _LINES_EN)[0]}, {_pick(rng, _STYLE_ZH[scene.style])}"


def names(text: str, kind: str, what: str) -> bool:
    """Whether ``text`` holds one of the phrases that captions use for ``what``, a "style", "thing" or "hour"."""
    tables: dict[str, tuple[Mapping[str, tuple[str, ...]], ...]] = {
        "style": (_STYLE_ZH, _STYLE_EN),
        "thing": (_THING_ZH, _THING_EN),
        "hour": (_HOUR_ZH, _HOUR_EN),
    }
    return any(phrase.lower() in text.lower() for table in tables[kind] for phrase in table[what])


def _write(scene: Scene, rng: Rng, chinese: bool) -> str:
    styles, things, hours, weathers, lines = (
        (_STYLE_ZH, _THING_ZH, _HOUR_ZH, _WEATHER_ZH, _LINES_ZH)
        if chinese
        else (_STYLE_EN, _THING_EN, _HOUR_EN, _WEATHER_EN, _LINES_EN)
    )
    draw = rng.uniform(size=5)
    style = _pick(rng, styles[scene.style])
    named = list(scene.subjects)
    rng.shuffle(named)
    said: set[str] = set()
    if draw[0] < 0.12:
        parts = [_pick(rng, things[named[0]])]
    elif draw[0] < 0.3:
        parts = [_pick(rng, things[name]) for name in named[: int(rng.integers(2, 6))]]
    else:
        line, said = _line(scene, rng, lines)
        parts = [line]
        named = [name for name in named if name not in said]
        parts += [
            _pick(rng, things[name])
            for name in named[: int(rng.choice((0, 1, 2, 3), p=(0.35, 0.3, 0.22, 0.13)))]
        ]
    if draw[1] < 0.35 and scene.hour not in said:
        parts.append(_pick(rng, hours[scene.hour]))
    if draw[2] < 0.5 and weathers[scene.weather] and not said & {scene.weather}:
        parts.append(_pick(rng, weathers[scene.weather]))
    if draw[3] < 0.9:
        parts.insert(int(rng.choice((0, 1, len(parts)), p=(0.2, 0.4, 0.4))), style)
    parts = list(dict.fromkeys(parts))
    if chinese:
        text = ("，" if draw[4] < 0.85 else " ").join(parts)
        return text + ("。" if draw[4] > 0.95 else "")
    text = ", ".join(parts)
    return text[0].upper() + text[1:] if draw[4] < 0.2 else text


def _line(scene: Scene, rng: Rng, table: tuple[tuple[str, tuple[str, ...]], ...]) -> tuple[str, set[str]]:
    """A line whose every fact holds, the more particular ones more often, and the facts it tells."""
    facts = {*scene.subjects, scene.hour, scene.weather}
    fitting = [(set(needs.split()), lines) for needs, lines in table if facts.issuperset(needs.split())]
    main = _ABOUT[scene.kind]
    weights = np.array([len(needs) ** 2 * (5 if main in needs else 1) for needs, _ in fitting], dtype=float)
    needs, lines = fitting[int(rng.choice(len(fitting), p=weights / weights.sum()))]
    return _pick(rng, lines), needs


def _pick(rng: Rng, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]
