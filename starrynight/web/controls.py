"""The studio's form: style cards, sliders, seed, and an expander with everything else.

Each widget keeps its value in the session under its own key. ``read_form`` returns the values as the fields
of a ``PaintRequest``; ``fill_form`` sets them from one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from starrynight.errors import StarryError
from starrynight.models import catalogue, sizes
from starrynight.models.catalogue import ModelSpec
from starrynight.painting.checking import vocabulary_of
from starrynight.painting.styles import key_of, styles
from starrynight.request import MAX_TEXT, PRECISIONS, PREDICTIONS, random_seed
from starrynight.settings import settings
from starrynight.text import excerpt
from starrynight.web import choices, components, lines, loras, origin, prompt
from starrynight.web.shared import LANGUAGES, initial, language, style_names, t, uncut, words

SHAPES = {"square": 1.0, "landscape": 3 / 2, "portrait": 2 / 3, "wide": 2.0}  # width / height
MAX_PICTURES = 8  # per press of the button; the command line takes up to 64
MAX_STEPS, MAX_GUIDANCE = 50, 10.0  # what the sliders offer; a request may have more
SMALLEST, LARGEST, STEP = 128, 2048, 32  # pixels that the size slider offers, where the model allows them


def selected_model() -> ModelSpec:
    """The chosen model; the default one where there is no choice, or where its file is gone."""
    name = st.session_state.get("model") or catalogue.default()
    try:
        return catalogue.find(name)
    except StarryError:
        st.session_state.pop("model", None)
        return catalogue.find(catalogue.default())


def restore_options() -> None:
    """Undo what a change of language does to a menu: Streamlit finds no option with the earlier language's label and
    returns the label instead. Called before the menus are drawn.
    """
    models = choices.models()
    titles = {title: name for name, both in models.items() for title in both}
    for key, labels in (
        ("model", titles),
        ("precision", _labels("precision.auto")),
        ("prediction", _labels("prediction.auto")),
    ):
        if (value := st.session_state.get(key)) in labels:
            st.session_state[key] = labels[value]
    if st.session_state.get("model") not in (None, *models):  # its file is gone
        del st.session_state["model"]


def _labels(key: str) -> dict[str, str]:
    """What the option "auto" is called, in every language."""
    return {words(lang)[key]: "auto" for lang in LANGUAGES}


def style_cards() -> None:
    """The styles as small paintings. A new choice waits in ``style_next`` until the next run. Until there is one, a model
    with a vocabulary paints in the first style: without any, its pictures are between all of them.
    """
    cards = [{"key": "", "name": t("style.none"), "picture": None}]
    cards += [
        {"key": key, "name": name, "picture": f"/app/static/styles/{key}.webp"}
        for key, name in style_names().items()
    ]
    if (following := st.session_state.pop("style_next", None)) is not None:
        st.session_state["style_chosen"] = following
    chosen = st.session_state.get("style_chosen")
    if chosen is None:
        chosen = next(iter(styles())) if vocabulary_of(selected_model()) else ""
    components.cards(
        key="cards",
        data={"styles": cards, "chosen": chosen, "label": t("style"), "lang": language()},
        on_style_change=store_style,
    )
    st.session_state["style"] = chosen


@uncut
def store_style() -> None:
    st.session_state["style_next"] = st.session_state["cards"].style


def sliders(counts: bool = True) -> None:
    """``counts``: with the number of pictures."""
    model = selected_model()
    keep: dict[str, Any] = {"persist_state": "session"}
    with st.container(key="sliders"):
        left, right = st.columns(2, gap="medium")
        steps = initial(f"steps/{model.name}", model.steps)
        left.slider(t("steps"), 1, MAX_STEPS, key=steps, help=t("steps.help"), **keep)
        right.slider(
            t("guidance"), 0.0, MAX_GUIDANCE, step=0.1, key=initial(f"guidance/{model.name}", model.guidance),
            help=t("guidance.help"), disabled=not model.guided, **keep,
        )  # fmt: skip
        shapes = shapes_of(model)
        if st.session_state.get("shape", "square") not in shapes:
            st.session_state["shape"] = "square"
        if origin.is_partial():  # then the picture has the first one's size
            initial(f"size/{model.name}", model.size)
        else:
            size_slider(left, model)
        count = initial("count", 1)
        if counts:
            right.slider(t("count"), 1, MAX_PICTURES, key=count, **keep)
    if origin.is_partial():
        initial("shape", "square")
        return
    with st.container(horizontal=True, vertical_alignment="bottom", key="shapes"):
        st.segmented_control(
            t("shape"), shapes, key=initial("shape", "square"),
            format_func=lambda name: t(f"shape.{name}"), required=True, wrap=True, **keep,
        )  # fmt: skip
        width, height = form_size(model)
        st.caption(f"{width} × {height}", width="content")


def shapes_of(model: ModelSpec) -> list[str]:
    """The formats to choose from: those that the model was trained at, if it says so."""
    return [name for name, ratio in SHAPES.items() if not model.trained or sizes.offered(model, ratio)]


def size_slider(column: Any, model: ModelSpec) -> None:
    """The longer side in pixels: the trained ones of the chosen format, or any between the model's bounds."""
    key, state = f"size/{model.name}", st.session_state
    keep: dict[str, Any] = {"key": key, "help": t("size.help"), "persist_state": "session"}
    if model.trained is None:
        low, high, step = size_range(model)
        initial(key, model.size)
        column.slider(t("size"), low, high, step=step, **keep)
        return
    sides = sizes.offered(model, SHAPES[state.get("shape") or "square"])
    if state.get(key) not in sides:
        state[key] = min(sides, key=lambda side: abs(side - (state.get(key) or model.size)))
    if len(sides) > 1:
        column.select_slider(t("size"), sides, **keep)


def size_range(model: ModelSpec) -> tuple[int, int, int]:
    """Lowest and highest value and step of the size slider, in pixels."""
    return max(model.smallest, SMALLEST), min(model.largest, LARGEST), max(model.multiple, STEP)


def seed_row() -> None:
    if "seed_next" in st.session_state:  # a widget's value may only be set before it is drawn
        st.session_state["seed"] = st.session_state.pop("seed_next")
    st.session_state.setdefault("seed", str(random_seed()))
    with st.container(horizontal=True, vertical_alignment="bottom", key="seeds"):
        st.text_input(
            t("seed"), key="seed", persist_state="session", max_chars=19, help=t("seed.help"), width=190
        )
        st.button(
            t("seed.random"), icon=":material/casino:", key="random-seed", on_click=draw_seed,
            help=t("seed.random.help"),
        )  # fmt: skip
        st.toggle(t("seed.lock"), key="locked", persist_state="session", help=t("seed.lock.help"))
    if st.session_state.get("locked"):
        st.slider(
            t("variation"), 0.0, 1.0, step=0.05, key=initial("variation", 0.0), persist_state="session",
            help=t("variation.help"),
        )  # fmt: skip


def variety_field() -> dict[str, float]:
    """How much more the seeds differ; nothing where it is 0."""
    variety = st.session_state.get("variety", 0.0)
    return {"variety": variety} if variety else {}


def variation_field() -> dict[str, float]:
    """How far the pictures go from the locked seed's own; nothing where it is drawn anew."""
    state = st.session_state
    variation = state.get("variation", 0.0) if state.get("locked") else 0.0
    return {"variation": variation} if variation else {}


@uncut
def draw_seed() -> None:
    st.session_state["seed"] = str(random_seed())


def more_settings() -> None:
    keep: dict[str, Any] = {"persist_state": "session"}
    with st.expander(t("more"), key="more"):
        origin.uploader()
        st.slider(
            t("variety"), 0.0, 1.0, step=0.05, key=initial("variety", 0.0), help=t("variety.help"), **keep
        )
        lines.box()
        loras.show()
        st.text_input(
            t("negative"), key="negative_prompt", max_chars=MAX_TEXT, help=t("negative.help"), **keep
        )
        left, right = st.columns(2, gap="medium")
        model_menu(left)
        right.selectbox(
            t("precision"), PRECISIONS, key="precision", help=t("precision.help"),
            format_func=lambda name: t("precision.auto") if name == "auto" else name, **keep,
        )  # fmt: skip
        right.selectbox(
            t("prediction"), ("auto", *PREDICTIONS), key="prediction", help=t("prediction.help"),
            format_func=lambda name: t("prediction.auto") if name == "auto" else name,
            disabled=selected_model().habits.own_flow, **keep,
        )  # fmt: skip


def model_menu(column: Any) -> None:
    """The catalogue's models that are here, then the files of the operator's model folders."""
    models = choices.models()
    column.selectbox(
        t("model"), models, key="model", help=t("model.help"),
        format_func=lambda name: models[name].to(language()) if name in models else name, persist_state="session",
    )  # fmt: skip
    if picture := loras.picture_of_model(selected_model().name):
        column.image(picture, width=84)
    column.caption(t("model.place", folder=excerpt(str(settings().models))))
    found, error = choices.of_places()
    if found.left_out:
        column.caption(t("model.left", count=found.left_out))
    if error:
        column.text(f"✦ {error.message(language())}")


def read_form() -> dict[str, Any]:
    """The form as the fields of a request. Unless the seed is locked, the next run draws a new one.

    An empty prompt is the line that the box shows in its place. A style that was typed just before is followed here.
    """
    state, model = st.session_state, selected_model()
    text = state["prompt"]
    if not text.strip():
        text = state["prompt_next"] = t("prompt.first")
    if (named := prompt.named_style(text, model)) and named != state.get("style_named", ""):
        state["style"] = state["style_next"] = state["style_named"] = named
    width, height = form_size(model)
    seed, chosen = state["seed"].strip(), state.get("prediction", "auto")
    fields = {
        "prompt": text, "negative_prompt": state.get("negative_prompt", ""),
        "style": state.get("style_next", state.get("style")) or None, "model": model.name, "width": width, "height": height,
        "steps": state[f"steps/{model.name}"],
        "guidance": state[f"guidance/{model.name}"], "seed": int(seed) if seed.isdecimal() else seed or None,
        "count": state["count"], "precision": state.get("precision", "auto"),
        "loras": [[name, state[f"lora/{name}"]] for name in state.get("loras", [])],
        "lora_partial": bool(state.get("loras") and state.get("lora_partial")) or None,
        "prediction": None if model.habits.own_flow or chosen == "auto" else chosen,
    }  # fmt: skip
    fields |= origin.fields() | variation_field() | variety_field()
    if not state.get("locked"):
        state["seed_next"] = str(random_seed())
    return fields


def form_size(model: ModelSpec) -> tuple[int, int]:
    state = st.session_state
    return sizes.of_format(model, SHAPES[state.get("shape") or "square"], state[f"size/{model.name}"])


def fill_form(fields: Mapping[str, Any]) -> None:
    """Set the form from a request's fields, before its widgets are drawn. Values out of range are clipped;
    unknown models, styles and precisions leave the form as it was.
    """
    state = st.session_state
    if (name := fields.get("model")) in choices.models():
        state["model"] = name
    model = selected_model()
    state["prompt"] = str(fields.get("prompt") or "")
    state["negative_prompt"] = str(fields.get("negative_prompt") or "")
    state["style_named"] = prompt.named_style(state["prompt"], model)  # the picture's own style is kept
    style = key_of(fields.get("style") or "")  # an earlier version kept an alias as it was typed
    state["style_next"] = style if style in styles() else ""
    if fields.get("seed") is not None:
        state["seed_next"], state["locked"] = str(fields["seed"]), True
    for field, low, high, kind in (("steps", 1, MAX_STEPS, int), ("guidance", 0.0, MAX_GUIDANCE, float)):
        if isinstance(value := fields.get(field), int | float):
            state[f"{field}/{model.name}"] = kind(min(max(value, low), high))
    for name in ("variation", "variety"):
        share = fields.get(name)
        state[name] = min(max(float(share), 0.0), 1.0) if isinstance(share, int | float) else 0.0
    origin.fill(fields)
    if fields.get("precision") in PRECISIONS:
        state["precision"] = fields["precision"]
    prediction = fields.get("prediction")
    state["prediction"] = prediction if prediction in PREDICTIONS else "auto"
    width, height = fields.get("width"), fields.get("height")
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        state["shape"] = min(SHAPES, key=lambda shape: abs(SHAPES[shape] - width / height))
        low, high, step = size_range(model)
        state[f"size/{model.name}"] = min(max(round(max(width, height) / step) * step, low), high)
