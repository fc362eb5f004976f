// Files that are dragged from another program onto a part of the page.

// Keep a file as an upload; its name as a request takes it ("upload:…").
const upload = async (file) => (await fetchJson("/api/uploads", { method: "POST", body: file, headers: { "Content-Type": file.type || "application/octet-stream" } })).init_image;

// The address of what a request refers to: "picture:ID" or "upload:ID".
const referred = (reference) => { const [kind, id] = reference.split(":"); return kind === "picture" ? `/api/pictures/${id}/file` : `/api/uploads/${id}`; };

const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

// Let files be dropped onto ``area``, which shows ``hint`` meanwhile. take(files): what to do with them.
const takeFiles = (area, hint, take) => {
  let depth = 0; // of nested elements that the pointer has entered
  const veil = el("div", { className: "veil", hidden: true, aria: { hidden: true } }, hint);
  const show = (by) => { depth = Math.max(0, depth + by); veil.hidden = !depth; };
  area.classList.add("takes-files");
  area.append(veil);
  area.addEventListener("dragenter", (event) => { if (holdsFiles(event)) { event.preventDefault(); show(1); } });
  area.addEventListener("dragleave", (event) => holdsFiles(event) && show(-1));
  area.addEventListener("dragover", (event) => { if (holdsFiles(event)) { event.preventDefault(); event.dataTransfer.dropEffect = "copy"; } });
  area.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    depth = 0;
    veil.hidden = true;
    if (event.dataTransfer.files.length) take([...event.dataTransfer.files]);
  });
  return veil;
};
