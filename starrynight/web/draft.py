"""What the visitor is about to paint, kept in their browser: a reload brings the form back, the arrow keys earlier prompts.

A reload begins a new session, so the component ``draft`` keeps the form on the visitor's side and sends it once.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from starrynight.request import MAX_TEXT
from starrynight.web import components, controls, origin
from starrynight.web.shared import uncut

SEED_DIGITS = 19


def keep() -> None:
    """Called after the form's widgets, whose values it reads."""
    components.draft(
        key="draft",
        data={"form": form(), "painted": st.session_state.get("painted", "")},
        on_draft_change=uncut(lambda: restore(st.session_state["draft"].draft)),
    )


def form() -> dict[str, Any]:
    """The form without the prompt, which the browser reads from its box."""
    state, model = st.session_state, controls.selected_model()
    width, height = controls.form_size(model)
    return {
        "negative_prompt": state.get("negative_prompt", ""), "style": state.get("style") or "", "model": model.name,
        "width": width, "height": height, "steps": state[f"steps/{model.name}"],
        "guidance": state[f"guidance/{model.name}"], "seed": state["seed"], "locked": bool(state.get("locked")),
        "count": state["count"], "precision": state.get("precision", "auto"),
        "prediction": state.get("prediction", "auto"), "variation": state.get("variation", 0.0), "variety": state.get("variety", 0.0),
        "strength": state.get("strength", origin.STRENGTH), **origin.draft(),
    }  # fmt: skip


def restore(kept: object) -> None:
    """Fill the form from what a browser sent, which may be anything."""
    if not isinstance(kept, dict):
        return
    fields = {name: value for name, value in kept.items() if isinstance(value, str | int | float)}
    texts = {name: str(fields.get(name, ""))[:MAX_TEXT] for name in ("prompt", "negative_prompt", "style")}
    controls.fill_form(fields | texts | {"seed": str(fields.get("seed", ""))[:SEED_DIGITS]})
    st.session_state["locked"] = fields.get("locked") is True
    if isinstance(count := fields.get("count"), int):
        st.session_state["count"] = min(max(count, 1), controls.MAX_PICTURES)
