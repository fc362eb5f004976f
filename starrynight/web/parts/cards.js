// The styles as a row of small paintings: a radio group, with arrow keys.

export default function ({ data, parentElement, setStateValue }) {
  const root = parentElement.querySelector(".row") ?? parentElement.appendChild(el("div", { className: "row" }));
  root.setAttribute("role", "radiogroup");
  root.setAttribute("aria-label", data.label);
  root.lang = data.lang;
  const signature = JSON.stringify(data.styles);
  if (root.dataset.signature !== signature) {
    root.dataset.signature = signature;
    root.replaceChildren(...data.styles.map(({ key, name, picture }) =>
      el("button", { className: "card", type: "button", title: name, dataset: { key }, aria: { role: "radio", label: name } },
        picture ? el("img", { src: picture, alt: "", width: 160, height: 160 }) : el("div", { className: "no-picture" }, "✦"),
        el("span", {}, name))));
  }
  const cards = [...root.children];
  const mark = (key) => cards.forEach((card) => {
    const on = card.dataset.key === key;
    card.setAttribute("aria-checked", on);
    card.tabIndex = on ? 0 : -1;
  });
  const choose = (card) => { mark(card.dataset.key); setStateValue("style", card.dataset.key); };
  mark(data.chosen);
  cards.forEach((card, at) => {
    card.onclick = () => choose(card);
    card.onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = cards[(at + step + cards.length) % cards.length];
      next.focus();
      choose(next);
    };
  });
}
