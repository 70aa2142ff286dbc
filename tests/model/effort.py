"""How hard the machines try: HYPOTHESIS_PROFILE=thorough for a long search, else a short one."""

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
    """Settings of a machine. Nothing is replayed from a database, so each run looks elsewhere.

    A short search does not shrink what it finds: each attempt may wait for a counter to its last second, and the time
    limit of the whole test would come before the report.
    """
    phases = [Phase.explicit, Phase.generate]
    if _THOROUGH:
        examples, steps = 8 * examples, 2 * steps
        phases.append(Phase.shrink)
    else:
        examples = max(1, examples // 3)
    return settings(max_examples=examples, stateful_step_count=steps, phases=phases, **_COMMON)
