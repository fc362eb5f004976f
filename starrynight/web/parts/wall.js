// The wall: framed pictures, loaded page by page while scrolling and searched while typing. It talks to the server's API
// directly; Streamlit is called only when the visitor leaves for the studio.

const walls = new WeakMap();
const PAGE = 48, STRIP = 8, POLL_MS = 500, FILTERS = ["style", "precision", "verdict", "model", "collection", "tag"];

// The local midnight at which the last `days` days (today included) began.
const daysAgo = (days) => {
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
  wall.emit = setTriggerValue;
  wall.syncPicture(data.picture);
  return () => wall.close();
}

class Wall {
  constructor(root, data) {
    Object.assign(this, { root, words: data.words, lang: data.lang, styles: data.styles, strip: data.strip });
    this.query = {};
    this.selection = null; // a Set of ids while the visitor selects pictures
    this.rows = new Map();
    this.facets = { collections: {}, tags: {} };
    this.build();
    this.viewer = new Viewer(root, this, data, (kind, value) => { this.viewer.close(); this.emit("action", { kind, value, at: Date.now() }); });
    this.load();
    if (!this.strip) this.refreshFacets();
    this.clock = setInterval(() => this.pollForNew(), POLL_MS);
    this.onpop = () => this.syncPicture(new URLSearchParams(location.search).get("picture"), true);
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
    this.observer?.disconnect();
    this.request?.abort();
  }

  // Open or close the viewer as the address says. back: the browser's Back or Forward changed it.
  syncPicture(picture, back = false) {
    if (picture && (back || this.shownPicture !== picture)) { this.shownPicture = picture; this.viewer.open(picture, false); }
    else if (!picture && back && this.viewer.isOpen) this.viewer.close();
  }

  build() {
    const { words } = this;
    this.grid = el("ul", { className: "grid", aria: { label: t(words, this.strip ? "wall.recent" : "wall.label") } });
    this.selectionBar = el("div", { className: "selection-bar", hidden: true, aria: { role: "toolbar", label: t(words, "wall.selection") } });
    this.toasts = el("div", { aria: { role: "status", live: "polite" } });
    this.notice = el("div", { className: "no-results", hidden: true });
    if (this.strip) {
      this.root.classList.add("strip");
      this.root.replaceChildren(el("h2", { className: "recent" }, t(words, "wall.recent")), this.grid, this.toasts);
      return;
    }
    this.input = el("input", { type: "search", placeholder: t(words, "wall.search"), aria: { label: t(words, "wall.search") }, oninput: () => this.searchSoon(), value: "" });
    this.selects = Object.fromEntries(FILTERS.map((name) => [name, el("select", { className: "pill", hidden: true, aria: { label: t(words, `fact.${name}`) }, dataset: { filter: name }, onchange: (event) => this.filter({ [name]: event.target.value }) })]));
    this.selects.when = el("select", { className: "pill", aria: { label: t(words, "fact.when") }, dataset: { filter: "when" }, onchange: (event) => this.filter({ since: event.target.value && daysAgo(Number(event.target.value)) }) },
      ...["", 1, 7, 31, 366].map((days) => el("option", { value: days }, t(words, `fact.when.${days || "any"}`))));
    const toggle = (key, act) => el("button", { className: "pill", type: "button", aria: { pressed: false }, dataset: { act: key }, onclick: act }, t(words, `wall.${key}`));
    this.starred = toggle("starred", () => this.filter({ starred: this.query.starred ? "" : "true" }));
    this.trash = toggle("trash", () => this.filter({ trashed: this.query.trashed ? "" : "true" }));
    this.selecting = toggle("select", () => (this.selection ? this.stopSelecting() : this.startSelecting()));
    this.count = el("p", { className: "count", aria: { role: "status", live: "polite" } });
    this.sentinel = el("div", { className: "sentinel" });
    this.spacer = el("div", { className: "spacer" });
    const toolbar = el("div", { className: "toolbar", aria: { role: "search" } }, el("div", { className: "search" }, this.input), ...Object.values(this.selects), this.starred, this.selecting, this.trash);
    this.root.replaceChildren(toolbar, this.count, this.grid, this.notice, this.spacer, this.sentinel, this.selectionBar, this.toasts);
    this.observer = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && this.more());
    this.observer.observe(this.sentinel);
  }

  // Search and load

  searchSoon() {
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

  findSimilar(id) {
    this.resetQuery();
    this.filter({ like: id });
    this.root.scrollIntoView({ block: "start" });
  }

  address(more) { return `/api/pictures?${new URLSearchParams({ ...this.query, limit: this.strip ? STRIP : PAGE, ...more })}`; }

  async load() {
    this.request?.abort();
    const request = this.request = new AbortController();
    this.next = undefined;
    try {
      const page = await fetchJson(this.address(), { signal: request.signal });
      if (request !== this.request) return;
      this.rows.clear();
      this.grid.replaceChildren();
      this.appendPage(page);
      this.root.dataset.ready = JSON.stringify(this.query);
    } catch (failure) {
      if (failure.name !== "AbortError") this.toast(errorMessage(failure, this.lang, this.words), t(this.words, "wall.retry"), () => this.load());
    }
    this.updateCount();
  }

  async more() {
    if (!this.next || this.loadingMore) return;
    const { request } = this;
    this.loadingMore = true;
    const page = await fetchJson(this.address({ after: this.next }), { signal: request.signal }).catch(() => null);
    this.loadingMore = false;
    if (!page || request !== this.request) return;
    this.appendPage(page);
  }

  appendPage({ pictures, next }) {
    this.next = this.strip ? undefined : next;
    const fresh = pictures.filter((row) => !this.rows.has(row.id));
    for (const row of fresh) this.rows.set(row.id, row);
    this.grid.append(...fresh.map((row) => this.card(row)));
    this.spacer?.classList.toggle("end", !next);
    // An observer only reports changes: a sentinel that is still visible must be observed anew.
    if (this.observer && this.next) { this.observer.unobserve(this.sentinel); this.observer.observe(this.sentinel); }
    this.updateEmptyNotice();
  }

  // Prepend pictures that are new, if the list shows the newest first and the tab is visible.
  async pollForNew() {
    const ordinary = !this.query.like && !this.query.trashed && !this.query.text;
    if (document.hidden || !ordinary || this.polling || !this.root.isConnected || this.next === undefined && !this.strip && !this.root.dataset.ready) return;
    this.polling = true;
    const { request } = this;
    const page = await fetchJson(this.address({ limit: STRIP })).catch(() => null);
    this.polling = false;
    if (request !== this.request) return; // the query has changed meanwhile
    const fresh = (page?.pictures ?? []).filter((row) => !this.rows.has(row.id));
    if (!fresh.length) return;
    this.rows = new Map([...fresh.map((row) => [row.id, row]), ...this.rows]);
    const cards = fresh.map((row) => this.card(row));
    for (const card of cards) card.classList.add("new");
    this.grid.prepend(...cards);
    if (this.strip) for (const card of [...this.grid.children].slice(STRIP)) { this.rows.delete(card.dataset.id); card.remove(); }
    this.updateEmptyNotice();
    this.updateCount();
  }

  card(row) {
    const image = el("img", { src: `/api/pictures/${row.id}/thumb?size=${row.width > 400 || devicePixelRatio > 1.5 ? 512 : 256}`, loading: "lazy", decoding: "async", alt: this.viewer.name(row), width: row.width, height: row.height });
    image.onload = () => image.classList.add("on");
    image.onerror = () => { image.alt = t(this.words, "viewer.broken"); image.classList.add("on"); };
    const verdict = `${{ hang: "✦", refuse: "✕" }[row.verdict] ?? "◌"} ${t(this.words, `verdict.${row.verdict}.short`)}`;
    const summary = el("span", { className: "summary" }, ...[this.styles[row.style] ?? row.style, row.precision].filter(Boolean).map((word) => `${safeText(word)} · `), el("i", {}, verdict));
    const link = el("a", { href: `/?picture=${row.id}`, onclick: (event) => this.onCardClick(event, row.id) },
      el("span", { className: "frame" }, el("span", { className: "canvas" }, image)),
      el("span", { className: "caption" }, el("span", { className: "prompt" }, safeText(row.prompt) || "·"), summary));
    const star = el("button", { className: "star", type: "button", aria: { pressed: row.starred, label: t(this.words, "act.star") }, onclick: async () => {
      const starred = star.getAttribute("aria-pressed") !== "true";
      if (await this.star([row.id], starred)) star.setAttribute("aria-pressed", starred);
    } }, "★");
    return el("li", { className: "picture", dataset: { id: row.id }, style: { "--ratio": Math.min(3, Math.max(0.4, row.width / row.height)) } }, link, this.query.trashed ? "" : star);
  }

  onCardClick(event, id) {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    if (this.selection) this.toggleSelected(id);
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

  // Messages

  updateEmptyNotice() {
    if (this.strip) { this.root.hidden = !this.rows.size; return; }
    const empty = !this.rows.size, searched = Object.keys(this.query).length;
    this.notice.hidden = !empty;
    const key = this.query.trashed ? "wall.trash.empty" : searched ? "wall.none" : "wall.blank";
    this.notice.replaceChildren(el("b", {}, t(this.words, key)), t(this.words, `${key}.hint`));
  }

  async updateCount() {
    if (this.strip) return;
    const { request } = this;
    const total = await fetchJson(`/api/pictures/count?${new URLSearchParams(this.query)}`).catch(() => null);
    if (request !== this.request || !total) return;
    const clear = Object.keys(this.query).length && el("button", { type: "button", dataset: { act: "clear" }, onclick: () => this.clearFilters() }, t(this.words, "wall.clear"));
    const empty = this.query.trashed && total.count > 0 && el("button", { type: "button", dataset: { act: "empty" }, onclick: () => this.emptyTrash(total.count) }, t(this.words, "wall.empty"));
    this.count.replaceChildren(el("span", {}, t(this.words, this.query.like ? "wall.similar" : this.query.trashed ? "wall.trashed" : "wall.count", { n: total.count.toLocaleString() })), ...[clear, empty].filter(Boolean));
  }

  clearFilters() {
    this.resetQuery();
    this.filter({});
  }

  resetQuery() {
    this.input.value = "";
    for (const select of Object.values(this.selects)) select.value = "";
    this.query = {};
  }

  async refreshFacets() {
    if (this.strip) return;
    const facets = await fetchJson("/api/facets").catch(() => null);
    if (!facets) return;
    this.facets = facets;
    const named = { style: (value) => this.styles[value] ?? value, verdict: (value) => t(this.words, `verdict.${value}.short`) };
    const values = { ...facets, collection: facets.collections, tag: facets.tags };
    for (const name of FILTERS) {
      const select = this.selects[name];
      const counted = Object.entries(values[name] ?? {});
      select.hidden = counted.length < (["collection", "tag"].includes(name) ? 1 : 2);
      select.replaceChildren(el("option", { value: "" }, t(this.words, `fact.${name}`)), ...counted.map(([value, n]) => el("option", { value }, `${safeText((named[name] ?? String)(value))} · ${n}`)));
      select.value = this.query[name] ?? "";
    }
  }

  toast(sentence, action, act) {
    const box = el("div", { className: "toast" }, el("span", {}, sentence));
    const gone = setTimeout(() => box.remove(), action ? 12000 : 6000);
    if (action) box.append(el("button", { type: "button", dataset: { act: "undo" }, onclick: () => { clearTimeout(gone); box.remove(); act(); } }, action));
    this.toasts.replaceChildren(box);
  }

  // Changes

  async send(path, options) {
    try { await fetchJson(path, options); return true; }
    catch (failure) { this.toast(errorMessage(failure, this.lang, this.words)); return false; }
  }

  star(ids, starred) {
    for (const id of ids) if (this.rows.has(id)) this.rows.get(id).starred = starred;
    for (const id of ids) this.node(id)?.querySelector(".star")?.setAttribute("aria-pressed", starred);
    return this.send("/api/stars", { method: "POST", json: { pictures: ids, starred } });
  }

  async moveToTrash(ids) {
    if (!(await this.send("/api/trash", { method: "POST", json: { pictures: ids } }))) return;
    this.remove(ids);
    this.toast(t(this.words, "wall.moved", { n: ids.length }), t(this.words, "act.undo"), () => this.restore(ids));
  }

  async restore(ids) {
    if (!(await this.send("/api/trash/restore", { method: "POST", json: { pictures: ids } }))) return;
    this.toast(t(this.words, "wall.restored", { n: ids.length }));
    if (this.strip) { this.rows.clear(); this.grid.replaceChildren(); }
    await this.load();
    this.refreshFacets();
  }

  emptyTrash(n) {
    this.toast(t(this.words, "wall.empty.sure", { n }), t(this.words, "wall.empty"), async () => {
      if (await this.send("/api/trash", { method: "DELETE" })) this.load();
    });
  }

  remove(ids) {
    for (const id of ids) { this.rows.delete(id); this.node(id)?.remove(); }
    this.updateEmptyNotice();
    this.updateCount();
    this.refreshFacets();
  }

  // Selection

  startSelecting(id) {
    this.selection = new Set(id ? [id] : []);
    this.grid.classList.add("selecting");
    this.selecting?.setAttribute("aria-pressed", true);
    if (id) this.toast(t(this.words, "wall.compare"));
    this.updateSelection();
  }

  stopSelecting() {
    this.selection = null;
    this.grid.classList.remove("selecting");
    this.selecting?.setAttribute("aria-pressed", false);
    this.updateSelection();
  }

  toggleSelected(id) {
    if (!this.selection.delete(id)) this.selection.add(id);
    this.updateSelection();
  }

  updateSelection() {
    for (const card of this.grid.children) card.classList.toggle("selected", Boolean(this.selection?.has(card.dataset.id)));
    for (const link of this.grid.querySelectorAll("a")) {
      if (this.selection) link.setAttribute("aria-pressed", this.selection.has(link.parentElement.dataset.id)); else link.removeAttribute("aria-pressed");
    }
    this.selectionBar.hidden = !this.selection;
    if (!this.selection) return;
    const ids = [...this.selection], any = ids.length > 0;
    const button = (key, usable, act, more = "") => el("button", { className: `pill ${more}`, type: "button", disabled: !usable, dataset: { act: key }, onclick: act }, t(this.words, `act.${key}`));
    const done = (act) => async () => { this.stopSelecting(); await act(); };
    const actions = this.query.trashed
      ? [button("restore", any, done(() => this.restore(ids)), "gold")]
      : [button("compare", ids.length === 2, () => this.viewer.compare(ids.map((id) => this.rows.get(id))), "gold"), button("star", any, done(() => this.star(ids, true))),
         button("collect", any, () => this.askCollection(ids)), button("trash", any, done(() => this.moveToTrash(ids)))];
    this.selectionBar.replaceChildren(el("span", {}, t(this.words, "wall.selected", { n: ids.length })), ...actions, button("done", true, () => this.stopSelecting()));
  }

  // Ask for a collection's name in the selection bar, suggesting the existing ones.
  askCollection(ids) {
    const names = el("datalist", { id: "collections" }, ...Object.keys(this.facets.collections).map((name) => el("option", { value: name })));
    const name = el("input", { type: "text", maxLength: 100, placeholder: t(this.words, "wall.collect"), aria: { label: t(this.words, "wall.collect") } });
    name.setAttribute("list", "collections");
    const save = async () => {
      const into = name.value.trim();
      if (!into || !(await this.send("/api/collections", { method: "POST", json: { name: into, pictures: ids } }))) return;
      this.stopSelecting();
      this.toast(t(this.words, "wall.collected", { n: ids.length, name: into }));
      this.refreshFacets();
    };
    name.onkeydown = (event) => {
      if (event.key === "Enter" && !event.isComposing) save();
      if (event.key === "Escape") this.updateSelection();
    };
    this.selectionBar.replaceChildren(name, names, el("button", { className: "pill gold", type: "button", dataset: { act: "save" }, onclick: save }, t(this.words, "act.collect")),
      el("button", { className: "pill", type: "button", onclick: () => this.updateSelection() }, t(this.words, "act.back")));
    name.focus();
  }
}
