"""CPython's own tests of ThreadPoolExecutor, run with Executor in its place."""

from __future__ import annotations

import importlib.util

import pytest

RUN = """
    import sys, unittest
    import tether
    from test.support import script_helper
    from test.test_concurrent_futures import util
    import test.test_concurrent_futures.{module} as module

    path = repr(sys.path)
    run = script_helper.assert_python_ok

    def with_ours(*args, **env):
        theirs = "from concurrent.futures import Executor"
        ours = f"import sys; sys.path[:] = {{path}}; from tether import Executor"
        return run(*(arg.replace(theirs, ours) for arg in args), **env)

    module.assert_python_ok = with_ours
    util.ThreadPoolMixin.executor_type = tether.Executor
    suite = unittest.TestSuite()
    for case in vars(module).values():
        if isinstance(case, type) and issubclass(case, util.ThreadPoolMixin) and issubclass(case, unittest.TestCase):
            suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(case))
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
    assert result.testsRun and result.wasSuccessful()
"""


def has_tests() -> bool:
    try:
        return importlib.util.find_spec("test.test_concurrent_futures.test_thread_pool") is not None
    except ImportError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(
    not has_tests(), reason="this Python came without its tests of concurrent.futures, in files as of 3.13"
)
@pytest.mark.parametrize("module", ["test_thread_pool", "test_wait", "test_as_completed", "test_init", "test_shutdown"])
def test_of_thread_pool_executor(module, run_python):
    ran = run_python(RUN.format(module=module), timeout=110)
    assert ran.rc == 0, ran.out + ran.err
