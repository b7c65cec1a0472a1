"""Selecting the best service by criteria."""

from __future__ import annotations

from typing import Any

import pytest

from statewright.adapters.services.selection import Criteria, ServiceInfo, best, lacks

OCR = Criteria(interface="ocr")


def service(name: str, **said: Any) -> ServiceInfo:
    return ServiceInfo(name=name, **{"interfaces": frozenset({"ocr"}), **said})


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({}, {"is_overloaded": True, "priority": 9}),
        ({"priority": 2}, {"priority": 1, "tier": "high"}),
        ({"tier": "high"}, {"tier": "standard", "uptime": 1.0}),
        ({"uptime": 0.99}, {"uptime": 0.90, "latency_ms": 1.0}),
        ({"latency_ms": 5.0}, {"latency_ms": 9.0}),
        ({"latency_ms": 5.0}, {"latency_ms": None}),
        ({"uptime": 0.999, "latency_ms": 1.0}, {"uptime": 1.0, "latency_ms": 2.0}),
    ],
)
def test_the_order(better: dict[str, Any], worse: dict[str, Any]) -> None:
    services = [service("a", **worse), service("z", **better)]
    assert best(services, OCR) == services[1]
    assert best(reversed(services), OCR) == services[1]


@pytest.mark.parametrize(
    ("said", "criteria", "why"),
    [
        ({"interfaces": frozenset()}, OCR, "'s' has not the interface 'ocr'"),
        ({"methods": frozenset({"scan"})}, Criteria(method="read"), "'s' has no method 'read'"),
        ({"is_available": False}, OCR, "'s' is not available"),
        ({"circuit": "open"}, OCR, "the circuit of 's' is open"),
        ({"tier": "low"}, Criteria(tier="high"), "'s' is of tier low, expected high or better"),
        ({"uptime": 0.5}, Criteria(uptime_min=0.9), "'s' was up 50.0% of the time, expected 90.0% or more"),
        ({"latency_ms": 12.0}, Criteria(latency_ms_max=10), "'s' takes 12.0 ms, expected at most 10.0"),
        ({"metadata": {"eu": False}}, Criteria(metadata={"eu": True}), "'s' has eu=False in its metadata"),
        ({}, Criteria(metadata={"eu": None}), "'s' has eu=None in its metadata"),
    ],
)
def test_what_does_not_fit_is_said(said: dict[str, Any], criteria: Criteria, why: str) -> None:
    assert lacks(service("s", **said), criteria).startswith(why)
    assert best([service("s", **said)], criteria) is None


def test_what_fits() -> None:
    fit = service(
        "s", methods=frozenset({"read"}), tier="high", uptime=0.95, metadata={"eu": True}, circuit="half_open"
    )
    wanted = Criteria(
        interface="ocr", method="read", tier="standard", uptime_min=0.95, latency_ms_max=1, metadata={"eu": True}
    )
    assert lacks(fit, wanted) == ""
    assert lacks(service("s", interfaces=frozenset()), Criteria(interface="s")) == "", "its name is an interface"
