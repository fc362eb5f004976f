"""The desk of the studio: style cards, golden sliders, seed, count and what lies in the drawer below.

Every widget keeps its value in the session under its own key; ``wish`` gathers them as a request's words, ``lay`` puts
a picture's words back. Knows nothing of queues.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from starrynight.errors import StarryError
from starrynight.jobs.uploads import Uploads
from starrynight.models import catalogue
from starrynight.models.catalogue import ModelSpec
from starrynight.painting.styles import styles
from starrynight.request import PRECISIONS, random_seed
from starrynight.settings import settings
from starrynight.web import components
from starrynight.web.language import language, t

SHAPES = {"square": 1.0, "landscape": 3 / 2, "portrait": 2 / 3, "wide": 2.0}
MOST = 8  # pictures at once from the page; the command line takes more
DRAWER = ("model", "negative_prompt", "precision")


def model() -> ModelSpec:
    name = st.session_state.get("model") or catalogue.default()
    return catalogue.find(name)


def style_cards() -> None:
    cards = [{"key": "", "name": t("style.none"), "picture": None}]
    for key, style in styles().items():
        cards.append(
            {"key": key, "name": style.name[language()], "picture": f"/app/static/styles/{key}.webp"}
        )
    chosen = st.session_state.pop("style_next", None)
    if chosen is None:
        chosen = st.session_state.get("style", "")
    components.cards(
        key="cards",
        data={"styles": cards, "chosen": chosen, "label": t("style"), "lang": language()},
        on_style_change=take_style,
    )
    st.session_state["style"] = chosen


def take_style() -> None:
    st.session_state["style_next"] = st.session_state["cards"].style


def sliders() -> None:
    painter = model()
    with st.container(key="sliders"):
        left, right = st.columns(2, gap="medium")
        left.slider(
            t("steps"),
            1,
            50,
            painter.steps,
            key=f"steps/{painter.name}",
            persist_state="session",
            help=t("steps.help"),
        )
        right.slider(
            t("guidance"), 0.0, 10.0, painter.guidance, 0.1, key=f"guidance/{painter.name}", persist_state="session", help=t("guidance.help"),
            disabled=not painter.guided,
        )  # fmt: skip
        low, high = max(painter.smallest, 128), min(painter.largest, 2048)
        left.slider(
            t("size"),
            low,
            high,
            painter.size,
            step_of(painter),
            key=f"size/{painter.name}",
            persist_state="session",
            help=t("size.help"),
        )
        right.segmented_control(
            t("shape"), list(SHAPES), default="square", key="shape", persist_state="session", format_func=lambda name: t(f"shape.{name}"), required=True,
            wrap=True,
        )  # fmt: skip
        wide, tall = chosen_sides(painter)
        right.caption(f"{wide} × {tall}")


def step_of(painter: ModelSpec) -> int:
    return max(painter.multiple, 32)


def seed_and_count() -> None:
    if "seed_next" in st.session_state:
        st.session_state["seed"] = st.session_state.pop("seed_next")
    st.session_state.setdefault("seed", str(random_seed()))
    with st.container(horizontal=True, vertical_alignment="bottom", key="seeds"):
        st.text_input(
            t("seed"), key="seed", persist_state="session", max_chars=19, help=t("seed.help"), width=190
        )
        st.button(
            t("seed.dice"),
            icon=":material/casino:",
            key="dice",
            on_click=throw_dice,
            help=t("seed.dice.help"),
        )
        st.toggle(t("seed.lock"), key="locked", persist_state="session", help=t("seed.lock.help"))
        st.slider(t("count"), 1, MOST, 1, key="count", persist_state="session")


def throw_dice() -> None:
    st.session_state["seed"] = str(random_seed())


def more() -> None:
    with st.expander(t("more"), key="drawer"):
        begin_from()
        loras()
        st.text_input(
            t("negative"),
            key="negative_prompt",
            persist_state="session",
            max_chars=4000,
            help=t("negative.help"),
        )
        here = [name for name in catalogue.names() if catalogue.is_here(catalogue.find(name))]
        left, right = st.columns(2, gap="medium")
        left.selectbox(
            t("model"),
            here,
            key="model",
            persist_state="session",
            format_func=model_name,
            help=t("model.help"),
        )
        right.selectbox(
            t("precision"),
            PRECISIONS,
            key="precision",
            persist_state="session",
            help=t("precision.help"),
            format_func=precision_name,
        )


def model_name(name: str) -> str:
    found = catalogue.find(name)
    return found.zh if language() == "zh" else found.en


def precision_name(name: str) -> str:
    return t("precision.auto") if name == "auto" else name


def begin_from() -> None:
    """A first picture, dropped or chosen; checked here, so that a wrong one is told at once."""
    dropped = st.file_uploader(
        t("init"), ["png", "jpg", "jpeg", "webp"], key="dropped", help=t("init.help"), max_upload_size=32
    )
    st.session_state.pop("init_image", None)
    if dropped is None:
        return
    try:
        name, _, _ = Uploads().save(dropped.getvalue())
    except StarryError as error:
        st.text(f"✦ {error.message(language())}")
        return
    st.session_state["init_image"] = f"upload:{name}"
    left, right = st.columns([1, 3], gap="medium")
    left.image(dropped.getvalue())
    right.slider(
        t("strength"), 0.05, 1.0, 0.6, 0.05, key="strength", persist_state="session", help=t("strength.help")
    )


def loras() -> None:
    folder = settings().loras
    names = sorted(path.stem for path in folder.glob("*.safetensors")) if folder.is_dir() else []
    if not names:
        st.caption(t("lora.none"))
        return
    for name in st.multiselect(t("lora"), names, key="loras", persist_state="session", max_selections=16):
        st.slider(name, -2.0, 2.0, 1.0, 0.05, key=f"lora/{name}", persist_state="session")


# Words out, words in


def wish() -> dict[str, Any]:
    """What is on the desk, as a request's words. An unlocked seed is drawn anew after each use."""
    state, painter = st.session_state, model()
    width, height = chosen_sides(painter)
    seed = state["seed"].strip()
    found = {
        "prompt": state["prompt"], "negative_prompt": state.get("negative_prompt", ""), "style": state.get("style") or None,
        "model": painter.name, "width": width, "height": height, "steps": state[f"steps/{painter.name}"],
        "guidance": state[f"guidance/{painter.name}"], "seed": int(seed) if seed.isdecimal() else seed or None,
        "count": state["count"], "precision": state.get("precision", "auto"),
        "loras": [[name, state[f"lora/{name}"]] for name in state.get("loras", [])],
        "init_image": state.get("init_image"), "strength": state.get("strength") if state.get("init_image") else None,
    }  # fmt: skip
    if not state.get("locked"):
        state["seed_next"] = str(random_seed())
    return found


def chosen_sides(painter: ModelSpec) -> tuple[int, int]:
    state = st.session_state
    return sides(state[f"size/{painter.name}"], SHAPES[state.get("shape") or "square"], painter)


def sides(size: int, ratio: float, painter: ModelSpec) -> tuple[int, int]:
    """Width and height in this ratio, the longer of them ``size``, on the model's grid and within its bounds. The longer
    one counts because that is what a model was trained to: beyond it Firefly paints seams."""
    step = painter.multiple
    low, high = -(-painter.smallest // step) * step, painter.largest // step * step
    wide, tall = (round(side / step) * step for side in (size * min(1, ratio), size / max(1, ratio)))
    return min(max(wide, low), high), min(max(tall, low), high)


def lay(asked: Mapping[str, Any]) -> None:
    """Put a recipe's words on the desk, before its widgets are drawn; what does not fit stays as it was."""
    state = st.session_state
    name = asked.get("model")
    if name in catalogue.names() and catalogue.is_here(catalogue.find(str(name))):
        state["model"] = name
    painter = model()
    state["prompt"] = str(asked.get("prompt") or "")
    state["negative_prompt"] = str(asked.get("negative_prompt") or "")
    state["style_next"] = asked.get("style") if asked.get("style") in styles() else ""
    if asked.get("seed") is not None:
        state["seed_next"], state["locked"] = str(asked["seed"]), True
    for word, low, high, kind in (("steps", 1, 50, int), ("guidance", 0.0, 10.0, float)):
        if isinstance(value := asked.get(word), int | float):
            state[f"{word}/{painter.name}"] = kind(min(max(value, low), high))
    if asked.get("precision") in PRECISIONS:
        state["precision"] = asked["precision"]
    width, height = asked.get("width"), asked.get("height")
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        state["shape"] = min(SHAPES, key=lambda shape: abs(SHAPES[shape] - width / height))
        low, high, step = max(painter.smallest, 128), min(painter.largest, 2048), step_of(painter)
        state[f"size/{painter.name}"] = min(max(round(max(width, height) / step) * step, low), high)
