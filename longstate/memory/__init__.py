"""What a state holds: measured, certified. Sees `systems` and `ops` only.

Layers that do not change with time hand it a system, selective layers a trace. Analysis runs in
float64 on the CPU, whatever the type and the device of the model.
"""

from longstate.memory.result import KINDS as KINDS
from longstate.memory.result import Kind as Kind
from longstate.memory.result import Result as Result
