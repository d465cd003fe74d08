"""The operator's own schemas take our manifests, with unknown fields refused."""

from __future__ import annotations

import copy
import os
from functools import lru_cache
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.cluster.files import CLUSTER, ROOT, documents

MANIFESTS = {"RayCluster": "kuberay-cluster.yaml", "RayJob": "kuberay-job.yaml"}
manifests = pytest.mark.parametrize("kind", MANIFESTS)


def schemas() -> Path | None:
    """Return the folder of the operator's CRDs: RAYPRUNE_KUBERAY_CRDS, or beside the checkout."""
    given = os.environ.get("RAYPRUNE_KUBERAY_CRDS")
    places = [Path(given)] if given else [up / "shared/data/kuberay" for up in ROOT.parents]
    return next((place for place in places if place.is_dir()), None)


needs_schemas = pytest.mark.skipif(
    schemas() is None,
    reason="the KubeRay operator's CRDs are neither in ../shared/data/kuberay nor in "
    "RAYPRUNE_KUBERAY_CRDS",
)


def closed(schema):
    """Return a schema that refuses fields that it doesn't name, as the API server's is."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    open_ended = {"additionalProperties", "x-kubernetes-preserve-unknown-fields"} & set(schema)
    if schema.get("type") == "object" and "properties" in schema and not open_ended:
        made["additionalProperties"] = False
    return made


@lru_cache
def validator(kind: str) -> jsonschema.Draft202012Validator:
    place = schemas()
    assert place is not None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    path = place / f"ray.io_{kind.lower()}s.yaml"
    definition = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    (version,) = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
    return jsonschema.Draft202012Validator(closed(version["schema"]["openAPIV3Schema"]))


def manifest(kind):
    (found,) = documents(CLUSTER / MANIFESTS[kind])
    return found


def cluster_of(found):
    return found["spec"] if found["kind"] == "RayCluster" else found["spec"]["rayClusterSpec"]


def groups_of(found):
    cluster = cluster_of(found)
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def containers_of(found):
    return [one for group in groups_of(found) for one in group["template"]["spec"]["containers"]]


def faults(kind, found):
    return [error.message for error in validator(kind).iter_errors(found)]


@needs_schemas
@manifests
def test_the_operators_schema_takes_a_manifest(kind):
    found = manifest(kind)
    assert (found["apiVersion"], found["kind"]) == ("ray.io/v1", kind)
    assert faults(kind, found) == []


@needs_schemas
@manifests
def test_a_typo_at_any_depth_is_refused(kind):
    for break_it in (
        lambda spec: spec.update(authOption={"mode": "token"}),
        lambda spec: spec["workerGroupSpecs"][0].update(minReplica=1),
        lambda spec: spec["headGroupSpec"]["template"]["spec"]["containers"][0].update(img="x"),
        lambda spec: spec["authOptions"].update(mode="tokens"),
        lambda spec: spec["autoscalerOptions"].update(idleTimeoutSeconds="600"),
    ):
        found = copy.deepcopy(manifest(kind))
        break_it(cluster_of(found))
        assert len(faults(kind, found)) == 1


def test_the_results_claim_is_one_that_many_nodes_can_write_to():
    validate = pytest.importorskip("kubernetes_validate").validate
    (claim,) = documents(CLUSTER / "kuberay-storage.yaml")
    validate(claim, "1.30", strict=True)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    claim["spec"]["accessMode"] = claim["spec"].pop("accessModes")
    with pytest.raises(Exception, match="accessMode"):
        validate(claim, "1.30", strict=True)


@manifests
def test_tokens_are_on_and_nothing_listens_to_the_world(kind):
    cluster = cluster_of(manifest(kind))
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert not cluster["headGroupSpec"].get("enableIngress")


@manifests
def test_secrets_come_from_a_secret(kind):
    for container in containers_of(manifest(kind)):
        for variable in container["env"]:
            assert "secretKeyRef" in variable["valueFrom"]


@manifests
def test_every_pod_writes_to_the_claim(kind):
    (claim,) = documents(CLUSTER / "kuberay-storage.yaml")
    for group in groups_of(manifest(kind)):
        spec = group["template"]["spec"]
        names = {
            volume["name"]
            for volume in spec["volumes"]
            if volume.get("persistentVolumeClaim", {}).get("claimName") == claim["metadata"]["name"]
        }
        (container,) = spec["containers"]
        assert names & {
            m["name"] for m in container["volumeMounts"] if m["mountPath"] == "/results"
        }


@manifests
def test_the_cluster_grows_by_trials_with_a_stable_head(kind):
    cluster = cluster_of(manifest(kind))
    assert cluster["enableInTreeAutoscaling"]
    head, (cpu, gpu) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "tolerations" not in head["template"]["spec"]
    assert cpu["minReplicas"] >= 1
    for group in (cpu, gpu):
        assert group["minReplicas"] <= group["replicas"] < group["maxReplicas"]
        assert any(one["key"] == "spot" for one in group["template"]["spec"]["tolerations"])
    (container,) = gpu["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"].endswith("-cuda")


def test_both_manifests_describe_the_same_cluster():
    assert cluster_of(manifest("RayCluster")) == cluster_of(manifest("RayJob"))
