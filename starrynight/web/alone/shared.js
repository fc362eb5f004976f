// What both pages share: words in two languages, the frame of a page, and how the server is asked. Texts become text nodes; nothing
// is compiled or evaluated, so that no policy has to allow it.
import { h, reactive } from "/alone/vue.runtime.esm-browser.prod.js";

const asked = new URLSearchParams(location.search).get("lang");
export const state = reactive({ lang: (asked ?? navigator.language).toLowerCase().startsWith("zh") ? "zh" : "en", senses: {}, said: "" });

let words = {};
export async function start() {
  words = await (await fetch("/alone/words.json")).json();
  try {
    const { senses } = await (await fetch("/api/senses")).json();
    state.senses = Object.fromEntries(senses.map((one) => [one.name, one]));
  } catch { /* the page says what fails when it is used */ }
  document.documentElement.lang = state.lang;
}

export const t = (name, values = {}) => words[state.lang][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);

export const setLanguage = (lang) => {
  state.lang = document.documentElement.lang = lang;
  const address = new URL(location.href);
  address.searchParams.set("lang", lang);
  history.replaceState(null, "", address);
};

// The answer as JSON; an error is thrown with the server's own sentence in the page's language.
export async function ask(path, options) {
  let answer;
  try { answer = await fetch(`${path}?lang=${state.lang}`, options); } catch { throw new Error(t("no_server")); }
  const body = await answer.json().catch(() => ({}));
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
      h("a", { href: `/?${lang}` }, h("b", t("name"))),
      h("nav", { "aria-label": t("pages") }, [
        h("a", { href: `/?${lang}` }, t("studio")),
        h("a", { href: `/?room=gallery&${lang}` }, t("gallery")),
        ...PAGES.map((page) => h("a", { href: `/${page}?${lang}`, "aria-current": page === current ? "page" : undefined }, t(`${page}.nav`))),
      ]),
      h("button", { class: "language", lang: other, type: "button", onClick: () => setLanguage(other) }, t("other")),
    ]),
    h("main", [h("h1", t(`${current}.title`)), h("p", { class: "lead" }, t(`${current}.lead`)), ...content]),
    h("p", { class: "note", role: "status" }, state.said),
  ];
}

// Where what is given goes: nothing, or a sentence that it leaves this machine.
export const leaves = (sense) => (state.senses[sense]?.leaves ? [h("p", { class: "warn" }, t("leaves", { by: state.senses[sense].by }))] : []);
