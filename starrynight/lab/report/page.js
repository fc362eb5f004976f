"use strict";
// The page's few motions: the language, and the viewer. Everything else is plain HTML and works without them.
(() => {
  const root = document.documentElement;
  const $ = (query, from = document) => from.querySelector(query);
  const all = (query, from = document) => [...from.querySelectorAll(query)];

  const speak = (lang) => {
    root.lang = root.dataset.lang = lang;
    all("[data-tongue]").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.tongue === lang)));
    if (viewer.draw) viewer.draw();
  };
  const viewer = {};
  all("[data-tongue]").forEach((b) => b.addEventListener("click", () => speak(b.dataset.tongue)));

  const scenes = JSON.parse($("#scenes").textContent);
  const shown = scenes.filter((s) => Object.keys(s.views).length);
  if (shown.length) {
    $(".viewer").hidden = false;
    $(".nothing").hidden = true;
    const stage = $(".stage"), under = $(".under"), over = $(".over"), range = $("input", stage), refusal = $(".refusal");
    const left = $(".pick.left"), right = $(".pick.right");
    let at = 0, view = "divider", beat = 0;

    const words = (pair) => pair[root.dataset.lang] || pair.en;
    const option = (name, chosen) => {
      const o = document.createElement("option");
      o.value = o.textContent = name;
      o.selected = name === chosen;
      return o;
    };
    const fill = () => {
      const names = Object.keys(shown[at].views);
      const a = names.includes(left.value) ? left.value : names[0];
      const b = names.includes(right.value) ? right.value : names.includes("bfloat16") ? "bfloat16" : names[names.length - 1];
      left.replaceChildren(...names.map((n) => option(n, a)));
      right.replaceChildren(...names.map((n) => option(n, b)));
    };
    const source = (name) => (shown[at].views[name] || {}).picture || "";
    const put = (img, uri) => { if (uri) img.src = uri; else img.removeAttribute("src"); };

    viewer.draw = () => {
      clearInterval(beat);
      const scene = shown[at], a = left.value, b = right.value;
      stage.dataset.view = view;
      stage.classList.remove("blink");
      all(".views button").forEach((n) => n.setAttribute("aria-pressed", String(n.dataset.view === view)));
      const map = view === "difference" || view === "flip";
      const mapped = scene.views[b] && scene.views[b][view] ? b : a;
      put(under, map ? (scene.views[mapped] || {})[view] : source(b));
      put(over, map ? "" : source(a));
      const missing = map ? [] : [a, b].filter((n) => !source(n));
      const none = map && !under.getAttribute("src");
      refusal.hidden = !missing.length && !none;
      refusal.dataset.side = missing.length === 2 || none ? "both" : missing[0] === a && a !== b ? "left" : "right";
      if (missing.length) refusal.textContent = missing[0] + ": " + words(scene.views[missing[0]].refused);
      else if (none) refusal.textContent = scene.views[b].refused ? words(scene.views[b].refused)
        : root.dataset.lang === "zh" ? "float32 就是参照，没有差异可看。" : "float32 is the reference: there is nothing to compare.";
      $(".tag.left").textContent = map ? mapped + " − float32" : a;
      $(".tag.right").textContent = map ? "" : b;
      under.alt = map ? mapped + " − float32: " + scene.text : scene.text + ", " + b;
      over.alt = map ? "" : scene.text + ", " + a;
      $(".words").textContent = words(scene.model) + " · " + scene.text + (scene.style ? " · " + scene.style : "");
      all(".strip button").forEach((n, i) => {
        n.setAttribute("aria-pressed", String(i === at));
        n.setAttribute("aria-label", words(shown[i].model) + ": " + shown[i].text);
        if ($("small", n)) $("small", n).textContent = words(shown[i].model);
      });
      if (view === "flicker") beat = setInterval(() => stage.classList.toggle("blink"), 650);
    };
    const divide = () => stage.style.setProperty("--at", range.value + "%");
    range.addEventListener("input", divide);
    [left, right].forEach((s) => s.addEventListener("change", viewer.draw));
    all(".views button").forEach((n) => n.addEventListener("click", () => { view = n.dataset.view; viewer.draw(); }));

    const strip = $(".strip");
    shown.forEach((scene, i) => {
      const b = document.createElement("button");
      b.type = "button";
      b.title = scene.text;
      const first = Object.values(scene.views).find((v) => v.picture);
      if (first) { const img = document.createElement("img"); img.src = first.picture; img.alt = ""; b.append(img); } else b.textContent = "✗";
      if (i === 0 || shown[i - 1].model.en !== scene.model.en) b.append(document.createElement("small"));
      b.addEventListener("click", () => { at = i; fill(); viewer.draw(); });
      strip.append(b);
    });
    fill();
    divide();
  }
  const asked = location.hash.slice(1);
  speak(asked === "zh" || asked === "en" ? asked : /^zh/i.test(navigator.language) ? "zh" : "en");
})();
