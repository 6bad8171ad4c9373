"""The reports of real runs in a real browser: they need nothing else, fit a telephone, a desktop and paper, and can be read
in light and in dark. Skipped without Chromium."""
import os
import shutil
import sys

import harness

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "testing"))
import chromium  # noqa: E402

if chromium.find() is None:
    print("skipped: there is no Chromium here; Debian's package is chromium")
    sys.exit(77)

WIDTHS = (390, 1280)
PAPER = 718  # A4 at 96 to the inch, without the margins

# Texts whose colour differs too little from what is behind them: less than 4.5 to 1, WCAG's AA.
FAINT = """(() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = rgb => rgb.slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
      .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const rgb = numbers(getComputedStyle(element).backgroundColor);
      if (rgb.length === 3 || rgb[3] > 0) return rgb;
    }
    return [255, 255, 255];
  };
  const found = new Set();
  for (const element of document.body.querySelectorAll('*')) {
    if (![...element.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(numbers(element instanceof SVGElement ? style.fill : style.color)), light(behind(element))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) found.add(`${element.tagName}.${element.className} ${ratio.toFixed(2)}`);
  }
  return [...found];
})()"""
# Boxes that cut what is in them, and cannot be scrolled on paper.
CUT = """[...document.querySelectorAll('.scroll, pre, .example')].filter(e => e.scrollWidth > e.clientWidth + 1)
  .map(e => e.className + ' ' + e.textContent.slice(0, 60))"""
WIDER = "document.documentElement.scrollWidth - innerWidth"
# Two texts of one drawing on top of each other.
COVERED = """[...document.querySelectorAll('.chart>svg')].flatMap(svg => {
  const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
  return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([b, q]) =>
      p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 3 && q.top < p.bottom - 3)
      .map(([b]) => `${svg.getAttribute('aria-label')}: ${a} / ${b}`));
})"""


class ReportTest(harness.SluiceTest):
    def make_runs(self):
        """{name: report} of every kind of job, and of all together."""
        data = self.prepare(ranker={"sequential": False})
        _, sft = self.run_job({"name": "sft", "kind": "sft", "data": data, "model": harness.model_spec(),
                               "sft": {"passes": 4, "targets_per_step": 8, "validation": {"every": 1, "beams": 10}}})
        values = harness.rl_spec(data, steps=6, gate={"kind": "combined", "negatives": 2},
                                 validation={"every": 3, "users": 20, "beams": 10})
        values["model"] = {"path": sft}
        _, reward, _ = self.start_reward(data)
        learner, rl = self.start_rl(values)
        self.start_actor("--learner", learner.address, reward=reward)
        self.assertEqual(learner.wait(), harness.DONE, learner.said())
        runs = {"prepare": self.path("tiny"), "sft": sft, "rl": rl}
        for name in ("sft", "rl"):
            _, runs[f"{name}, tested"] = self.run_job(
                {"name": f"{name}, tested", "kind": "evaluate", "data": data, "model": {"path": runs[name]},
                 "evaluate": {"beams": 50}}, name=f"{name}-tested")
        pages = {name: os.path.join(folder, "report.html") for name, folder in runs.items()}
        pages["all"] = self.path("all.html")
        self.check_call("report", "sluice-learner", "report", *[runs[n] for n in runs if n != "prepare"], "--title",
                        "From events to a policy", "--output", pages["all"])
        return pages

    def test_reports_hold_what_they_should_and_fit_every_reader(self):
        pages = self.make_runs()  # which takes longer than looking at them
        with chromium.Chromium() as browser:
            self.check_parts(browser, pages)
            for name, path in pages.items():
                self.check_fit(browser, name, path)
                self.keep(name, path)

    def check_fit(self, browser, name, path):
        for width in WIDTHS:
            for dark in (False, True):
                with self.subTest(report=name, width=width, dark=dark):
                    page = browser.open(path, width, dark=dark)
                    self.assertEqual(page.problems, [])
                    self.assertLessEqual(page.evaluate(WIDER), 0)
                    self.assertEqual(page.evaluate(FAINT), [])
                    self.assertEqual(page.evaluate(COVERED), [])
                    seen = self.path(f"{name}-{width}-{'dark' if dark else 'light'}.png")
                    page.screenshot(seen)
                    self.assertGreater(os.path.getsize(seen), 10_000)
        with self.subTest(report=name, paper=True):
            page = browser.open(path, PAPER)
            page.call("Emulation.setEmulatedMedia", media="print")
            self.assertLessEqual(page.evaluate(WIDER), 0)
            self.assertEqual(page.evaluate(CUT), [])
            page.pdf(self.path(f"{name}.pdf"))
            self.assertGreater(os.path.getsize(self.path(f"{name}.pdf")), 10_000)

    def check_parts(self, browser, pages):
        def texts(name, selector):
            return browser.open(pages[name]).evaluate(
                f"[...document.querySelectorAll('{selector}')].map(e => e.textContent)")

        for name, wanted in (("sft", {"Examples", "Environment", "Effective spec", "To repeat this run"}),
                             ("rl", {"Examples", "Ledger of groups", "Difficulty and discriminability, tiny-rl"}),
                             ("rl, tested", {"Intervals", "Examples", "By difficulty decile", "Environment"}),
                             ("prepare", {"Data set", "Environment"}),
                             ("all", {"Results", "Intervals", "Differences to sft, tested", "Ledger of groups"})):
            self.assertEqual(wanted - set(texts(name, "h2")), set(), name)
        self.assertIn("Admission by reason", texts("rl", "h3"))
        self.assertIn("Loss", texts("sft", "h3"))
        # Before and after, side by side, of the same users.
        self.assertEqual(texts("rl", ".example:first-of-type h4"), ["tiny-rl, before (step 0)", "tiny-rl, step 6"])
        self.assertEqual(texts("all", ".example h4"), ["sft, tested", "rl, tested"] * 8)

    def keep(self, name, path):
        """Pictures and pages go to $SLUICE_KEEP_REPORTS, for people."""
        folder = os.environ.get("SLUICE_KEEP_REPORTS")
        if not folder:
            return
        os.makedirs(folder, exist_ok=True)
        shutil.copy(path, os.path.join(folder, f"{name}.html"))
        for found in os.listdir(self.folder):
            if found.startswith(name) and found.endswith((".png", ".pdf")):
                os.replace(self.path(found), os.path.join(folder, found))


if __name__ == "__main__":
    harness.main()
