// The easel: shows jobs as they are painted, step by step. It watches them over Server-Sent Events, one job at a time
// (a browser opens only six connections to a host), and needs nothing from Streamlit until the last one has ended.

const watchers = new WeakMap(); // root → its JobWatcher, so that a rerun of the page does not start again

const ENDED = ["done", "failed", "cancelled", "set_aside"];

export default function ({ data, parentElement, setTriggerValue }) {
  let root = parentElement.querySelector(".easel");
  if (!root) {
    root = el("section", { className: "easel" });
    parentElement.append(root);
  }
  const before = watchers.get(root);
  const key = JSON.stringify([data.jobs.map((job) => job.id), data.lang, !data.jobs.length && data.origin]);
  if (before?.key === key) {
    before.emit = setTriggerValue;
    return before.close;
  }
  before?.close();
  const watcher = new JobWatcher(root, data, setTriggerValue, key);
  watchers.set(root, watcher);
  watcher.start();
  if (watcher.live) bringIntoView(root);
  return watcher.close;
}

const SETTLING_MS = [0, 120, 400, 1000, 2000]; // while Streamlit draws what stands above the easel

// Where the prompt stands above the easel, the painting begins out of sight. Bring it into view, until the visitor moves.
const bringIntoView = (root) => {
  let moved = false;
  const stop = () => { moved = true; };
  for (const kind of ["wheel", "touchstart", "pointerdown", "keydown"]) addEventListener(kind, stop, { once: true, capture: true, passive: true });
  for (const pause of SETTLING_MS) {
    setTimeout(() => {
      const { top, bottom } = root.querySelector(".slots")?.getBoundingClientRect() ?? {};
      if (!moved && (top < 0 || bottom > innerHeight)) root.scrollIntoView({ block: "start" });
    }, pause);
  }
};

class JobWatcher {
  constructor(root, data, emit, key) {
    Object.assign(this, { root, emit, key, words: data.words, lang: data.lang, styles: data.styles, jobs: data.jobs, origin: data.origin });
    this.jobs.forEach((job) => this.setReadyTime(job));
    this.title = document.title.replace(/^\d+ % · /, "");
    this.close = () => { this.source?.close(); this.closed = true; document.title = this.title; };
    root.setAttribute("aria-label", t(this.words, "easel.label"));
    this.build();
  }

  // A picture that is dropped onto the easel is what the next painting begins from.
  async take([file]) {
    try { this.emit("start", await upload(file)); }
    catch (failure) { this.status.textContent = errorMessage(failure, this.lang, this.words); this.status.classList.add("failed"); }
  }

  // When a job will be ready, in seconds of performance.now(). Its estimate includes the jobs ahead of it in the queue, so
  // the last job's is the time left for all.
  setReadyTime(job) {
    job.ready_at = job.seconds_left === null ? undefined : performance.now() / 1000 + job.seconds_left;
  }

  build() {
    const slots = this.jobs.flatMap((job) => Array.from({ length: job.count }, (_, index) => this.slot(job, index)));
    this.slots = new Map(slots.map((slot) => [slot.key, slot]));
    const size = slots.length > 4 ? 9 : slots.length > 1 ? 4 : 1;
    this.grid = el("div", { className: "slots", dataset: { size } }, ...(slots.length ? slots.map((slot) => slot.node) : [this.origin.start ? this.originSlot() : this.emptySlot()]));
    this.bar = el("i");
    this.progress = el("div", { className: "progress", hidden: !slots.length, aria: { role: "progressbar", label: t(this.words, "easel.progress"), valuemin: 0, valuemax: 100 } }, this.bar);
    this.status = el("div", { className: "status", aria: { role: "status", live: "polite" } });
    this.actions = el("div", { className: "actions" });
    const alone = slots.length === 1 && slots[0].job.request; // the others stand in columns
    this.root.style.setProperty("--ratio", alone ? alone.width / alone.height : 1);
    const stage = el("div", {}, this.grid);
    takeFiles(stage, t(this.words, "easel.drop"), (files) => this.take(files), (reference) => this.emit("start", reference));
    this.root.replaceChildren(stage, this.progress, this.status, ...(slots.length ? [this.actions] : []));
  }

  emptySlot() {
    return el("figure", {}, el("div", { className: "frame lit" }, el("div", { className: "canvas", style: { "aspect-ratio": "1" } },
      el("div", { className: "stars on" }),
      el("div", { className: "empty" }, el("b", {}, t(this.words, "easel.empty")), el("span", {}, t(this.words, "easel.empty.hint"))))));
  }

  // Nothing is painted yet: what the next painting begins from, with its mask.
  originSlot() {
    const { start, mask } = this.origin, words = this.words;
    const image = el("img", { className: "on", src: referred(start), alt: t(words, "easel.origin") });
    const canvas = el("div", { className: "canvas" }, image, mask && el("div", { className: "mask", style: { "--mask": `url("${referred(mask)}")` } }));
    image.onload = () => canvas.style.setProperty("aspect-ratio", `${image.naturalWidth} / ${image.naturalHeight}`);
    return el("figure", {}, el("div", { className: "frame lit" }, canvas), el("figcaption", {}, t(words, mask ? "origin.masked" : "easel.origin")));
  }

  slot(job, index) {
    const { width, height, style } = job.request;
    const stars = el("div", { className: "stars on" });
    const images = [el("img", { alt: "" }), el("img", { alt: "" })];
    const canvas = el("a", { className: "canvas", style: { "aspect-ratio": `${width} / ${height}` } }, stars, ...images);
    const alone = this.jobs.length === 1 && job.count === 1; // its caption is there from the beginning, so that nothing moves
    const caption = el("figcaption", {}, ...(alone ? [el("span", { className: "prompt" }, safeText(job.request.prompt)), el("span", { className: "facts" })] : this.jobs.length > 1 && style ? [el("b", {}, this.styles[style] ?? style)] : []));
    const node = el("figure", {}, el("div", { className: alone ? "frame lit" : "frame" }, canvas), caption);
    return { key: `${job.id}/${index}`, node, canvas, stars, images, caption, shown: 0, job };
  }

  // Cross-fade a slot to a preview (progress from 0 to 1) or, without progress, to the finished picture.
  show(slot, source, progress) {
    const next = slot.images[(slot.shown + 1) % 2], last = slot.images[slot.shown % 2];
    next.classList.toggle("preview", progress !== undefined);
    next.style.setProperty("--progress", progress ?? 1);
    next.onload = () => { next.classList.add("on"); last.classList.remove("on"); slot.stars.classList.remove("on"); };
    next.src = source;
    slot.shown += 1;
    return next;
  }

  async start() {
    this.live = this.jobs.some((job) => !ENDED.includes(job.state));
    for (const job of this.jobs) this.showFinished(job);
    this.updateStatus();
    for (let at = 0; at < this.jobs.length && !this.closed; at += 1) {
      if (!ENDED.includes(this.jobs[at].state)) await this.follow(at);
    }
    if (this.closed) return;
    this.updateStatus();
    if (this.live) this.emit("ended", this.jobs.map((job) => job.id).join("."));
  }

  // Resolves when the job has ended. EventSource reconnects by itself, except after an HTTP error, which closes it.
  follow(at) {
    return new Promise((resolve) => {
      const source = this.source = new EventSource(`/api/jobs/${this.jobs[at].id}/events`);
      const update = (event) => {
        this.jobs[at] = { ...this.jobs[at], ...JSON.parse(event.data) };
        this.setReadyTime(this.jobs[at]);
        this.showFinished(this.jobs[at]);
        this.updateStatus();
        if (ENDED.includes(this.jobs[at].state)) { source.close(); resolve(); }
      };
      source.addEventListener("job", update);
      source.addEventListener("ended", update);
      source.addEventListener("preview", (event) => this.preview(this.jobs[at], JSON.parse(event.data)));
      source.onopen = () => { this.disconnected = false; this.updateStatus(); };
      source.onerror = () => {
        this.disconnected = true;
        this.updateStatus();
        if (source.readyState === EventSource.CLOSED) setTimeout(() => !this.closed && this.follow(at).then(resolve), 2000);
      };
    });
  }

  preview(job, { picture, step, steps, image }) {
    const slot = this.slots.get(`${job.id}/${picture}`);
    if (slot && !slot.done) this.show(slot, image, steps ? step / steps : 0);
  }

  showFinished(job) {
    for (const { index, picture, error } of job.painted ?? []) {
      const slot = this.slots.get(`${job.id}/${index}`);
      if (!slot || slot.done) continue;
      slot.done = true;
      if (picture) this.finish(slot, job, picture);
      else this.showRefusal(slot, error);
    }
  }

  finish(slot, job, picture) {
    const style = this.styles[job.request.style];
    const name = t(this.words, "picture.alt", { prompt: safeText(job.request.prompt), style: style ?? "" });
    const image = this.show(slot, `/api/pictures/${picture}/file`);
    image.alt = name;
    slot.canvas.href = `/?picture=${picture}`;
    slot.canvas.onclick = (event) => { event.preventDefault(); this.emit("open", picture); };
    this.facts(slot, picture);
  }

  // Below the picture: its style and seed if it is alone, and a mark if something was wrong with its numbers.
  facts(slot, picture) {
    fetchJson(`/api/pictures/${picture}`).then((row) => {
      const place = slot.caption.querySelector(".facts"); // of a picture that is alone
      const facts = place ? [this.styles[row.style], t(this.words, "fact.seed", { seed: row.seed })] : [];
      const text = [...facts, row.mark && markText(this.words, row.mark)].filter(Boolean).join(" · ");
      if (place) place.textContent = text; else if (text) slot.caption.append(el("span", {}, text));
    }).catch(() => {});
  }

  showRefusal(slot, error) {
    slot.stars.classList.remove("on");
    slot.canvas.replaceChildren(el("div", { className: "empty" }, el("span", {}, this.lang === "zh" ? error?.zh : error?.en)));
  }

  updateStatus() {
    const active = this.jobs.filter((job) => !ENDED.includes(job.state));
    const done = this.jobs.reduce((sum, job) => sum + (job.state === "done" ? 1 : job.progress ?? 0), 0) / (this.jobs.length || 1);
    const current = active[0];
    const preparing = current?.state === "painting" && !current.step && !done;
    this.progress.classList.toggle("over", !active.length);
    document.title = active.length ? `${Math.round(done * 100)} % · ${this.title}` : this.title;
    this.progress.classList.toggle("unknown", Boolean(preparing));
    if (!preparing) this.bar.style.width = `${(done * 100).toFixed(1)}%`;
    this.progress.setAttribute("aria-valuenow", Math.round(done * 100));
    const failed = this.jobs.find((job) => job.error && job.state !== "cancelled");
    this.status.classList.toggle("failed", Boolean(!active.length && failed));
    this.status.textContent = this.statusText(active, current, failed, preparing);
    this.updateActions(active, failed);
  }

  statusText(active, current, failed, preparing) {
    const words = this.words;
    if (this.disconnected && active.length) return t(words, "easel.disconnected");
    if (!active.length) {
      if (failed) return this.lang === "zh" ? failed.error.zh : failed.error.en;
      return this.jobs.some((job) => job.state === "cancelled") ? t(words, "easel.cancelled") : "";
    }
    if (current.cancelling) return t(words, "easel.cancelling");
    if (current.state === "waiting") return current.position ? t(words, "easel.waiting", { before: current.position }) : t(words, "easel.next");
    if (preparing) return t(words, "easel.preparing");
    const left = Math.max(...active.map((job) => job.ready_at ?? 0)) - performance.now() / 1000;
    const step = current.step ? t(words, "easel.step", { step: current.step, steps: current.steps }) : t(words, "easel.preparing");
    return [this.which(current), step, left >= 1 && this.duration(left)].filter(Boolean).join(" · ");
  }

  // Which of several pictures is being painted.
  which(job) {
    const of = this.slots.size;
    if (of < 2) return "";
    const before = this.jobs.slice(0, this.jobs.indexOf(job)).reduce((sum, one) => sum + one.count, 0);
    return t(this.words, "easel.picture", { n: before + (job.picture ?? 0) + 1, of });
  }

  duration(seconds) {
    return seconds < 90 ? t(this.words, "easel.seconds", { n: Math.round(seconds) }) : t(this.words, "easel.minutes", { n: Math.round(seconds / 60) });
  }

  updateActions(active, failed) {
    const kind = active.length ? (active.some((job) => job.cancelling) ? "none" : "cancel") : this.jobs.length > 1 ? "series" : failed || this.jobs[0]?.state === "cancelled" ? "retry" : this.jobs.length ? "done" : "none";
    if (this.actions.dataset.kind === kind) return;
    this.actions.dataset.kind = kind;
    const button = (key, act, extra = "") => el("button", { className: `pill ${extra}`, type: "button", onclick: act, dataset: { act: key } }, t(this.words, `act.${key}`));
    const pictures = this.jobs.flatMap((job) => (job.painted ?? []).map((one) => one.picture).filter(Boolean));
    const builders = {
      none: () => [],
      cancel: () => [button("cancel", () => this.cancel(active))],
      retry: () => [button("retry", () => this.retry())],
      series: () => [button("gallery", () => this.emit("open", ""))],
      done: () => [
        button("again", () => this.emit("vary", this.jobs[0].id), "gold"),
        pictures.length && button("view", () => this.emit("open", pictures[0])),
        pictures.length && button("star", (event) => this.star(event.currentTarget, pictures)),
      ],
    };
    this.actions.replaceChildren(...builders[kind]().filter(Boolean));
  }

  async cancel(active) {
    for (const job of active) job.cancelling = true;
    this.updateStatus();
    await Promise.all(active.map((job) => fetchJson(`/api/jobs/${job.id}/cancel`, { method: "POST" }).catch(() => {})));
  }

  async retry() {
    const ids = this.jobs.filter((job) => job.state !== "done").map((job) => job.id);
    await Promise.all(ids.map((id) => fetchJson(`/api/jobs/${id}/retry`, { method: "POST" }).catch(() => {})));
    this.emit("retried", ids.join("."));
    for (const job of this.jobs) if (ids.includes(job.id)) Object.assign(job, { state: "waiting", error: null, cancelling: false });
    this.start();
  }

  async star(button, pictures) {
    await fetchJson("/api/stars", { method: "POST", json: { pictures, starred: true } }).catch(() => {});
    button.textContent = t(this.words, "act.starred");
    button.disabled = true;
  }
}
