"""Our kernels inside other people's models.

`accelerate_transformers()` runs the Mamba-family models of `transformers` on them. Importing this
package loads none of the libraries it works with.
"""

from longstate.interop.transformers_patch import Acceleration as Acceleration
from longstate.interop.transformers_patch import accelerate_transformers as accelerate_transformers
