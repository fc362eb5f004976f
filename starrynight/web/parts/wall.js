// The wall: framed pictures (grid.js), searched while typing. It talks to the server's API directly; Streamlit is called only
// when the visitor leaves for the studio. What is searched for, the open picture and a compared pair stand in the address, so
// that a reload, Back and a link that is sent lead to the same wall.

const walls = new WeakMap();
const ALIKE = 12, STRIP = 8, NEWEST = 8, NEAREST = 24, POLL_MS = 500, SETTLED_MS = 250;
const MOST_PRINTED = 200; // exhibition/prints.py
const FILTERS = ["style", "shows", "precision", "verdict", "model", "collection", "tag"];
const SEEN = ["hour", "weather", "kind", "thing"]; // gallery/descriptions.py
const SEARCHED = [...FILTERS, "when", "text", "starred", "trashed", "like"]; // the parts of the address that the wall reads

// The local midnight at which the last `days` days (today included) began.
const daysAgo = (days) => {
  const day = new Date();
  day.setHours(0, 0, 0, 0);
  day.setDate(day.getDate() - days + 1);
  return day.toISOString();
};

// Whether two states search for the same.
const same = (a, b) => SEARCHED.every((name) => (a?.[name] ?? "") === (b?.[name] ?? ""));

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
  return () => wall.close();
}

class Wall {
  constructor(root, data) {
    Object.assign(this, { root, words: data.words, lang: data.lang, styles: data.styles, seen: data.seen, strip: data.strip });
    this.state = null; // what is searched for; nothing has been yet
    this.facets = { collections: {}, tags: {} };
    this.selection = new Selection(this);
    this.build();
    this.viewer = new Viewer(root, this, data, (kind, value) => { this.viewer.close(); this.emit("action", { kind, value, at: Date.now() }); });
    this.slideshow = new Slideshow(root, { words: data.words, name: (row) => this.viewer.name(row), caption: (row) => [this.styles[row.style] ?? row.style, row.seed !== null && t(data.words, "fact.seed", { seed: row.seed })].filter(Boolean).join(" · ") });
    this.follow();
    if (!this.strip) { this.refreshFacets(); takeFiles(root, t(data.words, "wall.drop"), (files) => this.hang(files)); }
    this.clock = setInterval(() => this.pollForNew(), POLL_MS);
    this.listen();
  }

  listen() {
    this.onpop = () => this.follow();
    this.onscroll = () => { this.showTop(); clearTimeout(this.settled); this.settled = setTimeout(() => this.remember(), SETTLED_MS); };
    this.onslash = (event) => {
      if (event.key !== "/" || !this.input || this.viewer.isOpen || event.composedPath()[0].matches?.("input, textarea, select")) return;
      event.preventDefault();
      this.input.focus();
    };
    addEventListener("popstate", this.onpop);
    addEventListener("keydown", this.onslash);
    if (!this.strip) addEventListener("scroll", this.onscroll, { capture: true, passive: true });
  }

  close() {
    clearInterval(this.clock);
    clearTimeout(this.settled);
    removeEventListener("popstate", this.onpop);
    removeEventListener("keydown", this.onslash);
    removeEventListener("scroll", this.onscroll, { capture: true });
    this.grid.close();
    this.request?.abort();
  }

  build() {
    const { words } = this;
    const list = el("ul", { className: "grid", aria: { label: t(words, this.strip ? "wall.recent" : "wall.label") } });
    this.grid = new Grid(list, {
      card: (row) => this.card(row), stale: () => this.load(true),
      failed: (failure) => this.toast(errorMessage(failure, this.lang, words), t(words, "wall.retry"), () => this.grid.fill()),
    });
    this.toasts = el("div", { aria: { role: "status", live: "polite" } });
    this.notice = el("div", { className: "no-results", hidden: true });
    if (this.strip) {
      this.root.classList.add("strip");
      this.root.replaceChildren(el("h2", { className: "recent" }, t(words, "wall.recent")), list, this.toasts);
      return;
    }
    this.top = el("button", { className: "top", type: "button", hidden: true, title: t(words, "wall.top"), aria: { label: t(words, "wall.top") }, onclick: () => scrollerOf(list).scrollTo({ top: 0 }) }, "↑");
    this.count = el("p", { className: "count", aria: { role: "status", live: "polite" } });
    this.alike = el("section", { className: "alike", hidden: true, aria: { label: t(words, "wall.alike") } });
    this.root.replaceChildren(this.toolbar(), this.count, list, this.notice, this.alike, this.selection.bar, this.top, this.toasts);
  }

  toolbar() {
    const { words } = this;
    const name = t(words, "wall.search");
    this.input = el("input", { type: "search", placeholder: name, aria: { label: name }, value: "", oninput: () => this.searchSoon() });
    const select = (name, label, ...options) => el("select", { className: "pill", aria: { label }, dataset: { filter: name }, onchange: (event) => this.filter({ [name]: event.target.value }) }, ...options);
    this.selects = Object.fromEntries(FILTERS.map((name) => [name, select(name, t(words, `fact.${name}`))]));
    for (const filter of Object.values(this.selects)) filter.hidden = true;
    this.selects.when = select("when", t(words, "fact.when"), ...["", 1, 7, 31, 366].map((days) => el("option", { value: days }, t(words, `fact.when.${days || "any"}`))));
    const toggle = (key, act) => el("button", { className: "pill", type: "button", aria: { pressed: false }, dataset: { act: key }, onclick: act }, t(words, `wall.${key}`));
    this.starred = toggle("starred", () => this.filter({ starred: this.state.starred ? "" : "true" }));
    this.trash = toggle("trash", () => this.filter({ trashed: this.state.trashed ? "" : "true" }));
    this.selecting = toggle("select", () => (this.selection.on ? this.selection.stop() : this.selection.start()));
    return el("div", { className: "toolbar", aria: { role: "search" } }, el("div", { className: "search" }, this.input), ...Object.values(this.selects), this.starred, this.selecting, this.trash);
  }

  // Address

  // Show what the address says: after a reload, a sent link, Back and Forward.
  async follow() {
    const address = readAddress();
    const state = this.strip ? {} : Object.fromEntries(SEARCHED.filter((name) => address[name]).map((name) => [name, address[name]]));
    if (!this.state || !same(state, this.state)) {
      this.show(state);
      await this.load(false, history.state?.wall);
    }
    this.viewer.follow(address);
  }

  // Keep in the history where on the wall the visitor is.
  remember() {
    if (this.root.isConnected && !this.viewer.isOpen) history.replaceState({ ...history.state, wall: this.grid.anchor() }, "");
  }

  showTop() { this.top.hidden = this.grid.list.getBoundingClientRect().top > -innerHeight; }

  // Search and load

  searchSoon() {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.filter({ text: this.input.value.trim() }, Boolean(this.state.text)), 90);
  }

  // Change what is searched for. typing: an entry of the history is there already, from the first letters.
  filter(change, typing = false) {
    clearTimeout(this.waiting); // what was just typed counts, too
    const state = Object.fromEntries(Object.entries({ ...this.state, text: this.input.value.trim(), ...change }).filter(([, value]) => value));
    writeAddress(Object.fromEntries(SEARCHED.map((name) => [name, state[name]])), !typing);
    this.show(state);
    this.load();
  }

  // The toolbar shows what is searched for.
  show(state) {
    if (this.state && Boolean(state.trashed) !== Boolean(this.state.trashed)) this.selection.stop(); // what is chosen here is not there
    this.state = state;
    if (this.strip) return;
    if (this.count.querySelector("input")) this.count.replaceChildren(); // a new name was asked for what is no longer shown
    if (this.input.value.trim() !== (state.text ?? "")) this.input.value = state.text ?? "";
    this.starred.setAttribute("aria-pressed", Boolean(state.starred));
    this.trash.setAttribute("aria-pressed", Boolean(state.trashed));
    for (const [name, select] of Object.entries(this.selects)) {
      select.value = state[name] ?? "";
      select.classList.toggle("set", Boolean(state[name]));
    }
  }

  findSimilar(id) {
    this.filter({ ...Object.fromEntries(SEARCHED.map((name) => [name, ""])), like: id });
    this.root.scrollIntoView({ block: "start" });
  }

  clearFilters() { this.filter(Object.fromEntries(SEARCHED.map((name) => [name, ""]))); }

  // What the API is asked for.
  get query() {
    const { when, ...query } = this.state;
    return Number(when) > 0 ? { ...query, since: daysAgo(Number(when)) } : query;
  }

  // Lay the wall out. kept: the visitor stays at the same picture; at: the place to go to.
  async load(kept = false, at = null) {
    this.request?.abort();
    const request = this.request = new AbortController(), { query, state } = this;
    const address = (more) => `/api/pictures?${new URLSearchParams({ ...query, ...more })}`;
    try {
      const [layout, page] = await Promise.all([
        this.strip ? null : fetchJson(`/api/pictures/layout?${new URLSearchParams(query)}`, { signal: request.signal }),
        fetchJson(address({ limit: this.strip ? STRIP : PAGE }), { signal: request.signal }),
      ]);
      if (request !== this.request) return;
      this.grid.read = async (after) => (await fetchJson(address({ limit: PAGE, ...(after ? { after } : {}) }))).pictures;
      this.grid.set(this.arranged(layout, page.pictures), page.pictures, kept);
      if (at) this.grid.hang(at);
      this.root.dataset.ready = JSON.stringify(state);
      this.showTotal();
      this.findAlike(request);
    } catch (failure) {
      if (failure.name !== "AbortError") this.toast(errorMessage(failure, this.lang, this.words), t(this.words, "wall.retry"), () => this.load(kept, at));
    }
  }

  // Below what the words found: pictures that show what they mean. Those that hang stay until the new ones are here.
  async findAlike(request) {
    if (this.strip) return;
    const { text, like, trashed } = this.state;
    let found = null, failure = "";
    try {
      if (text && !like && !trashed) found = await fetchJson(`/api/pictures/alike?${new URLSearchParams({ ...this.query, limit: ALIKE })}`, { signal: request.signal });
    } catch (error) {
      if (error.name !== "AbortError") failure = errorMessage(error, this.lang, this.words);
    }
    if (request !== this.request) return;
    const rows = found?.pictures ?? [];
    for (const warning of found?.warnings ?? []) failure = t(this.words, "wall.ranked_here", { why: safeText(warning[this.lang]) });
    this.alike.hidden = !rows.length && !failure;
    this.alike.replaceChildren(...(failure ? [el("p", { className: "why", aria: { role: "status" } }, failure)] : []),
      ...(rows.length ? [el("h2", { className: "recent" }, t(this.words, "wall.alike")), el("ul", {}, ...rows.map((row) => el("li", { className: "near", style: { "--ratio": row.width / row.height } }, ...this.card(row))))] : []));
  }

  // The order and shapes of what hangs: all that was found, the nearest of what is similar, or the strip's few.
  arranged(layout, rows) {
    const { numbers, ratios } = layout ?? { numbers: rows.map((row) => row.number), ratios: rows.map((row) => row.width / row.height) };
    const most = this.state.like ? NEAREST : numbers.length;
    return { numbers: numbers.slice(0, most), ratios: ratios.slice(0, most) };
  }

  // Hang pictures that are new, if the wall shows the newest first and the tab is visible.
  async pollForNew() {
    const { like, trashed, text } = this.state;
    if (document.hidden || like || trashed || text || this.polling || !this.root.isConnected || !this.root.dataset.ready) return;
    this.polling = true;
    const { request } = this;
    const page = await fetchJson(`/api/pictures?${new URLSearchParams({ ...this.query, limit: NEWEST })}`).catch(() => null);
    this.polling = false;
    if (request !== this.request || !page) return; // the query has changed meanwhile
    const newest = this.grid.numbers[0] ?? 0;
    const fresh = page.pictures.filter((row) => row.number > newest);
    if (!fresh.length) return;
    if (this.strip || fresh.length === NEWEST) return void this.load(true);
    this.grid.prepend(fresh);
    this.showTotal();
  }

  // Cards

  card(row) {
    const image = el("img", { src: `/api/pictures/${row.id}/thumb?size=${row.width > 400 || devicePixelRatio > 1.5 ? 512 : 256}`, decoding: "async", alt: this.viewer.name(row), width: row.width, height: row.height });
    const summary = el("span", { className: "summary" }, safeText(this.styles[row.style] ?? row.style ?? ""), row.mark && el("i", {}, markText(this.words, row.mark)));
    image.onload = () => image.classList.add("on");
    image.onerror = () => { image.alt = t(this.words, "viewer.broken"); image.classList.add("on"); summary.append(el("i", {}, markText(this.words, "missing"))); };
    const link = el("a", { href: `/?picture=${row.id}`, onclick: (event) => this.onCardClick(event, row) },
      el("span", { className: "frame" }, el("span", { className: "canvas" }, image)),
      el("span", { className: "caption" }, el("span", { className: "prompt" }, safeText(row.prompt) || "·"), summary));
    const star = el("button", { className: "star", type: "button", aria: { pressed: row.starred, label: t(this.words, "act.star") }, onclick: async () => {
      const starred = star.getAttribute("aria-pressed") !== "true";
      if (await this.star([row.id], starred)) star.setAttribute("aria-pressed", starred);
    } }, "★");
    const parts = this.state.trashed ? [link] : [link, star];
    queueMicrotask(() => link.parentElement && this.selection.dress(link.parentElement));
    return parts;
  }

  onCardClick(event, row) {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    if (this.selection.on) this.selection.toggle(row);
    else this.viewer.open(row.id);
  }

  // Messages

  // How many pictures there are, and what to do where there are none.
  showTotal() {
    const n = this.grid.size, { words, state } = this;
    if (this.strip) { this.root.hidden = !n; return; }
    const choice = (key, act) => el("button", { type: "button", dataset: { act: key }, onclick: act }, t(words, `wall.${key}` in words ? `wall.${key}` : `act.${key}`));
    const shown = n > 0 && !state.trashed && choice("exhibit", () => this.exhibit());
    const printed = n > 0 && n <= MOST_PRINTED && !state.trashed && !state.like && choice("catalogue", () => this.saveMade(`/api/catalogue?${new URLSearchParams(this.query)}`, undefined, "starry-night.pdf"));
    const clear = Object.keys(state).length > 0 && choice("clear", () => this.clearFilters());
    const empty = state.trashed && n > 0 && choice("empty", () => this.emptyTrash(n));
    const collection = state.collection && !state.trashed ? collectionActs(this).map(([key, act]) => choice(key, act)) : [];
    if (!this.count.querySelector("input")) this.count.replaceChildren(el("span", {}, counted(words, state.like ? "wall.similar" : state.trashed ? "wall.trashed" : "wall.count", n)), ...[clear, empty, shown, printed, ...collection].filter(Boolean));
    this.notice.hidden = n > 0;
    const key = state.trashed ? "wall.trash.empty" : Object.keys(state).length ? "wall.none" : "wall.blank";
    this.notice.replaceChildren(el("b", {}, t(words, key)), t(words, `${key}.hint`));
    this.showTop();
  }

  async refreshFacets() {
    if (this.strip) return;
    const facets = await fetchJson("/api/facets").catch(() => null);
    if (!facets) return;
    this.facets = facets;
    const named = { style: (value) => this.styles[value] ?? value, verdict: (value) => t(this.words, `verdict.${value}.short`), shows: (value) => this.seen[value] ?? value.split(".")[1] };
    const values = { ...facets, collection: facets.collections, tag: facets.tags };
    for (const name of FILTERS) {
      const select = this.selects[name], chosen = this.state[name];
      const found = Object.entries(values[name] ?? {});
      if (chosen && !found.some(([value]) => value === chosen)) found.push([chosen, 0]);
      select.hidden = !chosen && found.length < (["collection", "tag"].includes(name) ? 1 : 2);
      const option = ([value, n]) => el("option", { value }, `${safeText((named[name] ?? String)(value))} · ${n}`);
      const options = name !== "shows" ? found.map(option) : SEEN.map((kind) => [kind, found.filter(([value]) => value.startsWith(`${kind}.`))]).filter(([, of]) => of.length).map(([kind, of]) => el("optgroup", { label: t(this.words, `facet.${kind === "hour" ? "time" : kind === "kind" ? "place" : kind}`) }, ...of.map(option)));
      select.replaceChildren(el("option", { value: "" }, t(this.words, `fact.${name}`)), ...options);
      select.value = chosen ?? "";
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
    for (const id of ids) {
      const row = this.grid.row(id);
      if (row) row.starred = starred;
      this.grid.node(id)?.querySelector(".star")?.setAttribute("aria-pressed", starred);
    }
    return this.send("/api/stars", { method: "POST", json: { pictures: ids, starred } });
  }

  async moveToTrash(ids) {
    if (!(await this.send("/api/trash", { method: "POST", json: { pictures: ids } }))) return;
    await this.load(true);
    this.refreshFacets();
    this.toast(counted(this.words, "wall.moved", ids.length), t(this.words, "act.undo"), () => this.restore(ids));
  }

  async restore(ids) {
    if (!(await this.send("/api/trash/restore", { method: "POST", json: { pictures: ids } }))) return;
    this.toast(counted(this.words, "wall.restored", ids.length));
    await this.load(true);
    this.refreshFacets();
  }

  // Show pictures one after another: these, or all that the wall shows.
  exhibit(rows) {
    const { grid } = this;
    if (rows) return this.slideshow.open(rows.length, async (at) => rows[at]);
    const { numbers } = grid;
    return this.slideshow.open(grid.size, async (at) => {
      if (!grid.rows.has(numbers[at])) await grid.readAround(at);
      return grid.rows.get(numbers[at]);
    });
  }

  // Save a file that the server makes, which takes seconds.
  async saveMade(path, json, name) {
    this.toast(t(this.words, "wall.making"));
    const language = `${path.includes("?") ? "&" : "?"}lang=${this.lang}`;
    try { saveFile(await fetchFile(path + language, json), name); this.toasts.replaceChildren(); }
    catch (failure) { this.toast(errorMessage(failure, this.lang, this.words)); }
  }

  // Hang files that were dropped onto the wall, with the recipes in them.
  async hang(files) {
    const hung = [];
    let last = "";
    for (const file of files) {
      try { hung.push(await fetchJson("/api/pictures", { method: "POST", body: file, headers: { "Content-Type": file.type || "application/octet-stream" } })); }
      catch (failure) { last = `${safeText(file.name)}: ${errorMessage(failure, this.lang, this.words)}`; }
    }
    const fresh = hung.filter((one) => one.new).length;
    if (fresh) await this.load(true);
    this.refreshFacets();
    this.toast([fresh ? counted(this.words, "wall.hung", fresh) : hung.length ? t(this.words, "wall.there") : "", last].filter(Boolean).join(" · "));
  }

  emptyTrash(n) {
    this.toast(counted(this.words, "wall.empty.sure", n), t(this.words, "wall.empty"), async () => {
      if (await this.send("/api/trash", { method: "DELETE" })) this.load();
    });
  }
}
