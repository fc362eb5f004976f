// What else is being painted or waits: by this visitor in another tab, or by others. Any of it can be brought forward
// or stopped.

const queues = new WeakMap();

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".queue") ?? parentElement.appendChild(el("section", { className: "queue", hidden: true }));
  clearInterval(queues.get(root));
  const { words } = data;
  const title = el("h2", {}, say(words, "queue"));
  const list = el("ol");
  root.replaceChildren(title, list);
  let seen = "";
  const act = (key, sign, path, json) => el("button", { type: "button", title: say(words, key), aria: { label: say(words, key) }, onclick: async () => {
    await ask(path, { method: "POST", ...(json ? { json } : {}) }).catch(() => {});
    look();
  } }, sign);
  const line = (job) => {
    const open = el("a", { href: `/?job=${job.id}`, onclick: (event) => { event.preventDefault(); setTriggerValue("watch", job.id); } }, plain(job.request.prompt));
    const state = job.state === "painting" ? say(words, "queue.painting") : job.position ? say(words, "easel.waiting", { before: job.position }) : say(words, "easel.next");
    const forward = job.position > 0 && act("queue.forward", "↑", `/api/jobs/${job.id}/move`, { position: 0 });
    return el("li", {}, open, el("small", {}, [data.styles[job.request.style], state].filter(Boolean).join(" · ")), forward, act("act.cancel", "✕", `/api/jobs/${job.id}/cancel`));
  };
  const look = async () => {
    if (document.hidden || !root.isConnected) return;
    const found = await ask("/api/jobs?limit=30").catch(() => null);
    if (!found) return;
    const others = found.jobs.filter((job) => !data.watched.includes(job.id));
    const now = JSON.stringify(others.map((job) => [job.id, job.state, job.position]));
    if (now === seen) return;
    seen = now;
    root.hidden = !others.length;
    list.replaceChildren(...others.map(line));
  };
  look();
  queues.set(root, setInterval(look, 1500));
  return () => clearInterval(queues.get(root));
}
