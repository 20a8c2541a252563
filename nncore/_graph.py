"""The graph of recorded operations, as text and as a picture."""

from nncore._core.tensor import TensorBase
from nncore._ops._check import one_of


def _walk(root):
    """(nodes in the order in which they ran, leaves in the order of their first use)."""
    found, stack, leaves = {}, [root.grad_fn], {}
    while stack:
        node = stack.pop()
        if node is not None and node.number not in found:
            found[node.number] = node
            stack += [edge for edge in node.next_functions if not isinstance(edge, TensorBase)]
    nodes = [found[number] for number in sorted(found)]
    for node in nodes:
        leaves |= {id(edge): edge for edge in node.next_functions if isinstance(edge, TensorBase)}
    return nodes, list(leaves.values())


def draw_graph(tensor, names=None, format="text"):
    """The operations that a result was made by, from the leaves to the root.

    Args:
        tensor: the root, a result of recorded operations, such as a loss.
        names: of leaves: a dict {name: tensor}, or pairs (name, tensor) such as `net.named_parameters()`. Others are
            leaf1, leaf2, ...
        format: 'text': a line for each leaf and each operation, which is numbered and followed by what it was made
            from ('-': something without gradient). 'dot': source for Graphviz (`dot -Tsvg`).

    Returns:
        A str.

    Raises:
        TypeError: tensor is no Tensor, or names are no names of tensors.
        ValueError: no operation was recorded.

    >>> import nncore
    >>> w = nncore.tensor([1.0, 2.0], requires_grad=True)
    >>> print(draw_graph((w * w).sum() * 3, {"w": w}))
    w = float32 (2,)
    1 = mul(w, w)
    2 = sum(1)
    3 = scale(2)
    """
    if not isinstance(tensor, TensorBase):
        raise TypeError(f"tensor: expected a Tensor, got {type(tensor).__name__}")
    one_of(format, "format", ("text", "dot"))
    if tensor.grad_fn is None:
        raise ValueError("tensor: expected the result of a recorded operation, got a leaf or a constant")
    try:
        given = list(names.items() if hasattr(names, "items") else names or ())
        given = {id(t): str(name) for name, t in given if isinstance(t, TensorBase)}
    except (TypeError, ValueError):
        raise TypeError(f"names: expected (name, tensor) pairs or a dict, got {type(names).__name__}") from None
    nodes, leaves = _walk(tensor)
    label = {id(t): given.get(id(t), f"leaf{i}") for i, t in enumerate(leaves, 1)}
    label |= {id(node): str(i) for i, node in enumerate(nodes, 1)}
    if format == "text":
        lines = [f"{label[id(t)]} = {t.dtype} {t.shape}" for t in leaves]
        for node in nodes:
            made_from = ", ".join(label.get(id(edge), "-") for edge in node.next_functions)
            lines.append(f"{label[id(node)]} = {node.name}({made_from})")
        return "\n".join(lines)
    at = {key: f"n{i}" for i, key in enumerate(label)}
    lines = ["digraph {"]
    for t in leaves:
        text = label[id(t)].replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'    {at[id(t)]} [shape=box, label="{text}\\n{t.dtype} {t.shape}"];')
    for node in nodes:
        lines.append(f'    {at[id(node)]} [label="{node.name}"];')
        edges = [edge for edge in node.next_functions if edge is not None]
        lines += [f"    {at[id(edge)]} -> {at[id(node)]};" for edge in edges]
    return "\n".join([*lines, "}"])
