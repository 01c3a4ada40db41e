"""Rules of the Router: what matches, which rule wins, what is refused; and Werkzeug's verdict on the same."""

from __future__ import annotations

import functools
import itertools
import re
import uuid
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from werkzeug.exceptions import NotFound
from werkzeug.routing import Map, Rule

from geventws import WebSocketServer
from geventws.routing import Router


def handler(ws: Any, **values: Any) -> None:
    """Take any variables."""


def named(name: str) -> Any:
    """Return a handler of its own."""

    def serve(ws: Any, **values: Any) -> None: ...

    serve.__name__ = name
    return serve


def router_of(*rules: str) -> Router:
    return Router({rule: named(rule) for rule in rules})


def verdict(router: Router, path: str) -> tuple[str, dict[str, Any]] | None:
    """The rule that matches and the values, or None."""
    found = router.match(path)
    return None if found is None else (found[0].__name__, found[1])


def werkzeug_verdict(rules: tuple[str, ...], path: str) -> tuple[str, dict[str, Any]] | None:
    """What Werkzeug says, its redirects left out."""
    # A path without a trailing slash would be redirected to a rule with one, which is no match here.
    kept = [rule for rule in rules if path.endswith("/") or not rule.endswith("/")]
    routes = Map([Rule(rule, endpoint=rule) for rule in kept], merge_slashes=False)
    try:
        return routes.bind("").match(path)
    except NotFound:
        return None


@pytest.mark.parametrize(
    ("rule", "path", "values"),
    [
        ("/", "/", {}),
        ("/", "//", None),
        ("/", "", None),
        ("/echo", "/echo", {}),
        ("/echo", "/echo/", None),
        ("/echo/", "/echo/", {}),
        ("/echo/", "/echo", None),
        ("/echo", "/Echo", None),
        ("/echo", "/echo/more", None),
        ("/echo", "echo", None),
        ("/echo", "*", None),
        ("/a.c", "/abc", None),
        ("/café", "/café", {}),
        ("/chat/<room>", "/chat/tea", {"room": "tea"}),
        ("/chat/<room>", "/chat/a b?#%\n", {"room": "a b?#%\n"}),
        ("/chat/<room>", "/chat/", None),
        ("/chat/<room>", "/chat/tea/", None),
        ("/chat/<room>/", "/chat/tea/", {"room": "tea"}),
        ("/chat/<room>/", "/chat/tea", None),
        ("/chat/<room>", "/chat/tea/pot", None),
        ("/<default:a>", "/x", {"a": "x"}),
        ("/<string:a>", "/x", {"a": "x"}),
        ("/<string():a>", "/x", {"a": "x"}),
        ("/<string(length=2):a>", "/de", {"a": "de"}),
        ("/<string(length=2):a>", "/d", None),
        ("/<string(length=2):a>", "/deu", None),
        ("/<string(2, 3):a>", "/de", {"a": "de"}),
        ("/<string(minlength=2,maxlength=3):a>", "/deu", {"a": "deu"}),
        ("/<string(minlength=2,maxlength=3):a>", "/d", None),
        ("/<string(minlength=2,maxlength=3):a>", "/deut", None),
        ("/<int:n>", "/0", {"n": 0}),
        ("/<int:n>", "/007", {"n": 7}),
        ("/<int:n>", "/-7", None),
        ("/<int:n>", "/+7", None),
        ("/<int:n>", "/7.0", None),
        ("/<int:n>", "/1_000", None),
        ("/<int:n>", "/ 7", None),
        ("/<int:n>", "/", None),
        ("/<int(signed=True):n>", "/-7", {"n": -7}),
        ("/<int(signed=True):n>", "/7", {"n": 7}),
        ("/<int(signed=True):n>", "/-", None),
        ("/<int(min=2, max=4):n>", "/2", {"n": 2}),
        ("/<int(min=2, max=4):n>", "/4", {"n": 4}),
        ("/<int(min=2, max=4):n>", "/1", None),
        ("/<int(min=2, max=4):n>", "/5", None),
        ("/<int(fixed_digits=3):n>", "/007", {"n": 7}),
        ("/<int(fixed_digits=3):n>", "/07", None),
        ("/<int(fixed_digits=3):n>", "/0007", None),
        ("/<float:f>", "/1.5", {"f": 1.5}),
        ("/<float:f>", "/1", None),
        ("/<float:f>", "/.5", None),
        ("/<float:f>", "/1.", None),
        ("/<float:f>", "/1e5", None),
        ("/<float:f>", "/-1.5", None),
        ("/<float(signed=True):f>", "/-1.5", {"f": -1.5}),
        ("/<float(min=0.5, max=1):f>", "/0.5", {"f": 0.5}),
        ("/<float(min=0.5, max=1):f>", "/0.4", None),
        ("/<float(min=0.5, max=1):f>", "/1.1", None),
        (
            "/<uuid:u>",
            "/12345678-1234-5678-1234-56781234567A",
            {"u": uuid.UUID("12345678-1234-5678-1234-56781234567a")},
        ),
        ("/<uuid:u>", "/12345678123456781234567812345678", None),
        ("/<uuid:u>", "/{12345678-1234-5678-1234-567812345678}", None),
        ("/<uuid:u>", "/12345678-1234-5678-1234-56781234567g", None),
        ('/<any(about, help, "foo,bar"):page>', "/about", {"page": "about"}),
        ('/<any(about, help, "foo,bar"):page>', "/foo,bar", {"page": "foo,bar"}),
        ("/<any(about, help, 'a)b'):page>", "/a)b", {"page": "a)b"}),
        ("/<any(about, help):page>", "/foo", None),
        ("/<any(about, help):page>", "/abouthelp", None),
        ("/<any(a, ab):x><any(c, bc):y>", "/abc", {"x": "ab", "y": "c"}),
        ("/<path:p>", "/a", {"p": "a"}),
        ("/<path:p>", "/a/b//c/", {"p": "a/b//c/"}),
        ("/<path:p>", "/", None),
        ("/<path:p>", "//a", None),
        ("/<path:p>/edit", "/a/b/edit", {"p": "a/b"}),
        ("/<path:p>/edit", "/edit", None),
        ("/<path:p>/edit", "/edit/edit/edit", {"p": "edit/edit"}),
        ("/<path:p>/", "/a/b/", {"p": "a/b"}),
        ("/<path:p>/", "/a/b", None),
        ("/<path:p>/<x>", "/a/b/c", {"p": "a/b", "x": "c"}),
        ("/<path:p>/<int:n>/<path:q>", "/a/1/2/b", {"p": "a", "n": 1, "q": "2/b"}),
        ("/<path:p>.<any(css,js):kind>", "/a.js/b.css", {"p": "a.js/b", "kind": "css"}),
        ("/v<int:n>", "/v2", {"n": 2}),
        ("/v<int:n>", "/v", None),
        ("/<name>.json", "/a.json", {"name": "a"}),
        ("/<name>.json", "/.json", None),
        ("/<name>.json", "/a.json.json", {"name": "a.json"}),
        ("/aa<x>aa", "/aaa", None),
        ("/aa<x>aa", "/aabaa", {"x": "b"}),
        ("/<a>-<b>", "/x-y-z", {"a": "x-y", "b": "z"}),
        ("/<a>-<int:b>", "/x-1-2y-3", {"a": "x-1-2y", "b": 3}),
        ("/<a><b><c>", "/wxyz", {"a": "wx", "b": "y", "c": "z"}),
        ("/<a><b><c>", "/wx", None),
        ("/<int(fixed_digits=4):y><int(fixed_digits=2):m>", "/202611", {"y": 2026, "m": 11}),
        ("/<int(fixed_digits=4):y><int(fixed_digits=2):m>", "/20261", None),
        ("/<int(signed=True):x>,<int(signed=True):y>", "/-1,-2", {"x": -1, "y": -2}),
        ("/<float:x>,<float(signed=True):y>", "/1.5,-2.25", {"x": 1.5, "y": -2.25}),
        ("/<float:x>.<int:y>", "/1.2.3", {"x": 1.2, "y": 3}),
        ("/<uuid:u>-<x>", f"/{uuid.UUID(int=5)}-x", {"u": uuid.UUID(int=5), "x": "x"}),
        ("/<string(length=2):a><string(maxlength=3):b>/c", "/vwxyz/c", {"a": "vw", "b": "xyz"}),
        ("/<string(maxlength=2):a>-<path:b>", "/v-w-x/y", {"a": "v", "b": "w-x/y"}),
        ("/<string(maxlength=2):a>-<path:b>", "/vwx-y", None),
    ],
)
def test_rule_matches_path_or_not(rule: str, path: str, values: dict[str, Any] | None) -> None:
    assert verdict(router_of(rule), path) == (None if values is None else (rule, values))


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("/<int:n>", "/٣"),  # Unicode digits
        ("/<float:n>", "/٣.٣"),
        ("/<float:n>", "/" + "9" * 400 + ".0"),  # infinite
        ("/<int:n>", "/" + "9" * 8000),  # more than Python converts
    ],
)
def test_number_that_is_none_in_ascii_and_within_reason_is_no_match(rule: str, path: str) -> None:
    if len(path) < 5000:
        assert router_of(rule).match(path) is None
    else:
        found = router_of(rule).match(path)
        assert found is None or found[1]["n"] == 10**8000 - 1  # Python 3.10 as released has no limit


#: From the first to be tried to the last, for the paths that several of them match.
ORDER = [
    ["/chat/lobby", "/chat/<any(lobby, tea):room>", "/chat/<room>", "/<a>/<b>", "/<path:p>"],
    ["/<int:n>", "/<name>", "/<path:p>"],
    ["/<int(min=5, max=6):n>", "/<int(min=5):n>", "/<int:n>", "/<int(signed=True):n>", "/<name>"],
    ["/<int(fixed_digits=1):n>", "/<int:n>"],
    ["/<string(length=1):s>", "/<string(maxlength=3):s>", "/<string(minlength=1, maxlength=9):s>", "/<s>"],
    ["/x<name>", "/<name>"],
    ["/long<name>", "/l<name>", "/<name>"],
    ["/<a>-<b>", "/<a>"],
    ["/<path:p>/edit/<x>", "/<a>/edit/<x>"],  # Werkzeug's: more static text in one part
    ["/<any(l):a>", "/<any(l, m):a>", "/<a>"],
    ["/<a><b>", "/<a>"],
]
ORDER_PATHS = ["/chat/lobby", "/5", "/5", "/5", "/l", "/xy", "/longer", "/m-n", "/w/edit/z", "/l", "/xy"]


@pytest.mark.parametrize(("rules", "path"), list(zip(ORDER, ORDER_PATHS, strict=True)))
def test_most_specific_rule_wins_whatever_the_order_of_registration(rules: list[str], path: str) -> None:
    for first in range(len(rules)):
        for order in itertools.islice(itertools.permutations(rules[first:]), 120):
            found = verdict(router_of(*order), path)
            assert found is not None
            assert found[0] == rules[first]


def test_dead_end_leads_back_to_less_specific_rules() -> None:
    router = router_of("/a/b/c", "/a/<x>/d", "/<y>/b/e", "/<path:p>")
    assert verdict(router, "/a/b/c") == ("/a/b/c", {})
    assert verdict(router, "/a/b/d") == ("/a/<x>/d", {"x": "b"})
    assert verdict(router, "/a/b/e") == ("/<y>/b/e", {"y": "a"})
    assert verdict(router, "/a/b/f") == ("/<path:p>", {"p": "a/b/f"})


def test_value_out_of_limits_leads_to_the_next_rule() -> None:
    router = router_of("/page/<int(max=9):number>", "/page/<title>")
    assert verdict(router, "/page/9") == ("/page/<int(max=9):number>", {"number": 9})
    assert verdict(router, "/page/10") == ("/page/<title>", {"title": "10"})


def test_rule_is_found_after_rules_that_share_its_beginning_under_other_names() -> None:
    router = router_of("/<a>/x", "/<b>/y")
    assert verdict(router, "/1/x") == ("/<a>/x", {"a": "1"})
    assert verdict(router, "/1/y") == ("/<b>/y", {"b": "1"})


def test_rules_are_added_in_three_ways() -> None:
    router = Router({"/one": handler})
    router.add("/two/<x>", handler)

    @router.route("/three/<x>")
    @router.route("/four/<int:x>")
    def three(ws: Any, x: Any) -> None: ...

    assert router.match("/one") == (handler, {})
    assert router.match("/two/2") == (handler, {"x": "2"})
    assert router.match("/three/3") == (three, {"x": "3"})
    assert router.match("/four/4") == (three, {"x": 4})
    assert Router().match("/") is None


def test_repr_lists_the_rules() -> None:
    assert repr(router_of("/b/<x>", "/a")) == "Router({'/a': ..., '/b/<x>': ...})"


@pytest.mark.parametrize(
    ("rule", "duplicate"),
    [
        ("/", "/"),
        ("/echo", "/echo"),
        ("/chat/<room>", "/chat/<name>"),
        ("/chat/<room>", "/chat/<string:name>"),
        ("/chat/<room>", "/chat/<string(minlength=1):name>"),
        ("/<any(a,b):x>", "/<any(b, a, 'a'):y>"),
        ("/<int(min=1, max=2):x>", "/<int(max=2, min=1):y>"),
        ("/<path:x>/edit", "/<path:y>/edit"),
    ],
)
def test_duplicate_is_refused_by_name(rule: str, duplicate: str) -> None:
    router = router_of(rule)
    with pytest.raises(ValueError, match=re.escape(f"rule {duplicate!r} is a duplicate of {rule!r}")):
        router.add(duplicate, handler)
    assert repr(router) == f"Router({{{rule!r}: ...}})"


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("", "does not begin with a slash"),
        ("echo", "does not begin with a slash"),
        ("<path:p>", "does not begin with a slash"),
        ("//", "has an empty segment"),
        ("/a//b", "has an empty segment"),
        ("/<path:p>//b", "has an empty segment"),
        ("/chat/<room", "is malformed at '<room'"),
        ("/chat/room>", "is malformed at '>'"),
        ("/chat/<>", "is malformed at '<>'"),
        ("/chat/<1room>", "is malformed at '<1room>'"),
        ("/chat/<a b>", "is malformed at '<a b>'"),
        ("/chat/<int(1:room>", "is malformed at '<int(1:room>'"),
        ("/chat/<räum>", "is malformed at '<räum>'"),
        ("/<a>/<a>", "has two variables named 'a'"),
        ("/<room:int>", "variable 'int': there is no converter 'room', only any, default, float, int"),
        ("/<regex('a'):b>", "there is no converter 'regex'"),
        ("/<string(minlength=0):a>", "minlength must be at least 1, not 0"),
        ("/<string(length=0):a>", "length must be at least 1, not 0"),
        ("/<string(maxlength='3'):a>", "maxlength takes a whole number, not '3'"),
        ("/<string(length=2, maxlength=3):a>", "length goes without"),
        ("/<string(4, 3):a>", "minlength 4 is above maxlength 3"),
        ("/<string(minlength=None):a>", "minlength takes a whole number, not None"),
        ("/<string(size=3):a>", "string does not take the arguments (size=3)"),
        ("/<int(min=3, max=2):a>", "min 3 is above max 2"),
        ("/<int(min=1.5):a>", "min takes a whole number, not 1.5"),
        ("/<int(signed=1):a>", "signed takes True or False, not 1"),
        ("/<int(fixed_digits=-1):a>", "fixed_digits must be at least 1, not -1"),
        ("/<int(min=1, min=2):a>", "min is given twice"),
        ("/<int(min=1, 2):a>", "2 stands behind a named argument"),
        ("/<int(min=1 2):a>", "arguments are malformed at 'min=1 2'"),
        ("/<int(=1):a>", "arguments are malformed at '=1'"),
        ("/<float(max=high):a>", "max takes a number, not 'high'"),
        ("/<float(fixed_digits=2):a>", "float does not take the arguments (fixed_digits=2)"),
        ("/<uuid(4):a>", "uuid does not take the arguments (4)"),
        ("/<path(4):a>", "path does not take the arguments (4)"),
        ("/<any:a>", "any() needs the texts that it takes"),
        ("/<any(''):a>", "any() takes parts of one segment, not ''"),
        ("/<any('a/b'):a>", "any() takes parts of one segment, not 'a/b'"),
    ],
)
def test_malformed_rule_is_refused_by_name(rule: str, problem: str) -> None:
    router = Router()
    with pytest.raises(ValueError, match=re.escape(problem)) as caught:
        router.add(rule, handler)
    assert repr(rule) in str(caught.value)
    assert repr(router) == "Router({})"


def test_rule_that_is_no_string_is_refused() -> None:
    with pytest.raises(TypeError, match="a rule is a string such as"):
        Router().add(b"/echo", handler)  # type: ignore[arg-type]


def test_handler_that_cannot_take_the_variables_is_refused() -> None:
    def chat(ws: Any) -> None: ...

    router = Router()
    with pytest.raises(TypeError, match=r"rule '/chat/<room>': .*chat.* cannot be called with \(ws, room="):
        router.add("/chat/<room>", chat)
    with pytest.raises(TypeError, match="must be callable, not None"):
        router.add("/chat/<room>", None)  # type: ignore[arg-type]
    chat.__signature__ = "as good as that of many a function in C"  # type: ignore[attr-defined]
    router.add("/chat/<room>", chat)
    router.add("/chat", chat)


async def coroutine_function(ws: Any, **values: Any) -> None: ...


async def async_generator_function(ws: Any, **values: Any) -> Any:
    yield


def generator_function(ws: Any, **values: Any) -> Any:
    yield


class AsyncCall:
    async def __call__(self, ws: Any, **values: Any) -> None: ...

    async def method(self, ws: Any, **values: Any) -> None: ...


@pytest.mark.parametrize(
    ("broken", "advice"),
    [
        (coroutine_function, "use def instead of async def"),
        (async_generator_function, "use def instead of async def"),
        (functools.partial(coroutine_function, more=1), "use def instead of async def"),
        (AsyncCall(), "use def instead of async def"),
        (AsyncCall().method, "use def instead of async def"),
        (generator_function, r"use ws\.send\(\) instead of yield"),
        (Router, r"make one: Router\(\.\.\.\)"),
        (lambda: None, r"cannot be called with \(ws\): too many positional"),
        (lambda ws, more: None, r"cannot be called with \(ws\): missing .*'more'"),
        (lambda *, ws: None, r"cannot be called with \(ws\)"),
    ],
    ids=range(10),
)
def test_handler_that_would_never_work_is_refused(broken: Any, advice: str) -> None:
    with pytest.raises(TypeError, match=advice):
        WebSocketServer(("127.0.0.1", 0), broken)
    router = Router()
    with pytest.raises(TypeError, match=f"^rule '/': .*{advice}"):
        router.add("/", broken)
    assert router.match("/") is None


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def serve(ws: Any) -> None:
        function(ws, user="somebody")

    return serve


class Callable:
    def __call__(self, ws: Any) -> None: ...

    def method(self, ws: Any) -> None: ...


class CalledWithOne:
    def __init__(self, ws: Any) -> None: ...

    async def __call__(self, more: Any, arguments: Any) -> None: ...


@pytest.mark.parametrize(
    "fine",
    [
        Callable(),
        Callable().method,
        CalledWithOne,
        decorated(lambda ws, user: None),
        decorated(coroutine_function),
        functools.partial(lambda ws, more: None, more=1),
        lambda *everything: None,
        lambda ws, more=1: None,
        print,
    ],
    ids=range(9),
)
def test_handler_that_can_take_one_argument_is_kept(fine: Any) -> None:
    WebSocketServer(("127.0.0.1", 0), fine)
    assert Router({"/": fine}).match("/") == (fine, {})


NASTY = {
    "/<path:a>/x/<path:b>/x/<path:c>/x/<path:d>/y": "/a" + "/x" * 4000,
    "/<a>-<b>-<c>-<d>-<int:e>": "/" + "-" * 8000,
    "/<a><b><c><d><any(q):e>": "/" + "a" * 8000,
    "/<int:a><int:b><int:c><int:d>x": "/" + "1" * 8000,
    "/<float:a><float:b><float:c>x": "/" + "1.1" * 2700,
    "/<path:p>/<uuid:u>/<path:q>!": "/" + "a/12345678-1234-5678-1234-567812345678/" * 200,
    "/<any(a, aa):x><any(a, aa):y><path:z>/!": "/" + "a" * 8000,
    "/<path:a><path:b><path:c><path:d>!": "/" + "a/" * 4000,
}


@pytest.mark.parametrize("rule", NASTY)
def test_time_does_not_explode_with_the_length_of_the_path(rule: str) -> None:
    # A backtracking match takes a number of steps here that grows with the third power of the length and
    # more: it would not end in this test's lifetime.
    assert router_of(rule).match(NASTY[rule]) is None


_SAMPLES = ["a", "1", "-", "11", "-1", "1.1", "a-a", "aa"]
_ITEMS = ["a", "1", "a1", "-"]
_VARIABLES = [
    "<{}>",
    "<string(length=2):{}>",
    "<string(minlength=2):{}>",
    "<string(maxlength=2):{}>",
    "<int:{}>",
    "<int(signed=True):{}>",
    "<float:{}>",
    "<float(signed=True):{}>",
    "<path:{}>",
    '<any("a", "1", "-"):{}>',
]


_TEXTS = st.text("a1-./", max_size=6)


@st.composite
def rules_and_path(draw: st.DrawFn) -> tuple[list[str], str]:
    """Some rules of one to three segments, and a path that has a chance with one of them."""
    rules, paths = [], []
    for _ in range(draw(st.integers(1, 4))):
        rule, path = "", ""
        names = iter("abcdefghi")
        for _ in range(draw(st.integers(1, 3))):
            rule, path = rule + "/", path + "/"
            for piece in draw(st.lists(st.sampled_from(_ITEMS + _VARIABLES), min_size=1, max_size=3)):
                rule += piece.format(next(names)) if "<" in piece else piece
                path += draw(st.sampled_from(_SAMPLES) | _TEXTS) if "<" in piece else piece
        slash = draw(st.sampled_from(["", "", "/"]))
        rules.append(rule + slash)
        paths.append(path + slash)
    return rules, draw(st.sampled_from(paths))


def without_duplicates(rules: list[str]) -> tuple[Router, list[str]]:
    """Register rules, and return those that were not duplicates."""
    router = Router()
    kept = []
    for rule in rules:
        try:
            router.add(rule, named(rule))
        except ValueError:
            continue
        kept.append(rule)
    return router, kept


@given(rules_and_path())
def test_verdict_is_that_of_werkzeug(drawn: tuple[list[str], str]) -> None:
    rules, path = drawn
    # Werkzeug strips slashes at the beginning of a path.
    assume(not path.startswith("//"))
    # It lets no slash stand before the trailing one of `<path:x>/`, so that it can redirect.
    assume(not path.endswith("//"))
    router, kept = without_duplicates(rules)
    # Where Werkzeug goes by the order of registration, ours may be any of its answers.
    possible = [werkzeug_verdict(order, path) for order in itertools.permutations(kept)]
    assert verdict(router, path) in possible


@given(rules_and_path())
def test_order_of_registration_never_matters(drawn: tuple[list[str], str]) -> None:
    rules, path = drawn
    router, kept = without_duplicates(rules)
    expected = verdict(router, path)
    for order in itertools.permutations(kept):
        assert verdict(router_of(*order), path) == expected
