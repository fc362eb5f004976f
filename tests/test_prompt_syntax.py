"""Other tools' prompt syntax: found where it stands, read as it is meant, and nothing else touched."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starrynight.prompt_syntax import choose, find, loras, read

# written → (kinds, what CLIP reads, what another encoder reads)
CONSTRUCTS = {
    "(masterpiece:1.3), sea": (["weight"], "masterpiece, sea", "masterpiece, sea"),
    "(a b : .5) sea": (["weight"], "a b  sea", "a b  sea"),
    "(sea)++ (sky)0.8": (["weight", "weight"], "sea sky", "sea sky"),
    "(8k:1.2), (1990:1.5)": (["weight", "weight"], "8k, 1990", "8k, 1990"),
    "((sea))": (["brackets", "brackets"], "sea", "((sea))"),
    "(sea)": (["brackets"], "sea", "(sea)"),
    "[sea]": (["square"], "sea", "[sea]"),
    "a (boat:1.2 in the (sea:1.1)": (
        ["number", "weight"],
        "a (boat:1.2 in the sea",
        "a (boat:1.2 in the sea",
    ),
    "[sea:sky:0.5]": (["schedule"], "[sea:sky:0.5]", "[sea:sky:0.5]"),
    "[sea|sky]": (["alternation"], "[sea|sky]", "[sea|sky]"),
    "sea BREAK sky": (["break"], "sea, sky", "sea, sky"),
    "sea, BREAK, sky": (["break"], "sea, sky", "sea, sky"),
    "sea AND sky": (["and"], "sea AND sky", "sea AND sky"),
    "__colour__ sea": (["wildcard"], "__colour__ sea", "__colour__ sea"),
    "embedding:easy-neg.pt, sea": (["embedding"], "embedding:easy-neg.pt, sea", "embedding:easy-neg.pt, sea"),
    "sea --ar 16:9": (["option"], "sea --ar 16:9", "sea --ar 16:9"),
    "{sea}": (["braces"], "{sea}", "{sea}"),
    "sea <lora:moonlight:0.8>": (["lora"], "sea", "sea"),
    "<lyco:a:1>, sea, <lora:b>, sky": (["lora", "lora"], "sea, sky", "sea, sky"),
    "sea<hypernet:x:1>sky": (["hypernet"], "sea sky", "sea sky"),
    r"miku \(vocaloid\)": (["escape", "escape"], "miku (vocaloid)", "miku (vocaloid)"),
    "a lake <segment:face> <random:red,blue>": (
        ["swarm", "swarm"],
        "a lake <segment:face> <random:red,blue>",
        "a lake <segment:face> <random:red,blue>",
    ),
    "<fromto[0.5]:a||b> <embed:x>": (
        ["swarm", "embedding"],
        "<fromto[0.5]:a||b> <embed:x>",
        "<fromto[0.5]:a||b> <embed:x>",
    ),
    "sky ADDCOL sea ADDBASE": (["regional", "regional"], "sky ADDCOL sea ADDBASE", "sky ADDCOL sea ADDBASE"),
    "a sky COUPLE a sea": (["regional"], "a sky COUPLE a sea", "a sky COUPLE a sea"),
    "1.5::sea::, sky": (["emphasis"], "1.5::sea::, sky", "1.5::sea::, sky"),
    "sea ::2 sky": (["emphasis"], "sea ::2 sky", "sea ::2 sky"),
    "a sea++ at night": (["compel"], "a sea++ at night", "a sea++ at night"),
    "[sea:sky:50%] [sea:sky:0.3,0.7]": (
        ["schedule", "schedule"],
        "[sea:sky:50%] [sea:sky:0.3,0.7]",
        "[sea:sky:50%] [sea:sky:0.3,0.7]",
    ),
    "雪 <lora:a:1>，海": (["lora"], "雪，海", "雪，海"),
    "# a note\nsea": (["comment"], "sea", "sea"),
    "sea\n  # 注意 (x:2) <lora:a:1>\nsky": (["comment"], "sea sky", "sea sky"),
    "sea, # a note": (["comment"], "sea", "sea"),
    "sea // a note\nsky": (["comment"], "sea sky", "sea sky"),
    "sea /* one\ntwo */, sky": (["comment"], "sea, sky", "sea, sky"),
    "sea <comment:not this>": (["comment"], "sea", "sea"),
    "sea #sunset, sky": (["hash"], "sea #sunset, sky", "sea #sunset, sky"),
    "sea:1.3, sky": (["number"], "sea:1.3, sky", "sea:1.3, sky"),
    "(sea:1.2:0.5)": (["weight", "number"], "sea:1.2", "sea:1.2"),
    "sea AND sky :1.2": (["and", "number"], "sea AND sky :1.2", "sea AND sky :1.2"),
    "(sea:1,2) sky": (["brackets", "number"], "sea:1,2 sky", "(sea:1,2) sky"),
    "a %date:yyyy% %Seed%": (["variable", "variable"], "a %date:yyyy% %Seed%", "a %date:yyyy% %Seed%"),
    "||sea|sky|| at night": (["random"], "||sea|sky|| at night", "||sea|sky|| at night"),
    "${mood=calm} sea": (["braces"], "${mood=calm} sea", "${mood=calm} sea"),
}

# Prose, code and Chinese punctuation that only look like it.
PLAIN = [
    "a boat at 12:30", "（星夜：1.3），【海】", "｛红｜蓝｝", '{"subject": "a cat|dog", "count": 2}', "a < b > c", "x_y, __ , ___",
    "SALT AND PEPPER, BREAK", 'a sign that reads "BREAK"', "写着“AND”的牌子 x", "unclosed ( and [ and {", ":) :( ;)", "()", "[ ]",
    "a -- b --old", "C:\\pictures", "snow\n\n\tand  two spaces ", "a|b", "1:2", "Mary and John", "breakfast at BREAKERS", "see <https://example.org/a>", "3:2 and 16::9", "a ratio of 1::2", "x + y, C+", "100% wool, 50% silk", "C# and F#", "and/or a//b", "either || or", "at 5:30.",
]  # fmt: skip


@pytest.mark.parametrize("written", CONSTRUCTS)
def test_each_construct_is_found_where_it_stands_and_read_as_it_is_meant(written):
    kinds, for_clip, for_others = CONSTRUCTS[written]
    found = find(written)
    assert [one.kind for one in found] == kinds
    for one in found:
        assert written[one.start : one.end] == one.written
        assert written[one.body_start : one.body_start + len(one.body)] == one.body or not one.body
    assert read(written, 1, weighted=True).text == for_clip
    assert read(written, 1, weighted=False).text == for_others


@pytest.mark.parametrize("written", CONSTRUCTS)
def test_what_is_not_applied_is_told_with_its_own_words(written):
    """A note quotes every construct but a tag, an escape and a single bracket, which prose has too."""
    for weighted in (True, False):
        applied = {"lora", "escape", "brackets"} | ({"weight", "square"} if weighted else set())
        notes = read(written, 1, weighted).notes
        for lang in ("en", "zh"):
            told = "".join(note.to(lang) for note in notes)
            for one in find(written):
                assert (one.written.replace("\n", " ") in told) == (
                    one.kind not in applied or (written == "((sea))" and not weighted)
                )


@pytest.mark.parametrize("written", PLAIN)
def test_what_only_looks_like_syntax_is_left_alone(written):
    assert find(written) == []
    assert read(written, 1, weighted=True).text == read(written, 1, weighted=False).text == written


@pytest.mark.parametrize("written", ["(at 12:30)", "(16:9)", "(Genesis 1:3)"])
def test_a_time_a_ratio_and_a_verse_are_no_weights(written):
    assert read(written, 1, weighted=False).text == written
    assert read(written, 1, weighted=True).weights == ((0, len(written) - 2, 1.1),)


@given(
    st.text(st.characters(exclude_characters="()[]{}<>\\_-#/%|:", exclude_categories=("Cs",))),
    st.integers(0, 2**63),
)
def test_a_text_without_constructs_comes_back_unchanged(text, seed):
    if not {"BREAK", "AND", "embedding:"} & {word for word in ("BREAK", "AND", "embedding:") if word in text}:
        for weighted in (True, False):
            assert read(text, seed, weighted).text == text
            assert read(text, seed, weighted).notes == ()


@given(st.text("ab1.:,|()[]{}<>\\_-+$ 好\nAND", max_size=60), st.booleans())
def test_any_text_is_read_and_weights_lie_inside_it(text, weighted):
    for one in find(text):
        assert text[one.start : one.end] == one.written
    words = read(text, 3, weighted)
    ends = [0]
    for start, end, factor in words.weights:
        assert ends[-1] <= start < end <= len(words.text)
        assert factor != 1
        ends.append(end)
    assert weighted or not words.weights
    assert not [one for one in find(choose(text, 3)) if one.kind == "choice"]


def test_weights_multiply_where_brackets_nest():
    words = read("((a) [b] (c:1.5)), d", 1, weighted=True)
    assert words.text == "a b c, d"
    factors = {words.text[start:end]: factor for start, end, factor in words.weights}
    assert factors == pytest.approx({"a": 1.1**2, "b": 1.0, "c": 1.65, " ": 1.1}) or factors == pytest.approx(
        {"a": 1.1**2, " ": 1.1, "c": 1.65}
    )


def test_the_seed_chooses_and_shares_are_kept():
    assert [choose("{red|blue} sea", seed) for seed in range(6)] == [
        choose("{red|blue} sea", s) for s in range(6)
    ]
    chosen = Counter(choose("{3::red|1::blue}", seed) for seed in range(2000))
    assert set(chosen) == {"red", "blue"}
    assert 1400 < chosen["red"] < 1600
    pairs = Counter(choose("{2$$ and $$a|b|c}", seed) for seed in range(600))
    assert len(pairs) == 6
    assert all(len({*pair.split(" and ")}) == 2 for pair in pairs)
    assert {choose("{1-2$$a|b}", seed) for seed in range(50)} == {"a", "b", "a, b", "b, a"}
    assert {choose("{a|{b|c}}", seed) for seed in range(50)} == {"a", "b", "c"}
    assert {choose("{sea|}", seed) for seed in range(20)} == {"sea", ""}
    assert len({(choose("{a|b} {c|d}", seed)) for seed in range(50)}) == 4


def test_a_lora_tag_is_found_with_name_and_weight():
    (one, two) = loras("sea <lora:moon light:0.8> [<lyco:b>]")
    assert (one.body, two.body) == ("moon light:0.8", "b")


@pytest.mark.parametrize(
    "written",
    ["(" * 2000 + "a" + ")" * 2000, "{a|" * 900 + "b" + "}" * 900, "[:" * 900 + "]" * 900,
     "{" * 900 + "2$$" * 400 + "|" + "}" * 900, "(" + ":" * 3900 + ")", "(a:" + "1" * 3900 + "x)", "__ " * 1300],
)  # fmt: skip
def test_a_hostile_prompt_is_read(written):
    assert isinstance(read(written, 1, weighted=True).text, str)


@pytest.mark.parametrize(
    ("written", "counts"),
    [
        ("{-2$$a|b|c}", {1, 2}), ("{2-$$a|b|c}", {2, 3}), ("{1-2$$a|b|c}", {1, 2}), ("{-$$a|b|c}", {1, 2, 3}), ("{2$$a|b|c}", {2}),
        ("{@a|b}", {1}), ("{~a|b|c}", {1}), ("{!2$$a|b|c}", {2}),
    ],
)  # fmt: skip
def test_open_bounds_and_marks_of_sampling_leave_no_letters(written, counts):
    chosen = {choose(written, seed) for seed in range(60)}
    assert {len(one.split(", ")) for one in chosen} == counts
    assert {word for one in chosen for word in one.split(", ")} <= set("abc")
