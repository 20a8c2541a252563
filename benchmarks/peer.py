"""A peer library in an environment of its own: `python benchmarks/peer.py jax` (or onnxruntime) answers requests, one
JSON object a line, from harness.Peer. Nothing of nncore is imported here.

    {"op": "gemm" or "conv", "inputs": [.npy files], "options": {...}} -> {"result": .npy file} or {"skip": why}
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
