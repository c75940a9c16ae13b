"Public layers and kernels, right and wrong, written anew: `check_backward` accuses no right one, sees all that is wrong, and names most of it"
import pytest

from collection import RIGHT, WRONG, dense, heard, held_out, spatial
from minimlp.check.said import words_of
from minimlp.zoo import batchnorm, entry, norms, routing, shared, softmax  # they add words

HEARD = {}


@pytest.mark.parametrize('name', RIGHT)
def test_right_is_not_accused(name):
    report = RIGHT[name].report()
    assert report.ok, report


@pytest.mark.parametrize('name', WRONG)
def test_wrong_is_caught(name):
    report = WRONG[name].report()
    HEARD[name] = heard(WRONG[name], report)
    assert all(words_of(b.name) for r in report.rows for b in r.bugs)
    assert not report.ok, report


def test_bugs_are_named():
    "Four in five by one of the first two guesses, and no guess leads astray"
    HEARD.update({k: heard(e, e.report()) for k, e in WRONG.items() if k not in HEARD})  # run alone
    said = list(HEARD.values())
    assert said.count('misleading')==0 and said.count('named')>=.8*len(said), HEARD
