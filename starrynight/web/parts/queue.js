// The other jobs of the queue, from this visitor's other tabs or from other visitors. Each can be moved to the front or
// cancelled.

const timers = new WeakMap(); // root → its polling timer

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".queue") ?? parentElement.appendChild(el("section", { className: "queue", hidden: true }));
  clearInterval(timers.get(root));
  const { words } = data;
  const title = el("h2", {}, t(words, "queue"));
  const list = el("ol");
  root.replaceChildren(title, list);
  let shown = "";
  const action = (key, symbol, path, json) => el("button", { type: "button", title: t(words, key), aria: { label: t(words, key) }, onclick: async () => {
    await fetchJson(path, { method: "POST", ...(json ? { json } : {}) }).catch(() => {});
    poll();
  } }, symbol);
  const item = (job) => {
    const open = el("a", { href: `/?job=${job.id}`, onclick: (event) => { event.preventDefault(); setTriggerValue("watch", job.id); } }, safeText(job.request.prompt));
    const state = job.state === "painting" ? t(words, "queue.painting") : job.position ? t(words, "easel.waiting", { before: job.position }) : t(words, "easel.next");
    const forward = job.position > 0 && action("queue.forward", "↑", `/api/jobs/${job.id}/move`, { position: 0 });
    return el("li", {}, open, el("small", {}, [data.styles[job.request.style], state].filter(Boolean).join(" · ")), forward, action("act.cancel", "✕", `/api/jobs/${job.id}/cancel`));
  };
  const poll = async () => {
    if (document.hidden || !root.isConnected) return;
    const found = await fetchJson("/api/jobs?limit=30").catch(() => null);
    if (!found) return;
    const others = found.jobs.filter((job) => !data.watched.includes(job.id));
    const current = JSON.stringify(others.map((job) => [job.id, job.state, job.position]));
    if (current === shown) return;
    shown = current;
    root.hidden = !others.length;
    list.replaceChildren(...others.map(item));
  };
  poll();
  timers.set(root, setInterval(poll, 1500));
  return () => clearInterval(timers.get(root));
}
