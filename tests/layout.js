// Returns what of a page is laid out wrongly: what stands outside the page's width, and what covers something else that is pressed
// or read. [kind, element, measure], for elements in shadow roots too. Nothing depends on which fonts there are.
() => {
  const all = [];
  const walk = (root) => { for (const node of root.querySelectorAll("*")) { all.push(node); if (node.shadowRoot) walk(node.shadowRoot); } };
  walk(document.querySelector("dialog[open]") ?? document);
  const open = all.find((node) => node.matches("dialog[open]")); // of a component, over the page
  const up = (node) => node.parentElement ?? node.getRootNode().host ?? null;
  const within = (node, other) => { for (let at = node; at; at = up(at)) if (at === other) return true; return false; };
  const main = document.querySelector("[data-testid=stMain]");
  const name = (node) => `${node.tagName.toLowerCase()}.${String(node.className?.baseVal ?? node.className).split(" ")[0]} "${(node.ariaLabel ?? node.textContent ?? "").trim().slice(0, 30)}"`;
  const shown = (node) => node.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && getComputedStyle(node).clipPath === "none" && getComputedStyle(node).clip === "auto" && (!open || within(node, open));

  // A box without what scrolling or clipping ancestors hide of it; layered: it stands over others on purpose, or they scroll below it.
  const seen = (node, { left, top, right, bottom }) => {
    let layered = false, scrolls = false;
    for (let at = node; at; at = up(at)) {
      const style = getComputedStyle(at);
      layered ||= ["absolute", "fixed", "sticky"].includes(style.position) && !at.matches("dialog, .picture");
      if (at === node || at === main || at === document.body || at === document.documentElement) continue;
      const box = at.getBoundingClientRect();
      if (style.overflowX !== "visible") { left = Math.max(left, box.left); right = Math.min(right, box.right); scrolls = true; }
      if (style.overflowY !== "visible") { top = Math.max(top, box.top); bottom = Math.min(bottom, box.bottom); }
    }
    return right - left > 1 && bottom - top > 1 ? { node, left, top, right, bottom, layered, scrolls } : null;
  };
  const pressed = all.filter((node) => node.matches("a[href], button, select, input, textarea, summary, [role=radio]") && !node.matches("input[type=file], input[type=range], input[type=checkbox], input[aria-hidden=true]") && shown(node))
    .map((node) => seen(node, node.getBoundingClientRect())).filter(Boolean);
  const read = all.filter((node) => !node.matches("style, script, option, title, noscript") && shown(node)).flatMap((node) => [...node.childNodes].filter((child) => child.nodeType === 3 && child.textContent.trim()).flatMap((child) => {
    const range = document.createRange();
    range.selectNodeContents(child);
    return [...range.getClientRects()].map((box) => seen(node, box)).filter(Boolean);
  }));

  const found = [];
  const width = main?.clientWidth ?? innerWidth;
  if (main && main.scrollWidth > main.clientWidth) found.push(["wider than the page", "", `${main.scrollWidth} > ${main.clientWidth}`]);
  for (const one of [...pressed, ...read]) {
    if (one.left < -1 || one.right > innerWidth + 1) found.push(["outside", name(one.node), `${Math.round(one.left)}…${Math.round(one.right)} of ${width}`]);
  }
  const covered = (ones, share) => {
    const flat = ones.filter((one) => !one.layered).sort((a, b) => a.top - b.top);
    for (let i = 0; i < flat.length; i++) {
      const a = flat[i];
      for (let j = i + 1; j < flat.length && flat[j].top < a.bottom; j++) {
        const b = flat[j];
        if (within(a.node, b.node) || within(b.node, a.node)) continue;
        const high = Math.min(a.bottom, b.bottom) - b.top, wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        if (wide > 2 && high > Math.max(2, share * Math.min(a.bottom - a.top, b.bottom - b.top))) found.push(["covered", `${name(a.node)} by ${name(b.node)}`, `${Math.round(wide)} × ${Math.round(high)}`]);
      }
    }
  };
  covered(pressed, 0);
  covered(read, 0.4); // a letter's box is higher than its line
  return found.map((one) => one.join(" "));
}
