"""Hand-picked colours: one palette for each style at each hour.

Every palette names the same fourteen parts of a picture, so any style can paint any scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Rgb = tuple[int, int, int]
WHITE: Rgb = (255, 255, 255)


@dataclass(frozen=True)
class Palette:
    """Colours by what they paint, each (red, green, blue) in 0..255."""

    top: Rgb
    middle: Rgb
    low: Rgb
    light: Rgb
    far: Rgb
    mid: Rgb
    near: Rgb
    water: Rgb
    wall: Rgb
    roof: Rgb
    leaf: Rgb
    flower: Rgb
    window: Rgb
    cloud: Rgb


# style, hour, and the fields of `Palette` in order, as hexadecimal RGB.
_TABLE = """
oil night 142c78 2f62be 7fb0d8 ffe27a 2a4484 1f4a64 1f4c3c 1d4a86 6a7a9c a0442e 15382a f2b53a ffc94a 9cc0dd
oil dusk 3b2a6b b8506a f5a04e ffe08a 5b3b73 4c4670 4c5c36 7a5a86 b08a7a 9a3a26 1e3226 f0b030 ffd25e f0a890
oil dawn 5a86c0 c9a4c4 fbd9a0 fff2b8 6f86b4 5b8a86 5d8a4a 86aacb e0c9a8 c0603a 2f5a3a f4c23c ffe08a fbe3d2
oil noon 2f7bc8 6fb2e4 d2ecf0 fff3a0 5a8fc0 4f9a70 8aa83c 3f8fc6 f0dfb8 d0562e 2a6a3a ffc41e ffe9a0 ffffff
monet night 2c2f6e 4a5aa0 8f93c8 f6edc0 454a86 3a5a7c 2f5a5a 3e5a98 7f7aa6 7a4a6e 24504e e6a6c6 ffd98a a6a8d8
monet dusk 7f6fb0 d08fb4 f7bf94 fff0b0 7a70b0 7a7aa0 5f7f62 a18bbf c9a9b4 b06a6e 3f6a54 f2a0b4 ffd890 f3c6c0
monet dawn 92b2dc cfc0e4 fbdcd0 fff4cc 7f92c8 6fa0aa 6fa47c a6c2dc e2cfd8 c4888a 4f8a68 f4a6c0 fff0c0 fbe8ec
monet noon 7fb0e6 b2d4f0 e6f2ea fffbe0 8fb0da 7fb89a 93bf6a 86b8dc f2e6d6 d48a72 4a9660 f49ac0 fff4d0 ffffff
dunhuang night 1d4a80 3f82a0 c4ac7c efdfb0 2f5f7a 2f7a68 7a5a3a 2a5a80 c9a878 9a3f2a 2f6f58 c4553a f2d890 d8c49a
dunhuang dusk 8f3f2c b86a3e dcb478 f6e6b8 7a4a3c 3f7a6a 8a5f38 3f7080 d9b888 a23a26 3a7a5c d8603c ffe6a6 e8d0a0
dunhuang dawn 4f8f86 9ab898 e2cfa0 fbf0d0 4a7f88 5a9a80 a5804e 5a96a0 e6cda0 b04a32 3f8a68 d8704c fff0c0 f2e2bc
dunhuang noon c89a5a dcb880 ecdcb0 fff4d4 3f7f94 4f9a7c b08a52 4a8fa6 f0dcb2 b8442c 3a8a62 cc4f34 fff2c4 f8ecd0
ink night 4a4f58 7a7f86 b8b8b0 f6f0dc 5a5f66 3c4046 26282c 8a8f94 d8d4c6 2c2c2e 1c1e20 b8402e e8b860 c8c8c0
ink dusk a89a8c cfc0aa e8dcc4 c8442e 86807a 56524e 34312e b0aaa0 e8e0cc 3a3634 22201e b83a2a f0c070 efe6d2
ink dawn c2c8c8 dcdcd4 efeade d86a4a 98a0a2 62686a 383c3e c2c8c8 f0eada 404244 26282a c84a44 f0d090 f6f2e6
ink noon dcdfda e8e6da f4efe0 c84a34 a2a8a8 6c7272 404646 d0d6d4 f4efe0 44484a 282c2c c24038 f0d8a0 fbf8ee
watercolor night 27407f 4f74b4 a6bfe0 fff2c0 5470a6 45708a 3a6a62 4a78b4 c0b6c8 a86a5c 2a5a52 e89ab0 ffd36a c8d6ec
watercolor dusk 6f70b8 e09aa8 fbcf9a ffeeb0 8a80b4 86849c 7a8a62 b49ac4 e6cfc0 c4705a 4a6f58 f08a8a ffd878 fbdcc8
watercolor dawn 8fb8e4 d9cdea fde6d2 fff6cc a2b6dc 92bcb6 96b880 a6cbe6 f6e6dc d08a78 5a9472 f7a0b4 ffeaa6 fdf2ee
watercolor noon 69aeea a6d4f4 e8f6f6 fff2a0 8fb6e0 7fbfa0 a0c468 6fb8e4 fbf0dc e07a58 4a9a62 f77f9a fff0b0 ffffff
cyberpunk night 090b24 1d1450 5a1f86 f8f0ff 1a1846 141232 0b0c1e 12204e 1d1a44 2a1860 12304a ff3fa4 28f0ff 4a2a8a
cyberpunk dusk 1a0b38 6a1a6e f0508c ffd9a0 3a1a5e 241240 120a24 3a1c66 2c1450 4a1660 1c2a4c ff5a5a 42e8ff 9a3a8e
cyberpunk dawn 0c1c3c 1f5078 f08aa0 fff0d0 1c3c66 142a4a 0c1a2e 1c4a6e 1c3050 2a2a66 10444e ff6ab0 5affd8 6a7ab0
cyberpunk noon 0e2a44 1f6a86 8ae0d8 f4fff0 1c4a6a 16364e 0e2230 1c6078 20405a 2c3a70 12584e ffb03f 6affe0 6ab8c8
ukiyoe night 13244f 2f4f86 9fb4bc f4e6b4 3a5c94 3c6f78 44705a 23457f c8b48e 8a3f30 1f3f36 d87a5a f6c860 d8d2b8
ukiyoe dusk a23f30 e09a6a f2d8a6 fbeab8 5a5078 4a6068 5a6a48 3f5f8a e0c898 9a4030 2c4c3c d8604a ffdc88 f4e0bc
ukiyoe dawn 5a86a8 d8a890 f2dfb8 e05a3c 5f80a4 5a8a80 7a9058 5a90b0 ecd8ac b0523a 34604a e07a78 fff0b0 fbf0d4
ukiyoe noon 2f68a8 93bccc f0e2c0 d8482f 3f70a8 5a9478 90a050 2f6fae f2e2b8 b84a34 2f6848 e0706a fff0c0 fffaea
pointillism night 1a2a7c 3a5cb8 7fa0dc fff0a0 2f3f8c 28567c 1f5a4a 2450a0 7a70a8 a84a4a 164a3e f0a03c ffd84a a8bce8
pointillism dusk 5a3f98 e0688c ffb85a fff0a0 6a4a9a 54588c 4f7a3c 8a62b0 d09a8c b84a36 2a5a36 ffa03a ffe070 ffc0a8
pointillism dawn 6a9ae0 d0b0e8 ffe0b0 fff8c0 7a98d8 6aaaa0 7ab05a 86b4e8 f0d8b8 d87a50 3a8050 ff9ab0 fff0a0 fff0e4
pointillism noon 3a8ce8 80c0f8 d8f4f8 fff8a8 5a98e0 50b080 9cc83c 3a98e0 fff0c8 f06a3a 2f8a48 ff5a7a fff0a0 ffffff
pastel night 2a2f5c 4f5590 9a8fc0 ffeeb8 444a80 3f5a78 38584e 455a96 8a80a4 96566a 284a44 f0a0a8 ffd27a 9a9cd0
pastel dusk 6a5a98 d88a9a fabf88 fff0b8 7a6a9a 74708c 6f7a58 967aa8 d0a898 b46a58 405a48 f79a84 ffde86 f6c4b0
pastel dawn 86a6d4 d8bcd8 fbdcbc fff4c8 8a9ccc 86acaa 8aac78 98b8d8 ead4c4 c88470 4a7c60 f8a4ac ffeaa0 faece0
pastel noon 66a0dc a4cdec e6f0e4 fff4b0 80a8d8 7cb494 a4bc60 70b0d8 f4e6cc dc7c58 468a58 fa8c8c fff0b0 fffaf4
papercut night 101c4c 23408c 4f74c0 ffe08a 2c4a96 1d3678 12244f 1a3f80 3a5aa0 d8503c 16305f f0a23c ffd257 7fa0d8
papercut dusk 7a0f1c b81f2a e8553c ffe0a0 a01824 8a1420 5c0a14 b02a34 c8303a ffcf70 6e0e1a ffd98a fff0b0 f08a5a
papercut dawn 3f8f9a 86c4bc f8dcc0 fff4d8 f0a898 e0807a b85a66 6ab0b4 fbe8d4 d8604c 2f7a78 f8b84a fff4c0 fff8f0
papercut noon 3f9ad8 8acaec e0f4f4 ffd23f 7fc4a8 4fa884 2c8460 3fa0d0 fff4e0 f0643c 2a7a52 ff6a7a fff0a8 ffffff
"""


def _rgb(text: str) -> Rgb:
    return int(text[0:2], 16), int(text[2:4], 16), int(text[4:6], 16)


PALETTES: dict[tuple[str, str], Palette] = {
    (words[0], words[1]): Palette(*map(_rgb, words[2:]))
    for words in map(str.split, _TABLE.strip().splitlines())
}


def mix(first: Rgb, second: Rgb, share: float) -> Rgb:
    """The colour `share` of the way from `first` to `second`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def pale(palette: Palette) -> Rgb:
    """The colour of small lights and highlights: the light's own, unless that is a red sun's."""
    return palette.light if min(palette.light) > 80 else palette.cloud


def gold(palette: Palette) -> Rgb:
    """The yellow of ripe wheat and sunflowers, darker at darker hours."""
    lightness = sum(palette.low) / 765
    if max(palette.leaf) - min(palette.leaf) < 16:  # the ink style's yellow is a thin gamboge wash
        return mix((214, 184, 118), palette.near, 0.3 * (1 - lightness))
    return mix(mix((250, 186, 30), pale(palette), 0.22), palette.near, 0.3 * (1 - lightness))


def shade(colour: Rgb, factor: float) -> Rgb:
    """The colour made darker (factor < 1) or lighter (factor > 1)."""
    red, green, blue = (int(np.clip(part * factor, 0, 255)) for part in colour)
    return red, green, blue
