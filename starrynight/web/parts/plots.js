// The lab's charts. Their SVG is drawn by the house (lab/report/svg.py), which escapes what it is given; it is read as
// SVG and nothing else, and what is no element of a chart is left out.

const DRAWN = new Set(["svg", "g", "path", "text", "circle", "rect", "title"]);

export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".plots") ?? parentElement.appendChild(el("div", { className: "plots" }));
  root.dataset.lang = data.lang;
  root.replaceChildren(...data.plots.map(({ title, caption, svg, formats }) => {
    const read = new DOMParser().parseFromString(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" '), "image/svg+xml");
    for (const node of [...read.querySelectorAll("*")]) {
      if (!DRAWN.has(node.localName)) { node.remove(); continue; }
      for (const { name } of [...node.attributes]) if (name.startsWith("on") || name.includes("href")) node.removeAttribute(name);
    }
    return el("figure", {}, el("figcaption", {}, title), document.importNode(read.documentElement, true),
      el("div", { className: "legend" }, ...formats.map((name) => el("span", { className: `f-${name}` }, name))), el("p", {}, caption));
  }));
}
