"""What is told of an exception is what its author had to say, not the envelope it came in."""

from rayprune.errors import EnvError, InputError, RaypruneError
from rayprune.reasons import found_in, reason_of


def raised(function):
    try:
        function()
    except Exception as error:
        return error
    return None


class Envelope(Exception):  # noqa: N818 - stands for Ray's RayTaskError
    def __init__(self, cause, text=""):
        super().__init__(text)
        self.cause = cause


def speechless():
    raise AssertionError


def enclosed():
    try:
        raise KeyError("lidar")
    except KeyError as error:
        raise RuntimeError from error


def test_an_envelope_without_text_gives_way_to_what_is_in_it():
    assert reason_of(raised(enclosed)).startswith("KeyError: 'lidar' (test_reasons.py:")
    assert reason_of(Envelope(ValueError("lost"), "a whole traceback")) == "ValueError: lost"


def test_a_text_goes_before_what_it_was_raised_from():
    error = RuntimeError("the sensor is lost")
    error.__cause__ = KeyError("lidar")
    assert reason_of(error) == "RuntimeError: the sensor is lost"


def test_an_assertion_without_text_is_told_by_its_line():
    told = reason_of(raised(speechless))
    assert told.startswith("AssertionError at test_reasons.py:")
    assert told.endswith("`raise AssertionError`")


def test_gymnasiums_words_are_not_a_users():
    error = AssertionError(" was raised from the environment creator for X-v0 with kwargs ({})")
    error.__context__ = raised(speechless)
    assert reason_of(error).endswith("`raise AssertionError`")
    told = TypeError("no 'a' was raised from the environment creator for X with {}")
    assert reason_of(told) == "TypeError: no 'a'"


def test_of_a_remote_traceback_its_end_is_told():
    text = "ray::Runner.__init__() (pid=1)\n  File 'env.py', line 3\nValueError: no such map\n"
    assert reason_of(RuntimeError(text)) == "RuntimeError: ValueError: no such map"


def test_an_error_of_ours_is_found_in_any_envelope():
    inner = EnvError("it broke")
    assert found_in(Envelope(inner), RaypruneError) is inner
    outer = RuntimeError()
    outer.__cause__ = inner
    assert found_in(outer, RaypruneError) is inner
    assert found_in(outer, InputError) is None


def test_a_chain_that_bites_its_tail_ends():
    one, two = RuntimeError(), RuntimeError()
    one.__cause__, two.__cause__ = two, one
    assert reason_of(one) == "RuntimeError"
