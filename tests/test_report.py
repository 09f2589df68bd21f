"""The report as its readers use it: clicks and keys in headless Chromium."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from browser import CHROMIUM, Browser

from optzoo.compare import Grid, Results, run
from optzoo.compare.show import report
from optzoo.problems import Problem

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
LONG = "lookahead(schedule_free(adamp, weight_decay=0.1), period=10)"
# From the best one to the worst.
RULES = [f"rule_{place}" for place in range(6)] + [LONG, "last"]
PROBLEMS = ["bowl", "pit", "valley", "hole"]
RATES, SEEDS = [0.01, 0.1, 1.0], 2


def descent(learning_rate=0.1):
    return optax.sgd(learning_rate)


def measured():
    """A small comparison on a landscape."""

    def loss(params, _):
        return jnp.sum(params["point"] ** 2)

    def evaluate(params, _):
        x, y = params["point"]
        return {"loss": loss(params, None), "x": x, "y": y}

    start, box = {"point": jnp.ones(2)}, (-1.0, 1.0, -1.0, 1.0)
    task = Problem(lambda _: start, loss, evaluate, 40, 0.5, box=box, name="bowl", summary="A bowl")
    return run([task], [descent], lrs=Grid((1.0,), relative=True), seeds=1)


def results():
    """The same with more optimizers, problems, rates and seeds, whose curves are made up."""
    real = measured()
    about, tried = real.about, real.grids["bowl", "descent"]
    (one,) = tried.runs
    way = np.linspace(0, 1, len(one.curves["loss"]))

    def trained(place, rate, seed):
        loss = np.exp(-4 * way / (1 + place + abs(np.log10(rate / 0.1)) + 0.1 * seed))
        curves = {"loss": loss, "x": 1 - way, "y": 0.1 * place * way}
        curves = {name: curve.tolist() for name, curve in curves.items()}
        final = {"loss": float(loss[-1])}
        return dataclasses.replace(one, rate=rate, seed=seed, curves=curves, final=final)

    grids = {
        (problem, name): dataclasses.replace(
            tried,
            runs=[trained(place, rate, seed) for rate in RATES for seed in range(SEEDS)],
            gradients=1 + place % 2,
            costs=dict.fromkeys(tried.costs or [one.device], 1e-3),
        )
        for problem in PROBLEMS
        for place, name in enumerate(RULES)
    }
    details = dict.fromkeys(PROBLEMS, about["problems"]["bowl"])
    several = {"optimizers": RULES, "problems": details, "seeds": SEEDS}
    return Results(about | several, grids)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return report.write(results(), tmp_path_factory.mktemp("report"))[0].as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def page(browser, address):
    browser.resize(1100)
    browser.open(address)
    return browser


def row(name):
    return f'tr[data-optimizer="{RULES.index(name)}"]'


def width(name):
    """The width of an optimizer's line in the first problem's chart: highlighted ones are wide."""
    data = "document.querySelector('#loss-0').data"
    return f"{data}.find(t => t.meta === {name!r} && !t.fill).line.width"


def visible(selector):
    return f"[...document.querySelectorAll({selector!r})].filter(e => e.checkVisibility()).length"


def test_a_click_highlights_an_optimizer_everywhere_and_the_address_keeps_it(page):
    pressed = f"document.querySelector('{row(LONG)} button').ariaPressed"
    assert page.value(pressed) == "false"
    page.click("nav a:nth-child(2)")
    page.wait(f"document.querySelector('#loss-0').data && {width(LONG)} === 1")
    # In the table of a problem, and back in that of the ranking.
    page.click(f"#problem-0 {row(LONG)} .name")
    page.wait(f"{width(LONG)} > 2 && {width('last')} === 1")
    assert page.value(pressed) == "true"
    kept = page.value("location.href")
    page.click(f"{row('rule_1')} button")
    page.click("nav a:nth-child(2)")
    page.wait(f"{width('rule_1')} === 1")
    page.open(kept)
    assert page.value(pressed) == "true" and page.value("scrollY") > 0
    page.wait(f"document.querySelector('#loss-0').data && {width(LONG)} > 2")
    page.click("[data-all]")
    assert page.value(pressed) == "false"


def test_a_click_on_a_line_highlights_it(page):
    page.value("document.querySelector('#budget').scrollIntoView({block: 'center'})")
    middle = """(chart => {
      const { _size: margin, xaxis, yaxis } = chart._fullLayout;
      const box = chart.getBoundingClientRect();
      const line = chart.data.find(trace => trace.meta === "last");
      return [box.x + margin.l + xaxis.d2p(line.x[1]),
              box.y + margin.t + yaxis.d2p(line.y[1])];
    })(document.querySelector("#budget"))"""
    page.wait("document.querySelector('#budget').drawn")
    page.click_at(*page.value(middle))
    page.wait("document.querySelector('.chips').innerText.includes('last')", 10)
    assert page.value("new URLSearchParams(location.hash.slice(1)).getAll('pick').length") == 6


def test_words_choose_optimizers_and_problems(page):
    page.click("input[name=optimizers]")
    page.type("rule_1 lookahead")
    page.click("input[name=problems]")
    page.type("hole")
    rows = "document.querySelector('#ranking').layout?.yaxis.ticktext?.length"
    for _ in range(2):
        assert page.value(visible("main > .scroll tbody tr")) == 2
        assert page.value(visible("section[data-problem]")) == 1
        assert page.value(visible("thead [data-problem]")) == 1
        page.value("document.querySelector('#ranking').scrollIntoView()")
        page.wait(f"{rows} === 2")
        page.open(page.value("location.href"))
    assert "2 of 8 optimizers, 1 of 4 problems" in page.value("document.body.innerText")


def test_the_keyboard_reaches_what_the_mouse_does(page):
    page.value("document.querySelector('input[name=problems]').focus()")
    page.press("Tab")
    assert page.value("document.activeElement.textContent") == "rule_0"
    page.press("Enter")
    assert page.value(f"document.querySelector('{row('rule_0')} button').ariaPressed") == "false"


def test_charts_are_drawn_where_they_are_looked_at(page):
    page.wait("document.querySelector('#ranking .main-svg')")
    assert not page.value("document.querySelector('#loss-3 .main-svg')")
    page.value("document.querySelector('#problem-3').scrollIntoView()")
    page.wait("document.querySelector('#loss-3 .main-svg')")
    page.click("[data-chart=clock-3]")
    page.wait("document.querySelector('#loss-3').layout.xaxis.title.text.includes('seconds')")
    page.click("[data-plays=path-3]")
    page.wait(
        "(slider => +slider.value < slider.max)(document.querySelector('[data-moves=path-3]'))"
    )


def test_screen_readers_are_told_what_is_what(page):
    page.wait(
        "[...document.querySelectorAll('table')].every(e => e.checkVisibility("
        "{contentVisibilityAuto: true}))"
    )
    nodes = page.ask("Accessibility.getFullAXTree")["nodes"]
    named: dict[str, list[str]] = {}
    for node in nodes:
        if not node["ignored"]:
            named.setdefault(node["role"]["value"], []).append(node["name"]["value"])
    assert ["Ranking", *PROBLEMS] == named["table"]
    assert "optimizer" in named["columnheader"] and "last" in named["rowheader"]
    images = " ".join(named["image"])
    assert images.count("The table below has the numbers") == 3 * len(PROBLEMS)
    assert images.count("losses by learning rate: ") == len(RULES) * len(PROBLEMS)
    assert all(named["button"] + named["searchbox"] + named["image"])


@pytest.mark.parametrize("size", [390, 1100, 1600])
def test_nothing_is_cut(page, size):
    page.resize(size)
    page.wait(f"innerWidth === {size} && document.documentElement.scrollWidth <= {size}")
    if size >= 1100:
        assert page.value(
            "[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)"
        )
