"""What a state holds: measured, certified. Sees `systems` and `ops` only.

Layers that do not change with time hand it a system, selective layers a trace. Analysis runs in
float64 on the CPU, whatever the type and the device of the model.
"""

from longstate.memory.attention import HiddenAttention as HiddenAttention
from longstate.memory.attention import hidden_attention as hidden_attention
from longstate.memory.certificate import Certificate as Certificate
from longstate.memory.certificate import Claim as Claim
from longstate.memory.certify import certify as certify
from longstate.memory.contraction import Contraction as Contraction
from longstate.memory.contraction import average_contraction as average_contraction
from longstate.memory.curve import FORMATS as FORMATS
from longstate.memory.curve import MemoryCurve as MemoryCurve
from longstate.memory.curve import memory_curve as memory_curve
from longstate.memory.demand import Bits as Bits
from longstate.memory.demand import ErrorRate as ErrorRate
from longstate.memory.demand import demand_of_brackets as demand_of_brackets
from longstate.memory.demand import demand_of_copy as demand_of_copy
from longstate.memory.demand import demand_of_counter as demand_of_counter
from longstate.memory.demand import demand_of_delay as demand_of_delay
from longstate.memory.demand import demand_of_recall as demand_of_recall
from longstate.memory.demand import fano as fano
from longstate.memory.demand import known_bits as known_bits
from longstate.memory.effective import EffectiveState as EffectiveState
from longstate.memory.effective import effective_state as effective_state
from longstate.memory.gains import Gains as Gains
from longstate.memory.gains import gains as gains
from longstate.memory.hankel import HankelSpectrum as HankelSpectrum
from longstate.memory.hankel import hankel as hankel
from longstate.memory.neighbours import Shared as Shared
from longstate.memory.neighbours import infonce as infonce
from longstate.memory.neighbours import ksg as ksg
from longstate.memory.probe import Probes as Probes
from longstate.memory.probe import by_lag as by_lag
from longstate.memory.probe import by_slot as by_slot
from longstate.memory.probe import probe as probe
from longstate.memory.rate import DiscreteRate as DiscreteRate
from longstate.memory.rate import GaussianRate as GaussianRate
from longstate.memory.rate import blahut_arimoto as blahut_arimoto
from longstate.memory.rate import gaussian_rd as gaussian_rd
from longstate.memory.recording import layers_of as layers_of
from longstate.memory.recording import record as record
from longstate.memory.recording import widened as widened
from longstate.memory.result import KINDS as KINDS
from longstate.memory.result import Kind as Kind
from longstate.memory.result import Result as Result
from longstate.memory.saturation import Forgetting as Forgetting
from longstate.memory.threshold import EventThreshold as EventThreshold
from longstate.memory.threshold import event_threshold as event_threshold
from longstate.memory.timescales import Timescales as Timescales
from longstate.memory.timescales import timescales as timescales
from longstate.memory.watch import Trouble as Trouble
from longstate.memory.watch import Watched as Watched
from longstate.memory.watch import watch as watch
