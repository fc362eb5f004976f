// An exhibition: one picture after another over the whole screen, in slow light, with captions. Nothing moves for a visitor who
// asked for less motion; then the pictures change at once.

const EACH_MS = 12000, IDLE_MS = 3000, DRIFTS = 4;

class Slideshow {
  // parent: where the dialog goes. name(row), caption(row): what is said of a picture.
  constructor(parent, { words, name, caption }) {
    Object.assign(this, { words, name, caption });
    this.dialog = el("dialog", { className: "show", tabIndex: -1, aria: { label: t(words, "show.label") } });
    this.dialog.onclose = () => this.stop();
    this.dialog.onkeydown = (event) => this.onKey(event);
    this.dialog.onpointermove = () => this.wake();
    this.dialog.onpointerup = (event) => this.swipe(event);
    this.dialog.onpointerdown = (event) => { this.down = event.clientX; };
    parent.append(this.dialog);
  }

  // count: how many there are. read(at): the row of number ``at``, a promise.
  open(count, read) {
    Object.assign(this, { count, read, at: -1, paused: false, turn: 0 });
    const control = (key, symbol, act) => el("button", { className: "pill", type: "button", title: t(this.words, `show.${key}`), aria: { label: t(this.words, `show.${key}`) }, dataset: { show: key }, onclick: act }, symbol);
    this.pauser = control("pause", "❙❙", () => this.pause());
    this.text = el("p", { className: "caption", aria: { role: "status", live: "polite" } });
    this.stage = el("div", { className: "slides" });
    this.bar = el("div", { className: "controls" }, control("previous", "‹", () => this.step(-1)), this.pauser, control("next", "›", () => this.step(1)),
      control("captions", "▭", () => this.dialog.classList.toggle("silent")), control("leave", "✕", () => this.dialog.close()));
    this.dialog.replaceChildren(this.stage, this.text, this.bar);
    this.dialog.showModal();
    this.dialog.focus(); // not the first button, which the space bar would press
    this.dialog.requestFullscreen?.().catch(() => {}); // it fills the window otherwise
    this.leave = () => { if (this.full && !document.fullscreenElement) this.dialog.close(); this.full = Boolean(document.fullscreenElement); };
    document.addEventListener("fullscreenchange", this.leave);
    this.stayAwake();
    document.addEventListener("visibilitychange", this.awake = () => document.hidden || this.stayAwake()); // a hidden page loses it
    this.wake();
    this.step(1);
  }

  // A phone's screen stays on while pictures change, where the browser allows it.
  async stayAwake() {
    const lock = await navigator.wakeLock?.request("screen").catch(() => null);
    if (this.dialog.open) this.lock = lock; else lock?.release();
  }

  stop() {
    clearTimeout(this.timer);
    clearTimeout(this.idle);
    document.removeEventListener("fullscreenchange", this.leave);
    document.removeEventListener("visibilitychange", this.awake);
    this.lock?.release();
    if (document.fullscreenElement) document.exitFullscreen().catch(() => {});
    this.full = false;
    this.turn += 1;
    this.dialog.replaceChildren();
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = { ArrowRight: () => this.step(1), ArrowLeft: () => this.step(-1), " ": () => this.pause(), c: () => this.dialog.classList.toggle("silent") }[event.key];
    event.stopPropagation(); // the wall has keys of its own
    if (!act || (event.key === " " && event.target.matches("button"))) return;
    event.preventDefault();
    act();
  }

  swipe(event) {
    const moved = event.clientX - (this.down ?? event.clientX);
    if (event.pointerType === "touch" && Math.abs(moved) > 50) this.step(moved < 0 ? 1 : -1);
  }

  // The controls are there while the pointer moves.
  wake() {
    this.dialog.classList.remove("idle");
    clearTimeout(this.idle);
    this.idle = setTimeout(() => this.dialog.classList.add("idle"), IDLE_MS);
  }

  pause() {
    this.paused = !this.paused;
    this.pauser.setAttribute("aria-pressed", this.paused);
    this.stage.classList.toggle("paused", this.paused);
    this.plan();
  }

  plan() {
    clearTimeout(this.timer);
    if (!this.paused && this.count > 1) this.timer = setTimeout(() => this.step(1), EACH_MS);
  }

  async step(by) {
    const turn = this.turn += 1, at = (this.at + by + this.count) % this.count;
    clearTimeout(this.timer);
    const row = await this.read(at).catch(() => null);
    if (turn !== this.turn || !this.dialog.open) return;
    this.at = at;
    if (row) await this.show(row, turn);
    if (turn === this.turn) this.plan();
    const next = this.count > 1 && await this.read((at + 1) % this.count).catch(() => null);
    if (next) new Image().src = `/api/pictures/${next.id}/file`; // so that it is there in time
  }

  async show(row, turn) {
    const image = el("img", { src: `/api/pictures/${row.id}/file`, alt: this.name(row) });
    await image.decode().catch(() => {});
    if (turn !== this.turn || !this.dialog.open) return;
    const slide = el("figure", { className: `slide drift${this.at % DRIFTS}`, dataset: { id: row.id }, style: { "--glow": `url("/api/pictures/${row.id}/thumb?size=256")` } }, image);
    for (const old of this.stage.children) { old.classList.remove("on"); setTimeout(() => old.remove(), 2200); }
    this.stage.append(slide);
    slide.getBoundingClientRect(); // so that it begins unseen
    slide.classList.add("on");
    this.text.replaceChildren(el("b", {}, safeText(row.prompt) || t(this.words, "viewer.untitled")), el("span", {}, `${this.caption(row)}${this.caption(row) ? " · " : ""}${t(this.words, "show.of", { n: this.at + 1, of: this.count })}`));
  }
}
