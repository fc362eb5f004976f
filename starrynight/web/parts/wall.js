// The wall: pictures in their frames, fetched as one walks along it, found as one types. All of it talks to the house's
// own server; Streamlit is told only when the visitor leaves for another room.

const walls = new WeakMap();
const PAGE = 48, STRIP = 8, LOOK_EVERY = 500, FILTERS = ["style", "precision", "verdict", "model", "collection", "tag"];

// The midnight with which the last so many days begin, here.
const since = (days) => {
  const day = new Date();
  day.setHours(0, 0, 0, 0);
  day.setDate(day.getDate() - days + 1);
  return day.toISOString();
};

export default function ({ data, parentElement, setTriggerValue }) {
  let root = parentElement.querySelector(".wall");
  if (!root) {
    root = el("section", { className: "wall" });
    parentElement.append(root);
  }
  let wall = walls.get(root);
  if (wall?.lang !== data.lang) {
    wall?.close();
    root.replaceChildren();
    wall = new Wall(root, data);
    walls.set(root, wall);
  }
  wall.tell = setTriggerValue;
  wall.arrive(data.picture);
  return () => wall.close();
}

class Wall {
  constructor(root, data) {
    Object.assign(this, { root, words: data.words, lang: data.lang, styles: data.styles, strip: data.strip });
    this.query = {};
    this.chosen = null; // a Set while the visitor is choosing
    this.rows = new Map();
    this.facets = { collections: {}, tags: {} };
    this.build();
    this.viewer = new Viewer(root, this, data, (kind, value) => { this.viewer.close(); this.tell("go", { kind, value, at: Date.now() }); });
    this.load();
    if (!this.strip) this.refreshFacets();
    this.clock = setInterval(() => this.lookForNew(), LOOK_EVERY);
    this.onpop = () => this.arrive(new URLSearchParams(location.search).get("picture"), true);
    addEventListener("popstate", this.onpop);
    this.onslash = (event) => {
      if (event.key !== "/" || !this.input || this.viewer.isOpen || event.composedPath()[0].matches?.("input, textarea, select")) return;
      event.preventDefault();
      this.input.focus();
    };
    addEventListener("keydown", this.onslash);
  }

  close() {
    clearInterval(this.clock);
    removeEventListener("popstate", this.onpop);
    removeEventListener("keydown", this.onslash);
    this.eye?.disconnect();
    this.asked?.abort();
  }

  // What the address asks for: a picture of its own, or none.
  arrive(picture, back = false) {
    if (picture && (back || this.arrived !== picture)) { this.arrived = picture; this.viewer.open(picture, false); }
    else if (!picture && back && this.viewer.isOpen) this.viewer.close();
  }

  build() {
    const { words } = this;
    this.grid = el("ul", { className: "grid", aria: { label: say(words, this.strip ? "wall.recent" : "wall.label") } });
    this.tray = el("div", { className: "tray", hidden: true, aria: { role: "toolbar", label: say(words, "wall.tray") } });
    this.note = el("div", { aria: { role: "status", live: "polite" } });
    this.nothing = el("div", { className: "nothing", hidden: true });
    if (this.strip) {
      this.root.classList.add("strip");
      this.root.replaceChildren(el("h2", { className: "recent" }, say(words, "wall.recent")), this.grid, this.note);
      return;
    }
    this.input = el("input", { type: "search", placeholder: say(words, "wall.search"), aria: { label: say(words, "wall.search") }, oninput: () => this.soon(), value: "" });
    this.selects = Object.fromEntries(FILTERS.map((name) => [name, el("select", { className: "pill", hidden: true, aria: { label: say(words, `fact.${name}`) }, dataset: { filter: name }, onchange: (event) => this.filter({ [name]: event.target.value }) })]));
    this.selects.when = el("select", { className: "pill", aria: { label: say(words, "fact.when") }, dataset: { filter: "when" }, onchange: (event) => this.filter({ since: event.target.value && since(Number(event.target.value)) }) },
      ...["", 1, 7, 31, 366].map((days) => el("option", { value: days }, say(words, `fact.when.${days || "any"}`))));
    const toggle = (key, act) => el("button", { className: "pill", type: "button", aria: { pressed: false }, dataset: { act: key }, onclick: act }, say(words, `wall.${key}`));
    this.starred = toggle("starred", () => this.filter({ starred: this.query.starred ? "" : "true" }));
    this.trash = toggle("trash", () => this.filter({ trashed: this.query.trashed ? "" : "true" }));
    this.choosing = toggle("choose", () => (this.chosen ? this.stopChoosing() : this.choose()));
    this.count = el("p", { className: "count", aria: { role: "status", live: "polite" } });
    this.sentinel = el("div", { className: "sentinel" });
    this.space = el("div", { className: "space" });
    const tools = el("div", { className: "tools", aria: { role: "search" } }, el("div", { className: "search" }, this.input), ...Object.values(this.selects), this.starred, this.choosing, this.trash);
    this.root.replaceChildren(tools, this.count, this.grid, this.nothing, this.space, this.sentinel, this.tray, this.note);
    this.eye = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && this.more());
    this.eye.observe(this.sentinel);
  }

  // Finding

  soon() {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.filter({ text: this.input.value.trim() }), 90);
  }

  filter(change) {
    this.query = Object.fromEntries(Object.entries({ ...this.query, ...change }).filter(([, value]) => value));
    this.starred.setAttribute("aria-pressed", Boolean(this.query.starred));
    this.trash.setAttribute("aria-pressed", Boolean(this.query.trashed));
    for (const select of Object.values(this.selects)) select.classList.toggle("set", Boolean(select.value));
    this.load();
  }

  like(id) {
    this.forget();
    this.filter({ like: id });
    this.root.scrollIntoView({ block: "start" });
  }

  address(more) { return `/api/pictures?${new URLSearchParams({ ...this.query, limit: this.strip ? STRIP : PAGE, ...more })}`; }

  async load() {
    this.asked?.abort();
    const asked = this.asked = new AbortController();
    this.next = undefined;
    try {
      const page = await ask(this.address(), { signal: asked.signal });
      if (asked !== this.asked) return;
      this.rows.clear();
      this.grid.replaceChildren();
      this.add(page);
      this.root.dataset.ready = JSON.stringify(this.query);
    } catch (failure) {
      if (failure.name !== "AbortError") this.toast(complaint(failure, this.lang, this.words), say(this.words, "wall.again"), () => this.load());
    }
    this.tellCount();
  }

  async more() {
    if (!this.next || this.busy) return;
    const asked = this.asked;
    this.busy = true;
    const page = await ask(this.address({ after: this.next }), { signal: asked.signal }).catch(() => null);
    this.busy = false;
    if (!page || asked !== this.asked) return;
    this.add(page);
  }

  add({ pictures, next }) {
    this.next = this.strip ? undefined : next;
    const fresh = pictures.filter((row) => !this.rows.has(row.id));
    for (const row of fresh) this.rows.set(row.id, row);
    this.grid.append(...fresh.map((row) => this.card(row)));
    this.space?.classList.toggle("end", !next);
    // The sentinel may be in sight still: then nothing will cross into it.
    if (this.eye && this.next) { this.eye.unobserve(this.sentinel); this.eye.observe(this.sentinel); }
    this.tellEmpty();
  }

  // What was hung since; only where the newest stand first, and only while somebody looks.
  async lookForNew() {
    const ordinary = !this.query.like && !this.query.trashed && !this.query.text;
    if (document.hidden || !ordinary || this.looking || !this.root.isConnected || this.next === undefined && !this.strip && !this.root.dataset.ready) return;
    this.looking = true;
    const { asked } = this;
    const page = await ask(this.address({ limit: STRIP })).catch(() => null);
    this.looking = false;
    if (asked !== this.asked) return; // the visitor asked for something else meanwhile
    const fresh = (page?.pictures ?? []).filter((row) => !this.rows.has(row.id));
    if (!fresh.length) return;
    this.rows = new Map([...fresh.map((row) => [row.id, row]), ...this.rows]);
    const cards = fresh.map((row) => this.card(row));
    for (const card of cards) card.classList.add("new");
    this.grid.prepend(...cards);
    if (this.strip) for (const card of [...this.grid.children].slice(STRIP)) { this.rows.delete(card.dataset.id); card.remove(); }
    this.tellEmpty();
    this.tellCount();
  }

  card(row) {
    const image = el("img", { src: `/api/pictures/${row.id}/thumb?size=${row.width > 400 || devicePixelRatio > 1.5 ? 512 : 256}`, loading: "lazy", decoding: "async", alt: this.viewer.name(row), width: row.width, height: row.height });
    image.onload = () => image.classList.add("on");
    image.onerror = () => { image.alt = say(this.words, "viewer.broken"); image.classList.add("on"); };
    const verdict = `${{ hang: "✦", refuse: "✕" }[row.verdict] ?? "◌"} ${say(this.words, `verdict.${row.verdict}.short`)}`;
    const small = el("span", { className: "small" }, ...[this.styles[row.style] ?? row.style, row.precision].filter(Boolean).map((word) => `${plain(word)} · `), el("i", {}, verdict));
    const link = el("a", { href: `/?picture=${row.id}`, onclick: (event) => this.press(event, row.id) },
      el("span", { className: "frame" }, el("span", { className: "canvas" }, image)),
      el("span", { className: "words" }, el("span", { className: "line" }, plain(row.prompt) || "·"), small));
    const mark = el("button", { className: "mark", type: "button", aria: { pressed: row.starred, label: say(this.words, "act.star") }, onclick: async () => {
      const starred = mark.getAttribute("aria-pressed") !== "true";
      if (await this.star([row.id], starred)) mark.setAttribute("aria-pressed", starred);
    } }, "★");
    return el("li", { className: "hung", dataset: { id: row.id }, style: { "--ratio": Math.min(3, Math.max(0.4, row.width / row.height)) } }, link, this.query.trashed ? "" : mark);
  }

  press(event, id) {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    if (this.chosen) this.toggle(id);
    else this.viewer.open(id);
  }

  node(id) { return this.grid.querySelector(`[data-id="${id}"]`); }

  focus(id) { if (id) this.node(id)?.querySelector("a").focus({ preventScroll: false }); }

  neighbour(id, step) {
    const ids = [...this.rows.keys()], at = ids.indexOf(id);
    if (at < 0) return null;
    if (at + step >= ids.length - 8) this.more();
    return ids[at + step] ?? null;
  }

  // Saying

  tellEmpty() {
    if (this.strip) { this.root.hidden = !this.rows.size; return; }
    const empty = !this.rows.size, searched = Object.keys(this.query).length;
    this.nothing.hidden = !empty;
    const key = this.query.trashed ? "wall.trash.empty" : searched ? "wall.none" : "wall.bare";
    this.nothing.replaceChildren(el("b", {}, say(this.words, key)), say(this.words, `${key}.hint`));
  }

  async tellCount() {
    if (this.strip) return;
    const asked = this.asked;
    const total = await ask(`/api/pictures/count?${new URLSearchParams(this.query)}`).catch(() => null);
    if (asked !== this.asked || !total) return;
    const clear = Object.keys(this.query).length && el("button", { type: "button", dataset: { act: "clear" }, onclick: () => this.clear() }, say(this.words, "wall.clear"));
    const empty = this.query.trashed && total.count > 0 && el("button", { type: "button", dataset: { act: "empty" }, onclick: () => this.emptyTrash(total.count) }, say(this.words, "wall.empty"));
    this.count.replaceChildren(el("span", {}, say(this.words, this.query.like ? "wall.alike" : this.query.trashed ? "wall.trashed" : "wall.count", { n: total.count.toLocaleString() })), ...[clear, empty].filter(Boolean));
  }

  clear() {
    this.forget();
    this.filter({});
  }

  forget() {
    this.input.value = "";
    for (const select of Object.values(this.selects)) select.value = "";
    this.query = {};
  }

  async refreshFacets() {
    if (this.strip) return;
    const facets = await ask("/api/facets").catch(() => null);
    if (!facets) return;
    this.facets = facets;
    const named = { style: (value) => this.styles[value] ?? value, verdict: (value) => say(this.words, `verdict.${value}.short`) };
    const values = { ...facets, collection: facets.collections, tag: facets.tags };
    for (const name of FILTERS) {
      const select = this.selects[name];
      const counted = Object.entries(values[name] ?? {});
      select.hidden = counted.length < (["collection", "tag"].includes(name) ? 1 : 2);
      select.replaceChildren(el("option", { value: "" }, say(this.words, `fact.${name}`)), ...counted.map(([value, n]) => el("option", { value }, `${plain((named[name] ?? String)(value))} · ${n}`)));
      select.value = this.query[name] ?? "";
    }
  }

  toast(sentence, action, act) {
    const box = el("div", { className: "toast" }, el("span", {}, sentence));
    const gone = setTimeout(() => box.remove(), action ? 12000 : 6000);
    if (action) box.append(el("button", { type: "button", dataset: { act: "undo" }, onclick: () => { clearTimeout(gone); box.remove(); act(); } }, action));
    this.note.replaceChildren(box);
  }

  // Doing

  async tryTo(path, options, undo) {
    try { await ask(path, options); return true; }
    catch (failure) { this.toast(complaint(failure, this.lang, this.words)); return false; }
  }

  star(ids, starred) {
    for (const id of ids) if (this.rows.has(id)) this.rows.get(id).starred = starred;
    for (const id of ids) this.node(id)?.querySelector(".mark")?.setAttribute("aria-pressed", starred);
    return this.tryTo("/api/stars", { method: "POST", json: { pictures: ids, starred } });
  }

  async throwAway(ids) {
    if (!(await this.tryTo("/api/trash", { method: "POST", json: { pictures: ids } }))) return;
    this.remove(ids);
    this.toast(say(this.words, "wall.thrown", { n: ids.length }), say(this.words, "act.undo"), () => this.bringBack(ids));
  }

  async bringBack(ids) {
    if (!(await this.tryTo("/api/trash/restore", { method: "POST", json: { pictures: ids } }))) return;
    this.toast(say(this.words, "wall.restored", { n: ids.length }));
    if (this.strip) { this.rows.clear(); this.grid.replaceChildren(); }
    await this.load();
    this.refreshFacets();
  }

  emptyTrash(n) {
    this.toast(say(this.words, "wall.empty.sure", { n }), say(this.words, "wall.empty"), async () => {
      if (await this.tryTo("/api/trash", { method: "DELETE" })) this.load();
    });
  }

  remove(ids) {
    for (const id of ids) { this.rows.delete(id); this.node(id)?.remove(); }
    this.tellEmpty();
    this.tellCount();
    this.refreshFacets();
  }

  // Choosing several

  choose(id) {
    this.chosen = new Set(id ? [id] : []);
    this.grid.classList.add("choosing");
    this.choosing?.setAttribute("aria-pressed", true);
    if (id) this.toast(say(this.words, "wall.another"));
    this.tellChosen();
  }

  stopChoosing() {
    this.chosen = null;
    this.grid.classList.remove("choosing");
    this.choosing?.setAttribute("aria-pressed", false);
    this.tellChosen();
  }

  toggle(id) {
    if (!this.chosen.delete(id)) this.chosen.add(id);
    this.tellChosen();
  }

  tellChosen() {
    for (const card of this.grid.children) card.classList.toggle("chosen", Boolean(this.chosen?.has(card.dataset.id)));
    for (const link of this.grid.querySelectorAll("a")) {
      if (this.chosen) link.setAttribute("aria-pressed", this.chosen.has(link.parentElement.dataset.id)); else link.removeAttribute("aria-pressed");
    }
    this.tray.hidden = !this.chosen;
    if (!this.chosen) return;
    const ids = [...this.chosen], some = ids.length > 0;
    const button = (key, usable, act, more = "") => el("button", { className: `pill ${more}`, type: "button", disabled: !usable, dataset: { act: key }, onclick: act }, say(this.words, `act.${key}`));
    const done = (act) => async () => { this.stopChoosing(); await act(); };
    const mine = this.query.trashed
      ? [button("restore", some, done(() => this.bringBack(ids)), "gold")]
      : [button("compare", ids.length === 2, () => this.viewer.compare(ids.map((id) => this.rows.get(id))), "gold"), button("star", some, done(() => this.star(ids, true))),
         button("collect", some, () => this.collect(ids)), button("throw", some, done(() => this.throwAway(ids)))];
    this.tray.replaceChildren(el("span", {}, say(this.words, "wall.chosen", { n: ids.length })), ...mine, button("stop", true, () => this.stopChoosing()));
  }

  // The tray asks for the collection's name, and offers those there are.
  collect(ids) {
    const names = el("datalist", { id: "collections" }, ...Object.keys(this.facets.collections).map((name) => el("option", { value: name })));
    const name = el("input", { type: "text", maxLength: 100, placeholder: say(this.words, "wall.collect"), aria: { label: say(this.words, "wall.collect") } });
    name.setAttribute("list", "collections");
    const put = async () => {
      const into = name.value.trim();
      if (!into || !(await this.tryTo("/api/collections", { method: "POST", json: { name: into, pictures: ids } }))) return;
      this.stopChoosing();
      this.toast(say(this.words, "wall.collected", { n: ids.length, name: into }));
      this.refreshFacets();
    };
    name.onkeydown = (event) => {
      if (event.key === "Enter" && !event.isComposing) put();
      if (event.key === "Escape") this.tellChosen();
    };
    this.tray.replaceChildren(name, names, el("button", { className: "pill gold", type: "button", dataset: { act: "put" }, onclick: put }, say(this.words, "act.collect")),
      el("button", { className: "pill", type: "button", onclick: () => this.tellChosen() }, say(this.words, "act.back")));
    name.focus();
  }
}
