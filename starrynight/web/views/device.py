"""The device 设备: what this machine is and what that means for a picture, in sentences rather than tables.

What is measured is measured in another process (examine.py). Everything shown is escaped: a processor or a folder may
be called anything.
"""

from __future__ import annotations

import json
import subprocess
import sys
from html import escape
from typing import Any

import streamlit as st

from starrynight.errors import StarryError
from starrynight.models import catalogue
from starrynight.settings import settings
from starrynight.storage import disk_state
from starrynight.web import desk
from starrynight.web.language import language, t

KINDS = ("cpu", "cuda", "rocm", "mps", "xpu")
PATIENCE = 120  # seconds; on two busy cores examining takes fifteen


def show() -> None:
    st.html(f'<p class="eyebrow">{escape(t("device.eyebrow"))}</p>')
    place = st.container(key="device")
    with st.spinner(t("device.measuring")):
        try:
            found = examine()
        except (subprocess.SubprocessError, ValueError):
            st.text(t("device.failed"))
            return
    with place:
        st.html(head(found["device"]))
        left, right = st.columns(2, gap="large")
        left.html(section("device.speed", rates(found["device"])))
        right.html(section("device.plan", plan(found)))
        left.html(section("device.kept", kept()))
        right.html(section("device.models", models()))
        if st.button(t("device.again"), key="measure-again"):
            examine.clear()
            st.rerun()


@st.cache_data(show_spinner=False)
def examine() -> dict[str, Any]:
    """As examine.py prints it. Raises if that process fails or takes too long."""
    command = [sys.executable, "-m", "starrynight.web.device_report"]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True, text=True)
    return json.loads(done.stdout)


def section(key: str, inside: str) -> str:
    return f'<section class="slab"><h3>{escape(t(key))}</h3>{inside}</section>'


def head(device: dict[str, Any]) -> str:
    kind = device["kind"] if device["kind"] in KINDS else "cpu"
    memory = t("device.memory", gb=round(device["memory"] / 2**30)) if device["memory"] else ""
    said = f"{escape(device['name'])}{escape(memory)}"
    return f'<div class="said"><b>{escape(t(f"device.{kind}"))}</b><span>{said}</span></div>'


def rates(device: dict[str, Any]) -> str:
    """A bar for each number format; the sentence compares the fastest with float32."""
    measured: dict[str, float] = device["rates"]
    if not measured:
        return f"<p>{escape(t('device.speed.none'))}</p>"
    fastest = max(measured.values())
    bars = "".join(
        f'<div class="bar"><span>{escape(name)}</span><i><u style="width:{100 * rate / fastest:.0f}%"></u></i><em>{rate:,.{0 if rate > 100 else 1}f}</em></div>'
        for name, rate in measured.items()
    )
    best = max(measured, key=lambda name: measured[name])
    if best == "float32":
        said = t("device.speed.float32")
    else:
        said = t("device.speed.said", name=best, times=f"{fastest / measured['float32']:.1f}")
    return f'<p>{escape(said)}</p>{bars}<p class="dim">{escape(t("device.speed.unit"))}</p>'


def plan(found: dict[str, Any]) -> str:
    """Which part runs in which format, those with the same reason together."""
    model = catalogue.find(found["model"])
    groups: dict[tuple[str, str], list[str]] = {}
    for part, choice in found["plan"].items():
        reason = choice.get(f"reason_{language()}", "")
        groups.setdefault((choice["format"], reason), []).append(t_part(part))
    rows = "".join(
        f"<li><b>{escape(form)}</b><span>{escape(t('list').join(parts))}</span><small>{escape(reason)}</small></li>"
        for (form, reason), parts in groups.items()
    )
    return f"<p>{escape(model.zh if language() == 'zh' else model.en)}</p><ul>{rows}</ul>"


def t_part(part: str) -> str:
    known = ("text_encoder", "transformer", "unet", "vae", "vae_decode", "vae_encode")
    return t(f"part.{part}") if part in known else part


def kept() -> str:
    folder = settings().home
    _, free, writable = disk_state(folder)
    try:
        pictures = desk.gallery().count()
        sizes = [row.size for row in desk.gallery().search(limit=60).rows]
    except StarryError as error:
        return f"<p>{escape(error.message(language()))}</p>"
    said = t("device.kept.said", n=f"{pictures:,}", gb=f"{free / 1e9:,.0f}")
    if sizes:  # as large as the newest are
        said += t("device.kept.room", more=f"{free * len(sizes) // sum(sizes):,}")
    warning = "" if writable else f'<p class="bad">{escape(t("device.kept.readonly"))}</p>'
    return f"<p>{escape(said)}</p>{warning}<code>{escape(str(folder))}</code>"


def models() -> str:
    rows = []
    for name in catalogue.names():
        model = catalogue.find(name)
        title = escape(model.zh if language() == "zh" else model.en)
        if catalogue.is_here(model):
            state = f'<small class="here">{escape(t("device.here"))}</small>'
        elif model.hub:
            state = f"<small>{escape(t('device.pull', gb=f'{model.bytes / 1e9:.0f}'))} <code>starry models pull {escape(name)}</code></small>"
        else:
            state = f"<small>{escape(t('device.lay'))} <code>{escape(str(model.path))}</code></small>"
        rows.append(f"<li><b>{title}</b>{state}</li>")
    return f"<ul>{''.join(rows)}</ul>"
