// What every part uses: making elements whose words are always text, and asking the house's own server.

const el = (tag, properties = {}, ...children) => {
  const { dataset, aria, style, ...rest } = properties;
  const node = Object.assign(document.createElement(tag), rest);
  Object.assign(node.dataset, dataset ?? {});
  for (const [name, value] of Object.entries(aria ?? {})) node.setAttribute(name === "role" ? name : `aria-${name}`, value);
  for (const [name, value] of Object.entries(style ?? {})) node.style.setProperty(name, value);
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
};

const say = (words, key, values = {}) =>
  (words[key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));

// Controls and what turns text around would make a name look like another; the wall shows a mark in their place.
const plain = (text) => String(text ?? "").replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");

// A whole number too long for this language (ComfyUI's seeds) stays the digits that were sent, where the browser shows them.
const exact = (key, value, met) => (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) ? (met?.source ?? value) : value);

const ask = async (path, options = {}) => {
  const { json, ...rest } = options;
  if (json !== undefined) Object.assign(rest, { body: JSON.stringify(json), headers: { "Content-Type": "application/json" } });
  const answer = await fetch(path, { credentials: "same-origin", ...rest });
  const body = await answer.text().then((text) => JSON.parse(text, exact)).catch(() => null);
  if (!answer.ok) throw Object.assign(new Error(body?.error?.message ?? answer.statusText), { error: body?.error ?? {} });
  return body;
};

const complaint = (failure, lang, words) => {
  const error = failure?.error ?? {};
  return (lang === "zh" ? (error.message_zh ?? error.zh) : (error.message_en ?? error.en)) ?? error.message ?? say(words, "offline");
};
