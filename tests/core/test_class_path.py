import sys
import types

import pytest

from tl_lightning.core.class_path import check_switches, resolve
from tl_lightning.errors import UserError


def test_a_path_gives_what_stands_there():
    assert resolve("collections.OrderedDict", "x") is __import__("collections").OrderedDict


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "model.class_path is None; give an import path such as my_package.MyClass"),
        ("Task", "model.class_path is 'Task'; give an import path such as my_package.MyClass"),
        (
            "no_such.Task",
            "model.class_path is 'no_such.Task', which cannot be imported (ModuleNotFoundError: No module named "
            "'no_such'); correct it, or install its package",
        ),
        (
            "collections.OrderdDict",
            "model.class_path is 'collections.OrderdDict', but collections has no 'OrderdDict'; did you mean "
            "OrderedDict",
        ),
        ("users_own.xyz", "model.class_path is 'users_own.xyz', but users_own has no 'xyz'; correct the name"),
    ],
)
def test_a_path_that_leads_nowhere_is_one_line(path, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "users_own", types.ModuleType("users_own"))
    with pytest.raises(UserError) as caught:
        resolve(path, "model.class_path")
    assert str(caught.value).startswith(message)


def test_a_word_for_a_switch_is_refused_as_text_counts_as_true():
    def switched(keep=False, name="no"):
        pass

    check_switches(switched, {"keep": True, "name": "off", "other": "no"}, "init_args")
    with pytest.raises(UserError, match=r"init_args\.keep is 'no'; write true or false"):
        check_switches(switched, {"keep": "no"}, "init_args")
    check_switches(min, {"key": "no"}, "init_args")  # says nothing of its arguments
