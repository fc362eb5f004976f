// Two pictures, one place: a divider to drag, their difference, a flicker, a zoom that stays under the pointer.

const MODES = ["divider", "difference", "flicker"];

const comparison = ([a, b], words) => {
  const images = [a, b].map(({ source, name }) => el("img", { src: source, alt: name, draggable: false }));
  const divider = el("input", { type: "range", min: 0, max: 100, step: 0.1, value: 50, aria: { label: t(words, "compare.divider") } });
  const pair = el("div", { className: "pair", dataset: { mode: "divider" } }, ...images, el("div", { className: "line" }), divider,
    el("span", { className: "tag a" }, a.tag), el("span", { className: "tag b" }, b.tag));
  images[0].onload = () => pair.style.setProperty("aspect-ratio", `${images[0].naturalWidth} / ${images[0].naturalHeight}`);
  divider.oninput = () => { pair.style.setProperty("--at", `${divider.value}%`); clip(); };
  const zoom = el("input", { type: "range", min: 1, max: 8, step: 0.1, value: 1, aria: { label: t(words, "compare.zoom") } });
  const centre = { x: 50, y: 50 };
  // clip-path is applied before the zoom's transform, so the divider's position is converted back through it.
  const clip = () => pair.style.setProperty("--cut", `${Math.min(100, Math.max(0, centre.x + (divider.value - centre.x) / zoom.value))}%`);
  const applyZoom = () => {
    pair.style.setProperty("--zoom", zoom.value);
    pair.style.setProperty("--x", `${centre.x}%`);
    pair.style.setProperty("--y", `${centre.y}%`);
    clip();
  };
  zoom.oninput = applyZoom;
  pair.onpointermove = (event) => {
    if (event.buttons && pair.dataset.mode === "divider") return;
    const box = pair.getBoundingClientRect();
    Object.assign(centre, { x: ((event.clientX - box.left) / box.width) * 100, y: ((event.clientY - box.top) / box.height) * 100 });
    if (zoom.value > 1) applyZoom();
  };
  pair.onwheel = (event) => { event.preventDefault(); zoom.value = Number(zoom.value) - event.deltaY / 300; applyZoom(); };
  const buttons = MODES.map((mode) => el("button", { className: "pill", type: "button", dataset: { mode }, aria: { pressed: mode === "divider" }, onclick: () => {
    pair.dataset.mode = mode;
    buttons.forEach((button) => button.setAttribute("aria-pressed", button.dataset.mode === mode));
  } }, t(words, `compare.${mode}`)));
  return el("div", { className: "compare" }, pair, el("div", { className: "modes" }, ...buttons, el("label", {}, t(words, "compare.zoom"), zoom)));
};
