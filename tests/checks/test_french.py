"""What the checks say in French of the loops that their other tests try."""

import itertools
from functools import partial

import pytest

from sgd_analysis import checks
from sgd_analysis.checks.french import FRENCH
from sgd_analysis.checks.messages import Language
from tests.checks import test_descent, test_listing, test_optimizers, test_samples, test_shuffled
from tests.checks.loops import DESCENT, STEP, written

BY_HAND = [test_descent, test_samples, test_shuffled, test_optimizers]
MISTAKES = [
    *(partial(task.said, "fr", **changed) for task in BY_HAND for changed, _ in task.WRONG),
    *(partial(test_listing.said, lines, "fr") for lines, _ in test_listing.WRONG),
]
DRAWN = "t[torch.randperm(len(t))]"
FIFTY = "range(1, min(nepoch, 50) + 1)"
BETWEEN = {"STEP": test_optimizers.STEPS.replace("loss.b", "(loss**2).b")}


def descent(loop):
    return checks.gradient_descent(loop, language="fr")


def never_ends(f, w, t, *_):
    for _ in itertools.count():
        f(w, t[:, 0])


def without_gradient(f, w, t, eta, *_):
    w.data -= eta * w.grad


def without_source():
    names = {}
    exec("def sgd(f, w, t, *_):\n    f(w, t[:, 0])\n    raise ValueError(0.5)", names)
    return names["sgd"]


WORD_BY_WORD = [
    (lambda: test_optimizers.said("fr"), "juste"),
    (lambda: test_samples.said("fr"), "juste : époque 3"),
    (
        lambda: test_samples.said("fr", SAMPLES=DRAWN),
        "juste, et aucune des 5 premières époques ne finit sur un coût inférieur à epsilon",
    ),
    (lambda: test_shuffled.said("fr"), "juste : époque 48, avec les poids 0,3 ; −1,7 ; 2,0"),
    (
        lambda: test_listing.said(test_listing.LINES, "fr"),
        "juste : 25 lignes, une pour chacun des 25 points du petit exemple",
    ),
    (lambda: descent(None), "donnez la fonction elle-même, sans l'appeler ; ceci est None"),
    (
        lambda: descent(lambda f: None),
        "la fonction doit prendre f, w, t, eta, epsilon, nepoch, dan",
    ),
    (lambda: descent(without_source()), "pas encore : ValueError : 0.5 (ligne 3)"),
    (lambda: descent(partial(without_gradient)), "w doit rester le même tenseur (w -= …, et non"),
    (
        lambda: test_descent.said("fr", STEP=STEP.replace("eta", "0.0000125")),
        "0,00417 fois la longueur attendue : 1,25·10⁻⁵ fois le gradient, alors que",
    ),
    (
        lambda: checks.optimizer_step(lambda *_: None, "Adam", language="fr"),
        "comme torch.optim.Adam, dont step() n'a besoin de rien ; ceci est 'Adam'",
    ),
    (lambda: descent(never_ends), "ne finit pas : f est appelée 5011 fois, et 2 suffisent ; l'ép"),
    (
        lambda: checks.one_sample_at_a_time(written(DESCENT), language="fr"),
        "f est appelée pour 25 échantillons à la fois ; faites un pas sur chaque échantillon seul",
    ),
    (
        lambda: checks.ready_made_loss(written(DESCENT), language="fr"),
        "les nombres sont justes, mais ils ne viennent pas de MSELoss",
    ),
    (
        lambda: test_descent.said("fr", EPOCHS=FIFTY),
        "les pas sont justes, mais avec les 2000 points la fonction renvoie None, et non 9340",
    ),
    (lambda: test_descent.said("fr", LOSS="..."), "reste un trou, « ... » (ligne 5 : loss = ...)"),
    (lambda: test_descent.said("fr", RESULT="return loss"), "la fonction renvoie tensor(23.05"),
    (
        lambda: test_descent.said("fr", LOSS="3 * torch.mean((y - f(w, x)) ** 2)"),
        "mais 3 fois la longueur attendue : 0,009 fois le gradient, alors que eta vaut 0,003 ; est",
    ),
    (
        lambda: test_descent.said("fr", LOSS="torch.mean((y - f(w, x)) ** 4)"),
        "le pas 1 devrait mener de (0 ; 0 ; 0) à (0,08",
    ),
    (
        lambda: test_descent.said("fr", STEP=STEP.replace("w -=", "w = w -")),
        "w est devenu un autre tenseur : changez celui que la fonction reçoit, comme le fait ",
    ),
    (lambda: test_optimizers.said("fr", **BETWEEN), "le pas 2 avec RMSprop devrait mener de (0,03"),
    (
        lambda: test_optimizers.said("fr", MADE=test_optimizers.MADE.replace("eta", "0.02")),
        "ce sont les pas de lr=0.02, alors que la fonction reçoit lr=0.003 : donnez lr=lr",
    ),
]


def plain(answer):
    return answer.replace("\u00a0", " ").replace("\u202f", " ")


@pytest.mark.parametrize(("say", "expected"), WORD_BY_WORD)
def test_numbers_are_french_and_code_is_code(say, expected):
    assert expected in plain(say())


def test_every_sentence_is_shown_in_french(monkeypatch):
    shown, sentence = set(), Language.sentence

    def noting(language, said):
        shown.add(said.key)
        return sentence(language, said)

    monkeypatch.setattr(Language, "sentence", noting)
    for mistake in MISTAKES:
        assert mistake().startswith("pas encore\u00a0: ")
    for say, _ in WORD_BY_WORD:
        say()
    assert [key for key in FRENCH if key not in shown] == []
