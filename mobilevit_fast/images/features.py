"""The mapping that the image processor returns."""

from collections import UserDict
from typing import Any

import torch


class BatchFeature(UserDict[str, Any]):
    """A dictionary whose entries are attributes too: `model(**features)`, `features.pixel_values`."""

    def __getattr__(self, name: str) -> Any:
        # Copying and unpickling ask for `data` before it exists; without the check that would not end.
        if name != "data" and name in self.data:
            return self.data[name]
        known = sorted(self.__dict__.get("data", ()))
        raise AttributeError(f"{type(self).__name__} has no entry {name!r}; expected one of {known}")

    def to(self, *args: Any, **kwargs: Any) -> "BatchFeature":
        """Move every tensor to a device and convert the floating point ones to a dtype, in place.

        Args:
            *args: as for `torch.Tensor.to`: device, dtype, or device and dtype.
            **kwargs: `device`, `dtype`, `non_blocking`, `copy`, `memory_format`.

        Returns:
            This object.

        Raises:
            TypeError: an entry is no tensor, because `return_tensors` was not "pt".
        """
        for name, value in self.data.items():
            if not isinstance(value, torch.Tensor):
                raise TypeError(
                    f'BatchFeature.to: expected tensors (return_tensors="pt"), got {type(value).__name__} as {name!r}'
                )
        for name, value in self.data.items():
            if value.is_floating_point():
                self.data[name] = value.to(*args, **kwargs)
            else:
                self.data[name] = value.to(*_without_dtype(args), **{k: v for k, v in kwargs.items() if k != "dtype"})
        return self


def _without_dtype(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(arg for arg in args if not isinstance(arg, torch.dtype))
