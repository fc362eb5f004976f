// LoRAs that have a picture, as small paintings that are pressed to choose or leave one.

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".row") ?? parentElement.appendChild(el("div", { className: "row" }));
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", data.label);
  root.replaceChildren(...data.items.map(({ key, name, picture }) =>
    el("button", { className: "card", type: "button", title: safeText(name), aria: { pressed: data.chosen.includes(key) }, onclick: () => setTriggerValue("toggle", key) },
      el("img", { src: picture, alt: "", width: 160, height: 160 }), el("span", {}, safeText(name)))));
}
