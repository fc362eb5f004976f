// Files that are dragged from another program onto a part of the page.

// Keep a file as an upload; its name as a request takes it ("upload:…").
const upload = async (file) => (await fetchJson("/api/uploads", { method: "POST", body: file, headers: { "Content-Type": file.type || "application/octet-stream" } })).init_image;

// The address of what a request refers to: "picture:ID" or "upload:ID".
const referred = (reference) => { const [kind, id] = reference.split(":"); return kind === "picture" ? `/api/pictures/${id}/file` : `/api/uploads/${id}`; };

let own = false; // whether what is dragged is of this page: Chromium gives a dragged picture as a file, too
document.addEventListener("dragstart", () => { own = true; }, true);
document.addEventListener("dragend", () => { own = false; }, true);

const holds = (event, kind) => [...(event.dataTransfer?.types ?? [])].includes(kind);

// The picture of the gallery whose link or image is dragged, as a request refers to it; null for another link.
const dragged = (event) => {
  const found = /[?&]picture=([0-9a-f]{32})|\/api\/pictures\/([0-9a-f]{32})\//.exec(event.dataTransfer.getData("text/uri-list"));
  return found && `picture:${found[1] ?? found[2]}`;
};

// Let files be dropped onto ``area``, which shows ``hint`` meanwhile. take(files): what to do with them. refer(reference): the
// same for a picture of this page, where one may be dropped.
const takeFiles = (area, hint, take, refer = null) => {
  let depth = 0; // of nested elements that the pointer has entered
  const veil = el("div", { className: "veil", hidden: true, aria: { hidden: true } }, hint);
  const show = (by) => { depth = Math.max(0, depth + by); veil.hidden = !depth; };
  const accepts = (event) => (own ? refer && holds(event, "text/uri-list") : holds(event, "Files"));
  area.classList.add("takes-files");
  area.append(veil);
  area.addEventListener("dragenter", (event) => { if (accepts(event)) { event.preventDefault(); show(1); } });
  area.addEventListener("dragleave", (event) => accepts(event) && show(-1));
  area.addEventListener("dragover", (event) => { if (accepts(event)) { event.preventDefault(); event.dataTransfer.dropEffect = "copy"; } });
  area.addEventListener("drop", (event) => {
    if (!accepts(event)) return;
    event.preventDefault();
    depth = 0;
    veil.hidden = true;
    const reference = own && dragged(event);
    if (reference) refer(reference);
    else if (!own && event.dataTransfer.files.length) take([...event.dataTransfer.files]);
  });
  return veil;
};
