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
  document.documentElement.lang = data.lang;
  focusPage();
}

// Streamlit's page scrolls in an element that never has the focus, so that End, Home and the space bar would move nothing.
const focusPage = () => {
  const page = document.querySelector("[data-testid=stMain]");
  if (!page) return;
  page.tabIndex = -1;
  if (document.activeElement === document.body) page.focus({ preventScroll: true });
};
