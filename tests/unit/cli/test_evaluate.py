"""``rayprune evaluate``."""

import json


def test_evaluate_reproduces_the_summary_by_default(rayprune, adaptor, checkpoint):
    answer = rayprune("evaluate", checkpoint)
    assert answer.code == 0
    assert adaptor.calls == [
        (
            "evaluate",
            (checkpoint,),
            {"episodes": None, "seed": None, "address": None, "dense": None},
        )
    ]
    assert "validation" in answer.stderr
    assert "487.1 [470.0, 500.0]" in answer.stderr


def test_evaluate_takes_episodes_and_seed(rayprune, adaptor, checkpoint):
    answer = rayprune("evaluate", checkpoint, "--episodes", 100, "--seed", 7, "--json")
    assert adaptor.calls[0][2] == {"episodes": 100, "seed": 7, "address": None, "dense": None}
    assert json.loads(answer.stdout)["returns"]["test"]["iqm"] == 487.12


def test_a_missing_checkpoint_is_told_before_anything_starts(rayprune, adaptor):
    answer = rayprune("evaluate", "no/such")
    assert answer.code == 2
    assert "There is no checkpoint 'no/such'" in answer.stderr
    assert adaptor.calls == []


def test_a_zip_is_told_before_anything_starts(rayprune, adaptor, tmp_path):
    (tmp_path / "ppo.zip").touch()
    answer = rayprune("evaluate", tmp_path / "ppo.zip")
    assert answer.code == 2
    assert "ppo.zip' is no checkpoint of RLlib, which this command needs." in answer.stderr
    assert adaptor.calls == []


def test_no_episodes_are_refused(rayprune, checkpoint):
    answer = rayprune("evaluate", checkpoint, "--episodes", 0)
    assert answer.code == 2
    assert "--episodes" in answer.stderr


def test_a_dense_checkpoint_that_is_not_there_is_told_too(rayprune, adaptor, checkpoint):
    answer = rayprune("evaluate", checkpoint, "--dense", "no/dense")
    assert answer.code == 2
    assert "There is no checkpoint 'no/dense'" in answer.stderr
    assert adaptor.calls == []


def test_evaluate_shows_how_close_it_is_to_the_dense_policy(rayprune, adaptor, checkpoint):
    answer = rayprune("evaluate", checkpoint, "--dense", checkpoint)
    assert adaptor.calls[0][2]["dense"] == checkpoint
    assert "On 9,000 states of the dense policy: 98.0 % same actions" in answer.stderr


def test_a_checkpoint_in_a_bucket_is_fetched_and_called_by_its_url(rayprune, adaptor, bucket):
    bucket.client.put_object(Bucket="bucket", Key="c/rayprune.json", Body=b"{}")
    answer = rayprune("evaluate", bucket.url("c"))
    assert answer.code == 0
    ((_, (copy,), _),) = adaptor.calls
    assert (copy / "rayprune.json").read_bytes() == b"{}"
    assert "s3://bucket/c" in answer.stderr
    assert str(copy) not in answer.stderr
