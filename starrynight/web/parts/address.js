// The page's state in its address: reading it, and changing a part of it. ``push`` adds an entry to the history, so that Back
// undoes the change; otherwise the present entry is replaced.

const readAddress = () => Object.fromEntries(new URLSearchParams(location.search));

const writeAddress = (changes, push = false) => {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value) query.set(name, value); else query.delete(name);
  }
  const url = `${location.pathname}${query.size ? `?${query}` : ""}`;
  if (url === location.pathname + location.search) return;
  history[push ? "pushState" : "replaceState"](push ? null : history.state, "", url);
};
