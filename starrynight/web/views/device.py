"""The device 设备: what this machine is and what that means for a picture, in sentences rather than tables.

Everything shown is escaped, because a processor, a model or a folder may have any name.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from html import escape
from typing import Any

import streamlit as st

from starrynight.errors import StarryError
from starrynight.models import catalogue
from starrynight.numerics.precision import INT8
from starrynight.numerics.timing import BUSY, too_busy
from starrynight.senses.choice import SENSES, chosen
from starrynight.settings import settings
from starrynight.storage import disk_state
from starrynight.web import shared
from starrynight.web.shared import counted, model_title, t, translated

KINDS = ("cpu", "cuda", "rocm", "mps", "xpu")
PARTS = ("text_encoder", "transformer", "unet", "vae", "vae_decode", "vae_encode")
TIMEOUT = 120  # seconds; the report takes about fifteen on two busy cores
SAMPLE = 60  # newest pictures whose mean size estimates how many more fit


def show() -> None:
    st.html(f'<p class="eyebrow">{escape(t("device.eyebrow"))}</p>')
    place = st.container(key="device")
    with st.spinner(t("device.measuring")):
        report = None
        with contextlib.suppress(subprocess.SubprocessError, ValueError):
            report = doctor()
    if report and report["device"]["waited"] > BUSY:
        doctor.clear()  # the next look measures again
    with place:
        if report:
            st.html(headline(report["device"]))
        else:
            st.text(t("device.failed"))
        left, right = st.columns(2, gap="large")
        if report:
            left.html(section("device.speed", speed(report["device"])))
            right.html(section("device.plan", plan(report)))
        left.html(section("device.storage", storage()))
        right.html(section("device.models", models()))
        left.html(section("device.senses", senses()))
        if st.button(t("device.again"), key="measure-again"):
            doctor.clear()
            st.rerun()


@st.cache_data(show_spinner=False)
def doctor() -> dict[str, Any]:
    """What ``starry doctor --json`` prints. It runs in a process of its own, so that the server never loads
    torch and holds no GPU memory. Raises SubprocessError if that process fails or takes longer than
    ``TIMEOUT``.
    """
    command = [sys.executable, "-c", "from starrynight.cli import main; main()", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=True, text=True)
    return json.loads(done.stdout)


def section(key: str, content: str) -> str:
    return f'<section class="section"><h3>{escape(t(key))}</h3>{content}</section>'


def headline(device: dict[str, Any]) -> str:
    kind = device["kind"] if device["kind"] in KINDS else "cpu"
    memory = t("device.memory", gb=round(device["memory"] / 2**30)) if device["memory"] else ""
    return (
        f'<div class="headline"><b>{escape(t(f"device.{kind}"))}</b>'
        f"<span>{escape(device['name'])}{escape(memory)}</span></div>"
    )


def speed(device: dict[str, Any]) -> str:
    """A bar for each number format, and a sentence that compares the fastest with float32."""
    rates: dict[str, float] = device["rates"]
    if not rates:
        return f"<p>{escape(t('device.speed.none'))}</p>"
    fastest = max(
        (name for name in rates if name != INT8), key=lambda name: rates[name]
    )  # of those that auto chooses from
    longest = max(rates.values())
    bars = "".join(
        f'<div class="bar"><span>{escape(name)}</span>'
        f'<i><u style="width:{100 * rate / longest:.0f}%"></u></i>'
        f"<em>{rate:,.{0 if rate > 100 else 1}f}</em></div>"
        for name, rate in rates.items()
    )
    if device["waited"] > BUSY:
        sentence = translated(*too_busy(device["waited"]))
    elif fastest == "float32":
        sentence = t("device.speed.float32")
    else:
        sentence = t("device.speed.fastest", name=fastest, times=f"{rates[fastest] / rates['float32']:.1f}")
    if rates.get(INT8, 0.0) > rates[fastest]:
        sentence = f"{sentence} {t('device.speed.int8')}"
    mark = ' class="bad"' if device["waited"] > BUSY else ""
    return f'<p{mark}>{escape(sentence)}</p>{bars}<p class="dim">{escape(t("device.speed.unit"))}</p>'


def plan(report: dict[str, Any]) -> str:
    """Which component runs in which format; components with the same format and reason share a line."""
    groups: dict[tuple[str, str], list[str]] = {}
    for part, choice in report["plan"].items():
        reason = translated(choice["reason_en"], choice["reason_zh"])
        groups.setdefault((choice["format"], reason), []).append(t(f"part.{part}") if part in PARTS else part)
    rows = "".join(
        f"<li><b>{escape(format_)}</b><span>{escape(t('list').join(parts))}</span>"
        f"<small>{escape(reason)}</small></li>"
        for (format_, reason), parts in groups.items()
    )
    return f"<p>{escape(model_title(catalogue.find(report['model'])))}</p><ul>{rows}</ul>"


def storage() -> str:
    """How many pictures there are, the free space, and how many more would fit."""
    folder = settings().home
    _, free, writable = disk_state(folder)
    try:
        pictures = shared.gallery().count()
        sizes = [row.size for row in shared.gallery().search(limit=SAMPLE).rows]
    except StarryError as error:
        return f"<p>{escape(error.message(shared.language()))}</p>"
    sentence = counted("device.storage.free", pictures, gb=f"{free / 1e9:,.0f}")
    if sizes:
        sentence += t("device.storage.more", more=f"{free * len(sizes) // sum(sizes):,}")
    warning = "" if writable else f'<p class="bad">{escape(t("device.storage.readonly"))}</p>'
    return f"<p>{escape(sentence)}</p>{warning}<code>{escape(str(folder))}</code>"


def models() -> str:
    rows = []
    for name in catalogue.names():
        model = catalogue.find(name)
        if catalogue.is_here(model):
            state = f'<small class="here">{escape(t("device.here"))}</small>'
        elif model.hub:
            state = (
                f"<small>{escape(t('device.pull', gb=f'{model.bytes / 1e9:.0f}'))} "
                f"<code>starry models pull {escape(name)}</code></small>"
            )
        else:
            state = f"<small>{escape(t('device.place'))} <code>{escape(str(model.path))}</code></small>"
        rows.append(f"<li><b>{escape(model_title(model))}</b>{state}</li>")
    return f"<ul>{''.join(rows)}</ul>"


def senses() -> str:
    """Which model is each sense, whether what it is given leaves this machine, and the pages where two of them can be tried."""
    rows = []
    for name, purpose in SENSES.items():
        try:
            choice = chosen(name)
            state = escape(choice.name or t("device.senses.none"))
            if choice.leaves_this_machine:
                state += f' <em class="bad">{escape(t("device.senses.leaves"))}</em>'
        except StarryError as error:
            state = f'<em class="bad">{escape(error.message(shared.language()))}</em>'
        rows.append(f"<li><b>{escape(translated(*purpose))}</b><small>{state}</small></li>")
    links = "".join(
        f'<a class="way" href="/{page}?lang={shared.language()}">{escape(t(f"device.senses.{page}"))}</a>'
        for page in ("see", "listen")
    )
    return f'<ul>{"".join(rows)}</ul><p class="ways">{links}</p>'
