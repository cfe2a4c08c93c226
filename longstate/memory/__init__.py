"""Measure and certify what the state of a layer holds. Imports `systems` and `ops` only.

Time-invariant layers give a system, selective layers a trace. Analysis runs in float64 on the CPU,
for every type and device of the model.
"""

from longstate._lazy import public as _public
from longstate.memory._attention import HiddenAttention as HiddenAttention
from longstate.memory._attention import hidden_attention as hidden_attention
from longstate.memory._certificate import Certificate as Certificate
from longstate.memory._certificate import Claim as Claim
from longstate.memory._certify import certify as certify
from longstate.memory._contraction import Contraction as Contraction
from longstate.memory._contraction import average_contraction as average_contraction
from longstate.memory._curve import FORMATS as FORMATS
from longstate.memory._curve import MemoryCurve as MemoryCurve
from longstate.memory._curve import memory_curve as memory_curve
from longstate.memory._demand import Bits as Bits
from longstate.memory._demand import ErrorRate as ErrorRate
from longstate.memory._demand import demand_of_brackets as demand_of_brackets
from longstate.memory._demand import demand_of_copy as demand_of_copy
from longstate.memory._demand import demand_of_counter as demand_of_counter
from longstate.memory._demand import demand_of_delay as demand_of_delay
from longstate.memory._demand import demand_of_recall as demand_of_recall
from longstate.memory._demand import fano as fano
from longstate.memory._demand import known_bits as known_bits
from longstate.memory._effective import EffectiveState as EffectiveState
from longstate.memory._effective import effective_state as effective_state
from longstate.memory._gains import Gains as Gains
from longstate.memory._gains import gains as gains
from longstate.memory._gate_condition import GateContraction as GateContraction
from longstate.memory._gate_condition import gate_contraction as gate_contraction
from longstate.memory._hankel import HankelSpectrum as HankelSpectrum
from longstate.memory._hankel import hankel as hankel
from longstate.memory._neighbours import Shared as Shared
from longstate.memory._neighbours import infonce as infonce
from longstate.memory._neighbours import ksg as ksg
from longstate.memory._probe import Probes as Probes
from longstate.memory._probe import by_lag as by_lag
from longstate.memory._probe import by_slot as by_slot
from longstate.memory._probe import probe as probe
from longstate.memory._rate import DiscreteRate as DiscreteRate
from longstate.memory._rate import GaussianRate as GaussianRate
from longstate.memory._rate import blahut_arimoto as blahut_arimoto
from longstate.memory._rate import gaussian_rd as gaussian_rd
from longstate.memory._recording import layers_of as layers_of
from longstate.memory._recording import record as record
from longstate.memory._recording import widened as widened
from longstate.memory._result import KINDS as KINDS
from longstate.memory._result import Kind as Kind
from longstate.memory._result import Result as Result
from longstate.memory._rollout import Rollout as Rollout
from longstate.memory._rollout import rollout as rollout
from longstate.memory._saturation import Forgetting as Forgetting
from longstate.memory._threshold import EventThreshold as EventThreshold
from longstate.memory._threshold import event_threshold as event_threshold
from longstate.memory._timescales import Timescales as Timescales
from longstate.memory._timescales import timescales as timescales
from longstate.memory._watch import Trouble as Trouble
from longstate.memory._watch import Watched as Watched
from longstate.memory._watch import watch as watch


def __dir__() -> list[str]:
    return _public(globals())
