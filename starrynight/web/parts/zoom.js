// A picture that can be looked at closely: the wheel and two fingers zoom under the pointer, dragging moves it, a double click
// and the keys + − 0 1 do the same. 100 % is one pixel of the picture on one of the screen.

const STEP = 1.25, MOST = 8; // one press of a button; the largest enlargement of a picture's pixels

class Zoom {
  constructor(canvas, image, words) {
    Object.assign(this, { canvas, image, scale: 1, x: 0, y: 0, fingers: new Map() });
    const press = (key, symbol, act) => el("button", { className: "pill", type: "button", title: t(words, `viewer.${key}`), aria: { label: t(words, `viewer.${key}`) }, dataset: { zoom: key }, onclick: act }, symbol);
    this.level = el("output", {});
    this.bar = el("div", { className: "zoom", aria: { role: "group", label: t(words, "viewer.zoom") } },
      press("smaller", "−", () => this.by(1 / STEP)), this.level, press("larger", "+", () => this.by(STEP)), press("actual", "1:1", () => this.to(this.actual)), press("fit", "□", () => this.to(1)));
    image.draggable = false;
    image.addEventListener("load", () => this.apply());
    canvas.onwheel = (event) => { event.preventDefault(); this.by(STEP ** (-event.deltaY / 100), event); };
    canvas.ondblclick = (event) => (this.scale === 1 ? this.to(Math.max(this.actual, 2), event) : this.to(1));
    canvas.onpointerdown = (event) => { this.fingers.set(event.pointerId, event); if (this.scale > 1) canvas.setPointerCapture(event.pointerId); };
    canvas.onpointermove = (event) => this.drag(event);
    for (const kind of ["pointerup", "pointercancel", "pointerleave"]) canvas.addEventListener(kind, (event) => this.fingers.delete(event.pointerId));
  }

  // The scale at which one pixel of the picture is one of the screen; 1 is the whole picture in its frame.
  get actual() { return this.image.naturalWidth / devicePixelRatio / (this.canvas.clientWidth || 1); }

  key(key) {
    const act = { "+": () => this.by(STEP), "=": () => this.by(STEP), "-": () => this.by(1 / STEP), 0: () => this.to(1), 1: () => this.to(this.actual) }[key];
    act?.();
    return Boolean(act);
  }

  by(factor, at) { this.to(this.scale * factor, at); }

  // at: what stays in its place, by clientX and clientY; else the middle.
  to(scale, at) {
    const box = this.canvas.getBoundingClientRect();
    const [px, py] = at ? [at.clientX - box.left - box.width / 2, at.clientY - box.top - box.height / 2] : [0, 0];
    const next = Math.min(Math.max(scale, Math.min(1, this.actual)), Math.max(this.actual, 1) * MOST);
    this.x = px - ((px - this.x) * next) / this.scale;
    this.y = py - ((py - this.y) * next) / this.scale;
    this.scale = next;
    this.apply();
  }

  drag(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return;
    const other = [...this.fingers.values()].find((one) => one.pointerId !== event.pointerId);
    this.fingers.set(event.pointerId, event);
    if (other) {
      const far = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
      this.by(far(event) / far(before), { clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 });
    } else if (this.scale > 1) {
      this.x += event.clientX - before.clientX;
      this.y += event.clientY - before.clientY;
      this.apply();
    }
  }

  apply() {
    const { canvas, scale } = this;
    const bound = (value, side) => Math.min(Math.max(value, -side * Math.max(0, scale - 1) / 2), side * Math.max(0, scale - 1) / 2);
    [this.x, this.y] = [bound(this.x, canvas.clientWidth), bound(this.y, canvas.clientHeight)];
    this.image.style.transform = scale === 1 ? "" : `translate(${this.x}px, ${this.y}px) scale(${scale})`;
    canvas.classList.toggle("zoomed", scale > 1.001);
    canvas.classList.toggle("pixels", scale > this.actual * 2);
    this.level.textContent = `${Math.round((100 * scale) / (this.actual || 1))} %`;
  }
}
