from __future__ import annotations

import pytest

from rayprune.serve.request_error import RequestError
from rayprune.serve.sessions import Sessions


def test_the_session_not_used_for_longest_is_forgotten_and_told_of(catalogue):
    policy = catalogue["remember"]
    sessions = Sessions(2)
    first, second = sessions.begin(policy, "a"), sessions.begin(policy, "b")
    assert sessions.get(policy, "a") is first
    sessions.begin(policy, "c")
    assert sessions.get(policy, "a") is first
    with pytest.raises(
        RequestError, match=r"'b' of policy 'remember' was forgotten: 2 are"
    ) as told:
        sessions.get(policy, "b")
    assert (told.value.status, told.value.field) == (410, "session")
    assert (len(sessions), sessions.forgotten) == (2, 1)
    assert sessions.begin(policy, "b") is not second


def test_an_unknown_session_is_refused_and_an_ended_one_is_unknown(catalogue):
    policy, sessions = catalogue["remember"], Sessions(2)
    with pytest.raises(RequestError, match='Begin it with `"begin": true`') as told:
        sessions.get(policy, "a")
    assert told.value.status == 404
    sessions.begin(policy, "a")
    sessions.end(policy, "a")
    with pytest.raises(RequestError, match="none called 'a'"):
        sessions.end(policy, "a")
