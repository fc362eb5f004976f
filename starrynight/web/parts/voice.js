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
  const hearing = new Recognition();
  hearing.lang = data.lang === "zh" ? "zh-CN" : "en-US";
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
  root.replaceChildren(button, status, note(t(words, "voice.privacy")), note(data.how));
}
