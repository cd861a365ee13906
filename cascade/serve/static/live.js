// Follows the page's event streams. The server renders; this only puts its HTML in place.
"use strict";
for (const part of document.querySelectorAll("[data-follow]")) {
  const stream = new EventSource(part.dataset.follow);
  stream.addEventListener("shown", (event) => { part.innerHTML = JSON.parse(event.data).html; });
  stream.addEventListener("new", () => { part.hidden = false; stream.close(); });
  stream.addEventListener("ended", () => {
    stream.close();
    if (part.dataset.then) { location.assign(part.dataset.then); } else { location.reload(); }
  });
}
