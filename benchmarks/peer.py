"""A peer library in an environment of its own: `python benchmarks/peer.py jax` (or onnxruntime, openvino) answers
requests, one JSON object a line, from harness.Peer. Nothing of nncore is imported here.

    {"op": "gemm", "conv", "recurrent", "train" or "infer", "inputs": [.npy files], "options": {...}}
        -> {"result": .npy file} or {"skip": why}
    {"calls": n} -> {"seconds": n calls of what was asked for last}
"""

import json
import os
import sys
import time

import numpy as np


def jax_gemm(a, b, **_):
    import jax

    run = jax.jit(lambda a, b: a @ b)
    a, b = jax.device_put(a), jax.device_put(b)
    return lambda: run(a, b).block_until_ready()


def jax_conv(x, w, stride, padding, groups):
    import jax

    run = jax.jit(
        lambda x, w: jax.lax.conv_general_dilated(
            x,
            w,
            (stride, stride),
            [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
    )
    x = jax.device_put(np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    w = jax.device_put(np.ascontiguousarray(w.transpose(2, 3, 1, 0)))
    call = lambda: run(x, w).block_until_ready()
    call.turn = lambda y: np.asarray(y).transpose(0, 3, 1, 2)
    return call


def jax_train(x, y, *weights, activation):
    """Steps of a fully connected net: cross-entropy, Adam. The result: the losses of three."""
    import jax
    import jax.numpy as jnp

    act = {"tanh": jnp.tanh, "relu": jax.nn.relu}[activation]

    def loss_of(weights):
        h = x
        for i in range(0, len(weights), 2):
            h = (act(h) if i else h) @ weights[i].T + weights[i + 1]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(h), y[:, None], 1))

    def update(state):
        weights, first, second, step = state
        loss, gradients = jax.value_and_grad(loss_of)(weights)
        step = step + 1
        first = [0.9 * m + 0.1 * g for m, g in zip(first, gradients)]
        second = [0.999 * v + 0.001 * g * g for v, g in zip(second, gradients)]
        rate, correction = 1e-3 / (1 - 0.9**step), jax.lax.rsqrt(1 - 0.999**step)
        weights = [w - rate * m / (jnp.sqrt(v) * correction + 1e-8) for w, m, v in zip(weights, first, second)]
        return loss, (weights, first, second, step)

    x, y = jax.device_put(x), jax.device_put(y)
    run = jax.jit(update, donate_argnums=0)
    zeros = lambda: [jnp.zeros_like(w) for w in weights]
    state = ([jax.device_put(w) for w in weights], zeros(), zeros(), jnp.float32(0))
    losses = []

    def step():
        nonlocal state
        loss, state = run(state)
        return loss.block_until_ready()

    losses = [np.asarray(step()) for _ in range(2)]
    step.turn = lambda loss: np.array([*losses, loss])
    return step


GATES = {"RNN": (0,), "LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}  # torch's numbers of ONNX's gates: i o f c; z r h


def _onnx_net(x, weights, layers):
    """The bytes of an ONNX model of a net: layers as benchmarks/steps.py names them, their weights in order."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, weights = [], [], iter(weights)

    def constant(array):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array), f"c{len(constants)}"))
        return constants[-1].name

    def node(op, *more, outputs=1, **attributes):
        names = ["h" * (len(nodes) + 2)] + ["unused" * (i + 1) for i in range(outputs - 1)]
        nodes.append(helper.make_node(op, [nodes[-1].output[0] if nodes else "x", *more], names, **attributes))

    for kind, settings in layers:
        if kind == "Linear":
            node("Gemm", constant(next(weights)), constant(next(weights)), transB=1)
        elif kind == "Conv2d":
            node("Conv", constant(next(weights)), constant(next(weights)), pads=[settings["padding"]] * 4)
        elif kind == "BatchNorm2d":
            node("BatchNormalization", *(constant(next(weights)) for _ in range(4)), epsilon=settings["eps"])
        elif kind == "MaxPool2d":
            node("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
        elif kind in GATES:
            hidden = len(w_ih := next(weights)) // len(GATES[kind])
            turn = lambda w: np.concatenate([w[g * hidden : (g + 1) * hidden] for g in GATES[kind]])[None]
            w, r, b, c = (turn(v) for v in (w_ih, *(next(weights) for _ in range(3))))
            more = {"linear_before_reset": 1} if kind == "GRU" else {}
            node(kind, *map(constant, (w, r, np.concatenate([b, c], 1))), hidden_size=hidden, **more)
            node("Squeeze", constant(np.array([1])))
        else:
            node({"ReLU": "Relu"}.get(kind, kind))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def onnxruntime_infer(x, *weights, layers):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(_onnx_net(x, weights, layers), options, providers=["CPUExecutionProvider"])
    feed = {"x": x}
    return lambda: session.run(None, feed)[0]


def openvino_infer(x, *weights, layers):
    import openvino

    core = openvino.Core()
    model = core.read_model(_onnx_net(x, weights, layers))
    threads = len(os.sched_getaffinity(0))
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x))

    def run():
        request.infer()
        return request.get_output_tensor().data

    return run


def _session(node, x, y_dims, w):
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y_dims)],
        [numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"x": x}
    return lambda: session.run(None, feed)[0]


def onnxruntime_gemm(a, b, packed=False):
    from onnx import helper

    if not packed:
        return "weights are constants to onnxruntime: only the packed form is its work"
    return _session(helper.make_node("MatMul", ["x", "w"], ["y"]), a, (len(a), b.shape[1]), b)


def onnxruntime_conv(x, w, stride, padding, groups):
    from onnx import helper

    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[stride] * 2, pads=[padding] * 4, group=groups)
    return _session(node, x, None, w)


def onnxruntime_recurrent(x, *weights, kind):
    return onnxruntime_infer(x, *weights, layers=[[kind, {}]])


def main():
    library = sys.argv[1]
    run = None
    for line in sys.stdin:
        request = json.loads(line)
        if "calls" in request:
            start = time.perf_counter()
            for _ in range(request["calls"]):
                run()
            answer = {"seconds": time.perf_counter() - start}
        else:
            make = globals().get(f"{library}_{request['op']}")
            inputs = [np.load(path) for path in request["inputs"]]
            run = make(*inputs, **request["options"]) if make else f"{library} has no {request['op']} here"
            if isinstance(run, str):
                answer = {"skip": run}
            else:
                y = getattr(run, "turn", np.asarray)(run())
                np.save(request["result"], np.ascontiguousarray(y))
                answer = {"result": request["result"]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
