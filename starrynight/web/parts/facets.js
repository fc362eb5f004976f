// What a prompt asks for, as chips: style, time, weather, place, things. One that is pressed opens the other values of its kind; the
// server rewrites the prompt (senses/rewording.py).

class Facets {
  // change: gets { kind, text, start, value } of the chip, start in code points; value is null to leave the words out.
  constructor(change) {
    this.change = change;
    this.chips = el("div", { className: "chips" });
    this.choices = el("div", { className: "choices", hidden: true, aria: { role: "group" } });
    this.root = el("div", { className: "facets", hidden: true, aria: { role: "group" } }, this.chips, this.choices);
    this.root.addEventListener("keydown", (event) => { if (event.key === "Escape" && this.opened) { event.stopPropagation(); const { opened } = this; this.close(); opened.focus(); } });
  }

  show(facets, { words, facets: values }) {
    const signature = JSON.stringify([facets, words["facet.label"]]);
    if (signature === this.signature) return;
    Object.assign(this, { signature, words, values });
    const before = this.opened?.textContent; // one that stays stays open
    this.close();
    this.root.hidden = !facets.length;
    this.root.setAttribute("aria-label", t(words, "facet.label"));
    this.chips.replaceChildren(...facets.map((facet) => {
      const chip = el("button", { className: "pill facet", type: "button", dataset: { facet: facet.kind }, aria: { expanded: false }, onclick: () => (this.opened === chip ? this.close() : this.open(chip, facet)) },
        el("small", {}, t(words, `facet.${facet.kind}`)), safeText(facet.text));
      return chip;
    }));
    const at = [...this.chips.children].findIndex((chip) => chip.textContent === before);
    if (at >= 0) this.open(this.chips.children[at], facets[at]);
  }

  close() {
    this.opened?.setAttribute("aria-expanded", false);
    this.opened = null;
    this.choices.hidden = true;
    this.choices.replaceChildren();
  }

  open(chip, { kind, text, start, value }) {
    this.close();
    this.opened = chip;
    chip.setAttribute("aria-expanded", true);
    const language = /\p{Script=Han}/u.test(text) ? "zh" : "en";
    const others = (this.values[language]?.[kind] ?? []).filter(([other]) => other !== value);
    const choice = (label, other, more = {}) => el("button", { className: "pill", type: "button", dataset: { value: other ?? "" }, onclick: () => { this.close(); this.change({ kind, text, start, value: other }); }, ...more }, label);
    this.choices.setAttribute("aria-label", t(this.words, "facet.instead", { word: safeText(text) }));
    this.choices.replaceChildren(choice(t(this.words, "facet.without"), null, { className: "pill without" }), ...others.map(([other, label]) => choice(label, other)));
    this.choices.hidden = false;
  }
}
