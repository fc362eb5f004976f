// A dialog with one large picture and everything in its file, or with two pictures compared.

const DOWNLOADS = ["png", "jpeg", "webp"];
const FACTORS = [2, 4]; // painting/upscale.py
const DPI = 300; // exhibition/texts.py

// What the guard and the painter remark, as it stands in a recipe (English), and the words for it.
const REMARKS = { crop: /^crop (\d+)x(\d+)→(\d+)x(\d+)$/, unseen: /^not looked at: (.+)$/, colour: /^every pixel has the colour \((.+)\)$/ };
const remark = (words, line) => {
  for (const [name, form] of Object.entries(REMARKS)) {
    const [, a, b, c, d] = form.exec(line) ?? [];
    if (a) return t(words, `remark.${name}`, { a, b, c, d });
  }
  return line;
};

class Viewer {
  // wall: provides the neighbours and applies changes. go(kind, value): asks the page to leave for the studio.
  constructor(parent, wall, { words, lang, styles }, go) {
    Object.assign(this, { parent, wall, words, lang, styles, go });
    this.dialog = el("dialog", { aria: { label: t(words, "viewer.label") } });
    this.dialog.onclose = () => this.onClose();
    this.dialog.onkeydown = (event) => this.onKey(event);
    parent.append(this.dialog);
  }

  get isOpen() { return this.dialog.open; }

  // push: a new entry of the history, so that Back closes the picture.
  async open(id, push = true) {
    let row;
    try {
      row = await fetchJson(`/api/pictures/${encodeURIComponent(id)}`);
    } catch (failure) {
      writeAddress({ picture: "" });
      return this.wall.toast(errorMessage(failure, this.lang, this.words));
    }
    if (!this.dialog.isConnected) return; // the visitor has left the page meanwhile
    this.row = row;
    this.render();
    writeAddress({ picture: row.id, compare: "" }, push && !this.dialog.open);
    if (!this.dialog.open) this.dialog.showModal();
    this.fillRecipe(row.id);
  }

  // Show what the address says.
  async follow({ picture, compare }) {
    if (compare) {
      if (this.compared === compare) return;
      const rows = await Promise.all(compare.split(".").slice(0, 2).map((id) => fetchJson(`/api/pictures/${encodeURIComponent(id)}`))).catch((failure) => {
        writeAddress({ compare: "" });
        this.wall.toast(errorMessage(failure, this.lang, this.words));
      });
      if (rows?.length === 2) this.compare(rows, false);
    } else if (picture) {
      if (!this.dialog.open || this.row?.id !== picture || this.compared) this.open(picture, false);
    } else if (this.dialog.open) this.dialog.close();
  }

  close() { this.dialog.close(); }

  onClose() {
    this.dialog.replaceChildren();
    this.compared = "";
    writeAddress({ picture: "", compare: "" });
    if (this.row) this.wall.grid.focus(this.row);
  }

  onKey(event) {
    if (event.target.matches("input, textarea, select")) return;
    const act = { ArrowRight: () => this.step(1), ArrowLeft: () => this.step(-1), s: () => this.star(), Delete: () => this.moveToTrash() }[event.key];
    if (event.ctrlKey || event.metaKey || this.compared) return;
    if (act) { event.preventDefault(); act(); } else if (this.zoom?.key(event.key)) event.preventDefault();
  }

  async step(step) {
    const next = await this.wall.grid.neighbour(this.row, step).catch(() => null);
    if (next) this.open(next.id);
  }

  // The alt text of a picture: what eyes have seen in it, or else its prompt.
  name(row) { return safeText(row.seen?.alt[this.lang]) || t(this.words, "picture.alt", { prompt: safeText(row.prompt), style: this.styles[row.style] ?? row.style ?? "" }); }

  render() {
    this.compared = "";
    const { row, words } = this;
    const stepButton = (step, name, symbol) => el("button", { className: `step ${name}`, type: "button", hidden: !this.wall.grid.has(row, step), onclick: () => this.step(step), aria: { label: t(words, `viewer.${name}`) } }, symbol);
    const image = el("img", { src: `/api/pictures/${row.id}/file`, alt: this.name(row) });
    const canvas = el("div", { className: "canvas" }, image);
    this.zoom = new Zoom(canvas, image, words);
    const stage = el("div", { className: "stage", style: { "--ratio": row.width / row.height } },
      el("div", { className: "frame lit" }, canvas), this.zoom.bar, stepButton(-1, "previous", "‹"), stepButton(1, "next", "›"));
    image.onerror = () => stage.replaceChildren(el("p", {}, t(words, "viewer.broken")));
    const view = el("div", { className: "view" }, stage, this.details());
    this.dialog.replaceChildren(view);
  }

  details() {
    const { row, words } = this;
    this.reasons = el("div", { className: "reasons", hidden: true });
    this.numbers = el("div", { className: "numbers" });
    this.recipe = el("pre");
    const close = el("button", { className: "close", type: "button", autofocus: true, onclick: () => this.close(), aria: { label: t(words, "viewer.close") } }, "✕");
    return el("aside", { className: "details" }, close,
      el("h2", {}, safeText(row.prompt) || t(words, "viewer.untitled")),
      row.seen?.caption[this.lang] && el("p", { className: "seen" }, safeText(row.seen.caption[this.lang])),
      row.mark && el("div", { className: `verdict ${row.mark}` }, markText(words, row.mark)),
      row.seen?.lacks[this.lang] && el("div", { className: "verdict lacks" }, t(words, "viewer.lacks", { things: row.seen.lacks[this.lang] }), " ",
        ...(row.trashed_at ? [] : [this.button("seek", () => this.go("repaint", { id: row.id, seek: true }), { title: t(words, "act.seek.help") })])),
      this.reasons, ...(row.trashed_at ? [this.trashed()] : [this.actions(), this.download()]), this.facts(), ...(row.trashed_at ? [] : [this.annotations()]),
      el("details", {}, el("summary", {}, t(words, "viewer.recipe")), this.numbers, this.recipe));
  }

  button(key, act, more = {}) { return el("button", { className: "pill", type: "button", onclick: act, dataset: { act: key }, ...more }, t(this.words, `act.${key}`)); }

  actions() {
    const { row } = this;
    return el("div", { className: "buttons" },
      this.button("repaint", () => this.go("repaint", { id: row.id, vary: false }), { className: "pill gold" }),
      this.button("vary", () => this.go("repaint", { id: row.id, vary: true })),
      this.button("near", () => this.go("near", { id: row.id })),
      this.button("edit", () => this.go("edit", { id: row.id })),
      this.button("begin", () => this.go("begin", { id: row.id })),
      this.button("inpaint", () => this.paintMask()),
      this.starButton(),
      ...(this.wall.strip ? [] : [
        this.button("similar", () => { this.close(); this.wall.findSimilar(row.id); }),
        this.button("compare", () => { this.close(); this.wall.selection.start(row); }),
      ]),
      this.button("trash", () => this.moveToTrash()));
  }

  // A mask over the picture; the studio then paints inside of it.
  paintMask() {
    const { row } = this;
    this.brush ??= new Brush(this.parent, this, async (file) => { const mask = await upload(file); this.go("begin", { id: this.row.id, mask: mask.split(":")[1] }); });
    this.brush.open(`/api/pictures/${row.id}/file`, this.name(row));
  }

  trashed() { return el("div", { className: "buttons" }, this.button("restore", () => { this.close(); this.wall.restore([this.row.id]); }, { className: "pill gold" })); }

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
    this.starred.textContent = t(this.words, starred ? "act.starred" : "act.star");
  }

  moveToTrash() {
    if (this.row.trashed_at) return;
    const { id } = this.row;
    this.close();
    this.wall.moveToTrash([id]);
  }

  download() {
    const link = (kind) => el("a", { className: "pill", href: `/api/pictures/${this.row.id}/download?format=${kind}`, download: "", dataset: { format: kind } }, kind.toUpperCase());
    const failed = el("p", { hidden: true, aria: { role: "alert" } });
    return el("div", {}, el("h3", {}, t(this.words, "viewer.download")), el("div", { className: "buttons" }, ...DOWNLOADS.map(link), ...FACTORS.map((factor) => this.larger(factor, failed))), failed, this.printed(), this.sharing());
  }

  // How large the picture is on paper, as it is and enlarged.
  printed() {
    const size = (factor) => [this.row.width, this.row.height].map((side) => ((side * factor) / DPI * 2.54).toFixed(1)).join("\u00a0×\u00a0");
    return el("p", { className: "print" }, t(this.words, "viewer.print", { a: size(1), b: size(2), c: size(4) }));
  }

  // A page that stands alone, a poster, and what the visitor's system shares with.
  sharing() {
    const { row, words } = this, lang = `lang=${this.lang}`;
    const failed = el("p", { hidden: true, aria: { role: "alert" } });
    const make = (key, path, name) => this.button(key, async (event) => {
      const button = event.currentTarget;
      button.disabled = true;
      failed.hidden = true;
      try { saveFile(await fetchFile(path), name); }
      catch (failure) { failed.textContent = errorMessage(failure, this.lang, words); failed.hidden = false; }
      button.disabled = false;
    });
    const name = `starry-${row.id.slice(0, 8)}`;
    const share = navigator.canShare?.({ files: [new File([], "a.png", { type: "image/png" })] }) && this.button("share", () => this.share(failed));
    return el("div", {}, el("h3", {}, t(words, "viewer.share")), el("div", { className: "buttons" }, ...[share, make("page", `/api/pictures/${row.id}/page?${lang}`, `${name}.html`), make("poster", `/api/pictures/${row.id}/poster?${lang}`, `${name}.pdf`)].filter(Boolean)), failed);
  }

  async share(failed) {
    const { row } = this;
    try {
      const file = await fetchFile(`/api/pictures/${row.id}/file`);
      const named = new File([file], `starry-${row.id.slice(0, 8)}.${row.format === "jpeg" ? "jpg" : row.format}`, { type: file.type });
      await navigator.share({ files: [named], title: safeText(row.prompt) });
    } catch (failure) {
      if (failure.name === "AbortError") return; // the visitor closed the system's sheet
      failed.textContent = errorMessage(failure, this.lang, this.words);
      failed.hidden = false;
    }
  }

  // The picture made larger on the server, saved as a file. It takes seconds, and fails where a package is missing.
  larger(factor, failed) {
    const { row } = this;
    const save = async () => {
      button.disabled = true;
      failed.hidden = true;
      try {
        const file = await fetchFile(`/api/pictures/${row.id}/upscaled?factor=${factor}`);
        saveFile(file, `starry-${row.id.slice(0, 8)}-x${factor}.${row.format === "jpeg" ? "jpg" : row.format}`);
      } catch (failure) {
        failed.textContent = errorMessage(failure, this.lang, this.words);
        failed.hidden = false;
      }
      button.disabled = false;
    };
    const button = el("button", { className: "pill", type: "button", onclick: save, dataset: { upscale: factor }, aria: { label: `${t(this.words, "viewer.larger")} ×${factor}` } }, `×${factor}`);
    return button;
  }

  facts() {
    const { row, words } = this;
    const when = new Date(row.made_at).toLocaleString(this.lang === "zh" ? "zh-CN" : "en-GB", { dateStyle: "long", timeStyle: "short" });
    const values = {
      style: this.styles[row.style] ?? row.style, model: row.model, precision: row.precision, seed: row.seed, steps: row.steps, guidance: row.guidance,
      sampler: row.sampler, size: `${row.width} × ${row.height} · ${row.format.toUpperCase()} · ${Math.max(1, Math.round(row.size / 1024))} KB`,
      negative: row.negative_prompt, when, tool: row.tool, id: row.id.slice(0, 12),
    };
    const pairs = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== "");
    return el("dl", {}, ...pairs.flatMap(([key, value]) => [el("dt", {}, t(words, `fact.${key}`, { seed: "" })), el("dd", {}, safeText(value))]));
  }

  annotations() {
    const { row, words } = this;
    const chips = el("div", { className: "chips" });
    const change = async (path, body) => {
      try { this.row = await fetchJson(path, { method: "POST", json: { pictures: [row.id], ...body } }).then(() => fetchJson(`/api/pictures/${row.id}`)); }
      catch (failure) { this.wall.toast(errorMessage(failure, this.lang, words)); }
      list();
      this.wall.refreshFacets();
    };
    const chip = (name, path) => el("button", { type: "button", title: t(words, "viewer.remove"), aria: { label: `${t(words, "viewer.remove")} ${name}` }, onclick: () => change(path, { name, remove: true }) }, `${safeText(name)} ×`);
    const list = () => chips.replaceChildren(...this.row.tags.map((name) => chip(name, "/api/tags")), ...this.row.collections.map((name) => chip(name, "/api/collections")));
    const entry = (key, path) => el("input", { type: "text", maxLength: 64, placeholder: t(words, `viewer.${key}`), aria: { label: t(words, `viewer.${key}`) }, dataset: { annotation: key }, onkeydown: (event) => {
      if (event.key !== "Enter" || event.isComposing || !event.target.value.trim()) return;
      change(path, { name: event.target.value.trim() });
      event.target.value = "";
    } });
    const note = el("textarea", { value: row.note, maxLength: 4000, placeholder: t(words, "viewer.note"), aria: { label: t(words, "viewer.note") }, onchange: () =>
      fetchJson(`/api/pictures/${row.id}/note`, { method: "PUT", json: { note: note.value } }).catch((failure) => this.wall.toast(errorMessage(failure, this.lang, words))) });
    list();
    return el("div", {}, el("h3", {}, t(words, "viewer.annotations")), chips, entry("collect", "/api/collections"), el("div", { style: { height: "8px" } }), entry("tag", "/api/tags"), el("div", { style: { height: "8px" } }), note);
  }

  async fillRecipe(id) {
    const recipe = await fetchJson(`/api/pictures/${id}/recipe`).catch(() => null);
    if (!recipe || this.row?.id !== id) return;
    this.recipe.textContent = JSON.stringify(recipe, null, 2);
    const [english, chinese] = ["reasons", "reasons_zh"].map((key) => (Array.isArray(recipe.verdict?.[key]) ? recipe.verdict[key] : []));
    const reasons = (this.lang === "zh" && chinese.length === english.length ? chinese : english).filter((reason) => typeof reason === "string");
    const plan = new Map(); // format and reason → the components that share them
    for (const [part, choice] of Object.entries(recipe.plan ?? {})) {
      const why = `${choice?.format ?? ""} — ${choice?.[this.lang === "zh" ? "reason_zh" : "reason_en"] ?? ""}`;
      plan.set(why, [...(plan.get(why) ?? []), part]);
    }
    const fits = (Array.isArray(recipe.loras) ? recipe.loras : []).map((fit) => this.fitted(fit)).filter(Boolean);
    const checked = this.row.precision ? [el("p", {}, t(this.words, `verdict.${this.row.verdict}`))] : []; // painted here
    this.numbers.replaceChildren(...checked, ...[...plan].map(([why, parts]) => el("p", {}, safeText(`${parts.join(this.lang === "zh" ? "、" : ", ")}: ${why}`))), ...fits.map((line) => el("p", {}, safeText(line))));
    const place = this.row.mark ? this.reasons : this.numbers; // beside the mark that they explain, or with the rest
    this.reasons.hidden = !this.row.mark || !reasons.length;
    this.numbers.append(...this.tried(recipe.until_seen ?? {}).map((line) => el("p", {}, line)));
    place.append(...reasons.map((line) => el("p", {}, safeText(remark(this.words, line)))));
  }

  // How many seeds were tried until all that was asked for was seen, and of what the perceiver is not sure (senses/tries.py).
  tried({ tries, of, unsure }) {
    if (!Number.isInteger(tries) || !Number.isInteger(of)) return [];
    const things = (Array.isArray(unsure) ? unsure : []).map((name) => this.wall.seen[`thing.${name}`]).filter(Boolean);
    return [t(this.words, "viewer.tries", { tries, of }), ...(things.length ? [t(this.words, "viewer.unsure", { things: things.join(this.lang === "zh" ? "、" : ", ") })] : [])];
  }

  // How many layers of a LoRA fitted (models/fit.py); null for an entry of another form, such as another tool's.
  fitted(fit) {
    if (!Number.isInteger(fit?.fit) || !Number.isInteger(fit?.layers)) return null;
    const left = Array.isArray(fit.left) ? fit.left.slice(0, 3) : [];
    const more = fit.layers - fit.fit > left.length ? ", …" : "";
    return [t(this.words, "viewer.lora", fit), left.length ? t(this.words, "viewer.lora.left", { names: left.join(", ") + more }) : "", fit.zero ? t(this.words, "viewer.lora.zero", fit) : ""].filter(Boolean).join(this.lang === "zh" ? "；" : "; ");
  }

  compare(rows, push = true) {
    this.row = rows[0];
    this.compared = rows.map((row) => row.id).join(".");
    writeAddress({ compare: this.compared, picture: "" }, push);
    const close = el("button", { className: "close", type: "button", autofocus: true, onclick: () => this.close(), aria: { label: t(this.words, "viewer.close") } }, "✕");
    const pair = comparison(rows.map((row) => ({ source: `/api/pictures/${row.id}/file`, name: this.name(row), tag: [this.styles[row.style] ?? row.style, row.precision, row.seed].filter(Boolean).join(" · ") })), this.words);
    this.dialog.replaceChildren(el("div", { className: "comparison", style: { "--ratio": rows[0].width / rows[0].height } }, close, pair));
    if (!this.dialog.open) this.dialog.showModal();
  }
}
