// Below the prompt: which of its words the model never read, told while one types, each with known words that replace it
// when tapped; and lines to begin with. The text box is Streamlit's, which tells the page of a text only when one leaves
// the box; so the box is watched here and the server is asked directly.

const PAUSE = 250; // ms without a key before the server is asked
const MOST = 5; // unknown words that are listed
const readers = new WeakMap(); // root → its PromptReader

export default function ({ data, parentElement, setTriggerValue, setStateValue }) {
  const root = parentElement.querySelector(".hints") ?? parentElement.appendChild(el("section", { className: "hints" }));
  const reader = readers.get(root) ?? new PromptReader(root);
  readers.set(root, reader);
  reader.update(data, setTriggerValue, setStateValue);
  return reader.close;
}

class PromptReader {
  constructor(root) {
    this.root = root;
    this.unknown = el("p", { className: "unknown", hidden: true, aria: { role: "status", live: "polite" } });
    this.examples = el("div", { className: "examples", aria: { role: "group" } });
    this.facets = new Facets((change) => this.trigger("facet", { ...change, prompt: this.box?.value ?? "" }));
    root.replaceChildren(this.facets.root, this.unknown, this.examples);
    const typed = (event) => { if (event.target === this.box && !event.isComposing) this.wait(PAUSE); };
    for (const kind of ["input", "compositionend"]) document.addEventListener(kind, typed);
    this.close = () => {
      clearTimeout(this.timer);
      for (const kind of ["input", "compositionend"]) document.removeEventListener(kind, typed);
      readers.delete(root);
    };
  }

  get box() { return document.querySelector(".st-key-prompt textarea"); }

  update(data, trigger, state) {
    Object.assign(this, { data, trigger, state });
    this.root.lang = data.lang;
    this.root.setAttribute("aria-label", t(data.words, "hint.label"));
    const signature = JSON.stringify(data.examples);
    if (this.signature !== signature) {
      this.signature = signature;
      this.examples.setAttribute("aria-label", t(data.words, "hint.examples"));
      const others = t(data.words, "hint.others");
      this.examples.replaceChildren(el("button", { className: "pill others", type: "button", title: others, aria: { label: others }, onclick: () => this.turn() }, "↻"), ...data.examples.map(({ key, text, picture }) =>
        el("button", { className: "pill", type: "button", dataset: { example: key }, onclick: () => this.trigger("example", key) },
          el("img", { src: picture, alt: "", width: 22, height: 22 }), text)));
    }
    this.wait(60); // Streamlit may be about to write into the box
  }

  // Two rows are in sight: the lines there go to the end.
  turn() {
    const [first, ...lines] = this.examples.children;
    const seen = lines.filter((line) => line.offsetTop - first.offsetTop < this.examples.clientHeight);
    this.examples.append(...(seen.length < lines.length ? seen : []));
  }

  wait(pause) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.read(), pause);
  }

  async read() {
    const { model, lang } = this.data;
    const prompt = this.box?.value ?? "";
    const asked = JSON.stringify([prompt, model, lang]);
    if (asked === this.asked) return;
    this.asked = asked;
    const nothing = { unknown: [], styles: [], facets: [] };
    const found = !prompt.trim() ? nothing : await fetchJson("/api/prompt", { method: "POST", json: { prompt, model } }).catch(() => nothing);
    if (asked !== this.asked) return; // one has typed on
    this.facets.show(found.facets, this.data);
    this.show(prompt, found.unknown);
    const named = found.styles[0] ?? "";
    if (named !== (this.named ?? "")) this.state("named", this.named = named);
  }

  show(prompt, unknown) {
    const { words, name } = this.data;
    this.unknown.hidden = !unknown.length;
    if (!unknown.length) return;
    const rest = unknown.length - MOST;
    this.unknown.replaceChildren(t(words, "hint.unknown", { model: name }), ...unknown.slice(0, MOST).map(({ word, suggestions }) =>
      el("span", {}, el("b", {}, safeText(word)), suggestions.length > 0 && ` · ${t(words, "hint.knows")}`,
        ...suggestions.map((known) => this.replacement(prompt, word, known)))),
      ...(rest > 0 ? [t(words, "hint.more", { n: rest })] : []));
  }

  replacement(prompt, word, known) {
    const hint = t(this.data.words, "hint.replace", { word, known });
    return el("button", { className: "pill", type: "button", title: hint, aria: { label: hint },
      onclick: () => this.trigger("prompt", replaced(this.box?.value ?? prompt, word, known)) }, known);
  }
}

// The text with every whole ``word`` replaced. An article follows the new word: "an otter" becomes "a fox", or "crows".
const replaced = (text, word, known) => {
  const plain = word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  if (!/^[\p{Script=Latin}]/u.test(word)) return text.replaceAll(word, known);
  const whole = new RegExp(`(?:\\b(an?)(\\s+))?(?<![\\p{L}\\p{N}])${plain}(?![\\p{L}\\p{N}])`, "giu");
  return text.replace(whole, (_, article, gap) => {
    if (!article || /[^s]s$/i.test(known)) return known;
    const fitting = /^[aeiou]/i.test(known) ? "an" : "a";
    return (article[0] === "A" ? fitting.replace("a", "A") : fitting) + gap + known;
  });
};
