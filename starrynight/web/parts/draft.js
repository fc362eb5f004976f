// What the visitor is about to paint, kept in the browser: the form survives a reload in this tab (sessionStorage), and the
// arrow keys bring back earlier prompts (localStorage). Nothing is drawn.

const DRAFT = "starry/draft", PROMPTS = "starry/prompts", MOST = 100, PAUSE_MS = 150;
let restored = false; // once in every visit: Streamlit keeps the form while the page stays open
const walked = { at: undefined, own: "" }; // the earlier prompt in the box, and what was typed before; no redrawing ends it

// Storage may be forbidden or full; then nothing is kept.
const load = (storage, key) => { try { return JSON.parse(storage().getItem(key)); } catch { return null; } };
const save = (storage, key, value) => { try { storage().setItem(key, JSON.stringify(value)); } catch { /* not kept */ } };
const session = () => sessionStorage, local = () => localStorage;

// What the form was filled from; a draft belongs to that.
const place = () => { const { job, from, start, mask, near } = readAddress(); return [job, from, start, mask, near].map((part) => part ?? "").join("/"); };

const keepers = new WeakMap(); // root → its Keeper

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".draft") ?? parentElement.appendChild(el("div", { className: "draft", hidden: true }));
  const keeper = keepers.get(root) ?? new Keeper(root);
  keepers.set(root, keeper);
  keeper.update(data, setTriggerValue);
  return keeper.close;
}

class Keeper {
  constructor(root) {
    const typed = (event) => { if (event.target === this.box) this.keepSoon(); };
    const pressed = (event) => { if (event.target === this.box) this.walk(event); };
    document.addEventListener("input", typed);
    document.addEventListener("keydown", pressed, true);
    this.close = () => {
      clearTimeout(this.timer);
      document.removeEventListener("input", typed);
      document.removeEventListener("keydown", pressed, true);
      keepers.delete(root);
    };
  }

  get box() { return document.querySelector(".st-key-prompt textarea"); }

  update({ form, painted }, emit) {
    this.form = form;
    const prompts = load(local, PROMPTS) ?? [];
    if (painted && painted !== prompts.at(-1)) {
      save(local, PROMPTS, [...prompts.filter((text) => text !== painted), painted].slice(-MOST));
      walked.at = undefined;
    }
    const draft = restored ? null : load(session, DRAFT);
    restored = true;
    if (draft?.place === place()) emit("draft", draft.form);
    else this.keepSoon(); // Streamlit may be about to write into the box
  }

  keepSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.box && save(session, DRAFT, { place: place(), form: { ...this.form, prompt: this.box.value } }), PAUSE_MS);
  }

  // Arrow up at the beginning of the box, or in an earlier prompt: the one before it. Arrow down: the one after it.
  walk(event) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step || event.isComposing || event.shiftKey || event.ctrlKey || event.altKey || event.metaKey) return;
    const prompts = load(local, PROMPTS) ?? [], { box } = this;
    const walking = walked.at !== undefined && box.value === prompts[walked.at];
    const edge = step < 0 ? box.selectionStart === 0 && box.selectionEnd === 0 : false;
    if (!walking && !edge) return;
    if (!walking) { walked.own = box.value; walked.at = prompts.length; }
    let at = walked.at + step;
    while (prompts[at] === walked.own && at >= 0) at += step; // it stands there already
    if (at < 0 || walked.at >= prompts.length && step > 0) return;
    event.preventDefault();
    walked.at = at < prompts.length ? at : undefined;
    this.write(prompts[at] ?? walked.own);
  }

  // As if it was typed, so that Streamlit's box and the hints below it know of it.
  write(text) {
    Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(this.box, text);
    this.box.dispatchEvent(new Event("input", { bubbles: true }));
    this.box.setSelectionRange(0, 0);
  }
}
