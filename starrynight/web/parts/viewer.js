// One picture, large, under a lamp, with everything its file tells; and two of them compared.

const SHOWN_AS = ["png", "jpeg", "webp"];

class Viewer {
  // wall: gives the neighbours, is told of changes. go(kind, value): leaves for another room.
  constructor(parent, wall, { words, lang, styles }, go) {
    Object.assign(this, { wall, words, lang, styles, go });
    this.dialog = el("dialog", { aria: { label: say(words, "viewer.label") } });
    this.dialog.onclose = () => this.leave();
    this.dialog.onkeydown = (event) => this.key(event);
    parent.append(this.dialog);
  }

  get isOpen() { return this.dialog.open; }

  async open(id, push = true) {
    try {
      this.row = await ask(`/api/pictures/${encodeURIComponent(id)}`);
    } catch (failure) {
      return this.wall.toast(complaint(failure, this.lang, this.words));
    }
    if (!this.dialog.isConnected) return; // the visitor has left meanwhile
    this.draw();
    if (!this.dialog.open) {
      this.dialog.showModal();
      if (push) this.address(this.row.id, "pushState");
    } else this.address(this.row.id, "replaceState");
    this.fillRecipe(this.row.id);
  }

  close() { this.dialog.close(); }

  leave() {
    this.dialog.replaceChildren();
    if (new URLSearchParams(location.search).has("picture")) this.address(null, "replaceState");
    this.wall.focus(this.row?.id);
  }

  // The address names the picture, so that it can be sent to somebody; Back closes it.
  address(id, way) {
    const query = new URLSearchParams(location.search);
    if (id) query.set("picture", id); else query.delete("picture");
    history[way](history.state, "", `${location.pathname}${query.size ? `?${query}` : ""}`);
  }

  key(event) {
    if (event.target.matches("input, textarea, select")) return;
    const act = { ArrowRight: () => this.turn(1), ArrowLeft: () => this.turn(-1), s: () => this.star(), Delete: () => this.throwAway() }[event.key];
    if (act && !event.ctrlKey && !event.metaKey && !this.comparing) { event.preventDefault(); act(); }
  }

  turn(step) {
    const next = this.wall.neighbour(this.row.id, step);
    if (next) this.open(next);
  }

  name(row) { return say(this.words, "picture.alt", { prompt: plain(row.prompt), style: this.styles[row.style] ?? row.style ?? "" }); }

  draw() {
    this.comparing = false;
    const { row, words } = this;
    const turn = (step, way, sign) => el("button", { className: `turn ${way}`, type: "button", hidden: !this.wall.neighbour(row.id, step), onclick: () => this.turn(step), aria: { label: say(words, `viewer.${way}`) } }, sign);
    const image = el("img", { src: `/api/pictures/${row.id}/file`, alt: this.name(row) });
    const stage = el("div", { className: "stage", style: { "--ratio": row.width / row.height } },
      el("div", { className: "frame lit" }, el("div", { className: "canvas" }, image)), turn(-1, "back", "‹"), turn(1, "on", "›"));
    image.onerror = () => stage.replaceChildren(el("p", {}, say(words, "viewer.broken")));
    const view = el("div", { className: "view" }, stage, this.label());
    this.dialog.replaceChildren(view);
  }

  label() {
    const { row, words } = this;
    this.reasons = el("div", { className: "reasons", hidden: true });
    this.numbers = el("div", { className: "numbers", hidden: true }, el("h3", {}, say(words, "viewer.numbers")));
    this.recipe = el("pre");
    const shut = el("button", { className: "shut", type: "button", onclick: () => this.close(), aria: { label: say(words, "viewer.close") } }, "✕");
    return el("aside", { className: "label" }, shut,
      el("h2", {}, plain(row.prompt) || say(words, "viewer.wordless")),
      el("div", { className: `verdict ${row.verdict}` }, `${{ hang: "✦", refuse: "✕" }[row.verdict] ?? "◌"} ${[row.precision, say(words, `verdict.${row.verdict}`)].filter(Boolean).join(" · ")}`),
      this.reasons, ...(row.trashed_at ? [this.trashed()] : [this.actions(), this.download()]), this.facts(), ...(row.trashed_at ? [] : [this.marks()]), this.numbers,
      el("details", {}, el("summary", {}, say(words, "viewer.recipe")), this.recipe));
  }

  button(key, act, more = {}) { return el("button", { className: "pill", type: "button", onclick: act, dataset: { act: key }, ...more }, say(this.words, `act.${key}`)); }

  actions() {
    const { row } = this;
    return el("div", { className: "bar" },
      this.button("repaint", () => this.go("again", { id: row.id, vary: false }), { className: "pill gold" }),
      this.button("vary", () => this.go("again", { id: row.id, vary: true })),
      this.button("send", () => this.go("send", row.id)),
      this.starButton(),
      ...(this.wall.strip ? [] : [
        this.button("like", () => { this.close(); this.wall.like(row.id); }),
        this.button("compare", () => { this.close(); this.wall.choose(row.id); }),
      ]),
      this.button("throw", () => this.throwAway()));
  }

  trashed() { return el("div", { className: "bar" }, this.button("restore", () => { this.close(); this.wall.bringBack([this.row.id]); }, { className: "pill gold" })); }

  starButton() {
    const button = this.button(this.row.starred ? "starred" : "star", () => this.star(), { aria: { pressed: this.row.starred } });
    button.dataset.act = "star";
    this.starred = button;
    return button;
  }

  async star() {
    const starred = !this.row.starred;
    if (!(await this.wall.star([this.row.id], starred))) return;
    this.row.starred = starred;
    this.starred.setAttribute("aria-pressed", starred);
    this.starred.textContent = say(this.words, starred ? "act.starred" : "act.star");
  }

  throwAway() {
    if (this.row.trashed_at) return;
    const { id } = this.row;
    this.close();
    this.wall.throwAway([id]);
  }

  download() {
    const link = (kind) => el("a", { className: "pill", href: `/api/pictures/${this.row.id}/download?format=${kind}`, download: "", dataset: { format: kind } }, kind.toUpperCase());
    return el("div", {}, el("h3", {}, say(this.words, "viewer.download")), el("div", { className: "bar" }, ...SHOWN_AS.map(link)));
  }

  facts() {
    const { row, words } = this;
    const when = new Date(row.made_at).toLocaleString(this.lang === "zh" ? "zh-CN" : "en-GB", { dateStyle: "long", timeStyle: "short" });
    const told = {
      style: this.styles[row.style] ?? row.style, model: row.model, precision: row.precision, seed: row.seed, steps: row.steps, guidance: row.guidance,
      sampler: row.sampler, size: `${row.width} × ${row.height} · ${row.format.toUpperCase()} · ${Math.max(1, Math.round(row.size / 1024))} KB`,
      negative: row.negative_prompt, when, tool: row.tool, id: row.id.slice(0, 12),
    };
    const pairs = Object.entries(told).filter(([, value]) => value !== null && value !== undefined && value !== "");
    return el("dl", {}, ...pairs.flatMap(([key, value]) => [el("dt", {}, say(words, `fact.${key}`, { seed: "" })), el("dd", {}, plain(value))]));
  }

  marks() {
    const { row, words } = this;
    const chips = el("div", { className: "chips" });
    const change = async (path, body) => {
      try { this.row = await ask(path, { method: "POST", json: { pictures: [row.id], ...body } }).then(() => ask(`/api/pictures/${row.id}`)); }
      catch (failure) { this.wall.toast(complaint(failure, this.lang, words)); }
      list();
      this.wall.refreshFacets();
    };
    const chip = (name, path) => el("button", { type: "button", title: say(words, "viewer.remove"), aria: { label: `${say(words, "viewer.remove")} ${name}` }, onclick: () => change(path, { name, remove: true }) }, `${plain(name)} ×`);
    const list = () => chips.replaceChildren(...this.row.tags.map((name) => chip(name, "/api/tags")), ...this.row.collections.map((name) => chip(name, "/api/collections")));
    const entry = (key, path) => el("input", { type: "text", maxLength: 64, placeholder: say(words, `viewer.${key}`), aria: { label: say(words, `viewer.${key}`) }, dataset: { mark: key }, onkeydown: (event) => {
      if (event.key !== "Enter" || event.isComposing || !event.target.value.trim()) return;
      change(path, { name: event.target.value.trim() });
      event.target.value = "";
    } });
    const note = el("textarea", { value: row.note, maxLength: 4000, placeholder: say(words, "viewer.note"), aria: { label: say(words, "viewer.note") }, onchange: () =>
      ask(`/api/pictures/${row.id}/note`, { method: "PUT", json: { note: note.value } }).catch((failure) => this.wall.toast(complaint(failure, this.lang, words))) });
    list();
    return el("div", {}, el("h3", {}, say(words, "viewer.marks")), chips, entry("collect", "/api/collections"), el("div", { style: { height: "8px" } }), entry("tag", "/api/tags"), el("div", { style: { height: "8px" } }), note);
  }

  async fillRecipe(id) {
    const told = await ask(`/api/pictures/${id}/recipe`).catch(() => null);
    if (!told || this.row?.id !== id) return;
    this.recipe.textContent = JSON.stringify(told, null, 2);
    const reasons = (told.verdict?.reasons ?? []).filter((reason) => typeof reason === "string");
    const plan = new Map(); // parts that run alike, for the same reason, told together
    for (const [part, choice] of Object.entries(told.plan ?? {})) {
      const why = `${choice?.format ?? ""} — ${choice?.[this.lang === "zh" ? "reason_zh" : "reason_en"] ?? ""}`;
      plan.set(why, [...(plan.get(why) ?? []), part]);
    }
    this.numbers.hidden = !plan.size;
    this.numbers.append(...[...plan].map(([why, parts]) => el("p", {}, plain(`${parts.join(this.lang === "zh" ? "、" : ", ")}: ${why}`))));
    this.reasons.hidden = !reasons.length;
    this.reasons.replaceChildren(...reasons.map((line) => el("div", {}, plain(line))));
  }

  compare(rows) {
    this.row = rows[0];
    this.comparing = true;
    const shut = el("button", { className: "shut", type: "button", onclick: () => this.close(), aria: { label: say(this.words, "viewer.close") } }, "✕");
    const pair = comparison(rows.map((row) => ({ source: `/api/pictures/${row.id}/file`, name: this.name(row), tag: [this.styles[row.style] ?? row.style, row.precision, row.seed].filter(Boolean).join(" · ") })), this.words);
    this.dialog.replaceChildren(el("div", { className: "duo", style: { "--ratio": rows[0].width / rows[0].height } }, shut, pair));
    if (!this.dialog.open) this.dialog.showModal();
  }
}
