// The browser's own recogniser, where this machine has no ears; and why a page over plain http cannot hear at all.

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".voice") ?? parentElement.appendChild(el("div", { className: "voice" }));
  root.lang = data.lang;
  const { words } = data, Recognition = window.SpeechRecognition ?? window.webkitSpeechRecognition;
  const note = (text) => el("p", {}, text);
  if (!isSecureContext) return void root.replaceChildren(note(t(words, "voice.insecure")));
  if (data.ears) return void root.replaceChildren();
  if (!Recognition) return void root.replaceChildren(note(t(words, "voice.none")), note(data.how));
  if (root.dataset.lang === data.lang) return; // a rerun of the page does not end what is being said
  root.dataset.lang = data.lang;
  const status = el("p", { aria: { role: "status", live: "polite" } });
  const button = el("button", { className: "pill gold", type: "button", aria: { pressed: false } }, t(words, "voice.speak"));
  const hearing = new Recognition(), lang = data.lang === "zh" ? "zh-CN" : "en-US";
  hearing.lang = lang;
  const over = () => { button.setAttribute("aria-pressed", false); button.textContent = t(words, "voice.speak"); };
  hearing.onresult = (event) => setTriggerValue("heard", [...event.results].map((one) => one[0].transcript).join(" "));
  hearing.onerror = (event) => { status.textContent = t(words, event.error === "not-allowed" ? "voice.denied" : "voice.failed", { reason: event.error }); };
  hearing.onend = over;
  button.onclick = () => {
    if (button.getAttribute("aria-pressed") === "true") return hearing.stop();
    status.textContent = "";
    button.setAttribute("aria-pressed", true);
    button.textContent = t(words, "voice.stop");
    hearing.start();
  };
  const price = note(t(words, "voice.privacy")), fetching = el("button", { className: "pill", type: "button", hidden: true }, t(words, "voice.install"));
  // Where the browser recognises on this device it is told to, and the note says so (SpeechRecognition.available and install).
  const onDevice = { langs: [lang], processLocally: true };
  const look = async () => {
    const found = await Promise.resolve(Recognition.available?.(onDevice)).catch(() => null);
    if (found === "available") { hearing.processLocally = true; price.textContent = t(words, "voice.here"); }
    fetching.hidden = found !== "downloadable";
  };
  fetching.onclick = async () => {
    fetching.disabled = true;
    status.textContent = t(words, "voice.installing");
    const done = await Promise.resolve(Recognition.install(onDevice)).catch(() => false);
    status.textContent = done ? "" : t(words, "voice.not_installed");
    fetching.disabled = false;
    look();
  };
  look();
  root.replaceChildren(button, fetching, status, price, note(data.how));
}
