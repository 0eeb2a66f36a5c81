"""Where the model of an engine computes: on the cores that decode as well, or on a GPU by CUDA graphs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mobilevit_fast.acceleration.graphs import Cuda
from mobilevit_fast.engine.model import Answers, EngineModel
from mobilevit_fast.engine.preprocessing import Preprocessing

_log = logging.getLogger(__name__)


def model_input(model: EngineModel, preprocessing: Preprocessing, images: Tensor) -> Tensor:
    """Images as the model reads them: uint8 ones by the table of the image processor, unless it takes them as they are.

    Args:
        model: whose type the result has.
        preprocessing: whose table it is.
        images: (N, 3, height, width), uint8 RGB or what the image processor makes of them.
    """
    if images.dtype != torch.uint8:
        return images.to(model.device, model.dtype)
    if model.takes_uint8:
        return images
    return preprocessing.values(images).to(model.dtype)


class CpuDevice:
    """The cores: every thread that decodes also calls the model, for a batch of its own."""

    def __init__(self, model: EngineModel, preprocessing: Preprocessing) -> None:
        self._model = model
        self._preprocessing = preprocessing

    def with_model(self, model: EngineModel) -> CpuDevice:
        """The same for other outputs of the model."""
        return CpuDevice(model, self._preprocessing)

    def slot(self, shape: tuple[int, ...]) -> Tensor:
        """Memory for a batch of images."""
        return torch.empty(shape, dtype=torch.uint8)

    def copy(self, images: Tensor) -> None:
        """There is nothing to copy."""

    def __call__(self, images: Tensor) -> Answers:
        """Answers for images (N, 3, height, width)."""
        return self._model(model_input(self._model, self._preprocessing, images))


class Streams:
    """Streams, events and memory of CUDA, as few as the device below needs."""

    device_type = "cuda"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.compute = torch.cuda.Stream(device)

    def copying(self) -> Any:
        """A stream for copies."""
        return torch.cuda.Stream(self._device)

    def holds(self, images: Tensor) -> bool:
        """Whether images are on a GPU already."""
        return images.is_cuda

    def on(self, stream: Any) -> AbstractContextManager[Any]:
        """A stream as the current one."""
        return torch.cuda.stream(stream)

    def event(self) -> Any:
        """An event, recorded on the current stream."""
        return torch.cuda.current_stream(self._device).record_event()

    def pinned(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory of the host that copies run from and to on their own."""
        return torch.empty(shape, dtype=dtype, pin_memory=True)


class _Graph(NamedTuple):
    images: Tensor
    replay: Callable[[], None]
    answers: Answers


class _OfThread(threading.local):
    """State that a thread that calls the model has for itself."""

    copying: Any = None
    images: Tensor | None = None


class CudaDevice:
    """A GPU: images are copied on a stream of their own while the model computes others, by a graph for each size.

    Args:
        model: on the GPU.
        preprocessing: of the images.
        batch_sizes: ascending; images are filled up to the next one.
        graphs: "auto" captures graphs where the model can be captured; True raises an error where it cannot; False
            calls the model.
        streams: of the GPU.

    Raises:
        RuntimeError: graphs are demanded and the model cannot be captured.
    """

    def __init__(
        self,
        model: EngineModel,
        preprocessing: Preprocessing,
        batch_sizes: Sequence[int],
        graphs: bool | str,
        streams: Streams | None = None,
        capture: Callable[[Callable[[], Any]], tuple[Callable[[], None], Any]] | None = None,
    ) -> None:
        self._model = model
        self._preprocessing = preprocessing
        self._sizes = tuple(batch_sizes)
        self._streams = streams or Streams(model.device)
        self._capture = capture or Cuda().capture
        self._lock = threading.Lock()
        self._own = _OfThread()
        self._graphs: dict[int, _Graph] = {}
        if graphs and preprocessing.shape is not None:
            self._capture_all(preprocessing.shape, must=graphs is True)

    @property
    def captured(self) -> tuple[int, ...]:
        """Numbers of images that there are graphs of."""
        return tuple(self._graphs)

    def replay(self, size: int) -> Callable[[], None]:
        """Function that replays the graph of so many images, to be measured.

        Raises:
            ValueError: there is none.
        """
        if size not in self._graphs:
            raise ValueError(f"expected a graph of {size} images, got those of {self.captured or 'none'}")
        return self._graphs[size].replay

    def with_model(self, model: EngineModel) -> CudaDevice:
        """The same for other outputs of the model, without graphs."""
        return CudaDevice(model, self._preprocessing, self._sizes, False, self._streams, self._capture)

    def slot(self, shape: tuple[int, ...]) -> Tensor:
        """Memory for a batch of images."""
        return self._streams.pinned(shape, torch.uint8)

    def __call__(self, images: Tensor) -> Answers:
        """Answers for images (N, 3, height, width), on the host.

        Args:
            images: of the host, or of the GPU, where what was begun on the current stream makes them.
        """
        own, streams = self._own, self._streams
        made = streams.event() if streams.holds(images) else None
        if own.copying is None:
            own.copying = streams.copying()
        with streams.on(own.copying):
            if made is not None:
                own.copying.wait_event(made)
            on_device = self._copied(images)
            copied = streams.event()
        with self._lock, streams.on(streams.compute):
            streams.compute.wait_event(copied)
            answers = [None if one is None else self._to_host(one) for one in self._answers(on_device)]
            done = streams.event()
        done.synchronize()
        return Answers(*(None if one is None else one.clone() for one in answers))  # pinned memory is dear

    def copy(self, images: Tensor) -> None:
        """Copy images to the GPU, and wait."""
        with self._streams.on(self._streams.compute):
            self._copied(images)
            done = self._streams.event()
        done.synchronize()

    def _copied(self, images: Tensor) -> Tensor:
        """Images on the GPU, in memory of this thread, which no longer needs what it copied there before."""
        if images.dtype != torch.uint8:
            return images.to(self._model.device)
        own = self._own
        if own.images is None or own.images.shape[1:] != images.shape[1:] or len(own.images) < len(images):
            size = (max(self._sizes[-1], len(images)), *images.shape[1:])
            own.images = torch.empty(
                size, dtype=torch.uint8, device=self._model.device, memory_format=torch.channels_last
            )
        place = own.images[: len(images)]
        place.copy_(images, non_blocking=True)
        return place

    def _answers(self, images: Tensor) -> Answers:
        size = next((size for size in self._graphs if size >= len(images)), None)
        if images.dtype != torch.uint8 or size is None or images.shape[1:] != self._graphs[size].images.shape[1:]:
            return self._call(images)
        graph = self._graphs[size]
        graph.images[: len(images)].copy_(images)
        graph.replay()
        return Answers(*(None if one is None else one[: len(images)] for one in graph.answers))

    def _call(self, images: Tensor) -> Answers:
        return self._model(model_input(self._model, self._preprocessing, images))

    def _to_host(self, tensor: Tensor) -> Tensor:
        place = self._streams.pinned(tensor.shape, tensor.dtype)
        place.copy_(tensor, non_blocking=True)
        return place

    def _capture_all(self, shape: tuple[int, int], must: bool) -> None:
        with torch.inference_mode(), self._streams.on(self._streams.compute):
            for size in self._sizes:
                images = torch.zeros((size, *shape, 3), dtype=torch.uint8, device=self._model.device)
                images = images.permute(0, 3, 1, 2)  # (N, height, width, 3) -> (N, 3, height, width)
                try:
                    replay, answers = self._capture(partial(self._call, images))
                except RuntimeError as error:
                    if must:
                        raise
                    _log.warning("no CUDA graph of %d images: %s", size, error)
                    self._graphs.clear()
                    return
                self._graphs[size] = _Graph(images, replay, answers)
