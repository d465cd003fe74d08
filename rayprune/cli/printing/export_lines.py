"""What ``rayprune export`` tells people of the file that it has written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def export_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines, the file first.

    Args:
        result: the certificate, with ``out``.
    """
    yield f"File           {result['out']} ({result['bytes']:,} bytes), certificate beside it"
    held = result["parameters"]
    if result["about"]["compacted_in_training"]:
        yield "Small already  Its dead units went while it was trained (`pruning.compact_every`)."
    elif not held["given_zero_weights"]:
        yield "No masks       No weight of the checkpoint is zero: this is the dense policy."
    yield (
        f"Parameters     {held['given']:,} of the checkpoint's module; {held['total']:,} exported, "
        f"of them {held['zero_weights']:,} weights zero"
    )
    removed = result["compaction"]["removed"]
    if removed:
        layers = ", ".join(
            f"{gone['units']} of {gone['of']} in {gone['layer']}" for gone in removed
        )
        yield f"Compaction     units removed: {layers}"
    if not result["proven"]:
        yield (
            "UNPROVEN       The file was never run, as it says itself. Install a C compiler and "
            "export it again, or compile and run its self-test elsewhere (see its first lines). "
            "`--unproven` makes this exit with 0."
        )
    if "self_test" in result:
        tested = result["self_test"]
        yield f"Self-test      {tested['said'] if tested['passed'] else tested['why']}"
    if "int8" in result:
        yield from _int8_lines(result["int8"])
    if "whole_numbers" in result:
        yield from _whole_number_lines(result["whole_numbers"])
    yield from _foreign_lines(result["about"])
    for name, found in result["equivalence"].items():
        yield (
            f"{name.capitalize():<15}{found['observations']:,} observations: largest difference "
            f"{found['max_error']:.1e}, {found['differing_actions']} actions differ"
        )


def _foreign_lines(about: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is told of a policy from elsewhere."""
    if about.get("normalised_by"):
        yield f"Normalised     observations, by {about['normalised_by']}"
    elif about.get("library") == "Stable-Baselines3":
        yield (
            "As they come   observations aren't normalised. If it was trained with VecNormalize, "
            "give its file: `--normalise FILE`."
        )
    drawn = about.get("recorded", {}).get("drawn_from_space")
    if drawn:
        yield (
            f"Not played     {drawn:,} observations were drawn from the space, for no environment "
            "was given: `--env ID` records episodes."
        )
    if "as_trained" in about:
        found = about["as_trained"]
        yield (
            f"As trained     {found['observations']:,} observations: {found['by']} does the same, "
            f"largest difference {found['max_error']:.1e}, {found['differing_actions']} actions "
            "differ"
        )


def _int8_lines(told: Mapping[str, Any]) -> Iterator[str]:
    gains = ", ".join(f"{g['ratio']:.2f}x at batch {b}" for b, g in told["speed_up"].items())
    close = told["closeness"]
    same = close["agreement"]
    agreed = "" if same is None else f"{same:.2%} of the actions are the same, "
    yield f"int8           {told['kind']}; as fast as float32 here: {gains}"
    yield (
        f"               {agreed}mean difference {close['mean_error']:.1e}, largest "
        f"{close['max_error']:.1e}; what follows is of the float32 file that it was made of"
    )


def _whole_number_lines(told: Mapping[str, Any]) -> Iterator[str]:
    bits = ", ".join(f"{layer['weights']} x {layer['reads']}" for layer in told["layers"])
    source = "calibrated on recorded observations" if told["calibrated"] else "trained so"
    yield f"Whole numbers  bits of weights x of what layers read: {bits}; {source}"
    close = told["closeness"]
    same = close["agreement"]
    agreed = "" if same is None else f"{same:.2%} of the actions are the same, "
    yield (
        f"               beside the policy in floats: {agreed}mean difference "
        f"{close['mean_error']:.1e}, largest {close['max_error']:.1e}"
    )
    counts = told.get("equal_to_the_bit")
    if counts:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
        yield f"               equal to their model to the bit on {kinds} observations"
