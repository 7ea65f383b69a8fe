"""`map` in several processes."""

from concurrent.futures import ProcessPoolExecutor


def parallel_map(function, tasks, num_workers):
    """`map(function, tasks)`, in order, in `num_workers` processes (in this one when <= 1).

    The first error is raised once the tasks before it are done; those not yet begun are dropped.
    """
    if num_workers <= 1:
        yield from map(function, tasks)
        return
    with ProcessPoolExecutor(num_workers) as pool:
        futures = [pool.submit(function, task) for task in tasks]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
