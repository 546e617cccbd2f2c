"""TensorBoard's event files, written from events."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deepcnn.data.formats.tfrecord_files import masked_crc
from deepcnn.events import (
    Evaluated,
    Event,
    Histogram,
    Node,
    Stepped,
    Summarized,
    Traced,
)
from deepcnn.runs.appended import Appended
from deepcnn.shown import one_line

_numbers = itertools.count()  # of the files of this process, whose names must differ


class TensorBoard:
    """Writes scalars, histograms, images and the graph into an event file of TensorBoard.

    `first_step`: what earlier processes wrote for this and later steps is no longer shown. None:
    there were no earlier processes. If the file cannot be written, `note` is called and records
    wait; see `Appended`. The format is that of TFRecord files; each record is an `Event` of
    https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/event.proto.
    """

    def __init__(
        self, directory: Path, note: Callable[[str], None], *, first_step: int | None = None
    ) -> None:
        from tensorboard.compat.proto.event_pb2 import Event as Record
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from torch.utils.tensorboard import summary  # takes a while to import

        name = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        path = directory / f"events.out.tfevents.{name}"
        self._file = Appended(
            path, note, prepare=lambda: directory.mkdir(parents=True, exist_ok=True)
        )
        self._summary: Any = summary  # its functions have no types
        self._record = Record
        self._add(file_version="brain.Event:2")
        self._start = SessionLog(status=SessionLog.START)
        if first_step is not None:
            self.begin_again(first_step)

    def begin_again(self, step: int) -> None:
        """No longer show what was written for this and later steps."""
        self._add(step=step, session_log=self._start)

    def __call__(self, event: Event) -> None:
        """Write what is to be shown of an event."""
        match event:
            case Stepped():
                for name, value in event.losses.items():
                    self._add_scalar(f"loss/{name}", value, event.step)
                for name, value in event.averages.items():
                    self._add_scalar(f"loss_averaged/{name}", value, event.step)
                self._add_scalar("learning_rate", event.learning_rate, event.step)
                self._add_scalar("examples_per_second", event.examples_per_second, event.step)
                if event.correct is not None and event.total:
                    share = event.correct / event.total
                    self._add_scalar("accuracy/train_batch", share, event.step)
            case Evaluated():
                kind = event.split + ("" if event.averaged else "_raw_parameters")
                self._add_scalar(f"accuracy/{kind}", event.accuracy, event.step)
                self._add_scalar(f"cross_entropy/{kind}", event.loss, event.step)
            case Summarized():
                for tag, value in event.scalars.items():
                    self._add_scalar(tag, value, event.step)
                for tag, histogram in event.histograms.items():
                    self._add_histogram(tag, histogram, event.step)
                for tag, image in event.images.items():
                    drawn = self._summary.image(one_line(tag), image, dataformats="HWC")
                    self._add(step=event.step, summary=drawn)
            case Traced():
                self._add_graph(event)

    def _add(self, **fields: Any) -> None:
        content = self._record(wall_time=time.time(), **fields).SerializeToString()
        length = len(content).to_bytes(8, "little")
        checks = [masked_crc(part).to_bytes(4, "little") for part in (length, content)]
        self._file.write(length + checks[0] + content + checks[1])

    def _add_scalar(self, tag: str, value: float, step: int) -> None:
        self._add(step=step, summary=self._summary.scalar(one_line(tag), value))

    def _add_histogram(self, tag: str, histogram: Histogram, step: int) -> None:
        drawn = self._summary.histogram_raw(
            one_line(tag),
            min=float(histogram.edges[0]),
            max=float(histogram.edges[-1]),
            num=int(histogram.counts.sum()),
            sum=histogram.total,
            sum_squares=histogram.squares,
            bucket_limits=histogram.edges[1:].tolist(),
            bucket_counts=histogram.counts.tolist(),
        )
        self._add(step=step, summary=drawn)

    def _add_graph(self, event: Traced) -> None:
        from tensorboard.compat.proto.attr_value_pb2 import AttrValue
        from tensorboard.compat.proto.graph_pb2 import GraphDef
        from tensorboard.compat.proto.node_def_pb2 import NodeDef
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

        def proto(node: Node) -> NodeDef:
            shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in node.shape])
            shapes = AttrValue(list=AttrValue.ListValue(shape=[shape]))
            return NodeDef(
                name=one_line(node.name),
                op=node.operation,
                input=[one_line(name) for name in node.inputs],
                device=f"/device:{node.device}" if node.device else "",
                attr={"_output_shapes": shapes},
            )

        graph = GraphDef(node=[proto(node) for node in event.nodes])
        self._add(graph_def=graph.SerializeToString())

    def close(self) -> None:
        """Write the records that are left, and close the files."""
        self._file.close()
