"""The engine: images in, answers out, as fast as the slowest part allows."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mobilevit_fast.acceleration import PixelNormalization, accelerate, report
from mobilevit_fast.engine.arguments import checked_batch_sizes, checked_device, checked_threads
from mobilevit_fast.engine.batches import as_they_are, logits_of, logits_where_they_are, on_their_gpu
from mobilevit_fast.engine.devices import CpuDevice, CudaDevice
from mobilevit_fast.engine.model import Answers, EngineModel, Wanted, default_outputs
from mobilevit_fast.engine.predictions import Prediction, RunReport
from mobilevit_fast.engine.preprocessing import EXACT, Preprocessing
from mobilevit_fast.engine.results import ResultsFolder
from mobilevit_fast.engine.sources import Source, each, iterate, take
from mobilevit_fast.engine.statistics import DECODE, FORWARD, READ, RESIZE, WRITE, Statistics
from mobilevit_fast.engine.stream import Answer, Plan, Stream
from mobilevit_fast.engine.writing import Writer
from mobilevit_fast.images import ImageError
from mobilevit_fast.version import __version__

_SLOTS_OF_A_GPU = 4
_THREADS_OF_A_GPU = 2  # one waits for its answers while the other's images are computed
_READERS = 8
_MAX_HELD = 1 << 24
"""Bytes of encoded images that are looked at before the threads begin."""
_STANDARD_INPUT = "-"
_AT_HAND = (os.PathLike, bytes, np.ndarray, Tensor)


class EngineError(RuntimeError):
    """More images failed than a run allows."""


class Engine:
    """Classifies or segments images of files, URLs, tables, tar shards, or of Python, in order and in bounded memory.

    Threads read, others decode and resize into batches of uint8 images, the model answers, and only answers come back.
    On a CPU every core does all of it, each with batches of its own; on a GPU batches are copied while others are
    computed, by a CUDA graph for each batch size. A broken image is an answer with an error.

    Args:
        model: a classification or segmentation model of transformers, timm or this package, on the device to compute
            on. It is accelerated in place, unless it is already. Of weights that change later make another engine.
        processor: image processor of this package or of transformers.
        batch_sizes: images of one call of the model; the largest is used while there are as many, and on a GPU fewer
            are filled up to the next size. None: 1 and 8 on a CPU; 1, 8, 32, 128 and 256 on a GPU.
        decode_threads: threads that decode; on a CPU these also compute. None: one for each core.
        cuda_graphs: "auto" captures the model for each batch size where it can be; True raises an error where it
            cannot; False does not.
        preprocessing: "exact", bit for bit the image processor's; "fast" may decode JPEG at a half, a quarter or an
            eighth where that is enough for the resize.
        outputs: among "label", "score", "embedding", "logits" and "mask"; None: label and score of a classification
            model, the mask of a segmentation model. A mask has the size of the prepared image.
        top_k: classes of each image, at most all.
        id2label: names of classes instead of the model's own.
        acceleration: fuse the model where it is not yet.

    Raises:
        TypeError, ValueError: an argument that does not fit.

    Example:
        engine = mvf.Engine(model, processor)
        for prediction in engine.stream(["photos/", "more/*.jpg"]):
            print(prediction.source, prediction.labels[:1], prediction.error)
        engine.run("photos/", "results/")
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        batch_sizes: Sequence[int] | None = None,
        decode_threads: int | None = None,
        cuda_graphs: bool | str = "auto",
        preprocessing: str = EXACT,
        *,
        outputs: Sequence[str] | None = None,
        top_k: int = 5,
        id2label: Mapping[int, str] | None = None,
        acceleration: bool = True,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"Engine: expected a torch.nn.Module, got {type(model).__name__}")
        device = checked_device(model, cuda_graphs)
        self.preprocessing = Preprocessing(processor, preprocessing)
        model.eval()
        outputs = default_outputs(model) if outputs is None else tuple(outputs)
        if acceleration and not _is_accelerated(model):
            accelerate(model, uint8_images=self.normalization() if device.type == "cuda" else None)
        self.model = EngineModel(model, Wanted(outputs, top_k), id2label, self.normalization())
        self.batch_sizes = checked_batch_sizes(batch_sizes, device.type, self.preprocessing.shape)
        self.decode_threads = checked_threads(decode_threads)
        self._device: CpuDevice | CudaDevice
        if device.type == "cuda":
            self._device = CudaDevice(self.model, self.preprocessing, self.batch_sizes, cuda_graphs)
        else:
            self._device = CpuDevice(self.model, self.preprocessing)

    def stream(
        self, sources: Any, *, shard: tuple[int, int] | None = None, limit: int | None = None
    ) -> Iterator[Prediction]:
        """Answers for sources, in their order, while later ones are read and computed.

        Args:
            sources: one of, or an iterable of: files, folders (searched for images), glob patterns, lists of paths
                (.txt, .csv, .parquet), tar shards, URLs, "-" for paths from standard input, encoded images as bytes,
                arrays, PIL images. It is read by another thread, a little ahead. See `mobilevit_fast.engine.sources`.
            shard: (i, n) takes every n-th source from the i-th on.
            limit: sources at most.

        Yields:
            One prediction a source.
        """
        found = iterate(sources, shard=shard, limit=limit)
        for source, answer in self.answers(found, Statistics(), peek=_is_at_hand(sources)):
            yield self._prediction(source, answer)

    def each(self, images: Any) -> Iterator[Prediction]:
        """One prediction for each image, in their order, however often it comes; images as those of `__call__`."""
        for source, answer in self.answers(each(images), Statistics(), peek=True):
            yield self._prediction(source, answer)

    def __call__(self, images: Any) -> Tensor:
        """Logits of images, a row for each.

        Args:
            images: one of, a list of, or a batch of what the image processor takes: arrays and tensors (N, height,
                width, 3) or (N, 3, height, width), PIL images, paths, encoded images as bytes. RGB images on the
                model's GPU, uint8, are resized there.

        Returns:
            Float32 on the CPU: (N, classes), or (N, classes, height, width) of a segmentation model.

        Raises:
            ValueError: an image that cannot be read; the message names it.
        """
        logits = self.model.wanting(Wanted(("logits",), 1))
        compute: Callable[[Tensor], Answers] = self._device.with_model(logits)
        together = self._logits_in_memory(images, compute)
        if together is not None:
            return together
        found: list[Tensor] = []
        for source, answer in self.answers(each(images), Statistics(), peek=True, compute=compute):
            if isinstance(answer, str):
                raise ValueError(f"{source.name}: {answer}")
            assert answer.logits is not None
            found.append(torch.from_numpy(answer.logits))
        if not found:
            raise ValueError("expected at least one image, got none")
        return torch.stack(found)

    def _logits_in_memory(self, images: Any, compute: Callable[[Tensor], Answers]) -> Tensor | None:
        """Logits of images that nobody has to look at one by one; None of others, and where they fail together."""
        with suppress(RuntimeError, ImageError):  # the way of each by itself names the one that fails
            batch = as_they_are(images, self.preprocessing)
            if batch is not None:
                return logits_of(batch, compute, self.plan(len(batch.images)), self.slot)
            on_gpu = on_their_gpu(images, self.preprocessing, self.model.device)
            if on_gpu is not None:
                size = self.plan(len(on_gpu)).batch_size
                return logits_where_they_are(on_gpu, compute, self.preprocessing, size)
        return None

    def run(
        self,
        sources: Any,
        out: str | os.PathLike[str],
        *,
        format: str = "parquet",
        resume: bool = True,
        overwrite: bool = False,
        retry_failed: bool = False,
        shard: tuple[int, int] | None = None,
        limit: int | None = None,
        max_errors: int | None = None,
        progress: Callable[[Prediction], None] | None = None,
        passed_over: Callable[[str], None] | None = None,
    ) -> RunReport:
        """Answer sources into a folder of results, from where an earlier run of the same work was ended.

        Args:
            sources: see `stream`.
            out: folder, made if it is not there.
            format: "parquet", "jsonl" or "csv".
            resume: leave out the sources that the folder has answers of. False: it must not have any.
            overwrite: replace the results that are there.
            retry_failed: try those again that failed.
            shard: see `stream`; other shards may write into the same folder at once.
            limit: sources at most, including those left out.
            max_errors: images that may fail; None: all.
            progress: called with every answer.
            passed_over: called with the name of every source that has an answer already, by another thread.

        Returns:
            What was done. It is in the folder as well, as `_stats.json`.

        Raises:
            ValueError: the folder has results of other work: other weights, settings or outputs.
            EngineError: more images failed than `max_errors`. What was answered is in the folder.
        """
        statistics = Statistics()
        start = time.perf_counter()
        images = failed = skipped = skipped_failed = 0
        with ResultsFolder(
            out,
            format=format,
            fingerprint=self.fingerprint(),
            outputs=self.model.wanted.outputs,
            top_k=self.model.wanted.top_k,
            resume=resume,
            overwrite=overwrite,
            retry_failed=retry_failed,
            shard=shard,
        ) as results:

            def is_done(name: str) -> bool:
                nonlocal skipped, skipped_failed
                done = results.is_done(name)
                skipped += done
                skipped_failed += done and results.has_failed(name)
                if done and passed_over is not None:
                    passed_over(name)
                return done

            remaining = iterate(sources, shard=shard, limit=limit, skip=is_done)
            with Writer(results) as writer:
                for source, answer in self.answers(remaining, statistics, peek=_is_at_hand(sources)):
                    prediction = self._prediction(source, answer)
                    writer.add(prediction)
                    images += 1
                    failed += prediction.error is not None
                    if progress is not None:
                        progress(prediction)
                    if max_errors is not None and failed > max_errors:
                        raise EngineError(
                            f"expected at most {max_errors} images to fail, got {failed}; the last was "
                            f"{prediction.source}: {prediction.error}"
                        )
            with writer.watch:
                results.flush()
            statistics.add(WRITE, writer.watch)
            seconds = time.perf_counter() - start
            made = RunReport(
                images,
                failed,
                skipped,
                skipped_failed,
                round(seconds, 6),
                round(images / seconds, 3),
                statistics.to_dict(),
                statistics.bound_by(seconds, shared=isinstance(self._device, CpuDevice)),
            )
            results.finish(made.to_dict(), did_nothing=images == 0)
        return made

    def fingerprint(self) -> dict[str, Any]:
        """Everything that answers depend on: results of other fingerprints do not go together."""
        return {
            "weights": self.model.fingerprint(),
            "model": type(self.model.module).__name__,
            "settings": self.model.settings_fingerprint(),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "preprocessing": {"mode": self.preprocessing.mode, **self.preprocessing.settings.to_dict()},
            "labels": {str(index): label for index, label in sorted(self.model.id2label.items())},
            "version": __version__,
        }

    def answers(
        self, sources: Iterator[Source], statistics: Statistics, *, peek: bool, compute: Any = None
    ) -> Iterator[tuple[Source, Answer]]:
        """Sources with what the model says of them, or why it says nothing.

        Args:
            sources: in any number, also of the same names.
            statistics: to add to.
            peek: look at the first sources before the threads begin, so that few are shared out among all.
            compute: instead of the engine's own.
        """
        first: list[Source] = []
        count = None
        if peek:  # how many there are, if they are few
            is_last = False
            try:
                is_last = take(sources, first, self.batch_sizes[-1] * self.decode_threads, _MAX_HELD)
            except Exception as error:  # which comes behind the answers of those before it
                sources, is_last = _raising(error), True
            count = len(first) if is_last else None
        plan = self.plan(count)
        for name, threads in (
            (READ, plan.readers),
            (DECODE, plan.workers),
            (RESIZE, plan.workers),
            (FORWARD, plan.computing or plan.workers),
        ):
            statistics.stages[name].threads = threads
        return iter(
            Stream(
                itertools.chain(first, sources),
                self.preprocessing,
                compute or self._device,
                plan,
                self._device.slot,
                statistics,
            )
        )

    @property
    def compute(self) -> CpuDevice | CudaDevice:
        """Answers for images (N, 3, height, width) of the host, uint8 or as the image processor makes them."""
        return self._device

    def slot(self, batch_size: int) -> Tensor:
        """Memory of the host for a batch of images, (batch_size, height, width, 3) uint8.

        Raises:
            ValueError: images have no size of their own.
        """
        if self.preprocessing.shape is None:
            raise ValueError("expected an image processor that makes images of one size, got one without a crop")
        return self._device.slot((batch_size, *self.preprocessing.shape, 3))

    def plan(self, count: int | None) -> Plan:
        """How many threads and batches, for this many sources or any number."""
        workers, size = self.decode_threads, self.batch_sizes[-1]
        readers = min(_READERS, max(2, workers))
        if isinstance(self._device, CudaDevice):
            if count is not None:  # fewer than fill the largest batch are not made to wait for memory that large
                size = next((one for one in self.batch_sizes if one >= count), size)
            return Plan(size, _SLOTS_OF_A_GPU, readers, workers, _THREADS_OF_A_GPU)
        if count is not None:  # a part for each core
            size = min(size, max(1, -(-count // workers)))
        return Plan(size, 2 * workers + 1, readers, workers, None)

    def _prediction(self, source: Source, answer: Answer) -> Prediction:
        if isinstance(answer, str):
            return Prediction(source.name, error=answer)
        label = self.model.label
        return Prediction(
            source.name, tuple(map(label, answer.indices)), answer.indices, answer.scores, None, *answer[2:]
        )

    def normalization(self) -> PixelNormalization:
        """Treatment of uint8 images, for the model's first convolution."""
        settings = self.preprocessing.settings
        normalizes = settings.do_normalize
        return PixelNormalization(
            rescale_factor=(settings.rescale_factor or 1.0) if settings.do_rescale else 1.0,
            mean=settings.image_mean if normalizes and settings.image_mean is not None else 0.0,
            std=settings.image_std if normalizes and settings.image_std is not None else 1.0,
            flip_channel_order=settings.do_flip_channel_order,
        )


def _raising(error: Exception) -> Iterator[Source]:
    raise error
    yield


def _is_accelerated(model: nn.Module) -> bool:
    return any(region.fused for region in report(model)) if "_mvf_request" in vars(model) else False


def _is_at_hand(sources: Any) -> bool:
    """Whether the next sources are there at once; a generator or a writer to standard input may take its time."""
    if isinstance(sources, list | tuple):
        return not any(isinstance(one, str) and one == _STANDARD_INPUT for one in sources)
    return sources != _STANDARD_INPUT if isinstance(sources, str) else isinstance(sources, _AT_HAND)
