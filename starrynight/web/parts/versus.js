// One picture in two number formats, under the divider: which picture, which two formats, in which model.

const versus = new WeakMap(); // root → what the visitor chose

export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".versus") ?? parentElement.appendChild(el("div", { className: "versus" }));
  const { pictures, words } = data;
  const distinct = (key, among = pictures) => [...new Map(among.map((one) => [one[key], one])).values()];
  const choice = versus.get(root) ?? { model: pictures[0].model, left: "float32", right: null, group: pictures[0].group };
  versus.set(root, choice);
  const draw = () => {
    const mine = pictures.filter((one) => one.model === choice.model);
    const formats = distinct("format", mine).map((one) => one.format);
    const groups = distinct("group", mine);
    if (!groups.some((one) => one.group === choice.group)) choice.group = groups[0].group;
    const have = (format) => mine.find((one) => one.format === format && one.group === choice.group);
    if (!formats.includes(choice.left)) [choice.left] = formats;
    if (!formats.includes(choice.right) || !have(choice.right)) choice.right = formats.find((format) => format !== choice.left && have(format)) ?? choice.left;
    const [a, b] = [have(choice.left), have(choice.right)];
    const pill = (name, on, act) => el("button", { className: "pill", type: "button", aria: { pressed: on }, onclick: () => { act(); draw(); } }, name);
    const set = (title, ...inside) => el("div", {}, el("h4", {}, title), el("div", { className: "set" }, ...inside));
    const shown = (one) => ({ source: one.source, name: say(words, "picture.alt", { prompt: one.text, style: one.format }), tag: one.format });
    const refused = [a, b].find((one) => one && !one.source);
    const stage = refused ? el("div", { className: "refused" }, `${refused.format}: ${refused.refused ?? say(words, "lab.gone")}`)
      : a && b ? comparison([shown(a), shown(b)], words) : el("div", { className: "refused" }, say(words, "lab.waiting"));
    root.replaceChildren(stage, el("div", { className: "choices" },
      el("div", { className: "text" }, [(a ?? b)?.text, (a ?? b)?.style].filter(Boolean).join(" · ")),
      ...(distinct("model").length > 1 ? [set(say(words, "lab.model"), ...distinct("model").map((one) => pill(one.name, one.model === choice.model, () => { choice.model = one.model; })))] : []),
      set(say(words, "lab.left"), ...formats.map((name) => pill(name, name === choice.left, () => { choice.left = name; }))),
      set(say(words, "lab.right"), ...formats.map((name) => pill(name, name === choice.right, () => { choice.right = name; }))),
      set(say(words, "lab.picture"), ...groups.slice(0, 24).map((one) => el("button", { className: "tiny", type: "button", title: one.text, aria: { pressed: one.group === choice.group, label: one.text }, onclick: () => { choice.group = one.group; draw(); } },
        el("img", { src: (mine.find((other) => other.group === one.group && other.source) ?? {}).source ?? "", alt: "", loading: "lazy" }))))));
  };
  draw();
}
