// Language, colours and theme as the reader chooses them, and the place in the page.

function applyChoices() {
  root.lang = language() === "zh" ? "zh-CN" : "en";
  root.dataset.theme = theme();
  root.dataset.up = upColour();
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-label]")) element.setAttribute("aria-label", t(element.dataset.tLabel));
  for (const element of document.querySelectorAll("[data-en]")) element.textContent = element.dataset[language()];
  for (const button of document.querySelectorAll("[data-choice]")) {
    const [name, value] = button.dataset.choice.split(":");
    const current = { lang: language(), up: upColour(), theme: theme() }[name];
    button.setAttribute("aria-pressed", String(value === current));
  }
  document.title = `${document.querySelector("h1").textContent} · barcast`;
}

function repaint() {
  applyChoices();
  for (const paint of painters) paint();
}

let currentSection = "top";

function goTo(section, isSmooth) {
  const target = byId(section);
  if (!target) return;
  target.scrollIntoView({ behavior: isSmooth ? "smooth" : "auto", block: "start" });
  currentSection = section;
  writeHash(section);
}

function mountSwitches() {
  for (const button of document.querySelectorAll("[data-choice]")) {
    button.addEventListener("click", () => {
      const [name, value] = button.dataset.choice.split(":");
      chosen[name] = value;
      writeHash(currentSection);
      repaint();
    });
  }
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      await copyText(byId(button.dataset.copy).textContent);
      button.textContent = t("copy.done");
      setTimeout(() => { button.textContent = t("copy.copy"); }, 1600);
    });
  }
}
