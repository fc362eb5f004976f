// A picture is dropped, chosen or pasted; the page says what it shows in both languages, and the words that would paint one like it.
import { createApp, h, reactive, watch } from "/alone/vue.runtime.esm-browser.prod.js";
import { copy, frame, leaves, mayPaint, paint, sendJson, start, state, t } from "/alone/shared.js";

const MOST = 32 << 20; // bytes
const page = reactive({ url: "", seen: null, chips: [], error: "", busy: false, over: false, notes: [] });

const read = (file) => new Promise((done, failed) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result);
  reader.onerror = () => failed(new Error(t("see.unreadable")));
  reader.readAsDataURL(file);
});

const called = (name) => facts[state.lang][name] ?? name;

let turn = 0;
async function look(file) {
  if (!file) return;
  const mine = ++turn;
  Object.assign(page, { url: "", seen: null, chips: [], notes: [], error: "", busy: true });
  state.said = t("see.looking");
  try {
    if (file.size > MOST) throw new Error(t("see.too_large"));
    const url = (await read(file)).replace(/^data:[^,]*,/, "data:image/*;base64,");
    if (mine !== turn) return;
    page.url = URL.createObjectURL(file);
    const content = [{ type: "image_url", image_url: { url } }];
    const answer = await sendJson("/v1/chat/completions", { model: "starry-eyes", messages: [{ role: "user", content }] });
    const [seen] = answer.description;
    const prompt = seen.prompt[state.lang];
    const found = prompt ? await sendJson("/facets", { text: prompt }) : { facets: [], warnings: [] };
    if (mine === turn) Object.assign(page, { seen, chips: found.facets, notes: [...answer.warnings, ...found.warnings] });
  } catch (error) {
    if (mine === turn) page.error = error.message;
  }
  if (mine === turn) { page.busy = false; state.said = ""; }
}

async function facets() {
  const prompt = page.seen?.prompt[state.lang];
  if (prompt) page.chips = (await sendJson("/facets", { text: prompt })).facets;
}

const box = () => h("label", {
  class: ["drop", { over: page.over }],
  onDragover: (event) => { event.preventDefault(); page.over = true; },
  onDragleave: () => { page.over = false; },
  onDrop: (event) => { event.preventDefault(); page.over = false; look(event.dataTransfer.files[0]); },
}, [
  h("span", t("see.drop")),
  h("span", { class: "note" }, t("see.formats")),
  h("input", { type: "file", accept: "image/*", "aria-label": t("see.choose"), onChange: (event) => { look(event.target.files[0]); event.target.value = ""; } }),
]);

const words = (kind, lang) => [
  h("h2", t(kind)),
  h("p", { class: "caption", lang }, page.seen.caption[lang]),
];

// Why a model that is set did not answer, and the built-in one did.
const notes = () => page.notes.map((note) => h("p", { class: "warn" }, t("see.instead", { why: note[state.lang] })));

function result() {
  if (page.error) return [h("p", { class: "warn", role: "alert" }, page.error)];
  if (page.busy) return [h("p", { class: "lead" }, t("see.looking"))];
  if (!page.seen) return [h("p", { class: "lead" }, t("see.empty"))];
  if (!page.seen.caption.en) return [...notes(), h("p", { class: "caption" }, t("see.cannot"))];
  const prompt = page.seen.prompt[state.lang];
  const names = ["style", "hour", "weather", "kind"].filter((name) => page.seen.facts[name]);
  const rows = names.flatMap((name) => [h("dt", t(`fact.${name}`)), h("dd", called(page.seen.facts[name]))]);
  const things = page.seen.facts.things;
  return [
    ...notes(), ...words("chinese", "zh"), ...words("english", "en"),
    h("h2", t("see.facts")),
    h("dl", [...rows, ...(things.length ? [h("dt", t("fact.things")), h("dd", things.map(called).join(" · "))] : []),
      h("dt", t("see.by")), h("dd", page.seen.by), h("dt", t("see.sure")), h("dd", `${Math.round(page.seen.confidence * 100)} %`)]),
    ...(prompt ? [
      h("h2", t("see.prompt")), h("p", { lang: state.lang }, prompt),
      h("ul", { class: "chips", "aria-label": t("see.facets") }, page.chips.map((one) => h("li", [h("small", t(`kind.${one.kind}`)), one.text]))),
      h("div", { class: "row" }, [
        ...(mayPaint() ? [h("button", { type: "button", class: "gold", onClick: () => paint(prompt) }, t("see.paint"))] : []),
        h("button", { type: "button", onClick: () => copy(prompt) }, t("see.copy")),
      ]),
    ] : []),
  ];
}

const view = () => frame("see", [
  ...leaves("eyes"),
  h("div", { class: "columns" }, [
    h("div", [...(page.url ? [h("p", { class: "frame" }, h("img", { src: page.url, alt: page.seen?.alt[state.lang] || t("see.yours") }))] : []), box()]),
    h("div", { "aria-live": "polite", "aria-busy": page.busy }, result()),
  ]),
]);

await start();
const facts = await (await fetch("/alone/facts.json")).json();
createApp({ render: view }).mount("#page");
addEventListener("paste", (event) => look([...event.clipboardData.files].find((file) => file.type.startsWith("image/"))));
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
watch(() => state.lang, () => facets().catch((error) => { page.error = error.message; }));
