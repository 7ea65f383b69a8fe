"""`map` in several processes: the only place that starts any."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

Task, Result = TypeVar("Task"), TypeVar("Result")


def parallel_map(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    num_workers: int,
    in_order: bool = True,
    in_process: bool | None = None,
    new_process_per_task: bool = False,
    progress: dict | None = None,
) -> Iterator[Result]:
    """`map(function, tasks)` in `num_workers` processes, started anew (spawn), one thread each.

    After an error no further task begins. In order, it is raised when the tasks before it are
    done; else when all that had begun are done and their results have been given out.

    Args:
        function: importable by name; function and tasks are pickled.
        tasks: they are listed first.
        num_workers: number of processes.
        in_order: results in the order of the tasks; False: as they come.
        in_process: work here, without other processes; None: if `num_workers` <= 1.
        new_process_per_task: for functions that leave something behind in their process.
        progress: dict of tqdm's arguments (desc, unit, initial ...); None shows nothing.
    Yields:
        The results.
    Raises:
        OSError: a process died.
    """
    from tqdm import tqdm

    tasks = list(tasks)
    if in_process is None:
        in_process = num_workers <= 1 and not new_process_per_task
    if in_process or not tasks:
        results = map(function, tasks)
    else:
        num_workers = max(1, min(num_workers, len(tasks)))
        results = _map_in_workers(function, tasks, num_workers, in_order, new_process_per_task)
    bar = {"disable": True} if progress is None else progress
    with tqdm(total=len(tasks) + bar.get("initial", 0), **bar) as bar:
        for result in results:
            bar.update()
            yield result


def _map_in_workers(
    function: Callable[[Task], Result], tasks: list[Task], num_workers: int, in_order: bool, new_process_per_task: bool
) -> Iterator[Result]:
    executor = _worker_pool
    if new_process_per_task:
        # Not max_tasks_per_child: Python 3.10 does not have it.
        executor, function = ThreadPoolExecutor, partial(_in_new_process, function)
    with _one_thread_per_worker(), executor(num_workers) as pool:
        futures = [pool.submit(function, task) for task in tasks]
        try:
            if in_order:
                yield from (future.result() for future in futures)
            else:
                yield from _as_they_come(futures)
        except BrokenProcessPool as error:
            raise OSError(
                "a worker process died, perhaps for lack of memory; run the command again with fewer processes (--nj)"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _as_they_come(futures: list[Future]) -> Iterator:
    waiting = set(futures)
    for future in as_completed(futures):
        waiting.remove(future)
        if future.exception() is not None:
            break
        yield future.result()
    else:
        return
    begun = [other for other in waiting if not other.cancel()]
    for other in as_completed(begun):
        if other.exception() is None:
            yield other.result()
    raise future.exception()


def _worker_pool(num_workers: int) -> ProcessPoolExecutor:
    # Not forked: this process may have threads.
    return ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn"), _begin_worker)


def _in_new_process(function: Callable[[Task], Result], task: Task) -> Result:
    with _worker_pool(1) as pool:
        return pool.submit(function, task).result()


def _begin_worker() -> None:
    """Ctrl-C goes to all processes, the parent alone answers it; without a parent there is no work.

    A pool's workers do not notice that their parent was killed and would wait for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextmanager
def _one_thread_per_worker() -> Iterator[None]:
    """Workers started inside use one BLAS thread: no oversubscription, and the same rounding."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    before = {name: os.environ.get(name) for name in limits}
    os.environ.update(limits)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
