"""From a captured graph of torch operators to a program in C."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from rayprune.deploy.formats.c.attention import add_attention, add_product, add_softmax
from rayprune.deploy.formats.c.convolution import add_convolution, add_pool
from rayprune.deploy.formats.c.data_movement import add_joined, add_padded, add_permuted, add_sliced
from rayprune.deploy.formats.c.elementwise import BINARY, UNARY, add_binary, add_unary, literal
from rayprune.deploy.formats.c.matrices import add_linear
from rayprune.deploy.formats.c.program import C_TYPES, Program, Value, c_name
from rayprune.deploy.formats.c.recurrent_operators import add_gru, add_lstm
from rayprune.deploy.formats.c.reductions import add_affine, add_argmax, add_mean, add_normalised
from rayprune.deploy.policy.interface import Array, Interface
from rayprune.errors import InputError

Lowered = Any
"""A `Value`, or a sequence of them."""


def lower(captured: ExportedProgram, interface: Interface, lanes: int) -> Program:
    """Turn a graph captured at batch 1 into a program; its last statements write the outputs.

    Raises:
        InputError: an operator isn't supported; all of them are named.
    """
    program = Program(lanes)
    graph = captured.graph
    values: dict[fx.Node, Lowered] = {}
    inputs = iter(interface.inputs)
    constants = {**captured.state_dict, **captured.constants}
    held = {
        **captured.graph_signature.inputs_to_parameters,
        **captured.graph_signature.inputs_to_buffers,
        **captured.graph_signature.inputs_to_lifted_tensor_constants,
    }
    _refuse_unknown(graph, held)
    for node in graph.nodes:
        if node.op == "placeholder" and node.name in held:
            values[node] = _constant(constants[held[node.name]])
        elif node.op == "placeholder":
            port = next(inputs)
            values[node] = Value(c_name(port.name), (1, *port.shape), C_TYPES[port.dtype])
        elif _is_computed(node):
            values[node] = _call(program, node, values)
        elif node.op == "output":
            _finish(program, [values[output] for output in node.args[0]], interface)
    if "odd_" in program.kernels:
        program.statements.insert(0, f"const int odd = {_any('odd_', _floats(interface))};")
    return program


def _floats(interface: Interface) -> list[tuple[str, int]]:
    """Return the inputs that can be NaN, each with its size."""
    ports = [port for port in interface.inputs if port.dtype == "float32"]
    return [(c_name(port.name), math.prod(port.shape)) for port in ports]


def _any(kernel: str, arrays: Sequence[tuple[str, int]]) -> str:
    """Return the C expression of what one of `odd_` and `nan_` says of any of the arrays."""
    return " | ".join(f"{kernel}({pointer}, {size})" for pointer, size in arrays) or "0"


def _finish(program: Program, outputs: Sequence[Value], interface: Interface) -> None:
    for port, value in zip(interface.outputs, outputs, strict=True):
        body = f"{c_name(port.name)}[i] = {program.pointer(value)}[i];"
        # Only the action is asked for always.
        guard = "" if port == interface.action else f"if ({c_name(port.name)}) "
        program.add(f"{guard}for (i = 0; i < {value.size}; i++) {body}")
    program.kernels.add("nan_")
    # A choice is a number whatever it was made of.
    floats = [(program.pointer(x), x.size) for x in outputs if x.ctype == "float"]
    program.add(f"return {_any('nan_', floats)};")


def _constant(tensor: Tensor) -> Value:
    array = tensor.detach().cpu().numpy()
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return Value("", tuple(array.shape), C_TYPES[str(array.dtype)], array)


def _name(node: fx.Node) -> str:
    if node.target is operator.getitem:
        return "getitem"
    packet = getattr(node.target, "_overloadpacket", None)
    return str(node.target if packet is None else packet.__name__)


def _is_computed(node: fx.Node) -> bool:
    # A cast leaves an assertion behind, which nothing uses.
    return node.op == "call_function" and bool(node.users)


def _refuse_unknown(graph: fx.Graph, held: Collection[str]) -> None:
    folded: set[fx.Node] = set()
    for node in graph.nodes:
        read = node.all_input_nodes
        if node.op == "placeholder":
            folded |= {node} if node.name in held else set()
        elif folded.issuperset(read) and _is_pure(node):
            folded.add(node)
    names = {_name(node) for node in graph.nodes if _is_computed(node) and node not in folded}
    unknown = sorted(names - OPERATORS.keys() - UNARY.keys() - BINARY.keys())
    if unknown:
        raise InputError(
            f"The C export doesn't know the operator(s) {unknown}. Build the module of others "
            f"({sorted({*UNARY, 'linear', 'conv2d', 'lstm', 'gru', 'layer_norm'})}, ...), or "
            "take `--format onnx` or `--format torch`."
        )


def _is_pure(node: fx.Node) -> bool:
    """Whether a node writes into nothing that another reads."""
    return not _name(node).endswith("_") or all(len(x.users) == 1 for x in node.all_input_nodes[:1])


def _call(program: Program, node: fx.Node, values: Mapping[fx.Node, Lowered]) -> Lowered:
    arguments: Any = fx.node.map_arg(node.args, lambda given: values[given])
    keywords: Any = fx.node.map_arg(node.kwargs, lambda given: values[given])
    folded = _folded(node, arguments, keywords)
    if folded is not None:
        return folded
    name = _name(node)
    if name in OPERATORS:
        return OPERATORS[name](program, node, *arguments, **keywords)
    if name in UNARY:
        return add_unary(program, name, *arguments, **keywords)
    result = add_binary(program, name, *(_as_value(given) for given in arguments[:2]))
    if result is None or keywords.get("alpha", 1) != 1:
        raise _unsupported(node, "it broadcasts in a way that C code isn't written for")
    return result


def _folded(node: fx.Node, arguments: Any, keywords: Any) -> Lowered | None:
    """Compute what depends on no input when the file is written."""
    if node.target is operator.getitem:
        return None
    if any(value.constant is None for value in _values_in((arguments, keywords))):
        return None
    given: Any = _tensors((tuple(arguments), dict(keywords)))
    given[1].pop("pin_memory", None)
    assert callable(node.target)
    result = node.target(*given[0], **given[1])
    return _constant(result) if isinstance(result, Tensor) else [_constant(x) for x in result]


def _values_in(given: Any) -> Iterator[Value]:
    if isinstance(given, Value):
        yield given
    elif isinstance(given, Mapping):
        yield from _values_in(list(given.values()))
    elif isinstance(given, (list, tuple)):
        for part in given:
            yield from _values_in(part)


def _tensors(given: Any) -> Any:
    """Return arguments with constants as tensors."""
    if isinstance(given, Value):
        assert given.constant is not None
        return torch.from_numpy(given.constant.copy())
    if isinstance(given, Mapping):
        return {key: _tensors(value) for key, value in given.items()}
    return type(given)(map(_tensors, given)) if type(given) in (list, tuple) else given


def _as_value(given: Any) -> Value:
    if isinstance(given, Value):
        return given
    return Value("", (), "float", np.array(given, np.float32))


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(int(length) for length in node.meta["val"].shape)


def _unsupported(node: fx.Node, why: str) -> InputError:
    return InputError(
        f"The C export can't take this use of `{_name(node)}` (shape {list(_shape(node))}): {why}. "
        "Write the module differently, or take `--format onnx` or `--format torch`."
    )


def _array(value: Value | None) -> Array | None:
    return None if value is None else value.constant


def _view(program: Program, node: fx.Node, x: Value, *_: Any, **__: Any) -> Value:
    if x.size != int(np.prod(_shape(node))):
        raise _unsupported(node, "it repeats elements")
    return x.shaped(_shape(node))


def _cast(program: Program, node: fx.Node, x: Value, *_: Any, **__: Any) -> Value:
    ctype = C_TYPES[str(node.meta["val"].dtype).removeprefix("torch.")]
    if ctype == x.ctype:
        return x
    result = program.buffer(x.shape, ctype)
    program.loop(x.size, f"{result.pointer}[i] = ({ctype}){program.pointer(x)}[i];")
    return result


def _permute(program: Program, node: fx.Node, x: Value, axes: Sequence[int]) -> Value:
    return add_permuted(program, x, [axis % len(x.shape) for axis in axes])


def _transpose(program: Program, node: fx.Node, x: Value, first: int, second: int) -> Value:
    axes = list(range(len(x.shape)))
    axes[first], axes[second] = axes[second], axes[first]
    return add_permuted(program, x, axes)


def _flipped(program: Program, node: fx.Node, x: Value) -> Value:
    """Swap the last two axes."""
    return _transpose(program, node, x, -2, -1)


def _slice(
    program: Program,
    node: fx.Node,
    x: Value,
    axis: int = 0,
    begin: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    if step != 1:
        raise _unsupported(node, "its step isn't 1")
    first, last, _ = slice(begin, end).indices(x.shape[axis])
    return add_sliced(program, x, axis, first, last)


def _glu(program: Program, node: fx.Node, x: Value, axis: int = -1) -> Value:
    half = x.shape[axis] // 2
    gate = add_unary(program, "sigmoid", add_sliced(program, x, axis, half, 2 * half))
    result = add_binary(program, "mul", add_sliced(program, x, axis, 0, half), gate)
    assert result is not None  # both are of one shape
    return result


def _select(program: Program, node: fx.Node, x: Value, axis: int, index: int) -> Value:
    return _select_of(program, x, axis, index)


def _select_of(program: Program, x: Value, axis: int, index: int) -> Value:
    axis, index = axis % len(x.shape), index % x.shape[axis]
    part = add_sliced(program, x, axis, index, index + 1)
    return part.shaped((*x.shape[:axis], *x.shape[axis + 1 :]))


def _split(program: Program, node: fx.Node, x: Value, _: Any, axis: int = 0) -> list[Value]:
    """Take a split or a chunk apart; how large the parts are, the graph knows."""
    parts, begin = [], 0
    for part in node.meta["val"]:
        size = int(part.shape[axis])
        parts.append(add_sliced(program, x, axis, begin, begin + size))
        begin += size
    return parts


def _cat(program: Program, node: fx.Node, parts: Sequence[Value], axis: int = 0) -> Value:
    return add_joined(program, parts, axis)


def _stack(program: Program, node: fx.Node, parts: Sequence[Value], axis: int = 0) -> Value:
    axis %= len(_shape(node))
    wide = [part.shaped((*part.shape[:axis], 1, *part.shape[axis:])) for part in parts]
    return add_joined(program, wide, axis)


def _clamp(program: Program, node: fx.Node, x: Value, low: Any = None, high: Any = None) -> Value:
    if isinstance(low, Value) or isinstance(high, Value):
        for name, bound in (("maximum", low), ("minimum", high)):
            limited = x if bound is None else add_binary(program, name, x, _as_value(bound))
            if limited is None:
                raise _unsupported(node, "its bounds broadcast in a way that C isn't written for")
            x = limited
        return x
    bounds = {
        "low": -np.inf if low is None else float(low),
        "high": np.inf if high is None else float(high),
    }
    return add_unary(program, "hardtanh", x, **bounds)


def _elu(program: Program, node: fx.Node, x: Value, alpha: float = 1.0, *_: Any) -> Value:
    return add_unary(program, "elu", x, alpha=alpha)


def _leaky(program: Program, node: fx.Node, x: Value, alpha: float = 0.01) -> Value:
    return add_unary(program, "leaky_relu", x, alpha=alpha)


def _gelu(program: Program, node: fx.Node, x: Value, approximate: str = "none") -> Value:
    if approximate != "none":
        raise _unsupported(node, "its approximation by tanh isn't")
    return add_unary(program, "gelu", x)


def _softplus(
    program: Program, node: fx.Node, x: Value, beta: float = 1.0, threshold: float = 20.0
) -> Value:
    if (beta, threshold) != (1, 20):
        raise _unsupported(node, "only its defaults are known")
    return add_unary(program, "softplus", x)


def _linear(
    program: Program, node: fx.Node, x: Value, weight: Value, bias: Value | None = None
) -> Value:
    if weight.constant is None:
        raise _unsupported(node, "its weight is computed")
    return add_linear(program, x, weight.constant, _array(bias))


def _conv2d(
    program: Program,
    node: fx.Node,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Any = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Value:
    if weight.constant is None or groups != 1 or set(dilation) != {1} or isinstance(padding, str):
        raise _unsupported(node, "groups, dilation and padding by name aren't known")
    down, across = _pair(padding)
    if down or across:
        x = add_padded(program, x, [across, across, down, down], "0.0f")
    return add_convolution(program, x, weight.constant, _array(bias), _pair(stride))


def _pool(
    program: Program,
    node: fx.Node,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> Value:
    if set(dilation) != {1}:
        raise _unsupported(node, "dilation isn't known")
    shape = _shape(node)
    out = (shape[-2], shape[-1])
    return add_pool(program, x, _pair(kernel), _pair(stride or kernel), _pair(padding), out)


def _pair(given: Sequence[int]) -> tuple[int, int]:
    return (given[0], given[-1])


def _pad(
    program: Program,
    node: fx.Node,
    x: Value,
    padding: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> Value:
    if mode != "constant":
        raise _unsupported(node, "only constants are padded with")
    return add_padded(program, x, padding, literal(value or 0.0))


def _zero_pad(
    program: Program, node: fx.Node, x: Value, padding: Sequence[int], value: float = 0.0
) -> Value:
    return add_padded(program, x, padding, literal(value))


def _lstm(
    program: Program, node: fx.Node, x: Value, states: Sequence[Value], weights: Any, *rest: Any
) -> list[Value]:
    each = _layers(node, x, weights, rest)
    outputs: list[Sequence[Value]] = []
    carried = x.shaped((x.size,))
    for place, arrays in enumerate(each):
        h, c = (add_sliced(program, state, 0, place, place + 1) for state in states)
        outputs.append(add_lstm(program, carried, h.shaped((h.size,)), c.shaped((c.size,)), arrays))
        carried = outputs[-1][0]
    joined = [add_joined(program, [out[i] for out in outputs], 0) for i in (0, 1)]
    return [carried.shaped((1, 1, carried.size)), *(s.shaped(states[0].shape) for s in joined)]


def _gru(
    program: Program, node: fx.Node, x: Value, state: Value, weights: Any, *rest: Any
) -> list[Value]:
    outputs: list[Value] = []
    carried = x.shaped((x.size,))
    for place, arrays in enumerate(_layers(node, x, weights, rest)):
        h = add_sliced(program, state, 0, place, place + 1)
        carried = add_gru(program, carried, h.shaped((h.size,)), arrays)
        outputs.append(carried)
    joined = add_joined(program, outputs, 0).shaped(state.shape)
    return [carried.shaped((1, 1, carried.size)), joined]


def _layers(node: fx.Node, x: Value, weights: Sequence[Value], rest: Any) -> list[list[Array]]:
    """Return the weights of each layer of a recurrent operator that runs one step."""
    biased, layers, _, _, bidirectional, _ = rest
    if bidirectional or x.size != x.shape[-1]:
        raise _unsupported(node, "it must go one way, one step at a time")
    each = 4 if biased else 2
    arrays = [weight.constant for weight in weights if weight.constant is not None]
    if len(arrays) != layers * each:
        raise _unsupported(node, "projections and computed weights aren't known")
    return [arrays[i : i + each] for i in range(0, len(arrays), each)]


def _attention(
    program: Program,
    node: fx.Node,
    q: Value,
    k: Value,
    v: Value,
    mask: Value | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    if dropout or enable_gqa or q.shape[:-2] != k.shape[:-2]:
        raise _unsupported(node, "dropout and heads that share keys aren't known")
    wide = (math.prod(q.shape[:-2]), q.shape[-2], k.shape[-2])
    if mask is not None and not _broadcasts(mask.shape, wide):
        raise _unsupported(node, f"its mask of shape {list(mask.shape)} isn't one for all heads")
    return add_attention(program, q, k, v, mask, scale=scale, causal=is_causal)


def _broadcasts(mask: Sequence[int], wide: tuple[int, int, int]) -> bool:
    sizes = (math.prod(mask[:-2]), mask[-2] if len(mask) > 1 else 1)
    return mask[-1] == wide[2] and sizes[0] in (1, wide[0]) and sizes[1] in (1, wide[1])


def _softmax(program: Program, node: fx.Node, x: Value, axis: int, *_: Any) -> Value:
    if axis % len(x.shape) != len(x.shape) - 1:
        raise _unsupported(node, "it must be over the last axis")
    return add_softmax(program, x)


def _product(program: Program, node: fx.Node, a: Value, b: Value) -> Value:
    if b.constant is not None and len(b.shape) == 2:
        return add_linear(program, a, np.ascontiguousarray(b.constant.T), None)
    if len(a.shape) < 2 or a.shape[:-2] != b.shape[:-2]:
        raise _unsupported(node, "its matrices must be in batches of one shape")
    return add_product(program, a, b)


def _added_product(
    program: Program, node: fx.Node, added: Value, a: Value, b: Value, **scales: Any
) -> Value:
    if set(scales.values()) - {1}:
        raise _unsupported(node, "it scales")
    found = add_binary(program, "add", _product(program, node, a, b), added)
    if found is None:
        raise _unsupported(node, "what it adds broadcasts in a way that C isn't written for")
    return found


def _layer_norm(
    program: Program,
    node: fx.Node,
    x: Value,
    over: Sequence[int],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Value:
    size = math.prod(over)
    return add_normalised(program, x, size, eps, centre=True, weight=weight, bias=bias)


def _rms_norm(
    program: Program,
    node: fx.Node,
    x: Value,
    over: Sequence[int],
    weight: Value | None = None,
    eps: float | None = None,
) -> Value:
    eps = float(np.finfo(np.float32).eps) if eps is None else eps
    return add_normalised(program, x, math.prod(over), eps, centre=False, weight=weight)


def _group_norm(
    program: Program,
    node: fx.Node,
    x: Value,
    groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Value:
    normalised = add_normalised(program, x, x.size // groups, eps, centre=True)
    return add_affine(program, normalised, *(_by_channel(x, each) for each in (weight, bias)))


def _batch_norm(
    program: Program,
    node: fx.Node,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value | None,
    variance: Value | None,
    training: bool,
    momentum: float,
    eps: float,
    *_: Any,
) -> Value:
    if mean is None or variance is None or training:
        raise _unsupported(node, "it normalises by the batch that it is given")
    if any(each is not None and each.constant is None for each in (weight, bias, mean, variance)):
        raise _unsupported(node, "its weights are computed")
    scale = torch.rsqrt(_tensors(variance).double() + eps)
    scale = scale if weight is None else scale * _tensors(weight)
    shift = -_tensors(mean) * scale + (0.0 if bias is None else _tensors(bias))
    result = program.buffer(x.shape)
    program.loop(x.size, f"{result.pointer}[i] = {program.pointer(x)}[i];")
    by_channel = (_by_channel(x, _constant(each.float())) for each in (scale, shift))
    return add_affine(program, result, *by_channel)


def _by_channel(x: Value, each: Value | None) -> Value | None:
    """Return a value for each channel as it broadcasts over an image."""
    return None if each is None else each.shaped((each.size, *[1] * (len(x.shape) - 2)))


def _power(program: Program, node: fx.Node, x: Value, exponent: Any) -> Value:
    if exponent != 2:
        raise _unsupported(node, "only squares are known")
    return add_unary(program, "square", x)


def _unbind(program: Program, node: fx.Node, x: Value, axis: int = 0) -> list[Value]:
    return [_select_of(program, x, axis, place) for place in range(x.shape[axis])]


def _nan_to_num(
    program: Program, node: fx.Node, x: Value, nan: Any = None, above: Any = None, below: Any = None
) -> Value:
    limit = float(np.finfo(np.float32).max)
    put = [
        literal(v if v is not None else d) for v, d in ((nan, 0.0), (above, limit), (below, -limit))
    ]
    result, source = program.buffer(x.shape), f"{program.pointer(x)}[i]"
    top = literal(limit)
    program.loop(
        x.size,
        f"{result.pointer}[i] = {source} != {source} ? {put[0]} : {source} > {top} ? {put[1]} "
        f": {source} < -{top} ? {put[2]} : {source};",
    )
    return result


def _nanmean(
    program: Program, node: fx.Node, x: Value, axes: Any = None, keep: bool = False, **_: Any
) -> Value:
    return _mean(program, node, x, axes, keep, skip_nan=True)


def _mean(
    program: Program,
    node: fx.Node,
    x: Value,
    axes: Any = None,
    keep: bool = False,
    *,
    skip_nan: bool = False,
    divide: bool = True,
    **_: Any,
) -> Value:
    given = range(len(x.shape)) if axes is None or axes == [] else axes
    over = sorted(axis % len(x.shape) for axis in ([given] if isinstance(given, int) else given))
    if over != list(range(over[0], len(x.shape))):
        raise _unsupported(node, "it must be over the last axes")
    size = math.prod(x.shape[over[0] :])
    return add_mean(program, x, size, skip_nan=skip_nan, divide=divide).shaped(_shape(node))


def _sum(
    program: Program, node: fx.Node, x: Value, axes: Any = None, *rest: Any, **_: Any
) -> Value:
    return _mean(program, node, x, axes, *rest, divide=False)


def _argmax(
    program: Program, node: fx.Node, x: Value, axis: Any = None, keep: bool = False
) -> Value:
    if axis is None or axis % len(x.shape) != len(x.shape) - 1:
        raise _unsupported(node, "it must be over the last axis")
    return add_argmax(program, x).shaped(_shape(node))


def _getitem(program: Program, node: fx.Node, values: Sequence[Value], place: int) -> Value:
    return values[place]


Operator = Callable[..., Lowered]
OPERATORS: Final[Mapping[str, Operator]] = {
    **dict.fromkeys(
        ("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "expand"), _view
    ),
    **dict.fromkeys(("alias", "contiguous", "clone", "detach", "dropout"), _view),
    **dict.fromkeys(("to", "_to_copy", "type_as"), _cast),
    **dict.fromkeys(("split", "chunk", "split_with_sizes", "unsafe_chunk", "unsafe_split"), _split),
    **dict.fromkeys(("clamp", "hardtanh"), _clamp),
    # Without an input they are folded.
    **dict.fromkeys(("zeros", "ones", "full", "arange", "repeat", "zeros_like"), _view),
    **dict.fromkeys(("matmul", "bmm"), _product),
    **dict.fromkeys(("softmax", "_softmax"), _softmax),
    "argmax": _argmax,
    "baddbmm": _added_product,
    "batch_norm": _batch_norm,
    "cat": _cat,
    "constant_pad_nd": _zero_pad,
    "conv2d": _conv2d,
    "elu": _elu,
    "gelu": _gelu,
    "getitem": _getitem,
    "glu": _glu,
    "group_norm": _group_norm,
    "gru": _gru,
    "layer_norm": _layer_norm,
    "leaky_relu": _leaky,
    "linear": _linear,
    "lstm": _lstm,
    "mT": _flipped,
    "max_pool2d": _pool,
    "mean": _mean,
    "nan_to_num": _nan_to_num,
    "nanmean": _nanmean,
    "pad": _pad,
    "permute": _permute,
    "pow": _power,
    "rms_norm": _rms_norm,
    "scaled_dot_product_attention": _attention,
    "select": _select,
    "slice": _slice,
    "softplus": _softplus,
    "stack": _stack,
    "sum": _sum,
    "transpose": _transpose,
    "unbind": _unbind,
}
"""Operator's name -> what adds it to a program; elementwise ones stand in a module of their own."""
