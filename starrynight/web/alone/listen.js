// A voice is recorded (or a file chosen), written down, and becomes minutes in Markdown. Without ears on the server the browser's own
// recogniser may write, after a note of where the voice goes.
import { createApp, h, reactive, watch } from "/alone/vue.runtime.esm-browser.prod.js";
import { ask, copy, frame, leaves, mayPaint, paint, save, start, state, t } from "/alone/shared.js";

const RATE = 16000, LONGEST = 30 * 60; // Hz, seconds
const LANGUAGES = { auto: "", zh: "zh-CN", yue: "yue-Hant-HK", en: "en-US" };
const Recogniser = window.SpeechRecognition ?? window.webkitSpeechRecognition;
const page = reactive({ doing: "nothing", level: 0, seconds: 0, language: "auto", text: "", heard: null, error: "", local: "unavailable" });
let stop = () => {};

async function record() {
  Object.assign(page, { error: "", doing: "asking" });
  if (!navigator.mediaDevices?.getUserMedia) return fail(t("listen.insecure", { address: `http://127.0.0.1:${location.port}/listen` }));
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, noiseSuppression: true } });
  } catch (error) {
    return fail(t(error.name === "NotFoundError" ? "listen.no_microphone" : error.name === "NotAllowedError" ? "listen.denied" : "listen.failed", { why: error.message }));
  }
  const context = new AudioContext(), blocks = [];
  await context.audioWorklet.addModule("/alone/recorder.js");
  const recorder = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
  recorder.port.onmessage = ({ data }) => {
    blocks.push(data);
    page.level = Math.max(page.level * 0.9, ...data.map(Math.abs));
    page.seconds = (blocks.length * data.length) / context.sampleRate;
    if (page.seconds >= LONGEST) stop();
  };
  context.createMediaStreamSource(stream).connect(recorder);
  page.doing = "recording";
  stop = async () => {
    stop = () => {};
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
    page.level = 0;
    await send(new File([wav(await resampled(blocks, context.sampleRate))], "voice.wav", { type: "audio/wav" }));
  };
}

// Float32 at RATE, by the browser's own resampler: a context at another rate than the microphone's fails in Firefox.
async function resampled(blocks, rate) {
  const samples = new Float32Array(blocks.reduce((sum, block) => sum + block.length, 0));
  let at = 0;
  for (const block of blocks) { samples.set(block, at); at += block.length; }
  if (!samples.length || rate === RATE) return samples;
  const offline = new OfflineAudioContext(1, Math.ceil((samples.length * RATE) / rate), RATE);
  const buffer = offline.createBuffer(1, samples.length, rate), source = offline.createBufferSource();
  buffer.copyToChannel(samples, 0);
  source.buffer = buffer;
  source.connect(offline.destination);
  source.start();
  return (await offline.startRendering()).getChannelData(0);
}

// 16 bits, one channel: the header is that of RIFF WAVE with a PCM format chunk.
function wav(samples) {
  const data = new DataView(new ArrayBuffer(44 + samples.length * 2));
  const text = (at, letters) => [...letters].forEach((letter, k) => data.setUint8(at + k, letter.charCodeAt(0)));
  text(0, "RIFF"); data.setUint32(4, 36 + samples.length * 2, true); text(8, "WAVEfmt ");
  data.setUint32(16, 16, true); data.setUint16(20, 1, true); data.setUint16(22, 1, true);
  data.setUint32(24, RATE, true); data.setUint32(28, RATE * 2, true); data.setUint16(32, 2, true); data.setUint16(34, 16, true);
  text(36, "data"); data.setUint32(40, samples.length * 2, true);
  samples.forEach((one, k) => data.setInt16(44 + k * 2, Math.round(Math.min(1, Math.max(-1, one)) * 32767), true));
  return data.buffer;
}

async function send(file) {
  if (!file) return;
  Object.assign(page, { doing: "writing", error: "" });
  const form = new FormData();
  form.append("file", file);
  form.append("model", "starry-ears");
  if (page.language !== "auto") form.append("language", page.language);
  try {
    const found = await ask("/v1/audio/transcriptions", { method: "POST", body: form });
    if (!found.text) return fail(t("listen.silent"));
    Object.assign(page, { doing: "nothing", text: found.text, heard: found });
  } catch (error) {
    fail(error.message);
  }
}

const spoken = () => LANGUAGES[page.language] || (state.lang === "zh" ? "zh-CN" : "en-US");
const onDevice = () => ({ langs: [spoken()], processLocally: true });

// Whether this browser recognises the language on this device: "available", "downloadable", "downloading" or "unavailable", the
// last also of a browser that does not say (Web Speech API, SpeechRecognition.available).
async function findLocal() {
  const asked = spoken();
  const found = await Promise.resolve(Recogniser?.available?.(onDevice())).catch(() => null);
  if (asked === spoken()) page.local = found ?? "unavailable";
}

async function install() {
  Object.assign(page, { local: "downloading", error: "" });
  const done = await Promise.resolve(Recogniser.install(onDevice())).catch(() => false);
  await findLocal();
  if (!done) page.error = t("listen.not_installed");
}

function recognise() {
  const recogniser = new Recogniser(), began = Date.now(), local = page.local === "available";
  Object.assign(recogniser, { lang: spoken(), continuous: true, interimResults: false, ...(local ? { processLocally: true } : {}) });
  Object.assign(page, { doing: "recording", error: "", text: "", heard: null });
  const timer = setInterval(() => { page.seconds = (Date.now() - began) / 1000; }, 500);
  recogniser.onresult = ({ results }) => { page.text = [...results].map(([best]) => best.transcript.trim()).join("\n"); };
  recogniser.onerror = ({ error }) => { page.error = t(error === "not-allowed" ? "listen.denied" : "listen.failed", { why: error }); };
  recogniser.onend = () => {
    clearInterval(timer);
    page.doing = "nothing";
    if (page.text) page.heard = { model: t(local ? "listen.browser_here" : "listen.browser"), language: recogniser.lang, duration: page.seconds };
  };
  stop = () => recogniser.stop();
  recogniser.start();
}

function fail(message) { Object.assign(page, { doing: "nothing", error: message }); }

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

function minutes() {
  const when = new Date().toLocaleString(state.lang === "zh" ? "zh-CN" : "en-GB", { dateStyle: "long", timeStyle: "short" });
  const lines = page.text.split(/(?<=[。！？.!?])\s*|\n+/).filter((line) => line.trim()).map((line) => `- ${line.trim()}`);
  const facts = [when, clock(page.heard.duration), page.heard.language, page.heard.model].filter(Boolean).join(" · ");
  return `# ${t("listen.minutes")}\n\n${facts}\n\n${lines.join("\n")}\n`;
}

const button = () => (page.doing === "recording"
  ? h("button", { type: "button", class: "gold", onClick: () => stop() }, t("listen.stop"))
  : h("button", { type: "button", class: "gold", disabled: page.doing !== "nothing", onClick: record }, t("listen.record")));

function tools() {
  const there = state.senses.ears?.there;
  const language = h("label", { class: "row" }, [t("listen.language"), h("select", { value: page.language, onChange: (event) => { page.language = event.target.value; } },
    Object.keys(LANGUAGES).map((name) => h("option", { value: name }, t(`listen.${name}`))))]);
  if (there) {
    const file = h("label", { class: "button file" }, [t("listen.file"), h("input", { type: "file", accept: ".wav,audio/*", onChange: (event) => { send(event.target.files[0]); event.target.value = ""; } })]);
    return [language, h("div", { class: "row" }, [button(), ...(page.doing === "nothing" ? [file] : [])])];
  }
  const how = h("p", { class: "note" }, t("listen.how"));
  if (!Recogniser) return [h("p", { class: "warn" }, t("listen.none")), how];
  const start_ = page.doing === "recording" ? button() : h("button", { type: "button", class: "gold", onClick: recognise }, t("listen.use_browser"));
  const local = page.local === "available", more = page.local === "downloadable" && page.doing === "nothing";
  return [
    h("p", { class: local ? "note" : "warn" }, t(local ? "listen.here" : "listen.privacy")), language,
    ...(page.local === "downloading" ? [h("p", { class: "note", role: "status" }, t("listen.installing"))] : []),
    h("div", { class: "row" }, [start_, ...(more ? [h("button", { type: "button", onClick: install }, t("listen.install"))] : [])]), how,
  ];
}

const lamp = () => (page.doing === "recording" ? [h("p", { class: "row" }, [
  h("span", { class: "light on" }), h("span", { role: "timer" }, clock(page.seconds)),
  h("span", { class: "level" }, h("i", { style: { width: `${Math.round(Math.min(1, page.level) * 100)}%` } }))])] : []);

function result() {
  if (page.error) return [h("p", { class: "warn", role: "alert" }, page.error)];
  if (page.doing === "writing") return [h("p", { class: "lead" }, t("listen.writing"))];
  if (!page.text) return [h("p", { class: "lead" }, t("listen.empty"))];
  return [
    h("h2", { id: "words" }, t("listen.words")),
    h("textarea", { "aria-labelledby": "words", value: page.text, onInput: (event) => { page.text = event.target.value; } }),
    ...(page.heard ? [
      h("h2", t("listen.minutes")), h("pre", minutes()),
      h("div", { class: "row" }, [
        h("button", { type: "button", onClick: () => copy(minutes()) }, t("listen.copy")),
        h("button", { type: "button", onClick: () => save("minutes.md", minutes()) }, t("listen.save")),
        ...(mayPaint() ? [h("button", { type: "button", class: "gold", onClick: () => paint(page.text) }, t("listen.paint"))] : []),
      ]),
    ] : []),
  ];
}

const view = () => frame("listen", [
  ...leaves("ears"),
  h("div", { class: "columns" }, [h("div", [...tools(), ...lamp()]), h("div", { "aria-live": "polite", "aria-busy": page.doing === "writing" }, result())]),
]);

await start();
watch([() => page.language, () => state.lang], findLocal);
findLocal();
createApp({ render: view }).mount("#page");
