// Fetches the live part of the page every few seconds; without it the page is simply as old as its load.
const part = document.getElementById("live");
const EVERY = 4000;
async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch(part.dataset.source, { headers: { Accept: "text/html" }, redirect: "error" });
    if (!answer.ok) return;
    const text = await answer.text();
    if (text === part.dataset.shown) return;
    const chosen = [...part.querySelectorAll("input:checked")].map((box) => box.value);
    part.innerHTML = text;
    part.dataset.shown = text;
    for (const box of part.querySelectorAll("input")) box.checked = chosen.includes(box.value);
  } catch { /* the lab restarts: the next turn finds it again */ }
}
setInterval(refresh, EVERY);
document.addEventListener("visibilitychange", refresh);
