"""Ray Data: an engine in each actor, so that encoded images travel between machines and pixels do not."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mobilevit_fast.engine import Engine
from mobilevit_fast.engine.loading import device_of, dtype_of, load
from mobilevit_fast.engine.optional import needed
from mobilevit_fast.engine.preprocessing import EXACT
from mobilevit_fast.engine.results.formats import answer_fields
from mobilevit_fast.engine.results.rows import row_of
from mobilevit_fast.engine.sources import Source
from mobilevit_fast.engine.sources.source import failing

ray = needed("ray", "mobilevit_fast.integrations.ray")
pa = needed("pyarrow", "mobilevit_fast.integrations.ray")
BlockAccessor = needed("ray.data.block", "mobilevit_fast.integrations.ray").BlockAccessor

_log = logging.getLogger(__name__)

_COLUMNS = {"label": ("label", "index")}
"""The columns of an output, where it is not one of the same name."""


class Classifier:
    """Classes, or masks of a segmentation model, for `ray.data.Dataset.map_batches`, one engine in each actor.

    A batch has a column of encoded images and one of their paths, as `ray.data.read_binary_files` makes them with
    `include_paths=True`. The answer has all of its columns but the images, and these, null where there is nothing:

    - `error`: why there is no answer, in one line;
    - `label`, `index`, `score`: lists, the most probable class first;
    - `embedding`, `logits`: lists of float32;
    - `mask`: class ids of the pixels of the prepared image, as a PNG.

    Their types are the same for every batch, whatever is in it, so that parts of a table fit together.

    Args:
        model: folder or weights file that every machine has at the same place, or model id of the hub; or `digits`.
        processor: folder or hub id of the image processor; None looks beside the weights.
        device: None takes the GPU that Ray gave to the actor (`num_gpus=`), else the CPU.
        dtype: "float32", "bfloat16" or "float16".
        preprocessing, outputs, top_k, batch_sizes: see `Engine`.
        decode_threads: None takes as many as Ray gave CPUs to the actor (`num_cpus=`), at least one.
        bytes_column, path_column: where the images and their paths are.

    Raises:
        ValueError, OSError: an argument that does not fit, or a model that is not there.

    Example:
        images = ray.data.read_binary_files("s3://bucket/photos", include_paths=True)
        images.map_batches(
            Classifier,
            fn_constructor_kwargs={"model": "apple/mobilevit-small"},
            compute=ray.data.ActorPoolStrategy(size=8),
            num_gpus=1,
            num_cpus=8,
            batch_size=512,
        ).write_parquet("s3://bucket/answers")
    """

    def __init__(
        self,
        model: str,
        processor: str | None = None,
        *,
        device: str | None = None,
        dtype: str = "float32",
        preprocessing: str = EXACT,
        outputs: Sequence[str] | None = None,
        top_k: int = 5,
        batch_sizes: Sequence[int] | None = None,
        decode_threads: int | None = None,
        bytes_column: str = "bytes",
        path_column: str = "path",
    ) -> None:
        given = _given_by_ray()
        if given is not None:
            device = device or ("cuda" if given.get("GPU", 0) > 0 else "cpu")
            decode_threads = decode_threads or max(1, int(given.get("CPU", 0)))
        loaded = load(model, processor=processor, device=device_of(device or "cpu"), dtype=dtype_of(dtype))
        if loaded.assumed is not None:
            _log.warning("%s", loaded.assumed)
        self.engine = Engine(
            loaded.model,
            loaded.processor,
            batch_sizes,
            decode_threads,
            preprocessing=preprocessing,
            outputs=outputs,
            top_k=top_k,
        )
        wanted = self.engine.model.wanted.outputs
        self._outputs = [*dict.fromkeys(name for output in wanted for name in _COLUMNS.get(output, (output,)))]
        self._fields = answer_fields(self._outputs)
        self._bytes, self._path = bytes_column, path_column

    def __call__(self, batch: Mapping[str, np.ndarray]) -> Any:
        """Answers for a batch, row by row, as a table of pyarrow.

        Raises:
            TypeError: a batch in another form than NumPy's, which is Ray's own choice.
            ValueError: a column that is missing, or is there already.
        """
        if not isinstance(batch, Mapping):
            raise TypeError(f'Classifier: expected batch_format="numpy", got a batch that is a {type(batch).__name__}')
        missing = [name for name in (self._bytes, self._path) if name not in batch]
        if missing:
            raise ValueError(
                f"Classifier: expected the columns {self._bytes} and {self._path}, as read_binary_files makes them "
                f"with include_paths=True, got {', '.join(batch)}"
            )
        kept = {name: values for name, values in batch.items() if name != self._bytes}
        twice = [field.name for field in self._fields if field.name in kept]
        if twice:
            raise ValueError(f"Classifier: expected other names than those of its answers, got {', '.join(twice)}")
        sources = [
            _source(f"row {row}, {path}", content)  # paths may be there twice, names may not
            for row, (path, content) in enumerate(zip(batch[self._path], batch[self._bytes], strict=True))
        ]
        rows = [row_of(prediction, self._outputs) for prediction in self.engine.stream(sources)]
        table = BlockAccessor.batch_to_arrow_block(kept)
        for field in self._fields:
            table = table.append_column(field, pa.array([row[field.name] for row in rows], field.type))
        return table


def _given_by_ray() -> Mapping[str, float] | None:
    """CPUs and GPUs of this actor, or None in any other process."""
    if not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    return None if context.get_actor_id() is None else context.get_assigned_resources()


def _source(name: str, content: Any) -> Source:
    if isinstance(content, (bytes, bytearray, memoryview)):
        return Source(name, bytes(content))
    return failing(name, f"expected an encoded image as bytes, got {type(content).__name__}")
