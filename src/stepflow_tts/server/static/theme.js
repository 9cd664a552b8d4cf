// Light or dark: as the system has it, until the button says otherwise.

const KEY = "theme";
const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");

/** Whether the page is dark now. */
function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
}

/** Whatever is drawn by hand listens to this event of the window. */
function tell() {
  document.querySelector("#theme")?.setAttribute("aria-pressed", String(isDark()));
  window.dispatchEvent(new Event("themechange"));
}

const kept = localStorage.getItem(KEY);
if (kept === "light" || kept === "dark") root.dataset.theme = kept;
system.addEventListener("change", tell);
document.addEventListener("DOMContentLoaded", () => {
  tell();
  document.querySelector("#theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    localStorage.setItem(KEY, root.dataset.theme);
    tell();
  });
});
