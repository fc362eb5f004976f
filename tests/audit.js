// Returns what of a page is hard to hit or to read: [kind, element, measure], for elements in shadow roots too.
(smallest) => {
  const all = [];
  const walk = (root) => { for (const node of root.querySelectorAll("*")) { all.push(node); if (node.shadowRoot) walk(node.shadowRoot); } };
  walk(document);
  const shown = (node) => {
    const box = node.getBoundingClientRect();
    return box.width > 1 && box.height > 1 && node.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  };
  const name = (node) => `${node.tagName.toLowerCase()}.${String(node.className?.baseVal ?? node.className).split(" ")[0]} "${(node.ariaLabel ?? node.textContent ?? "").trim().slice(0, 30)}"`;
  const found = [];

  // WCAG 2.2, 2.5.8: links within a sentence, and what is nested in a target that is large enough, are no targets of their own.
  for (const node of all.filter((one) => one.matches("a[href], button, select, input, textarea, summary, [role=button], [role=radio], [role=slider]") && shown(one))) {
    if (node.matches("input[type=file], input[type=range], [role=slider], input[aria-hidden=true]") || getComputedStyle(node).clipPath !== "none") continue;
    const label = node.matches("input") ? node.closest("label") : null;
    const box = (label ?? node).getBoundingClientRect();
    if (Math.min(box.width, box.height) < smallest - 0.5) found.push(["small", name(node), `${Math.round(box.width)} × ${Math.round(box.height)}`]);
  }

  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
  const light = (colour) => { const [r, g, b] = colour.map((c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const up = (node) => node.parentElement ?? node.getRootNode().host ?? null;
  const backdrop = (node) => { // null: a picture or a gradient, which is not judged here
    const layers = [];
    for (let at = node; at; at = up(at)) {
      const style = getComputedStyle(at);
      if (at.matches(".stApp, body")) break;
      if (style.backgroundImage !== "none" && !style.backgroundImage.includes("url(")) return null;
      layers.unshift(parse(style.backgroundColor));
    }
    return layers.reduce((under, layer) => over(layer, under), [24, 34, 74]); // the sky at its lightest, where text stands
  };
  const opacity = (node) => { let product = 1; for (let at = node; at; at = up(at)) product *= Number(getComputedStyle(at).opacity); return product; };
  for (const node of all) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !shown(node) || node.matches("style, script, option, title") || node.closest("[disabled], [aria-disabled=true], svg")) continue;
    const style = getComputedStyle(node), behind = backdrop(node);
    if (!behind || parse(style.color)[3] === 0) continue;
    const colour = parse(style.color);
    colour[3] *= opacity(node);
    const [high, low] = [light(over(colour, behind)), light(behind)].sort((a, b) => b - a);
    const large = parseFloat(style.fontSize) >= 24, ratio = (high + 0.05) / (low + 0.05);
    if (ratio < (large ? 3 : 4.5)) found.push(["faint", name(node), ratio.toFixed(2)]);
  }
  return found.map((one) => one.join(" "));
}
