// The name of the house, the way to its rooms, the other language. Real links, so that a room can be opened beside this
// one; an ordinary click stays in this visit.

export default function ({ data, parentElement, setTriggerValue }) {
  let root = parentElement.querySelector("header");
  if (!root) {
    root = el("header", { className: "mast" });
    parentElement.append(root);
  }
  const link = (room, properties, ...inside) => el("a", { href: `/?room=${room}&lang=${data.lang}`, dataset: { room }, ...properties, onclick: (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    setTriggerValue("room", room);
  } }, ...inside);
  const rooms = data.rooms.map(({ key, name }) => link(key, key === data.here ? { aria: { current: "page" } } : {}, name));
  root.replaceChildren(
    link("studio", {}, el("b", {}, "璀璨星河"), el("i", {}, "Starry Night")),
    el("nav", { aria: { label: data.label } }, ...rooms),
    el("button", { className: "tongue", type: "button", title: data.other.hint, lang: data.other.key, onclick: () => setTriggerValue("tongue", data.other.key) }, data.other.name));
  document.documentElement.lang = data.lang;
}
