"""Every operation on maps has a GPU kernel, in TensorFlow's own registry: no GPU is needed."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.python.framework import kernels

from tests.descriptors import DECODERS, ENCODERS
from unpooling import pooling

# They run on the host whatever the device: assertions, shapes, calls of functions.
ON_THE_HOST = {
    *("Assert", "NoOp", "Placeholder", "ReadVariableOp", "VarHandleOp", "StatefulPartitionedCall"),
    *("PartitionedCall", "StatelessCase", "DeviceIndex", "_Arg", "_Retval"),
}


def has_kernel(node, device):
    """Whether the registry has a kernel on a device for the types of a node."""
    for kernel in kernels.get_registered_kernels_for_op(node.op).kernel:
        if kernel.device_type not in (device, "DEFAULT"):
            continue
        if all(
            node.attr[constraint.name].type in constraint.allowed_values.list.type
            for constraint in kernel.constraint
        ):
            return True
    return False


def nodes_on_gpu(graph):
    """All nodes of a graph and the functions that it calls, but for branches of the CPU."""
    library = {function.signature.name: function for function in graph.library.function}
    pending, seen = [graph.node], set()
    while pending:
        for node in pending.pop():
            yield node
            called = [attr.func.name for attr in node.attr.values() if attr.HasField("func")]
            branches = [function.name for function in node.attr["branches"].list.func]
            called += branches[1:]  # The device's index is that of ["CPU", "GPU"].
            for name in called:
                if name in library and name not in seen:
                    seen.add(name)
                    pending.append(library[name].node_def)


def graphs(descriptor, saved_model):
    """The graph of each method of a loaded module, and of its gradient by input and variables."""
    loaded = tf.saved_model.load(descriptor.directory(saved_model))
    methods = [loaded, *([loaded.compact] if descriptor.kind == "encoder" else [])]
    forms = [None] if descriptor.kind == "encoder" else ["int64", "int32", "switches"]
    for method in methods:
        for form in forms:
            inputs = descriptor.inputs(form)

            @tf.function
            def step(inputs, method=method):
                source = tf.nest.flatten(inputs)[0]
                with tf.GradientTape() as tape:
                    tape.watch(source)
                    outputs = method(inputs)
                    loss = tf.reduce_sum(tf.nest.flatten(outputs)[0])
                return outputs, tape.gradient(loss, [source, *loaded.trainable_variables])

            yield step.get_concrete_function(inputs).graph.as_graph_def(add_shapes=False)


@pytest.mark.parametrize("descriptor", [*ENCODERS, *DECODERS], ids=str)
def test_every_operation_has_a_kernel_on_the_gpu(descriptor, saved_model):
    lacking = {
        (node.op, *(types_pb2.DataType.Name(a.type) for a in node.attr.values() if a.type))
        for graph in graphs(descriptor, saved_model)
        for node in nodes_on_gpu(graph)
        if node.op not in ON_THE_HOST
        and node.attr["dtype"].type != types_pb2.DT_STRING  # The messages of assertions.
        and not has_kernel(node, "GPU")
    }
    assert not lacking


def test_the_registry_tells_what_has_none():
    """int32 argmax is why the default build has a branch for GPUs."""

    @tf.function
    def pool(values, dtype):
        return tf.nn.max_pool_with_argmax(values, 2, 2, "VALID", output_dtype=dtype).argmax

    for dtype, expected in ((tf.int32, False), (tf.int64, True)):
        graph = pool.get_concrete_function(tf.zeros((1, 4, 4, 1)), dtype).graph.as_graph_def()
        (node,) = (node for node in graph.node if node.op == "MaxPoolWithArgmax")
        assert has_kernel(node, "GPU") is expected
        assert has_kernel(node, "CPU")


@pytest.mark.parametrize(
    "function", [pooling.max_pool_with_indices, pooling.max_pool_with_switches]
)
def test_the_branch_for_gpus_returns_the_same(function, monkeypatch):
    """It is run here on the CPU, which has kernels for both."""
    values = tf.random.stateless_normal((2, 7, 9, 5), (0, 0))
    expected = function(values)
    taken = []

    def gpu(device_names):
        taken.append(device_names)
        return tf.constant(device_names.index("GPU"))

    monkeypatch.setattr(tf.raw_ops, "DeviceIndex", gpu)
    for found, other in zip(function(values), expected, strict=True):
        np.testing.assert_array_equal(found, other)
    assert taken
