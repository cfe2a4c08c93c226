"""The machine and its software: versions, processor, threads, memory."""

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version


def environment() -> dict[str, str]:
    """Name -> value, the most important first. It contains no user name and no host name."""
    import torch

    import longstate

    found = {
        "longstate": longstate.__version__,
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
    }
    for package in ("numpy", "numba", "triton"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    found["system"] = f"{platform.system()} {platform.machine()}"
    found["processors"] = f"{os.cpu_count()}, PyTorch uses {torch.get_num_threads()}"
    found["accelerator"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    found["written"] = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return found


def installed_memory() -> int | None:
    """Bytes of memory in this machine; None if unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
