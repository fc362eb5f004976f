// A mask painted over a picture with pointer, pen or finger, at the picture's own size. The mask is kept as a list of what was
// done, which is drawn again after an undo; its alpha channel is the mask, its colours only show it: gold with dark lines, which is
// seen on a picture of any colour, golden ones too.

const GOLD = "#f6b81f", DARK = "#4a2c00", LINES = 64; // lines of the hatching along the picture's shorter side
const LEAST = 0.008, LARGEST = 0.35, USUAL = 0.09; // diameters, as shares of the shorter side

class Brush {
  // words, lang: of the page. done(blob): gets the mask as a PNG, white where it is painted; it may raise, which is told.
  constructor(parent, { words, lang }, done) {
    Object.assign(this, { words, lang, done, share: USUAL, erasing: false });
    this.dialog = el("dialog", { className: "brush", aria: { label: t(words, "brush.label") } });
    this.dialog.onclose = () => this.dialog.replaceChildren();
    this.dialog.onkeydown = (event) => this.onKey(event);
    parent.append(this.dialog);
  }

  // source, mask: addresses of the picture, and of a mask to go on with.
  async open(source, name, mask = "") {
    this.image = el("img", { src: source, alt: name });
    this.canvas = el("canvas", {});
    this.ring = el("i", { className: "ring", hidden: true });
    this.steps = [];
    this.build();
    this.dialog.showModal();
    try { await this.image.decode(); } catch { return void (this.failed.textContent = t(this.words, "brush.gone")); }
    [this.canvas.width, this.canvas.height] = [this.image.naturalWidth, this.image.naturalHeight];
    this.dialog.style.setProperty("--ratio", this.image.naturalWidth / this.image.naturalHeight);
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.paint = this.hatching();
    if (mask) this.steps.push({ kind: "mask", alpha: await this.read(mask) });
    this.redraw();
    this.canvas.dataset.ready = true;
  }

  build() {
    const { words } = this;
    const tool = (key, act, more = {}) => el("button", { className: "pill", type: "button", dataset: { brush: key }, onclick: act, ...more }, t(words, `brush.${key}`));
    this.tools = [tool("paint", () => this.choose(false)), tool("erase", () => this.choose(true))];
    this.undoing = tool("undo", () => this.undo());
    this.finish = tool("done", () => this.save(), { className: "pill gold" });
    this.size = el("input", { type: "range", min: LEAST, max: LARGEST, step: 0.001, value: this.share, aria: { label: t(words, "brush.size") }, oninput: (event) => { this.share = Number(event.target.value); this.showRing(); } });
    this.failed = el("p", { className: "hint", aria: { role: "status" } }, t(words, "brush.hint"));
    const stage = el("div", { className: "sheet" }, this.image, this.canvas, this.ring);
    stage.onpointerdown = (event) => this.begin(event);
    stage.onpointermove = (event) => this.move(event);
    for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, () => this.end());
    stage.onpointerleave = () => { this.ring.hidden = true; };
    this.sheet = stage;
    this.dialog.replaceChildren(this.failed, el("div", { className: "easelboard" }, el("div", { className: "frame" }, stage)),
      el("div", { className: "tools", aria: { role: "toolbar", label: t(words, "brush.label") } }, ...this.tools, this.size, this.undoing,
        tool("invert", () => this.act({ kind: "invert" })), tool("clear", () => this.act({ kind: "clear" })), tool("cancel", () => this.dialog.close()), this.finish));
    this.choose(this.erasing);
    this.update();
  }

  choose(erasing) {
    this.erasing = erasing;
    this.tools.forEach((one, at) => one.setAttribute("aria-pressed", Boolean(at) === erasing));
  }

  onKey(event) {
    if (event.key === "z" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); return void this.undo(); }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = { b: () => this.choose(false), e: () => this.choose(true), i: () => this.act({ kind: "invert" }), u: () => this.undo(), "[": () => this.resize(0.8), "]": () => this.resize(1.25) }[event.key];
    event.stopPropagation(); // the wall and the viewer have keys of their own
    if (act) { event.preventDefault(); act(); }
  }

  resize(factor) {
    this.share = Math.min(Math.max(this.share * factor, LEAST), LARGEST);
    this.size.value = this.share;
    this.showRing();
  }

  // Strokes

  get diameter() { return this.share * Math.min(this.canvas.width, this.canvas.height); }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * this.canvas.width, ((event.clientY - box.top) / box.height) * this.canvas.height];
  }

  begin(event) {
    if (!this.canvas.dataset.ready || this.pen !== undefined || event.button) return; // a second finger paints nothing
    event.preventDefault();
    this.pen = event.pointerId;
    this.sheet.setPointerCapture(event.pointerId);
    const [x, y] = this.point(event);
    this.stroke = { kind: "stroke", erase: this.erasing, width: this.diameter, points: [[x, y], [x + 0.01, y]] }; // a line without length would not be drawn
    this.draw(this.stroke);
  }

  move(event) {
    this.showRing(event);
    if (event.pointerId !== this.pen) return;
    const before = this.stroke.points.length;
    for (const one of event.getCoalescedEvents?.() ?? [event]) this.stroke.points.push(this.point(one));
    if (this.stroke.points.length === before) this.stroke.points.push(this.point(event));
    this.draw({ ...this.stroke, points: this.stroke.points.slice(before - 1) });
  }

  end() {
    if (this.pen === undefined) return;
    this.pen = undefined;
    this.steps.push(this.stroke);
    this.update();
  }

  act(step) {
    if (!this.canvas.dataset.ready) return;
    this.steps.push(step);
    this.draw(step);
    this.update();
  }

  undo() {
    if (!this.steps.length || this.pen !== undefined) return;
    this.steps.pop();
    this.redraw();
  }

  redraw() {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    for (const step of this.steps) this.draw(step);
    this.update();
  }

  // Opaque: what the mask is does not depend on its colours.
  hatching() {
    const side = Math.max(4, Math.round(Math.min(this.canvas.width, this.canvas.height) / LINES)), tile = el("canvas", { width: side, height: side });
    const context = tile.getContext("2d");
    context.fillStyle = GOLD;
    context.fillRect(0, 0, side, side);
    context.fillStyle = DARK;
    for (let row = 0; row < side; row += 1) context.fillRect((side - 1 - row + side) % side, row, Math.max(1, side / 6), 1);
    return this.context.createPattern(tile, "repeat");
  }

  draw(step) {
    const { context, canvas } = this;
    context.globalCompositeOperation = { invert: "xor", stroke: step.erase ? "destination-out" : "source-over" }[step.kind] ?? "source-over";
    context.fillStyle = context.strokeStyle = this.paint;
    if (step.kind === "clear") context.clearRect(0, 0, canvas.width, canvas.height);
    else if (step.kind === "invert") context.fillRect(0, 0, canvas.width, canvas.height);
    else if (step.kind === "mask") context.drawImage(step.alpha, 0, 0, canvas.width, canvas.height);
    else {
      Object.assign(context, { lineWidth: step.width, lineCap: "round", lineJoin: "round" });
      context.beginPath();
      step.points.forEach(([x, y], at) => (at ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.stroke();
    }
  }

  // A round cursor of the brush's size; a finger hides what is under it and needs none.
  showRing(event) {
    if (event) this.at = event;
    this.ring.hidden = !this.at || this.at.pointerType === "touch";
    if (this.ring.hidden) return;
    const box = this.sheet.getBoundingClientRect(), side = this.share * Math.min(box.width, box.height);
    Object.assign(this.ring.style, { width: `${side}px`, height: `${side}px`, left: `${this.at.clientX - box.left}px`, top: `${this.at.clientY - box.top}px` });
  }

  // The mask

  update() {
    this.undoing.disabled = !this.steps.length;
    this.finish.disabled = !this.context || this.isEmpty();
  }

  isEmpty() {
    const data = this.pixels();
    for (let at = 3; at < data.length; at += 4) if (data[at] > 127) return false;
    return true;
  }

  pixels() { return this.context.getImageData(0, 0, this.canvas.width, this.canvas.height).data; }

  // A mask file as an image whose alpha is the mask.
  async read(address) {
    const image = el("img", { src: address });
    await image.decode();
    const sheet = el("canvas", { width: this.canvas.width, height: this.canvas.height }), context = sheet.getContext("2d");
    context.drawImage(image, 0, 0, sheet.width, sheet.height);
    const found = context.getImageData(0, 0, sheet.width, sheet.height);
    for (let at = 0; at < found.data.length; at += 4) found.data[at + 3] = found.data[at] > 127 ? 255 : 0;
    context.putImageData(found, 0, 0);
    Object.assign(context, { globalCompositeOperation: "source-in", fillStyle: this.paint });
    context.fillRect(0, 0, sheet.width, sheet.height);
    return sheet;
  }

  // White where the mask is, black elsewhere, without the grey of the strokes' edges: what is kept is kept to the bit.
  async save() {
    const sheet = el("canvas", { width: this.canvas.width, height: this.canvas.height }), context = sheet.getContext("2d");
    const mask = context.createImageData(sheet.width, sheet.height), data = this.pixels();
    for (let at = 0; at < data.length; at += 4) { const value = data[at + 3] > 127 ? 255 : 0; mask.data.set([value, value, value, 255], at); }
    context.putImageData(mask, 0, 0);
    this.finish.disabled = true;
    try {
      await this.done(await new Promise((resolve) => sheet.toBlob(resolve, "image/png")));
      this.dialog.close();
    } catch (failure) {
      this.failed.textContent = errorMessage(failure, this.lang, this.words);
      this.finish.disabled = false;
    }
  }
}
