// One picture in two number formats under a divider, with menus for the model, both formats and the picture.

const choices = new WeakMap(); // root → what the visitor chose

export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".formats") ?? parentElement.appendChild(el("div", { className: "formats" }));
  const { pictures, words, first } = data;
  const distinct = (key, among = pictures) => [...new Map(among.map((one) => [one[key], one])).values()];
  const choice = choices.get(root) ?? { left: "float32", right: null, model: pictures[0].model, group: pictures[0].group, ...first };
  choices.set(root, choice);
  const render = () => {
    const ofModel = pictures.filter((one) => one.model === choice.model);
    const formats = distinct("format", ofModel).map((one) => one.format);
    const groups = distinct("group", ofModel);
    if (!groups.some((one) => one.group === choice.group)) choice.group = groups[0].group;
    const find = (format) => ofModel.find((one) => one.format === format && one.group === choice.group);
    if (!formats.includes(choice.left)) [choice.left] = formats;
    if (!formats.includes(choice.right) || !find(choice.right)) choice.right = formats.find((format) => format !== choice.left && find(format)) ?? choice.left;
    const [a, b] = [find(choice.left), find(choice.right)];
    const pill = (name, on, choose) => el("button", { className: "pill", type: "button", aria: { pressed: on }, onclick: () => { choose(); render(); } }, name);
    const group = (title, ...inside) => el("div", {}, el("h4", {}, title), el("div", { className: "options" }, ...inside));
    const side = (one) => ({ source: one.source, name: t(words, "picture.alt", { prompt: one.text, style: one.format }), tag: one.format });
    const refused = [a, b].find((one) => one && !one.source);
    const stage = refused ? el("div", { className: "refused" }, `${refused.format}: ${refused.refused ?? t(words, "lab.missing")}`)
      : a && b ? comparison([side(a), side(b)], words) : el("div", { className: "refused" }, t(words, "lab.waiting"));
    root.replaceChildren(stage, el("div", { className: "choices" },
      el("div", { className: "text" }, [(a ?? b)?.text, (a ?? b)?.style].filter(Boolean).join(" · ")),
      ...(distinct("model").length > 1 ? [group(t(words, "lab.model"), ...distinct("model").map((one) => pill(one.name, one.model === choice.model, () => { choice.model = one.model; })))] : []),
      group(t(words, "lab.left"), ...formats.map((name) => pill(name, name === choice.left, () => { choice.left = name; }))),
      group(t(words, "lab.right"), ...formats.map((name) => pill(name, name === choice.right, () => { choice.right = name; }))),
      group(t(words, "lab.picture"), ...groups.slice(0, 24).map((one) => el("button", { className: "tiny", type: "button", title: one.text, aria: { pressed: one.group === choice.group, label: one.text }, onclick: () => { choice.group = one.group; render(); } },
        el("img", { src: (ofModel.find((other) => other.group === one.group && other.source) ?? {}).source ?? "", alt: "", loading: "lazy" }))))));
  };
  render();
}
