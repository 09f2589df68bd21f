"""Names that compose build what Python would, and mistakes show their place."""

import textwrap

import jax
import jax.numpy as jnp
import optax
import pytest

import optzoo
from optzoo import baselines, compose
from optzoo.compare.plan import select
from optzoo.compare.plan.contestants import Contestant
from optzoo.registry import Trait

PARAMS = {"kernel": jnp.linspace(-1.0, 1.0, 12).reshape(3, 4), "bias": jnp.ones(4)}


def program(tx):
    """Two steps, as text: equal programs are equal rules."""

    def steps(params):
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(params, state, params)
            params = optax.apply_updates(params, updates)
        return params

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return str(jax.make_jaxpr(steps)(PARAMS))


def planned(rate, steps=20):
    return optzoo.cosine(rate, steps)


SAME = {
    "muon": lambda: optzoo.muon(),
    "adamp(b1=0.5, nesterov=True)": lambda: optzoo.adamp(b1=0.5, nesterov=True),
    "schedule_free(adamp)": lambda: optzoo.schedule_free(optzoo.adamp(), 1e-3),
    "schedule_free(adamp(learning_rate=0.1), r=1.0)": lambda: optzoo.schedule_free(
        optzoo.adamp(0.1), 0.1, r=1.0
    ),
    "lookahead(master_weights(grams), period=3)": lambda: optzoo.lookahead(
        optzoo.master_weights(optzoo.grams()), period=3
    ),
    "adamw+cosine": lambda: baselines.adamw(planned(1e-3)),
    "lookahead(adamw+cosine)": lambda: optzoo.lookahead(baselines.adamw(planned(1e-3))),
    "adabound+cosine": lambda: optzoo.adabound(planned(1e-3), peak=1e-3),
    "lookahead(adabound)+cosine": lambda: optzoo.lookahead(
        optzoo.adabound(planned(1e-3), peak=1e-3)
    ),
    "adabound(peak=0.5)+cosine": lambda: optzoo.adabound(planned(1e-3), peak=0.5),
    "schedule_free(sgd)+cosine": lambda: optzoo.schedule_free(
        baselines.sgd(planned(0.1)), planned(0.1)
    ),
    "adam+cosine(warmup=0.5)+linear_warmup(warmup_steps=2)": lambda: baselines.adam(
        optzoo.linear_warmup(optzoo.cosine(1e-3, 20, warmup=0.5), 2)
    ),
    "ranger21": lambda: optzoo.ranger21(total_steps=20),
    "ranger21(total_steps=30)": lambda: optzoo.ranger21(total_steps=30),
    "lookahead(optax:sgd(learning_rate=0.3, momentum=0.9))": lambda: optzoo.lookahead(
        optax.sgd(0.3, 0.9)
    ),
}


@pytest.mark.parametrize("text", SAME)
def test_a_name_builds_what_python_does(text):
    assert program(optzoo.build(text, total_steps=20)) == program(SAME[text]())
    assert compose.entry(text).name == text


def test_a_given_learning_rate_reaches_everything_that_takes_one():
    for text in ("schedule_free(adamp)", "schedule_free(adamp(learning_rate=3.0))"):
        want = optzoo.schedule_free(optzoo.adamp(0.5), 0.5)
        assert program(optzoo.build(text, 0.5)) == program(want)


@pytest.mark.parametrize("text", ["adabound", "lookahead(adabound)"])
def test_a_comparison_tells_the_peak_of_its_schedule(text):
    contestant = Contestant(compose.entry(text), "cosine")
    want = optzoo.build(f"{text}+cosine", 0.5, total_steps=20)
    assert program(contestant.build(0.5, 20)) == program(want)


def test_names_have_one_form():
    text = " lookahead( adamp (eps = 1e-6,b1=.5) ,alpha=1 ) + cosine() "
    assert compose.entry(text).name == "lookahead(adamp(b1=0.5, eps=1e-06), alpha=1)+cosine"
    assert compose.entry("muon()") is optzoo.get("muon")
    assert compose.entry("adamw") is baselines.BASELINES["adamw"]


def test_an_entry_has_the_signature_and_traits_of_its_parts():
    entry = compose.entry("schedule_free(muon(momentum=0.5))+cosine")
    assert entry.defaults["learning_rate"] == 0.02 and entry.defaults["momentum"] == 0.5
    assert list(entry.signature.parameters)[-1] == "total_steps"
    assert entry.traits == {Trait.AVERAGES, Trait.SHAPED}
    built = entry.build(0.1, total_steps=20, momentum=0.25)
    inside = optzoo.muon(planned(0.1), momentum=0.25)
    assert program(built) == program(optzoo.schedule_free(inside, planned(0.1)))


def test_lists_are_split_at_outer_commas():
    text = 'matrix, schedule_free(adamp, r=1),x(s="a,(b"),, adamw+cosine(warmup=0.5),open(a,b'
    assert compose.split(text) == [
        "matrix",
        "schedule_free(adamp, r=1)",
        'x(s="a,(b")',
        "adamw+cosine(warmup=0.5)",
        "open(a,b",
    ]


MISTAKES = {
    "adampp": "unknown optimizer 'adampp': did you mean 'adamp'?",
    "schedule_free(adampp)": "did you mean 'adamp'?, at ^ in schedule_free(^adampp)",
    "lookahea(adamp)": "unknown wrapper 'lookahea': did you mean 'lookahead'?, at ^ in ^look",
    "adamw+cosin": "unknown schedule 'cosin': did you mean 'cosine'?, at ^ in adamw+^cosin",
    "schedule_free(adamp": "this ( is never closed, at ^ in schedule_free^(adamp",
    "adamp)": "there is no ( for this ), at ^ in adamp^)",
    "adamp sgd": "expected the end, at ^ in adamp ^sgd",
    "schedule_free": "schedule_free is a wrapper: write schedule_free(RULE)",
    "cosine": "cosine is a schedule: write RULE+cosine",
    "adamw+muon": "muon is a rule of its own, at ^ in adamw+^muon",
    "muon(adamw)": "muon is a rule of its own, at ^ in ^muon(adamw)",
    "adamp(b3=1)": "unknown argument of adamp 'b3': did you mean 'b2'?, at ^ in adamp(^b3=1)",
    "lookahead(adamp(b1=2))": "b1 must lie in [0, 1); got 2, at ^ in lookahead(^adamp(b1=2))",
    "adamp(b1=0.5, b1=0.6)": "b1 is given twice, at ^ in adamp(b1=0.5, ^b1=0.6)",
    "lookahead(matrix)": "matrix is a family: name one of its members, at ^ in lookahead(^matrix)",
    "adamp(b1=x)": "expected a number, a string in quotes",
    "lookahead(adamw period=1)": "expected , or ), at ^ in lookahead(adamw ^period=1)",
    "lookahead(adamw, 3)": "expected name=value, at ^ in lookahead(adamw, ^3)",
    "stochastic_round(adamw)": "stochastic_round needs key=",
    "adamw+": "expected a name, at ^ in adamw+^",
    "optax:adam": "optax:adam needs a learning rate",
    "lookahead(optax:nope)": "no attribute 'nope', at ^ in lookahead(^optax:nope)",
    "lookahead(optax:chain)": "optax:chain takes no argument learning_rate",
    "lookahead(optax:__version__)": "'optax:__version__' is no function",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_one_line_that_shows_its_place(text):
    with pytest.raises(ValueError) as caught:
        optzoo.build(text, total_steps=10)
    assert MISTAKES[text] in str(caught.value) and "\n" not in str(caught.value)


def test_what_plans_the_run_asks_for_its_length():
    with pytest.raises(ValueError, match="needs total_steps"):
        optzoo.build("lookahead(adamw+cosine)")


def test_a_comparison_takes_families_and_names_that_compose(tmp_path, monkeypatch):
    (tmp_path / "wraps.py").write_text(
        textwrap.dedent("""
            import optax
            def halved(tx, *, factor=0.5):
                return optax.chain(tx, optax.scale(factor))
        """)
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = select.optimizers(["matrix", "wraps:halved(adamw,factor=.25)", "sgd+cosine", "muon"])
    composed = ["wraps:halved(adamw, factor=0.25)", "sgd+cosine"]
    assert list(found) == [*optzoo.REGISTRY.family("matrix").optimizers, *composed]
    assert set(select.optimizers(["all"])) >= {*optzoo.REGISTRY.optimizers, "adamw", "adamw+cosine"}
    families = set(optzoo.REGISTRY.families) | {"all", "baselines"}
    assert not families & {*optzoo.REGISTRY, *baselines.BASELINES}
    for wanted, message in {"matrx": "mean 'matrix'", "lookahead(adamx)": "mean 'adam"}.items():
        with pytest.raises(select.UserError, match=message):
            select.optimizers([wanted])
