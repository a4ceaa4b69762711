"""The soak of `make trials`, for a few items."""

import pytest
import soak


@pytest.mark.parametrize("asynchronous", [False, True])
def test_w14_c11_memory_threads_and_descriptors_are_flat_under_failing_tenants(asynchronous):
    report, _ = soak.by_items(120_000, asynchronous=asynchronous)
    assert report.received == 120_000
    # Each window of the refused tenants once, each of the flaky ones, too.
    assert report.codes == {"Refused": 12_000}
    assert report.compensated == 2400
