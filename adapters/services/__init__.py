"""Services that perform steps: a registry, load balancing, health and circuit breakers, here and over the bus."""

from statewright.adapters.services.balancing import Candidate, Strategy
from statewright.adapters.services.circuit import Circuit, CircuitPolicy
from statewright.adapters.services.events import ServiceEvent
from statewright.adapters.services.measures import InstanceMetrics, ServiceMetrics
from statewright.adapters.services.selection import Criteria, ServiceInfo
from statewright.adapters.services.services import Services

__all__ = [
    "Candidate",
    "Circuit",
    "CircuitPolicy",
    "Criteria",
    "InstanceMetrics",
    "ServiceEvent",
    "ServiceInfo",
    "ServiceMetrics",
    "Services",
    "Strategy",
]
