"""How hard the machines try: HYPOTHESIS_PROFILE=thorough for a long search, else a moderate one."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

_COMMON = {
    "deadline": None,
    "database": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
}
_THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"


def effort(examples: int, steps: int) -> settings:
    """Settings of a machine. Nothing is replayed from a database, so each run looks elsewhere."""
    if _THOROUGH:
        examples, steps = 8 * examples, 2 * steps
    phases = [Phase.explicit, Phase.generate, Phase.shrink]
    return settings(max_examples=examples, stateful_step_count=steps, phases=phases, **_COMMON)
