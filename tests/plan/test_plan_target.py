"""Names of slices, and what is said to a mistyped one."""

import pathlib

import pytest

from stratos_jax.mesh import topology as slices
from stratos_jax.plan import target
from stratos_jax.types import UserError


def test_every_name_is_one_that_the_compiler_is_asked_for():
    for name in target.names():
        topology = target.parse(name, 2)
        piece = slices.parse(topology.full_name)
        assert (piece.num_devices, piece.num_chips) == (topology.num_devices, topology.num_chips)


@pytest.mark.parametrize(("name", "near"), [("v5p:4x4x5", "v5p:4x4"), ("v6:4x4", "v6e:4x4"), ("v5e-8x8", "v5e:8x8")])
def test_a_near_name_is_suggested(name, near):
    with pytest.raises(UserError, match=f"did you mean {near}"):
        target.parse(name)


def test_larger_slices_of_the_same_chip():
    assert [t.name for t in target.parse("v6e:4x8").larger()] == ["v6e:8x8", "v6e:8x16", "v6e:16x16"]


def test_the_bar():
    from stratos_jax.verbs.plan import bar

    assert bar(12.4, None) == "12 s"
    assert bar(10, 40) == "[#####...............] 10 of about 40 s"
    assert bar(90, 40) == "[####################] 90 of about 40 s"


def test_a_terminal_shows_it_and_other_places_do_not(monkeypatch):
    import io
    import time

    from stratos_jax.verbs import plan

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for place in (Terminal(), io.StringIO()):
        monkeypatch.setattr("sys.stderr", place)
        with plan.ticking(40.0):
            plan.say("compiling")
            end = time.monotonic() + 60
            while place.isatty() and "of about 40 s" not in place.getvalue() and time.monotonic() < end:
                time.sleep(0.05)
        assert "compiling" in place.getvalue()
        assert ("of about 40 s" in place.getvalue()) == place.isatty()


def test_another_failure_of_the_compiler_is_one_line_and_a_file():
    from stratos_jax.plan.program import why_refused

    text = "INTERNAL: Mosaic failed to compile TPU kernel: bad layout\n" + "details\n" * 50
    with pytest.raises(UserError) as caught:
        why_refused(text, target.parse("v5e:2x4"))
    words = str(caught.value)
    assert "Mosaic failed to compile TPU kernel: bad layout" in words and "details" not in words
    path = pathlib.Path(words.split("full text: ")[1].split()[0])
    assert path.read_text() == text
    path.unlink()


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("RESOURCE_EXHAUSTED: Ran out of memory on HBM. Used 32.44G of 15.75G hbm. Exceeded by 16.7G.", 32.44),
        ("RESOURCE_EXHAUSTED: the total memory required for HLO temporaries (59.68G) exceeds available HBM.", 59.68),
        ("RESOURCE_EXHAUSTED: in another release's words", None),
    ],
)
def test_want_of_memory_is_a_refusal(text, needed):
    from stratos_jax.plan.program import why_refused

    reason, found = why_refused(text, target.parse("v5e:2x4"))
    assert found == needed and reason and "RESOURCE_EXHAUSTED" not in reason
