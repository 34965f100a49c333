// Start: mount everything.

function mountNavigation() {
  const strip = document.querySelector("nav.sections");
  const links = [...strip.querySelectorAll("a")];
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  for (const link of links) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      goTo(link.hash.slice(1), !calm.matches);
      byId(link.hash.slice(1)).focus({ preventScroll: true });
    });
  }
  const mark = (id) => {
    currentSection = id;
    for (const link of links) {
      if (link.hash !== `#${id}`) link.removeAttribute("aria-current");
      else {
        link.setAttribute("aria-current", "true");
        // On a phone the navigation is one row that scrolls sideways.
        strip.scrollLeft = link.offsetLeft - (strip.clientWidth - link.clientWidth) / 2;
      }
    }
  };
  const watcher = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => mark(entry.target.id)),
    { rootMargin: "-18% 0px -76% 0px" },
  );
  for (const link of links) watcher.observe(byId(link.hash.slice(1)));
}

function start() {
  const section = readHash();
  applyChoices();
  for (const paint of [paintCards, paintNotices]) {
    paint();
    onPaint(paint);
  }
  mountComparison();
  if (REPORT.fleet) mountFleet();
  if (REPORT.routing) mountRouting();
  new Chart("monthly", { tabs: () => REPORT.monthly.map((scores) => pick(scores.name)), build: (i) => monthlyFigure(REPORT.monthly[i]) });
  new Chart("deciles", { tabs: () => REPORT.deciles.map((item) => term("segment", item.segment)), build: (i) => decileFigure(REPORT.deciles[i]) });
  new Chart("calibration", {
    tabs: () => REPORT.calibration.map((item) => `${term("segment", item.segment)} · ${t(`calibration.${item.kind}`)}`),
    build: (i) => calibrationFigure(REPORT.calibration[i]),
  });
  mountForecasts();
  mountSymbols();
  if (byId("training")) new Chart("training", { tabs: () => REPORT.loss.map((curve) => pick(curve.name)), build: (i) => lossFigure(REPORT.loss[i]) });
  mountFacts();
  mountDefects();
  mountSegments();
  mountFailures();
  mountSwitches();
  mountNavigation();
  darkMedia.addEventListener("change", repaint);
  window.addEventListener("hashchange", () => {
    const next = readHash();
    repaint();
    if (next) goTo(next, false);
  });
  const print = (isOn) => () => {
    isPrinting = isOn;
    repaint();
  };
  window.addEventListener("beforeprint", print(true));
  window.addEventListener("afterprint", print(false));
  if (section) goTo(section, false);
  root.dataset.ready = "true";
}

start();
