// The easel: what is asked for comes out of the dark, step by step. It watches jobs over SSE, one at a time (a browser
// opens few connections to one host), and needs nothing from Streamlit until the last of them has ended.

const watched = new WeakMap(); // root → what is being watched, so that a rerun of the page does not begin again

const ENDED = ["done", "failed", "cancelled", "set_aside"];

export default function ({ data, parentElement, setTriggerValue }) {
  let root = parentElement.querySelector(".easel");
  if (!root) {
    root = el("section", { className: "easel" });
    parentElement.append(root);
  }
  const before = watched.get(root);
  const key = JSON.stringify([data.jobs.map((job) => job.id), data.lang]);
  if (before?.key === key) {
    before.tell = setTriggerValue;
    return before.close;
  }
  before?.close();
  const watch = new Watch(root, data, setTriggerValue, key);
  watched.set(root, watch);
  watch.begin();
  return watch.close;
}

class Watch {
  constructor(root, data, tell, key) {
    Object.assign(this, { root, tell, key, words: data.words, lang: data.lang, styles: data.styles, jobs: data.jobs });
    this.jobs.forEach((job) => this.clock(job));
    this.close = () => { this.source?.close(); this.closed = true; };
    root.setAttribute("aria-label", say(this.words, "easel.label"));
    this.build();
  }

  // When a job will be ready; its seconds count all that is before it in the queue, so those of the last say all.
  clock(job) {
    job.ready_at = job.seconds_left === null ? undefined : performance.now() / 1000 + job.seconds_left;
  }

  build() {
    const slots = this.jobs.flatMap((job) => Array.from({ length: job.count }, (_, index) => this.slot(job, index)));
    this.slots = new Map(slots.map((slot) => [slot.key, slot]));
    const many = slots.length > 4 ? 9 : slots.length > 1 ? 4 : 1;
    this.wall = el("div", { className: "slots", dataset: { many } }, ...(slots.length ? slots.map((slot) => slot.node) : [this.bare()]));
    this.line = el("i");
    this.thread = el("div", { className: "thread", hidden: !slots.length, aria: { role: "progressbar", label: say(this.words, "easel.progress"), valuemin: 0, valuemax: 100 } }, this.line);
    this.state = el("div", { className: "state", aria: { role: "status", live: "polite" } });
    this.acts = el("div", { className: "acts" });
    this.root.replaceChildren(this.wall, this.thread, this.state, ...(slots.length ? [this.acts] : []));
  }

  bare() {
    return el("figure", {}, el("div", { className: "frame lit" }, el("div", { className: "canvas", style: { "aspect-ratio": "1" } },
      el("div", { className: "dust on" }),
      el("div", { className: "empty" }, el("b", {}, say(this.words, "easel.empty")), el("span", {}, say(this.words, "easel.empty.hint"))))));
  }

  slot(job, index) {
    const { width, height, style } = job.request;
    const dust = el("div", { className: "dust on" });
    const images = [el("img", { alt: "" }), el("img", { alt: "" })];
    const canvas = el("a", { className: "canvas", style: { "aspect-ratio": `${width} / ${height}` } }, dust, ...images);
    const caption = el("figcaption", {}, this.jobs.length > 1 && style ? el("b", {}, this.styles[style] ?? style) : "");
    const alone = this.jobs.length === 1 && job.count === 1;
    const node = el("figure", {}, el("div", { className: alone ? "frame lit" : "frame" }, canvas), caption);
    return { key: `${job.id}/${index}`, node, canvas, dust, images, caption, shown: 0, job };
  }

  // What a slot shows: a preview (grown: 0 … 1) or the finished picture.
  show(slot, source, grown) {
    const next = slot.images[(slot.shown + 1) % 2], last = slot.images[slot.shown % 2];
    next.classList.toggle("coming", grown !== undefined);
    next.style.setProperty("--grown", grown ?? 1);
    next.onload = () => { next.classList.add("on"); last.classList.remove("on"); slot.dust.classList.remove("on"); };
    next.src = source;
    slot.shown += 1;
    return next;
  }

  async begin() {
    this.live = this.jobs.some((job) => !ENDED.includes(job.state));
    for (const job of this.jobs) this.hang(job);
    this.report();
    for (let at = 0; at < this.jobs.length && !this.closed; at += 1) {
      if (!ENDED.includes(this.jobs[at].state)) await this.follow(at);
    }
    if (this.closed) return;
    this.report();
    if (this.live) this.tell("ended", this.jobs.map((job) => job.id).join("."));
  }

  // Until this job has ended. EventSource comes back by itself after a lost connection.
  follow(at) {
    return new Promise((resolve) => {
      const source = this.source = new EventSource(`/api/jobs/${this.jobs[at].id}/events`);
      const take = (event) => {
        this.jobs[at] = { ...this.jobs[at], ...JSON.parse(event.data) };
        this.clock(this.jobs[at]);
        this.hang(this.jobs[at]);
        this.report();
        if (ENDED.includes(this.jobs[at].state)) { source.close(); resolve(); }
      };
      source.addEventListener("job", take);
      source.addEventListener("ended", take);
      source.addEventListener("preview", (event) => this.preview(this.jobs[at], JSON.parse(event.data)));
      source.onopen = () => { this.lost = false; this.report(); };
      source.onerror = () => {
        this.lost = true;
        this.report();
        if (source.readyState === EventSource.CLOSED) setTimeout(() => !this.closed && this.follow(at).then(resolve), 2000);
      };
    });
  }

  preview(job, { picture, step, steps, image }) {
    const slot = this.slots.get(`${job.id}/${picture}`);
    if (slot && !slot.done) this.show(slot, image, steps ? step / steps : 0);
  }

  hang(job) {
    for (const { index, picture, error } of job.painted ?? []) {
      const slot = this.slots.get(`${job.id}/${index}`);
      if (!slot || slot.done) continue;
      slot.done = true;
      if (picture) this.finish(slot, job, picture);
      else this.refuse(slot, error);
    }
  }

  finish(slot, job, picture) {
    const style = this.styles[job.request.style];
    const name = say(this.words, "picture.alt", { prompt: plain(job.request.prompt), style: style ?? "" });
    const image = this.show(slot, `/api/pictures/${picture}/file`);
    image.alt = name;
    slot.canvas.href = `/?picture=${picture}`;
    slot.canvas.onclick = (event) => { event.preventDefault(); this.tell("open", picture); };
    if (this.slots.size === 1) slot.caption.replaceChildren(el("span", { className: "line" }, plain(job.request.prompt)), this.facts(job, slot));
    this.facts(job, slot, picture);
  }

  facts(job, slot, picture) {
    slot.facts ??= el("span", {});
    if (picture) {
      ask(`/api/pictures/${picture}`).then((row) => {
        const verdict = say(this.words, `verdict.${row.verdict}${this.slots.size === 1 ? "" : ".short"}`);
        slot.facts.textContent = this.slots.size === 1
          ? [this.styles[row.style], say(this.words, "fact.seed", { seed: row.seed }), row.precision, verdict].filter(Boolean).join(" · ")
          : [row.precision, verdict].filter(Boolean).join(" · ");
        if (this.slots.size > 1) slot.caption.append(slot.facts);
      }).catch(() => {});
    }
    return slot.facts;
  }

  refuse(slot, error) {
    slot.dust.classList.remove("on");
    slot.canvas.replaceChildren(el("div", { className: "empty" }, el("span", {}, this.lang === "zh" ? error?.zh : error?.en)));
  }

  report() {
    const active = this.jobs.filter((job) => !ENDED.includes(job.state));
    const done = this.jobs.reduce((sum, job) => sum + (job.state === "done" ? 1 : job.progress ?? 0), 0) / (this.jobs.length || 1);
    const now = active[0];
    const readying = now?.state === "painting" && !now.step && !done;
    this.thread.hidden = !active.length;
    this.thread.classList.toggle("unknown", Boolean(readying));
    if (!readying) this.line.style.width = `${(done * 100).toFixed(1)}%`;
    this.thread.setAttribute("aria-valuenow", Math.round(done * 100));
    const bad = this.jobs.find((job) => job.error && job.state !== "cancelled");
    this.state.classList.toggle("bad", Boolean(!active.length && bad));
    this.state.textContent = this.sentence(active, now, bad, readying);
    this.offer(active, bad);
  }

  sentence(active, now, bad, readying) {
    const words = this.words;
    if (this.lost && active.length) return say(words, "easel.lost");
    if (!active.length) {
      if (bad) return this.lang === "zh" ? bad.error.zh : bad.error.en;
      return this.jobs.some((job) => job.state === "cancelled") ? say(words, "easel.cancelled") : "";
    }
    if (now.cancelling) return say(words, "easel.cancelling");
    if (now.state === "waiting") return now.position ? say(words, "easel.waiting", { before: now.position }) : say(words, "easel.next");
    if (readying) return say(words, "easel.readying");
    const left = Math.max(...active.map((job) => job.ready_at ?? 0)) - performance.now() / 1000;
    const step = now.step ? say(words, "easel.step", { step: now.step, steps: now.steps }) : say(words, "easel.readying");
    return left >= 1 ? `${step} · ${this.duration(left)}` : step;
  }

  duration(seconds) {
    return seconds < 90 ? say(this.words, "easel.seconds", { n: Math.round(seconds) }) : say(this.words, "easel.minutes", { n: Math.round(seconds / 60) });
  }

  offer(active, bad) {
    const kind = active.length ? (active.some((job) => job.cancelling) ? "none" : "cancel") : this.jobs.length > 1 ? "many" : bad || this.jobs[0]?.state === "cancelled" ? "retry" : this.jobs.length ? "done" : "none";
    if (this.acts.dataset.kind === kind) return;
    this.acts.dataset.kind = kind;
    const button = (key, act, more = "") => el("button", { className: `pill ${more}`, type: "button", onclick: act, dataset: { act: key } }, say(this.words, `act.${key}`));
    const pictures = this.jobs.flatMap((job) => (job.painted ?? []).map((one) => one.picture).filter(Boolean));
    const make = {
      none: () => [],
      cancel: () => [button("cancel", () => this.cancel(active))],
      retry: () => [button("retry", () => this.retry())],
      many: () => [button("gallery", () => this.tell("open", ""))],
      done: () => [
        button("again", () => this.tell("vary", this.jobs[0].id), "gold"),
        pictures.length && button("view", () => this.tell("open", pictures[0])),
        pictures.length && button("star", (event) => this.star(event.currentTarget, pictures)),
      ],
    };
    this.acts.replaceChildren(...make[kind]().filter(Boolean));
  }

  async cancel(active) {
    for (const job of active) job.cancelling = true;
    this.report();
    await Promise.all(active.map((job) => ask(`/api/jobs/${job.id}/cancel`, { method: "POST" }).catch(() => {})));
  }

  async retry() {
    const ids = this.jobs.filter((job) => job.state !== "done").map((job) => job.id);
    await Promise.all(ids.map((id) => ask(`/api/jobs/${id}/retry`, { method: "POST" }).catch(() => {})));
    this.tell("retried", ids.join("."));
    for (const job of this.jobs) if (ids.includes(job.id)) Object.assign(job, { state: "waiting", error: null, cancelling: false });
    this.begin();
  }

  async star(button, pictures) {
    await ask("/api/stars", { method: "POST", json: { pictures, starred: true } }).catch(() => {});
    button.textContent = say(this.words, "act.starred");
    button.disabled = true;
  }
}
