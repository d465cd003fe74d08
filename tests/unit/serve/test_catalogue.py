from __future__ import annotations

import pytest

from rayprune.errors import InputError
from rayprune.serve.catalogue import look_up, open_file, read_catalogue
from rayprune.serve.request_error import RequestError
from rayprune.storage.urls import open_url


def test_policies_are_called_as_their_files_or_as_they_are_named(files):
    made = read_catalogue([files["choose"], f"walk={files['remember']}"])
    assert {name: held.source for name, held in made.items()} == {
        "choose": str(files["choose"]),
        "walk": str(files["remember"]),
    }
    assert made["walk"].interface.states


def test_faults_are_told_with_the_way_out(files, tmp_path):
    with pytest.raises(InputError, match=r"Two policies are called 'choose'.*NAME="):
        read_catalogue([files["choose"], files["choose"]])
    with pytest.raises(InputError, match=r"no exported file '.*gone\.onnx' on this machine"):
        read_catalogue([tmp_path / "gone.onnx"])
    with pytest.raises(InputError, match="No policy is given"):
        read_catalogue([])
    odd = tmp_path / "a b.pt2"
    odd.write_bytes(files["choose"].read_bytes())
    with pytest.raises(InputError, match=r"Name it: NAME=.*a b\.pt2"):
        read_catalogue([odd])
    odd.write_bytes(odd.read_bytes()[:-40])
    with pytest.raises(InputError, match="Copy it anew"):
        read_catalogue([f"torn={odd}"])


def test_an_unknown_policy_is_answered_with_the_nearest_name(catalogue):
    with pytest.raises(RequestError, match=r"but is 'chose'\. Did you mean 'choose'") as caught:
        look_up(catalogue, "chose")
    assert (caught.value.status, caught.value.field) == (404, "policy")


@pytest.mark.slow  # moto's server takes seconds
def test_a_file_may_have_a_url(files, bucket):
    url = bucket.url("policies/walk.pt2")
    place = open_url(bucket.url("policies"))
    with place.files.open_output_stream("walk.pt2") as stream:
        stream.write(files["remember"].read_bytes())
    (held,) = read_catalogue([url]).values()
    assert (held.name, held.source) == ("walk", url)
    assert open_file(url).read_bytes() == files["remember"].read_bytes()
    with pytest.raises(InputError, match=r"no file 'gone\.pt2'"):
        open_file(bucket.url("policies/gone.pt2"))
