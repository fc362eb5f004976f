// Helpers of every component: building elements whose strings are always text, translating, and calling the server's API.

const el = (tag, properties = {}, ...children) => {
  const { dataset, aria, style, ...rest } = properties;
  const node = Object.assign(document.createElement(tag), rest);
  Object.assign(node.dataset, dataset ?? {});
  for (const [name, value] of Object.entries(aria ?? {})) node.setAttribute(name === "role" ? name : `aria-${name}`, value);
  for (const [name, value] of Object.entries(style ?? {})) node.style.setProperty(name, value);
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
};

const t = (words, key, values = {}) =>
  (words[key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));

// n things, in the key's singular where the language has one.
const counted = (words, key, n, values = {}) => t(words, n === 1 && `${key}.one` in words ? `${key}.one` : key, { n: n.toLocaleString(), ...values });

// What a visitor should know of a picture's numbers (gallery/schema.py, Row.mark).
const MARKS = { refuse: "✕", uniform: "■", unchecked: "◌", recovered: "↻", missing: "✕" };
const markText = (words, mark) => `${MARKS[mark] ?? ""} ${t(words, `mark.${mark}`)}`;

// Control and bidirectional characters could make one name look like another; each is shown as U+FFFD.
const safeText = (text) => String(text ?? "").replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");

// A JSON.parse reviver: an integer beyond 2^53 (a seed of ComfyUI) keeps the digits that were sent, if the browser offers them.
const keepDigits = (key, value, context) => (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) ? (context?.source ?? value) : value);

const fetchJson = async (path, options = {}) => {
  const { json, ...rest } = options;
  if (json !== undefined) Object.assign(rest, { body: JSON.stringify(json), headers: { "Content-Type": "application/json" } });
  const answer = await fetch(path, { credentials: "same-origin", ...rest });
  const body = await answer.text().then((text) => JSON.parse(text, keepDigits)).catch(() => null);
  if (!answer.ok) throw Object.assign(new Error(body?.error?.message ?? answer.statusText), { error: body?.error ?? {} });
  return body;
};

const fetchFile = async (path, json) => {
  const sent = json === undefined ? {} : { method: "POST", body: JSON.stringify(json), headers: { "Content-Type": "application/json" } };
  const answer = await fetch(path, { credentials: "same-origin", ...sent });
  if (answer.ok) return answer.blob();
  const body = await answer.json().catch(() => null);
  throw Object.assign(new Error(body?.error?.message ?? answer.statusText), { error: body?.error ?? {} });
};

// Let the browser save a file that was fetched.
const saveFile = (file, download) => {
  const href = URL.createObjectURL(file);
  el("a", { href, download }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60000);
};

const errorMessage = (failure, lang, words) => {
  const error = failure?.error ?? {};
  return (lang === "zh" ? (error.message_zh ?? error.zh) : (error.message_en ?? error.en)) ?? error.message ?? t(words, "offline");
};
