"""The page as a reader meets it: its words, its markup, and all of it in a browser without a network."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Route, sync_playwright
from sample_reports import hostile_report, sample_report, without_measures
from sample_tunings import made, tuning

from acclimate.artifacts import Comparison, Report, Weight
from acclimate.evaluate.page import COEFFICIENTS_KEPT, WEIGHTS_KEPT, facts, findings, render_page
from acclimate.evaluate.summary import summary_table
from acclimate.evaluate.tune_page import render_tuning

HOSTILE = '<b>&amp;<script>window.hacked=1</script><img src=x onerror="window.hacked=1">%{y} ${z} </script><!--'
SECTIONS = ("windows", "costs", "comparisons", "calibration", "cohorts", "drift", "weights", "trace")


# --- words


def test_facts_say_what_was_replayed() -> None:
    assert facts(sample_report()) == [
        "label long_view",
        "2022-04-28 to 2022-05-08",
        "11 windows of 1d",
        "179,399 rows",
        "base rate 31.1 %",
    ]
    single = replace(sample_report(windows=1), settings={})
    assert facts(single) == ["2022-04-28", "1 window", "16,309 rows"]


def test_findings_set_incremental_against_stale_and_retrain() -> None:
    report = sample_report(truth=False)
    compared = [
        Comparison("incremental", "stale", "auc", 0.0123, 0.0101, 0.0146),
        Comparison("retrain", "incremental", "auc", 0.0004, -0.0003, 0.0012),  # turned round
        Comparison("incremental", "stale", "gauc", 9.0, 9.0, 9.0),  # another measure
    ]
    assert findings(replace(report, comparisons=compared)) == [
        "incremental reaches an AUC of 0.7311: 0.0123 above stale [+0.0101, +0.0146] and 0.0004 below retrain "
        "[−0.0012, +0.0003], at 3.1 % of its seconds per window.",
        "Brackets are 95 % intervals; no clear difference from retrain, whose bracket holds 0.",
    ]


def test_findings_without_intervals_are_plain_differences() -> None:
    report = replace(sample_report(), comparisons=[])
    del report.arms["retrain"]
    assert findings(report) == [
        "incremental reaches an AUC of 0.7311: 0.0123 above stale.",
        "Regret against the true probabilities, in nats per row: incremental 0.00120, stale 0.00810.",
    ]


def test_findings_without_incremental_name_the_best() -> None:
    report = replace(sample_report(truth=False), comparisons=[])
    del report.arms["incremental"]
    assert findings(report) == ["retrain reaches an AUC of 0.7315, 0.0019 above lightgbm."]


def test_updates_that_were_undone_are_told() -> None:
    report = sample_report(windows=3)
    windows = [
        replace(w, refused="it would do harm") if w.arm == "incremental" and w.start[8:10] != "28" else w
        for w in report.windows
    ]
    told = findings(replace(report, windows=windows))
    assert told[:-1] == findings(report)
    assert told[-1] == (
        "incremental did not learn 2 of 3 windows, first that of 2022-04-29T00:00:00+08:00: it would do harm."
    )
    assert "3 windows; incremental refused 2; bold is best" in str(
        summary_table(replace(report, windows=windows)).caption
    )


def test_findings_of_one_arm_or_none() -> None:
    assert findings(sample_report(arms=1, truth=False)) == ["stale reaches an AUC of 0.7188."]
    assert findings(without_measures(sample_report())) == ["No arm has an AUC: it needs rows of both labels."]


# --- markup


@dataclass
class Markup(HTMLParser):
    """Tags, the data of the scripts and whatever a tag refers to."""

    tags: list[str] = field(default_factory=list)
    references: list[str | None] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["script"] and self.lasttag == "script":
            self.scripts[-1] += data


def parsed(report: Report) -> Markup:
    markup = Markup()
    markup.feed(render_page(report))
    return markup


def test_the_page_refers_to_nothing_outside() -> None:
    markup = parsed(sample_report(windows=2))
    assert markup.references == []
    assert "link" not in markup.tags
    assert len(markup.scripts) == 4  # data, plotly and two of ours
    assert json.loads(markup.scripts[0])["arms"] == list(sample_report().arms)


def test_text_of_a_user_stays_text() -> None:
    hostile, plain = parsed(hostile_report(HOSTILE)), parsed(hostile_report("plain"))
    assert hostile.tags == plain.tags
    assert json.loads(hostile.scripts[0])["weights"][0]["name"].startswith(HOSTILE)


def test_only_what_a_page_can_hold_is_on_it() -> None:
    report = sample_report(arms=2, windows=2)
    many = [Weight(a, str(i), 1.0 + i, 1.0) for a in report.arms for i in range(WEIGHTS_KEPT + 5)]
    points = [
        replace(report.trace[0], name=str(i), mean=mean, standard_deviation=1.0)
        for i in range(COEFFICIENTS_KEPT + 3)
        for mean in (0.0, float(i))
    ]
    data = json.loads(parsed(replace(report, weights=many, trace=points)).scripts[0])
    assert data["weightsLeftOut"] == {"stale": 5, "incremental": 5}
    assert len(data["weights"]) == 2 * WEIGHTS_KEPT
    assert min(w["mean"] for w in data["weights"]) == 6.0  # the least clear ones are gone
    assert list(dict.fromkeys(p["name"] for p in data["trace"])) == ["10", "9", "8", "7", "6", "5", "4", "3"]


# --- in a browser


@dataclass
class Shown:
    """A page of a report: what a reader can do on it, what is then drawn, what it complained of and asked for."""

    page: Page
    file: Path
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.route("**/*", self._allow_only_the_file)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _allow_only_the_file(self, route: Route) -> None:
        if route.request.url == self.file.as_uri():
            route.continue_()
        else:
            self.requests.append(route.request.url)
            route.abort()

    def open(self, report: Report, *, width: int = 1280, scheme: Any = "light") -> Page:
        return self.open_text(render_page(report), width=width, scheme=scheme)

    def open_text(self, text: str, *, width: int, scheme: Any) -> Page:
        self.file.write_text(text, encoding="utf-8")
        self.page.set_viewport_size({"width": width, "height": 844})
        self.page.emulate_media(color_scheme=scheme)
        self.page.goto(self.file.as_uri())
        return self.page

    def caption(self, section: str) -> str:
        return self.page.locator(f"#{section} .caption").inner_text()

    def select(self, section: str, label: str, value: str) -> None:
        self.page.locator(f"#{section} label", has_text=label).locator("select").select_option(value)

    def traces(self, section: str) -> list[dict[str, Any]]:
        return self.page.locator(f"#{section} .js-plotly-plot").first.evaluate("plot => plot.data")

    def names(self, section: str) -> list[str]:
        return [trace["name"] for trace in self.traces(section)]

    def ticks(self, section: str, axis: str) -> list[str]:
        return self.page.locator(f"#{section} .{axis}axislayer-above .{axis}tick text").all_text_contents()

    def assert_nothing_wrong_and_nothing_sent(self) -> None:
        assert self.complaints == []
        assert self.requests == []


@pytest.fixture(scope="module")
def context() -> Iterator[BrowserContext]:
    """One browser, offline, for all tests: once it has compiled Plotly, it is twice as fast."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        message = "no Chromium to look at the page with: apt-get install chromium"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    quiet = ["--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--no-first-run", *quiet])
        yield browser.new_context(offline=True)
        browser.close()


@pytest.fixture(scope="module")
def tab(context: BrowserContext, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    return Shown(context.new_page(), tmp_path_factory.mktemp("tab") / "report.html")


@pytest.fixture
def shown(tab: Shown) -> Iterator[Shown]:
    """A page to open a report on."""
    tab.complaints.clear()
    tab.requests.clear()
    yield tab
    tab.assert_nothing_wrong_and_nothing_sent()


@pytest.fixture(scope="module")
def full(context: BrowserContext, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """The full sample report, opened once: each test minds the choosers of its own section."""
    shown = Shown(context.new_page(), tmp_path_factory.mktemp("full") / "report.html")
    shown.open(sample_report())
    yield shown
    shown.assert_nothing_wrong_and_nothing_sent()


def assert_no_sideways_scroll(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]  # type: ignore[index]


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_every_section_is_drawn(shown: Shown, width: int, scheme: str) -> None:
    page = shown.open(sample_report(), width=width, scheme=scheme)
    for section in SECTIONS:
        assert page.locator(f"#{section} .scatterlayer .trace").first.is_visible(), section
    assert page.locator("#arms tbody tr").count() == 8
    assert page.locator("#calibration .js-plotly-plot").count() == 8
    assert page.locator("#trace figcaption").all_inner_texts()[-1] == "events learned"
    assert_no_sideways_scroll(page)


def test_every_arm_may_be_hidden(shown: Shown) -> None:
    page = shown.open(sample_report(arms=2, windows=2))
    for button in page.locator("#legend button").all():
        button.click()
    assert shown.traces("windows") == []
    assert shown.caption("windows") == "AUC · higher is better"


def comes_true(page: Page, condition: str, argument: object = None) -> bool:
    """Whether a condition holds within a thousand frames.

    Playwright's own waiting calls ``eval`` in the page as soon as it has to wait, which the page's policy forbids.
    """
    frames = (
        "argument => new Promise(done => { let left = 1000; const look = () => "
        f"({condition}) ? done(true) : left-- ? requestAnimationFrame(look) : done(false); look(); }})"
    )
    return bool(page.evaluate(frames, argument))


def test_scheme_and_width_are_followed_as_they_change(shown: Shown) -> None:
    page = shown.open(sample_report(arms=2), scheme="light")
    light = shown.traces("windows")[0]["marker"]["color"]
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    drawn = "document.querySelector('#windows .js-plotly-plot')"
    assert comes_true(page, f"{drawn}.data[0].marker.color !== argument", light)
    assert page.evaluate(background) == "rgb(21, 23, 28)"
    page.set_viewport_size({"width": 390, "height": 844})
    assert comes_true(page, f"{drawn}.querySelector('.main-svg').clientWidth <= 390")
    assert_no_sideways_scroll(page)


@pytest.mark.parametrize(
    ("report", "absent"),
    [
        (sample_report(arms=1), {"costs", "comparisons", "weights", "drift", "trace"}),
        (sample_report(arms=3, windows=1, truth=False), set()),
        (sample_report(arms=3, windows=60), set()),
        (without_measures(sample_report()), {"comparisons", "weights", "drift", "trace"}),
        (
            replace(sample_report(), windows=[], calibration=[], cohorts=[]),
            {"windows", "costs", "calibration", "cohorts"},
        ),
    ],
    ids=["one arm", "one window", "60 windows", "one class of labels", "arms alone"],
)
def test_sections_without_data_are_left_out(shown: Shown, report: Report, absent: set[str]) -> None:
    page = shown.open(report, width=390)
    for section in SECTIONS:
        assert page.locator(f"#{section}").is_visible() == (section not in absent), section
    assert_no_sideways_scroll(page)


def test_windows_choose_measure_reference_and_scale(full: Shown) -> None:
    report = sample_report()
    assert full.caption("windows") == "AUC · higher is better · off this scale: global-rate, item-rate, user-rate"
    full.select("windows", "Scale", "all")
    assert full.caption("windows") == "AUC · higher is better"
    full.select("windows", "Show", "regret")
    full.select("windows", "as", "stale")
    assert full.caption("windows") == "Regret, nats per row, minus stale · lower is better"
    drawn = next(t for t in full.traces("windows") if t["name"] == "incremental")
    regret = {arm: [w.regret for w in report.windows if w.arm == arm] for arm in ("incremental", "stale")}
    assert drawn["y"] == pytest.approx([a - b for a, b in zip(*regret.values(), strict=True)])
    assert drawn["x"][0] == "2022-04-28T00:00:00"
    full.select("windows", "as", "")
    full.select("windows", "Show", "seconds")
    assert full.caption("windows") == "Seconds, per window"
    assert full.page.locator("#windows .js-plotly-plot").evaluate("p => p.layout.yaxis.type") == "log"


def test_the_legend_hides_an_arm_and_leaves_the_others_their_colours(full: Shown) -> None:
    button = full.page.locator("#legend").get_by_role("button", name="lightgbm")
    colours = {t["name"]: t["marker"]["color"] for t in full.traces("windows")}
    assert len(set(colours.values())) == 8
    button.focus()
    full.page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    for section in ("windows", "costs", "cohorts"):
        assert "lightgbm" not in full.names(section)
        assert "incremental" in full.names(section)
        assert all(colours[t["name"]] == t["marker"]["color"] for t in full.traces(section))
    assert full.page.locator("#calibration figure:visible").count() == 7
    assert len(full.traces("comparisons")) == 6
    button.click()
    assert "lightgbm" in full.names("windows")


def test_comparisons_turn_round_with_their_reference(full: Shown) -> None:
    report = sample_report()
    known = {(c.arm, c.against): c for c in report.comparisons if c.metric == "auc"}
    against = known["retrain", "incremental"], known["incremental", "stale"]
    drawn = full.traces("comparisons")[:2]
    assert [t["x"][0] for t in drawn] == pytest.approx([-against[1].difference, against[0].difference])
    assert drawn[0]["x"][0] + drawn[0]["error_x"]["array"][0] == pytest.approx(-against[1].low)
    full.select("comparisons", "against", "retrain")
    full.select("comparisons", "Show", "log_loss")
    assert full.caption("comparisons").startswith("Log-loss, nats per row, minus retrain · lower is better")
    stale = next(c for c in report.comparisons if (c.arm, c.against, c.metric) == ("retrain", "stale", "log_loss"))
    assert full.traces("comparisons")[0]["x"] == [-stale.difference]
    assert len(full.traces("comparisons")) == 7


def test_weights_are_searched_and_grouped(full: Shown) -> None:
    report = sample_report()
    assert full.caption("weights") == "40 of 80 weights"
    clearest = sorted(
        (w for w in report.weights if w.arm == "incremental"), key=lambda w: -abs(w.mean) / w.standard_deviation
    )[:40]
    assert [t["x"][0] for t in full.traces("weights")] == sorted(w.mean for w in clearest)
    full.select("weights", "Feature", "tab")
    assert full.caption("weights") == "20 of 20 weights"
    full.page.get_by_label("Find").fill("Tab=3")
    assert full.caption("weights") == "1 of 1 weights"
    full.page.get_by_label("Find").fill("no such feature")
    assert full.caption("weights") == "0 of 0 weights"
    full.page.get_by_label("Find").fill("")
    full.select("weights", "Feature", "")
    full.select("weights", "Arm", "fixed")
    means = {w.mean for w in report.weights if w.arm == "fixed"}
    assert {t["x"][0] for t in full.traces("weights")} <= means


def test_costs_and_cohorts_choose_their_measure(full: Shown) -> None:
    full.select("costs", "Show", "within tab")
    assert full.caption("costs").startswith("AUC within tab")
    full.select("cohorts", "Show", "log_loss")
    assert full.caption("cohorts").startswith("Log-loss, nats per row · lower is better")
    assert full.ticks("cohorts", "x")[0] == "07,176 rows"


def test_surprise_follows_an_arm(full: Shown) -> None:
    report = sample_report()
    assert full.page.locator("#drift select option").all_inner_texts() == ["incremental", "fixed"]
    captions = full.page.locator("#drift figcaption")
    assert captions.all_inner_texts()[:3] == ["loss", "labels", "effect of fixed"]
    assert captions.count() == 5
    full.select("drift", "Arm", "fixed")
    assert captions.count() == 4
    curve, low, high = full.traces("drift")
    assert curve["y"] == [d.z for d in report.drift if (d.arm, d.statistic) == ("fixed", "loss")]
    assert (low["y"], high["y"]) == ([-4.0, -4.0], [4.0, 4.0])


def test_the_trace_follows_an_arm(full: Shown) -> None:
    report = sample_report()
    assert full.page.locator("#trace select option").all_inner_texts() == ["incremental", "retrain"]
    assert full.caption("trace") == "user 17283, as incremental knows it"
    full.select("trace", "Arm", json.dumps(["retrain", "user", "17283"], separators=(",", ":")))
    assert full.caption("trace") == "user 17283, as retrain knows it"
    name = full.page.locator("#trace figcaption").first.inner_text()
    own = [p for p in report.trace if p.arm == "retrain" and p.name == name]
    low, high, mean = full.traces("trace")
    assert mean["y"] == [p.mean for p in own]
    assert low["y"] == pytest.approx([p.mean - 1.96 * p.standard_deviation for p in own])
    assert high["y"] == pytest.approx([p.mean + 1.96 * p.standard_deviation for p in own])


def test_the_table_sorts_the_best_first_and_back(full: Shown) -> None:
    page = full.page
    names = page.locator("#arms tbody th")

    def order() -> list[str]:
        return [text[1:] for text in names.all_inner_texts()]  # without the mark

    given = order()
    page.get_by_role("button", name="GAUC").click()
    assert order()[0] == "retrain"
    assert page.locator("#arms thead th").nth(3).get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="GAUC").click()
    assert order()[0] == "global-rate"
    for _ in range(2):
        page.get_by_role("button", name="State").click()
        assert order()[-1] == "lightgbm"  # it has none to tell
    page.get_by_role("button", name="Arm", exact=True).click()
    assert order() == given


def test_hostile_names_are_shown_and_not_run(shown: Shown) -> None:
    page = shown.open(hostile_report(HOSTILE), width=390)
    assert page.evaluate("window.hacked") is None
    assert page.locator("h1").inner_text() == HOSTILE
    assert page.locator("img").count() == 0
    assert all(tick.startswith("<b>&amp;<") for tick in shown.ticks("weights", "y"))
    assert_no_sideways_scroll(page)


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_the_page_of_a_search(shown: Shown, width: int, scheme: Any) -> None:
    page = shown.open_text(render_tuning(tuning(made(-0.12, -0.07))), width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("#best tbody tr").count() == 2
    assert page.locator("header pre").inner_text() == "--set x=1"
    names = {trace.get("name") for trace in shown.traces("trials")}
    assert names == {"best so far", "among the best", "complete", "stopped early"}
    assert page.locator("#values figcaption").all_inner_texts() == ["fixed.ridge", "fixed.features"]
    assert page.locator("#values .js-plotly-plot").count() == 2
    declared = page.locator("#values .js-plotly-plot").first.evaluate("plot => plot.data[0].x")
    assert declared == [1]
    labels = page.locator("#values .js-plotly-plot").last.evaluate("plot => plot.layout.xaxis.ticktext")
    assert labels == ["all", "without b"]
