"""What a compiler is told of the results of an op, against the results."""

from typing import Any

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


class ComparedWithFakes(TorchDispatchMode):
    """Runs every op of this package twice, for real and on tensors without memory.

    A compiled graph reads results with the strides that the fake one had. Where these are not the
    true ones, `torch.compile` stops in its default mode, and `aot_eager` does not notice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func.namespace == "longstate":
            self.seen.add(func._opname)
            mode = FakeTensorMode()

            def as_fake(x: Any) -> Any:
                return mode.from_tensor(x.detach()) if isinstance(x, Tensor) else x

            given = tree_map(as_fake, args)
            with mode:
                planned = func(*given)
            for i, (real, fake) in enumerate(
                zip(tree_leaves(found), tree_leaves(planned), strict=True)
            ):
                assert layout(real) == layout(fake), (
                    f"{func._opname}, result {i}: {layout(real)}; its fake has {layout(fake)}"
                )
        return found


def layout(x: Tensor) -> tuple[Any, ...]:
    """Shape, strides where they count, and type."""
    shape = tuple(x.shape)
    strides = tuple(
        step for size, step in zip(shape, x.stride(), strict=True) if size > 1 and x.numel()
    )
    return shape, strides, x.dtype
