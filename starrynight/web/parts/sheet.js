// The contact sheet of a grid, filled as its jobs end. One job is asked for at a time: the first that has not ended.

const sheets = new WeakMap(); // root → its sheet, so that a rerun of the page does not start again
const OVER = ["done", "failed", "cancelled", "set_aside"], ASK_MS = 700;

export default function ({ data, parentElement, setTriggerValue }) {
  let root = parentElement.querySelector(".sheet");
  if (!root) {
    root = el("section", { className: "sheet", aria: { label: t(data.words, "grid.label") } });
    parentElement.append(root);
  }
  const key = JSON.stringify([data.jobs.map((job) => job.id), data.lang]), before = sheets.get(root);
  if (before?.key === key) { before.emit = setTriggerValue; return before.close; }
  before?.close();
  const sheet = new Sheet(root, data, setTriggerValue, key);
  sheets.set(root, sheet);
  sheet.follow();
  return sheet.close;
}

class Sheet {
  constructor(root, data, emit, key) {
    Object.assign(this, { root, emit, key, words: data.words, lang: data.lang, jobs: data.jobs, columns: data.columns, rows: data.rows });
    this.close = () => { this.closed = true; clearTimeout(this.timer); };
    const head = (text) => el("span", { className: "head" }, safeText(text));
    this.cells = this.jobs.map((job) => el("a", { className: "frame" }, el("span", { className: "canvas", style: { "aspect-ratio": `${job.ratio}` } })));
    const lines = this.rows.flatMap((row, at) => [head(row), ...this.cells.slice(at * this.columns.length, (at + 1) * this.columns.length)]);
    const named = this.rows.length > 1 || this.rows[0];
    this.table = el("div", { className: `table${named ? "" : " single"}`, style: { "--columns": this.columns.length } }, el("span", { className: "corner" }), ...this.columns.map(head), ...lines);
    this.bar = el("i");
    this.status = el("p", { className: "status", aria: { role: "status", live: "polite" } });
    this.progress = el("div", { className: "progress" }, this.bar);
    this.stop = el("button", { className: "pill", type: "button", dataset: { act: "cancel" }, onclick: () => this.cancel() }, t(this.words, "act.cancel"));
    root.replaceChildren(el("div", { className: "scroll", tabIndex: 0 }, this.table), this.progress, this.status, this.stop);
    this.jobs.forEach((_, at) => this.show(at));
    this.update();
  }

  name(at) { const across = this.columns.length; return t(this.words, "grid.cell", { column: this.columns[at % across], row: this.rows[Math.floor(at / across)] }); }

  show(at) {
    const job = this.jobs[at], cell = this.cells[at], canvas = cell.firstChild, picture = job.painted?.[0]?.picture;
    cell.dataset.state = job.state;
    if (picture && !canvas.firstChild) {
      cell.href = `/?picture=${picture}`;
      canvas.append(el("img", { src: `/api/pictures/${picture}/thumb?size=512`, alt: this.name(at), onload: (event) => event.target.classList.add("on") }));
    } else if (!picture && OVER.includes(job.state)) {
      const why = job.painted?.[0]?.error ?? job.error;
      canvas.replaceChildren(el("span", { className: "cross", title: (this.lang === "zh" ? why?.zh : why?.en) ?? "" }, "✕"));
    }
  }

  update() {
    const over = this.jobs.filter((job) => OVER.includes(job.state)), failed = over.filter((job) => !job.painted?.[0]?.picture).length;
    const total = this.jobs.length, current = this.jobs.find((job) => !OVER.includes(job.state));
    const left = Math.max(0, ...this.jobs.filter((job) => !OVER.includes(job.state)).map((job) => job.seconds_left ?? 0));
    const time = !left ? "" : left < 90 ? t(this.words, "grid.left.seconds", { n: Math.max(1, Math.round(left)) }) : t(this.words, "grid.left.minutes", { n: Math.round(left / 60) });
    this.bar.style.width = `${(100 * (over.length + (current?.progress ?? 0))) / total}%`;
    this.progress.hidden = this.stop.hidden = !current;
    this.status.textContent = current ? t(this.words, "grid.progress", { done: over.length - failed, total }) + time
      : failed ? t(this.words, "grid.failed", { n: failed }) : t(this.words, "grid.done");
  }

  async follow() {
    const live = this.jobs.some((job) => !OVER.includes(job.state));
    while (!this.closed) {
      const at = this.jobs.findIndex((job) => !OVER.includes(job.state));
      if (at < 0) break;
      const found = await fetchJson(`/api/jobs/${this.jobs[at].id}`).catch(() => null);
      if (this.closed) return;
      if (found) {
        const before = this.jobs[at];
        Object.assign(before, { state: found.state, painted: found.painted, progress: found.progress, seconds_left: found.seconds_left, error: found.error });
        this.show(at);
        this.update();
        if (OVER.includes(found.state)) continue;
      }
      await new Promise((resolve) => { this.timer = setTimeout(resolve, ASK_MS); });
    }
    if (live && !this.closed) this.emit("ended", this.key);
  }

  async cancel() {
    this.stop.disabled = true;
    for (const job of [...this.jobs].reverse()) if (!OVER.includes(job.state)) await fetchJson(`/api/jobs/${job.id}/cancel`, { method: "POST" }).catch(() => {});
  }
}
