// The picture that a painting begins from: shown on its new canvas, which grows by a side at a press, with its mask.

const panels = new WeakMap(); // root → its panel, so that an open brush outlives a redrawn page

export default function ({ data, parentElement, setTriggerValue }) {
  let root = parentElement.querySelector(".origin");
  if (!root) {
    root = el("section", { className: "origin" });
    parentElement.append(root);
  }
  const panel = panels.get(root) ?? new Origin(root);
  panels.set(root, panel);
  panel.show(data, (kind, value) => setTriggerValue("change", { kind, value, at: Date.now() }));
}

const ENDS = ["left", "top", "right", "bottom"]; // as in a request's ``extend``
const VISIBLE = 0.12; // of the canvas's longer side that a press adds at least

class Origin {
  constructor(root) {
    this.root = root;
    this.place = el("div", {});
    root.append(this.place);
  }

  show(data, emit) {
    Object.assign(this, { data, emit, words: data.words, extend: [...data.extend] });
    this.build();
  }

  build() {
    const { data, words } = this;
    this.image = el("img", { src: referred(data.start), alt: t(words, "origin"), onload: () => this.measure(), onerror: () => { this.size.textContent = t(words, "origin.gone"); } });
    this.mask = el("div", { className: "mask", hidden: !data.mask, style: data.mask ? { "--mask": `url("${referred(data.mask)}")` } : {} });
    this.picture = el("div", { className: "picture" }, this.image, this.mask);
    this.canvas = el("div", { className: "area", aria: { role: "img", label: t(words, "origin.canvas") } }, this.picture);
    this.size = el("p", { className: "size", aria: { role: "status", live: "polite" } });
    const side = (name, at) => el("button", { className: `side ${name}`, type: "button", title: t(words, `origin.${name}`), aria: { label: t(words, `origin.${name}`) }, dataset: { side: name }, onclick: () => this.grow(at) }, "+");
    this.sides = ENDS.map(side);
    const pill = (key, act, shown = true) => shown && el("button", { className: "pill", type: "button", dataset: { origin: key }, onclick: act }, t(words, `origin.${key}`));
    const masked = Boolean(data.mask), extended = this.extend.some(Boolean);
    this.place.replaceChildren(...[
      el("h3", {}, t(words, "origin")),
      el("div", { className: "plan" }, ...this.sides, this.canvas), this.size,
      (masked || extended) && el("p", { className: "kept" }, t(words, masked && extended ? "origin.both" : masked ? "origin.masked" : "origin.extended")),
      el("div", { className: "acts" }, ...[pill(masked ? "remask" : "mask", () => this.paintMask()), pill("unmask", () => this.emit("mask", ""), masked),
        pill("reset", () => this.emit("extend", [0, 0, 0, 0]), extended), pill("remove", () => this.emit("remove", ""))].filter(Boolean)),
    ].filter(Boolean));
    if (this.image.complete && this.image.naturalWidth) this.measure();
  }

  // Lay the picture out on its new canvas, once its size is known.
  measure() {
    const [w, h] = [this.image.naturalWidth, this.image.naturalHeight], [left, top, right, bottom] = this.extend;
    const [W, H] = [w + left + right, h + top + bottom], share = (pixels, of) => `${(100 * pixels) / of}%`;
    this.canvas.style.setProperty("--ratio", W / H);
    Object.assign(this.picture.style, { left: share(left, W), top: share(top, H), width: share(w, W), height: share(h, H) });
    this.canvas.classList.toggle("extended", W > w || H > h);
    const values = { w: W.toLocaleString(), h: H.toLocaleString(), fw: w.toLocaleString(), fh: h.toLocaleString() };
    this.size.textContent = t(this.words, W > w || H > h ? "origin.from" : "origin.size", values);
    this.sides.forEach((button, at) => { button.disabled = [W, H][at % 2] + this.step(at) > this.data.largest; });
  }

  // Pixels that a press adds: enough to be seen, a whole number of the model's cells, and the canvas is one too.
  step(at) {
    const side = at % 2 ? this.image.naturalHeight : this.image.naturalWidth, { multiple } = this.data;
    const whole = (pixels) => Math.ceil(pixels / multiple) * multiple;
    const now = side + this.extend[at] + this.extend[(at + 2) % 4];
    return whole(now + Math.max(side * VISIBLE, 32)) - now;
  }

  grow(at) {
    this.extend[at] += this.step(at);
    this.measure();
    this.emit("extend", this.extend);
  }

  paintMask() {
    this.brush ??= new Brush(this.root, { words: this.words, lang: this.data.lang }, async (file) => this.emit("mask", await upload(file)));
    this.brush.open(referred(this.data.start), t(this.words, "origin"), this.data.mask ? referred(this.data.mask) : "");
  }
}
