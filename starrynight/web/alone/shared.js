// What both pages share: words in two languages, the frame of a page, and how the server is asked. Texts become text nodes; nothing
// is compiled or evaluated, so that no policy has to allow it.
import { h, reactive } from "/alone/vue.runtime.esm-browser.prod.js";

const asked = new URLSearchParams(location.search).get("lang");
export const state = reactive({ lang: (asked ?? navigator.language).toLowerCase().startsWith("zh") ? "zh" : "en", senses: {}, said: "", locked: false, refused: "", keyed: false });

let words = {};
export async function start() {
  words = await (await fetch("/alone/words.json")).json();
  await findSenses();
  document.documentElement.lang = state.lang;
}

async function findSenses() {
  try {
    const { senses } = await ask("/api/senses");
    state.senses = Object.fromEntries(senses.map((one) => [one.name, one]));
    state.locked = false;
  } catch { /* the page says what fails when it is used, and asks for a key where one is missing */ }
}

// The service's key, where it wants one: kept by this tab until it is closed, and sent with every call.
const KEY = "starry/key";
let held = "";
const key = () => { try { return sessionStorage.getItem(KEY) ?? ""; } catch { return held; } };
function keep(value) {
  held = value;
  state.keyed = Boolean(value);
  try { if (value) sessionStorage.setItem(KEY, value); else sessionStorage.removeItem(KEY); } catch { /* forbidden: until the page is left */ }
}
state.keyed = Boolean(key());

function door() {
  const enter = (event) => {
    event.preventDefault();
    keep(new FormData(event.target).get("key").trim());
    findSenses();
  };
  return [h("form", { class: "door", onSubmit: enter }, [
    h("p", { class: "warn", role: "alert" }, state.refused || t("key.ask")),
    h("label", [t("key.label"), h("input", { type: "password", name: "key", required: true, autocomplete: "off", spellcheck: "false" })]),
    h("p", { class: "note" }, t("key.kept")), h("button", { type: "submit", class: "gold" }, t("key.enter")),
  ])];
}

export const t = (name, values = {}) => words[state.lang][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);

export const setLanguage = (lang) => {
  state.lang = document.documentElement.lang = lang;
  const address = new URL(location.href);
  address.searchParams.set("lang", lang);
  history.replaceState(null, "", address);
};

// The answer as JSON; an error is thrown with the server's own sentence in the page's language.
export async function ask(path, options = {}) {
  let answer;
  const headers = { ...options.headers, ...(key() ? { Authorization: `Bearer ${key()}` } : {}) };
  try { answer = await fetch(`${path}?lang=${state.lang}`, { ...options, headers }); } catch { throw new Error(t("no_server")); }
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 401) {
    Object.assign(state, { locked: true, refused: key() ? body.error?.[state.lang] ?? "" : "" });
    keep("");
  }
  if (!answer.ok) throw Object.assign(new Error(body.error?.[state.lang] ?? body.error?.message ?? t("no_server")), { status: answer.status });
  return body;
}

export const sendJson = (path, body) => ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // http on a network has no clipboard
    const box = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(box);
    box.select();
    document.execCommand("copy");
    box.remove();
  }
  state.said = t("copied");
}

export function save(name, text) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([text], { type: "text/markdown" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// The studio of this tab begins with this prompt: its form is kept there (web/parts/draft.js).
export function paint(prompt) {
  const key = "starry/draft", place = "////";
  let kept = null;
  try { kept = JSON.parse(sessionStorage.getItem(key)); } catch { /* none */ }
  const form = kept?.place === place ? kept.form : {};
  try { sessionStorage.setItem(key, JSON.stringify({ place, form: { ...form, prompt } })); } catch { /* forbidden: the studio opens empty */ }
  location.href = `/?lang=${state.lang}`;
}

const PAGES = ["see", "listen"];
export function frame(current, content) {
  const other = state.lang === "zh" ? "en" : "zh", lang = `lang=${state.lang}`;
  document.title = `${t(`${current}.title`)} · ${t("name")}`;
  return [
    h("header", [
      h("a", { href: mayPaint() ? `/?${lang}` : `/${current}?${lang}` }, h("b", t("name"))),
      h("nav", { "aria-label": t("pages") }, [
        ...(mayPaint() ? [h("a", { href: `/?${lang}` }, t("studio")), h("a", { href: `/?room=gallery&${lang}` }, t("gallery"))] : []),
        ...PAGES.map((page) => h("a", { href: `/${page}?${lang}`, "aria-current": page === current ? "page" : undefined }, t(`${page}.nav`))),
      ]),
      h("button", { class: "language", lang: other, type: "button", onClick: () => setLanguage(other) }, t("other")),
    ]),
    h("main", [h("h1", t(`${current}.title`)), h("p", { class: "lead" }, t(`${current}.lead`)), ...(state.locked ? door() : content)]),
    h("p", { class: "note", role: "status" }, state.said),
  ];
}

// The studio is not for keys: it opens by the address that ``starry open`` prints.
export const mayPaint = () => !state.keyed && !state.locked;

// Where what is given goes: nothing, or a sentence that it leaves this machine.
export const leaves = (sense) => (state.senses[sense]?.leaves ? [h("p", { class: "warn" }, t("leaves", { by: state.senses[sense].by }))] : []);
