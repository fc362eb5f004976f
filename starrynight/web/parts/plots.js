// The lab's charts. lab/report draws their SVG and escapes its texts; here it is parsed as SVG, and every element that a
// chart does not use, every event handler and every link is removed.

const ALLOWED = new Set(["svg", "g", "path", "text", "circle", "rect", "title"]);

export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".plots") ?? parentElement.appendChild(el("div", { className: "plots" }));
  root.dataset.lang = data.lang;
  root.replaceChildren(...data.plots.map(({ title, caption, svg, formats }) => {
    const parsed = new DOMParser().parseFromString(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" '), "image/svg+xml");
    for (const node of [...parsed.querySelectorAll("*")]) {
      if (!ALLOWED.has(node.localName)) { node.remove(); continue; }
      for (const { name } of [...node.attributes]) if (name.startsWith("on") || name.includes("href")) node.removeAttribute(name);
    }
    return el("figure", {}, el("figcaption", {}, title), document.importNode(parsed.documentElement, true),
      el("div", { className: "legend" }, ...formats.map((name) => el("span", { className: `f-${name}` }, name))), el("p", {}, caption));
  }));
}
