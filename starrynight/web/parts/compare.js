// Two pictures, one place: a divider to drag, their difference, a flicker, a zoom that stays under the pointer.

const WAYS = ["divider", "difference", "flicker"];

const comparison = ([a, b], words) => {
  const images = [a, b].map(({ source, name }) => el("img", { src: source, alt: name, draggable: false }));
  const knife = el("input", { type: "range", min: 0, max: 100, step: 0.1, value: 50, aria: { label: say(words, "compare.divider") } });
  const pair = el("div", { className: "pair", dataset: { way: "divider" } }, ...images, el("div", { className: "blade" }), knife,
    el("span", { className: "tag a" }, a.tag), el("span", { className: "tag b" }, b.tag));
  images[0].onload = () => pair.style.setProperty("aspect-ratio", `${images[0].naturalWidth} / ${images[0].naturalHeight}`);
  knife.oninput = () => { pair.style.setProperty("--at", `${knife.value}%`); cut(); };
  const zoom = el("input", { type: "range", min: 1, max: 8, step: 0.1, value: 1, aria: { label: say(words, "compare.zoom") } });
  const spot = { x: 50, y: 50 };
  // The blade cuts what is seen, so the cut is carried back through the zoom.
  const cut = () => pair.style.setProperty("--cut", `${Math.min(100, Math.max(0, spot.x + (knife.value - spot.x) / zoom.value))}%`);
  const look = () => {
    pair.style.setProperty("--zoom", zoom.value);
    pair.style.setProperty("--x", `${spot.x}%`);
    pair.style.setProperty("--y", `${spot.y}%`);
    cut();
  };
  zoom.oninput = look;
  pair.onpointermove = (event) => {
    if (event.buttons && pair.dataset.way === "divider") return;
    const box = pair.getBoundingClientRect();
    Object.assign(spot, { x: ((event.clientX - box.left) / box.width) * 100, y: ((event.clientY - box.top) / box.height) * 100 });
    if (zoom.value > 1) look();
  };
  pair.onwheel = (event) => { event.preventDefault(); zoom.value = Number(zoom.value) - event.deltaY / 300; look(); };
  const buttons = WAYS.map((way) => el("button", { className: "pill", type: "button", dataset: { way }, aria: { pressed: way === "divider" }, onclick: () => {
    pair.dataset.way = way;
    buttons.forEach((button) => button.setAttribute("aria-pressed", button.dataset.way === way));
  } }, say(words, `compare.${way}`)));
  return el("div", { className: "compare" }, pair, el("div", { className: "ways" }, ...buttons, el("label", {}, say(words, "compare.zoom"), zoom)));
};
