// A wall of any length. The server says the shape of every picture (GET /api/pictures/layout), so the wall has its whole
// height from the beginning; only the pictures near the view are in the document, and their rows are read page by page
// around it. Whatever the jump, there are frames in view at once and pictures as soon as they are read.

const PAGE = 48; // rows read at once
const RETRY_MS = 3000;

// Justified rows: as many pictures as fit beside each other at the height ``tall``, then enlarged until they fill the width.
// ratios: width / height of each picture. Returns {first, top, height} of each row and the height of all.
const justify = (ratios, width, { tall, gap, line, frame, caption }) => {
  const rows = [];
  let top = 0, first = 0, sum = 0;
  const close = (end, height) => {
    rows.push({ first, top, height });
    top += height + 2 * frame + caption + line;
    [first, sum] = [end, 0];
  };
  const free = (count) => width - count * 2 * frame - (count - 1) * gap; // what frames and gaps leave for count canvases
  for (let at = 0; at < ratios.length; at += 1) {
    const ratio = hung(ratios[at]);
    if (at > first && (sum + ratio) * tall > free(at + 1 - first)) close(at, Math.min(free(at - first) / sum, tall * 1.7));
    sum += ratio;
  }
  if (sum) close(ratios.length, Math.min(free(ratios.length - first) / sum, tall));
  return { rows, height: Math.max(0, top - line) };
};

// The ratio that a picture is shown with: a very long one is cropped on the wall.
const hung = (ratio) => Math.min(3, Math.max(0.4, ratio));

// The element that scrolls ``node``, through shadow roots.
const scrollerOf = (node) => {
  for (let at = node; at; at = at.parentElement ?? at.getRootNode().host) {
    if (/auto|scroll/.test(getComputedStyle(at).overflowY) && at.scrollHeight > at.clientHeight + 1) return at;
  }
  return document.scrollingElement;
};

class Grid {
  // list: a <ul>. read(after): the rows after a number. card(row): what hangs for it. failed(failure), stale(): told when rows
  // cannot be read, and when the server no longer has what the layout says.
  constructor(list, { read, card, failed, stale }) {
    Object.assign(this, { list, read, card, failed, stale, numbers: [], ratios: [], rows: new Map(), nodes: new Map(), version: 0 });
    this.moved = () => { this.frame ??= requestAnimationFrame(() => { this.frame = undefined; this.show(); }); };
    addEventListener("scroll", this.moved, { capture: true, passive: true });
    addEventListener("resize", this.moved);
    this.resized = new ResizeObserver(() => this.list.clientWidth !== this.width && this.hang());
    this.resized.observe(list);
  }

  close() {
    removeEventListener("scroll", this.moved, { capture: true });
    removeEventListener("resize", this.moved);
    cancelAnimationFrame(this.frame);
    clearTimeout(this.retry);
    this.resized.disconnect();
  }

  // Hang other pictures. rows: those that are known already; kept: the view stays on the picture it was on.
  set({ numbers, ratios }, rows = [], kept = false) {
    const anchor = kept ? this.anchor() : null;
    Object.assign(this, { numbers, ratios, places: new Map(numbers.map((number, at) => [number, at])) });
    if (!kept) { this.rows.clear(); this.nodes.clear(); this.list.replaceChildren(); }
    for (const row of rows) this.rows.set(row.number, row);
    this.hang(anchor);
  }

  get size() { return this.numbers.length; }
  row(id) { for (const row of this.rows.values()) if (row.id === id) return row; return undefined; }
  node(id) { return this.list.querySelector(`[data-id="${id}"]`); }
  get shown() { return [...this.nodes.values()].filter((node) => node.dataset.id); }

  // New pictures hang before all others.
  prepend(rows) {
    const fresh = rows.filter((row) => !this.places.has(row.number));
    this.set({ numbers: [...fresh.map((row) => row.number), ...this.numbers], ratios: [...fresh.map((row) => row.width / row.height), ...this.ratios] }, fresh, true);
    for (const row of fresh) this.nodes.get(row.number)?.classList.add("new");
  }

  // The first picture in view and how far below the top it begins; nothing while the wall's beginning is in view.
  anchor() {
    const { top } = this.list.getBoundingClientRect();
    if (top >= 0 || !this.lines?.rows.length) return null;
    const line = this.lines.rows[this.lineAt(-top)];
    return { number: this.numbers[line.first], below: top + line.top };
  }

  // Lay out all pictures anew.
  hang(anchor = this.anchor()) {
    this.width = this.list.clientWidth;
    if (!this.width) return;
    const style = getComputedStyle(this.list);
    const size = (name) => parseFloat(style.getPropertyValue(`--${name}`));
    this.sizes = { tall: size("tall"), gap: size("gap"), line: size("line"), frame: size("frame"), caption: size("caption") };
    this.lines = justify(this.ratios, this.width, this.sizes);
    this.version += 1;
    this.list.style.height = `${this.lines.height}px`;
    if (anchor && this.places.has(anchor.number)) {
      const line = this.lines.rows[this.lineOf(this.places.get(anchor.number))];
      scrollerOf(this.list).scrollBy(0, this.list.getBoundingClientRect().top + line.top - anchor.below);
    }
    this.show();
  }

  search(beyond) { // the last line for which beyond(line) is false
    let [low, high] = [0, this.lines.rows.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (beyond(this.lines.rows[middle])) high = middle - 1; else low = middle;
    }
    return low;
  }
  lineAt(y) { return this.search((line) => line.top > y); }
  lineOf(at) { return this.search((line) => line.first > at); }

  // The pictures from ``above`` to ``below`` the view, in views: indices [first, end).
  span(above, below) {
    if (!this.lines?.rows.length) return [0, 0];
    const { top } = this.list.getBoundingClientRect();
    const end = this.lineAt(-top + innerHeight * (1 + below)) + 1;
    return [this.lines.rows[this.lineAt(-top - innerHeight * above)].first, this.lines.rows[end]?.first ?? this.size];
  }

  // Bring what is near the view into the document, and take the rest out of it, except what has the focus.
  show() {
    const [first, end] = this.span(1, 1);
    const focused = this.list.getRootNode().activeElement?.closest?.("li");
    const near = new Set(this.numbers.slice(first, end));
    for (const [number, node] of this.nodes) {
      if (!near.has(number) && (node !== focused || !this.places.has(number))) { node.remove(); this.nodes.delete(number); }
    }
    for (let at = first; at < end; at += 1) if (!this.nodes.has(this.numbers[at])) this.nodes.set(this.numbers[at], el("li", { className: "picture" }));
    let next = this.list.firstChild;
    for (const number of [...this.nodes.keys()].sort((a, b) => this.places.get(a) - this.places.get(b))) {
      const node = this.nodes.get(number);
      if (node === next) next = next.nextSibling; else this.list.insertBefore(node, next);
      this.place(node, number);
    }
    this.fill();
  }

  place(node, number) {
    const row = this.rows.get(number);
    if (row && node.dataset.id !== row.id) {
      node.dataset.id = row.id;
      node.replaceChildren(...this.card(row));
    } else if (!row && !node.firstChild) node.append(el("span", { className: "frame" }, el("span", { className: "canvas" })));
    if (node.version === this.version) return;
    node.version = this.version;
    const at = this.places.get(number), { gap, frame, caption } = this.sizes;
    const line = this.lines.rows[this.lineOf(at)];
    let left = 0;
    for (let before = line.first; before < at; before += 1) left += hung(this.ratios[before]) * line.height + 2 * frame + gap;
    const ratio = hung(this.ratios[at]);
    Object.assign(node.style, { left: `${left}px`, top: `${line.top}px`, width: `${ratio * line.height + 2 * frame}px`, height: `${line.height + 2 * frame + caption}px` });
    node.style.setProperty("--ratio", ratio);
    node.setAttribute("aria-posinset", at + 1);
    node.setAttribute("aria-setsize", this.size);
  }

  // The first picture without a row, in the view before beside it.
  missing() {
    for (const [first, end] of [this.span(0, 0), this.span(1, 1)]) {
      for (let at = first; at < end; at += 1) if (!this.rows.has(this.numbers[at])) return at;
    }
    return -1;
  }

  // Read rows, one page at a time and always for the present view, until none is missing in it.
  async fill() {
    if (this.filling) return;
    this.filling = true;
    try {
      for (let at = this.missing(); at >= 0 && this.list.isConnected; at = this.missing()) {
        if (!(await this.readAround(at))) break;
        this.show();
      }
    } catch (failure) {
      clearTimeout(this.retry);
      this.retry = setTimeout(() => this.fill(), RETRY_MS);
      this.failed(failure);
    }
    this.filling = false;
  }

  // Read the page of rows with the picture ``at`` in it. False if the server does not have that picture any more.
  async readAround(at) {
    const { numbers } = this, first = at - (at % PAGE);
    const rows = await this.read(first ? numbers[first - 1] : undefined);
    if (numbers !== this.numbers) return true; // other pictures hang meanwhile
    for (const row of rows) this.rows.set(row.number, row);
    if (this.rows.has(numbers[at])) return true;
    this.stale();
    return false;
  }

  // The row ``step`` places after the picture of ``row``, or null at the end.
  async neighbour(row, step) {
    const at = (this.places?.get(row.number) ?? NaN) + step;
    if (!(at >= 0 && at < this.size)) return null;
    if (!this.rows.has(this.numbers[at])) await this.readAround(at);
    return this.rows.get(this.numbers[at]) ?? null;
  }

  has(row, step) { const at = (this.places?.get(row.number) ?? NaN) + step; return at >= 0 && at < this.size; }

  // Bring a picture into view and give it the focus.
  focus(row) {
    const at = this.places?.get(row.number);
    if (at === undefined || !this.lines) return;
    const line = this.lines.rows[this.lineOf(at)], { top } = this.list.getBoundingClientRect();
    if (top + line.top < 0 || top + line.top + line.height > innerHeight) scrollerOf(this.list).scrollBy(0, top + line.top - 80);
    this.show();
    this.nodes.get(row.number)?.querySelector("a")?.focus({ preventScroll: true });
  }
}
