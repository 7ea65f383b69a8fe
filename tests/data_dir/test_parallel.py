"""The one pool: order, errors, processes that die, and what workers inherit."""

import os

import pytest

from espnet2_m2m.data_dir import parallel_map


def square(number):
    if number < 0:
        raise ValueError(f"negative: {number}")
    return number**2


def process_and_threads(_):
    return os.getpid(), os.environ["OMP_NUM_THREADS"]


def die(_):
    os._exit(3)


def test_in_order_and_as_they_come():
    desired = [number**2 for number in range(7)]
    assert list(parallel_map(square, range(7), 1)) == desired
    assert list(parallel_map(square, range(7), 2)) == desired
    assert sorted(parallel_map(square, range(7), 2, in_order=False)) == desired
    assert list(parallel_map(square, [], 2)) == []


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("in_order", [True, False])
def test_results_before_an_error_are_given_out(num_workers, in_order):
    results = parallel_map(square, [2, 3, -1], num_workers, in_order)
    actual = []
    with pytest.raises(ValueError, match="negative: -1"):
        for result in results:
            actual.append(result)
    assert sorted(actual) == [4, 9]


def test_processes_have_one_thread_and_the_environment_comes_back(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    found = list(parallel_map(process_and_threads, range(3), 1, new_process_per_task=True))
    assert len({pid for pid, _ in found} | {os.getpid()}) == 4
    assert {threads for _, threads in found} == {"1"}
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ


@pytest.mark.parametrize("new_process_per_task", [False, True])
def test_a_process_that_dies(new_process_per_task):
    with pytest.raises(OSError, match="worker process died.*--nj"):
        list(parallel_map(die, range(2), 2, new_process_per_task=new_process_per_task))
