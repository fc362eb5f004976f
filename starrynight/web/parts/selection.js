// Pictures that the visitor has chosen on the wall, and the bar with what can be done with all of them.

class Selection {
  constructor(wall) {
    Object.assign(this, { wall, words: wall.words, rows: null }); // rows: a Map from id to row while one selects
    this.bar = el("div", { className: "selection-bar", hidden: true, aria: { role: "toolbar", label: t(wall.words, "wall.selection") } });
  }

  get on() { return Boolean(this.rows); }

  start(row) {
    this.rows = new Map(row ? [[row.id, row]] : []);
    if (row) this.wall.toast(t(this.words, "wall.compare"));
    this.update();
  }

  stop() {
    if (!this.rows) return;
    this.rows = null;
    this.update();
  }

  toggle(row) {
    if (!this.rows.delete(row.id)) this.rows.set(row.id, row);
    this.update();
  }

  // A card shows whether its picture is chosen.
  dress(card) {
    const chosen = this.rows?.has(card.dataset.id), link = card.querySelector("a");
    card.classList.toggle("selected", Boolean(chosen));
    if (this.rows) link.setAttribute("aria-current", chosen); else link.removeAttribute("aria-current");
  }

  update() {
    const { wall, words } = this;
    wall.grid.list.classList.toggle("selecting", this.on);
    wall.selecting?.setAttribute("aria-pressed", this.on);
    for (const card of wall.grid.shown) this.dress(card);
    this.bar.hidden = !this.on;
    if (!this.on) return;
    const ids = [...this.rows.keys()], rows = [...this.rows.values()], any = ids.length > 0;
    const button = (key, usable, act, more = "") => el("button", { className: `pill ${more}`, type: "button", disabled: !usable, dataset: { act: key }, onclick: act }, t(words, `act.${key}`));
    const then = (act) => async () => { this.stop(); await act(); };
    const actions = wall.state.trashed
      ? [button("restore", any, then(() => wall.restore(ids)), "gold")]
      : [button("compare", ids.length === 2, () => wall.viewer.compare(rows), "gold"), button("star", any, then(() => wall.star(ids, true))),
         button("collect", any, () => this.askCollection(ids)), button("exhibit", any, then(() => wall.exhibit(rows))),
         button("zip", any, () => wall.saveMade("/api/zip", { pictures: ids }, "starry-night.zip")), button("catalogue", any, () => wall.saveMade("/api/catalogue", { pictures: ids }, "starry-night.pdf")), button("trash", any, then(() => wall.moveToTrash(ids)))];
    this.bar.replaceChildren(el("span", {}, t(words, "wall.selected", { n: ids.length })), ...actions, button("done", true, () => this.stop()));
  }

  // Ask for a collection's name in the bar, suggesting the existing ones.
  askCollection(ids) {
    const { wall, words } = this;
    const names = el("datalist", { id: "collections" }, ...Object.keys(wall.facets.collections).map((name) => el("option", { value: name })));
    const name = el("input", { type: "text", maxLength: 100, placeholder: t(words, "wall.collect"), aria: { label: t(words, "wall.collect") } });
    name.setAttribute("list", "collections");
    const save = async () => {
      const into = name.value.trim();
      if (!into || !(await wall.send("/api/collections", { method: "POST", json: { name: into, pictures: ids } }))) return;
      this.stop();
      wall.toast(counted(words, "wall.collected", ids.length, { name: into }));
      wall.refreshFacets();
    };
    name.onkeydown = (event) => {
      if (event.key === "Enter" && !event.isComposing) save();
      if (event.key === "Escape") this.update();
    };
    this.bar.replaceChildren(name, names, el("button", { className: "pill gold", type: "button", dataset: { act: "save" }, onclick: save }, t(words, "act.collect")),
      el("button", { className: "pill", type: "button", onclick: () => this.update() }, t(words, "act.back")));
    name.focus();
  }
}
