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
    const { wall } = this;
    askName(this.bar, wall, "wall.collect", "act.collect", async (into) => {
      if (!(await wall.send("/api/collections", { method: "POST", json: { name: into, pictures: ids } }))) return;
      this.stop();
      wall.toast(counted(this.words, "wall.collected", ids.length, { name: into }));
      wall.refreshFacets();
    }, () => this.update());
  }
}

// What can be done with the collection that the wall shows, each as [key, act].
function collectionActs(wall) {
  const { words, state, count } = wall, name = state.collection;
  const changed = async (collection) => { await wall.refreshFacets(); wall.filter({ collection }); };
  const rename = () => askName(count, wall, "wall.rename.to", "wall.rename", async (to) => {
    if (to !== name && to in wall.facets.collections) return void wall.toast(t(words, "wall.rename.taken", { name: to }));
    if (await wall.send("/api/collections", { method: "PATCH", json: { name, to } })) await changed(to);
  }, () => wall.showTotal(), name);
  const apart = async () => {
    const gone = await fetchJson(`/api/collections?${new URLSearchParams({ name })}`, { method: "DELETE" }).catch((failure) => wall.toast(errorMessage(failure, wall.lang, words)));
    if (!gone) return;
    await changed("");
    wall.toast(t(words, "wall.apart.done", { name }), t(words, "act.undo"), async () => {
      for (let at = 0; at === 0 || at < gone.pictures.length; at += 500)
        if (!(await wall.send("/api/collections", { method: "POST", json: { name, pictures: gone.pictures.slice(at, at + 500) } }))) return;
      await changed(name);
    });
  };
  return [["rename", rename], ["apart", apart]];
}

// A collection's name, asked for in ``place``, where a first one is chosen with the existing ones suggested; ``back`` restores what stood there.
function askName(place, wall, label, act, save, back, value = "") {
  const { words } = wall;
  const names = el("datalist", { id: "collections" }, ...Object.keys(wall.facets.collections).map((name) => el("option", { value: name })));
  const field = el("input", { type: "text", maxLength: 100, value, placeholder: t(words, label), aria: { label: t(words, label) } });
  if (!value) field.setAttribute("list", names.id); // another name for one that has a name: the others' are taken
  const leave = () => { place.replaceChildren(); back(); };
  const saved = () => { const name = field.value.trim(); if (name) save(name); };
  field.onkeydown = (event) => {
    if (event.key === "Enter" && !event.isComposing) saved();
    if (event.key === "Escape") { event.stopPropagation(); leave(); }
  };
  place.replaceChildren(field, names, el("button", { className: "pill gold", type: "button", dataset: { act: "save" }, onclick: saved }, t(words, act)),
    el("button", { className: "pill", type: "button", onclick: leave }, t(words, "act.back")));
  field.focus();
}
