// The title, links to the pages, and the other language. Real links, so that a page can be opened in a new tab; an
// ordinary click keeps the session.

export default function ({ data, parentElement, setTriggerValue }) {
  let root = parentElement.querySelector("header");
  if (!root) {
    root = el("header", { className: "masthead" });
    parentElement.append(root);
  }
  const link = ({ key, address }, properties, ...inside) => el("a", { href: address, dataset: { page: key }, ...properties, onclick: (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    setTriggerValue("page", key);
  } }, ...inside);
  const links = data.pages.map((page) => link(page, page.key === data.current ? { aria: { current: "page" } } : {}, page.name));
  root.replaceChildren(
    link(data.pages[0], {}, el("b", {}, "璀璨星河"), el("i", {}, "Starry Night")),
    el("nav", { aria: { label: data.label } }, ...links),
    el("button", { className: "language", type: "button", title: data.other.hint, lang: data.other.key, onclick: () => setTriggerValue("language", data.other.key) }, data.other.name));
  keysOf(root, data);
  document.documentElement.lang = data.lang;
  focusPage();
}

// "?" shows the keys, anywhere but in a field that one types in.
const KEYS = {
  everywhere: { this: ["?"], close: ["Esc"] }, studio: { paint: ["Ctrl + Enter"], earlier: ["↑", "↓"] }, wall: { search: ["/"], ends: ["Home", "End"] },
  viewer: { neighbours: ["←", "→"], star: ["S"], trash: ["Delete"], zoom: ["+", "−", "0", "1"] },
  brush: { tools: ["B", "E"], size: ["[", "]"], undo: ["U", "I"] }, show: { neighbours: ["←", "→"], pause: ["Space"], captions: ["C"] },
};
const keyLists = new WeakMap(); // root → what ends its listening
const keysOf = (root, { words }) => {
  keyLists.get(root)?.();
  const close = el("button", { className: "pill", type: "button", onclick: () => list.close() }, "✕");
  const list = el("dialog", { className: "keys", aria: { label: t(words, "keys.title") } });
  const written = () => [el("h2", {}, t(words, "keys.title")), close, ...Object.entries(KEYS).map(([place, keys]) => el("section", {}, el("h3", {}, t(words, `keys.${place}`)), el("dl", {}, ...Object.entries(keys).flatMap(([act, names]) => [el("dt", {}, ...names.map((one) => el("kbd", {}, one))), el("dd", {}, t(words, `keys.${act}`))]))))];
  close.setAttribute("aria-label", t(words, "keys.close"));
  list.onclose = () => list.replaceChildren(); // a closed list has no headings and no text
  list.onclick = (event) => event.target === list && list.close();
  const open = () => list.open || (list.replaceChildren(...written()), list.showModal());
  const pressed = (event) => {
    const typing = event.composedPath()[0];
    if (event.key !== "?" || event.ctrlKey || event.metaKey || typing.matches?.("input:not([type=range]), textarea, select, [contenteditable]")) return;
    event.preventDefault();
    open();
  };
  root.append(el("button", { className: "help", type: "button", title: t(words, "keys.open"), aria: { label: t(words, "keys.open") }, onclick: open }, "?"), list);
  addEventListener("keydown", pressed, true);
  keyLists.set(root, () => removeEventListener("keydown", pressed, true));
};

// Streamlit's page scrolls in an element that never has the focus, so that End, Home and the space bar would move nothing.
const focusPage = () => {
  const page = document.querySelector("[data-testid=stMain]");
  if (!page) return;
  page.tabIndex = -1;
  if (document.activeElement === document.body) page.focus({ preventScroll: true });
};
