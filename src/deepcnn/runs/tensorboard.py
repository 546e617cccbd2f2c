"""TensorBoard's event files, written from events."""

from __future__ import annotations

from pathlib import Path

from deepcnn.events import (
    Evaluated,
    Event,
    Histogram,
    Node,
    Stepped,
    Summarized,
    Traced,
)


class TensorBoard:
    """Writes scalars, histograms, images and the graph as TensorBoard's event files.

    `first_step`: what earlier processes wrote for this and later steps is dropped from view; None:
    there were none.
    """

    def __init__(self, directory: Path, *, first_step: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a while to import

        self._writer = SummaryWriter(str(directory), purge_step=first_step)

    def __call__(self, event: Event) -> None:
        """Write what the event has to show."""
        match event:
            case Stepped():
                for name, value in event.losses.items():
                    self._writer.add_scalar(f"loss/{name}", value, event.step)
                for name, value in event.averages.items():
                    self._writer.add_scalar(f"loss_averaged/{name}", value, event.step)
                self._writer.add_scalar("learning_rate", event.learning_rate, event.step)
                self._writer.add_scalar(
                    "examples_per_second", event.examples_per_second, event.step
                )
                if event.correct is not None and event.total:
                    share = event.correct / event.total
                    self._writer.add_scalar("accuracy/train_batch", share, event.step)
            case Evaluated():
                kind = event.split + ("" if event.averaged else "_raw_parameters")
                self._writer.add_scalar(f"accuracy/{kind}", event.accuracy, event.step)
                self._writer.add_scalar(f"cross_entropy/{kind}", event.loss, event.step)
            case Summarized():
                for tag, value in event.scalars.items():
                    self._writer.add_scalar(tag, value, event.step)
                for tag, histogram in event.histograms.items():
                    self._add_histogram(tag, histogram, event.step)
                for tag, image in event.images.items():
                    self._writer.add_image(tag, image, event.step, dataformats="HWC")
                self._writer.flush()
            case Traced():
                self._add_graph(event)

    def _add_histogram(self, tag: str, histogram: Histogram, step: int) -> None:
        self._writer.add_histogram_raw(
            tag,
            min=float(histogram.edges[0]),
            max=float(histogram.edges[-1]),
            num=int(histogram.counts.sum()),
            sum=histogram.total,
            sum_squares=histogram.squares,
            bucket_limits=histogram.edges[1:].tolist(),
            bucket_counts=histogram.counts.tolist(),
            global_step=step,
        )

    def _add_graph(self, event: Traced) -> None:
        from tensorboard.compat.proto.attr_value_pb2 import AttrValue
        from tensorboard.compat.proto.event_pb2 import Event as FileEvent
        from tensorboard.compat.proto.graph_pb2 import GraphDef
        from tensorboard.compat.proto.node_def_pb2 import NodeDef
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

        def proto(node: Node) -> NodeDef:
            shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in node.shape])
            shapes = AttrValue(list=AttrValue.ListValue(shape=[shape]))
            return NodeDef(
                name=node.name,
                op=node.operation,
                input=node.inputs,
                device=f"/device:{node.device}" if node.device else "",
                attr={"_output_shapes": shapes},
            )

        graph = GraphDef(node=[proto(node) for node in event.nodes])
        writer = self._writer._get_file_writer()  # type: ignore[no-untyped-call]  # its public method takes TorchScript graphs only
        writer.add_event(FileEvent(graph_def=graph.SerializeToString()))

    def close(self) -> None:
        """Write what is left, and close the files."""
        self._writer.close()
