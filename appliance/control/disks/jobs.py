"""The book of jobs: what long work is under way, how far it is, and how it ended.

Owns the tasks of running jobs and remembers the last ended ones. Refuses nothing. Invariant: a job
ends exactly once, and its error is a sentence, never a trace.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from appliance.core.errors import ApplianceError, NotFound
from appliance.core.jobs import Job, JobState, estimate_s
from appliance.core.ports import Clock, Entropy

ENDED_JOBS_MAX: Final = 50
_ID_BYTES: Final = 6

_log = logging.getLogger(__name__)


class JobHandle:
    """How running work tells where it stands. Any thread."""

    def __init__(self, job: Job, clock: Clock) -> None:
        self.job = job
        self._clock = clock
        self._began_s = clock.monotonic_s()

    def step(self, text: str) -> None:
        """The next step begins; the previous one is done."""
        done = self.job.done + 1 if self.job.step else 0
        self._advance(text, done)

    def progress(self, done: int, total: int) -> None:
        """How far the work is, in whatever unit ``total`` counts."""
        self.job = dataclasses.replace(self.job, total=total)
        self._advance(self.job.step, done)

    def tell(self, step: str, done: int, total: int) -> None:
        """Both at once, for work whose steps do not count."""
        self.job = dataclasses.replace(self.job, total=total)
        self._advance(step, done)

    def end(self, state: JobState, *, result: str = "", error: str = "") -> None:
        """Nothing more will be told."""
        done = self.job.total if state is JobState.DONE else self.job.done
        self.job = dataclasses.replace(
            self.job, state=state, done=done, eta_s=None, result=result, error=error
        )

    def _advance(self, step: str, done: int) -> None:
        elapsed_s = self._clock.monotonic_s() - self._began_s
        done = min(done, self.job.total)
        self.job = dataclasses.replace(
            self.job, step=step, done=done, eta_s=estimate_s(done, self.job.total, elapsed_s)
        )


class JobBook:
    """All jobs of one manager. Used from one event loop."""

    def __init__(self, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy
        self._handles: dict[str, JobHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(
        self, title: str, work: Callable[[JobHandle], Awaitable[str]], *, total: int = 0
    ) -> Job:
        """Run ``work`` as a job; what it returns becomes the result."""
        job_id = self._entropy.token(_ID_BYTES).hex()
        handle = JobHandle(Job(job_id, title, JobState.RUNNING, total=total), self._clock)
        self._handles[job_id] = handle
        self._forget_old()
        task = asyncio.create_task(self._run(handle, work), name=f"job {title}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return handle.job

    def ended(self, title: str, result: str) -> Job:
        """A job with nothing to do."""
        handle = JobHandle(
            Job(self._entropy.token(_ID_BYTES).hex(), title, JobState.DONE, result=result),
            self._clock,
        )
        self._handles[handle.job.id] = handle
        self._forget_old()
        return handle.job

    def get(self, job_id: str) -> Job:
        """Raises ``NotFound`` for a job that never was, or ended long ago."""
        handle = self._handles.get(job_id)
        if handle is None:
            raise NotFound(f"cannot find the job {job_id!r}; `appliance status` shows recent ones")
        return handle.job

    def all(self) -> Sequence[Job]:
        """Oldest first."""
        return [handle.job for handle in self._handles.values()]

    async def close(self) -> None:
        """Stop what runs and wait for it."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, handle: JobHandle, work: Callable[[JobHandle], Awaitable[str]]) -> None:
        try:
            result = await work(handle)
        except ApplianceError as error:
            handle.end(JobState.FAILED, error=str(error))
        except asyncio.CancelledError:
            handle.end(JobState.FAILED, error="interrupted because the appliance stops")
            raise
        except Exception:  # noqa: BLE001  outermost loop of a worker: the job must end
            _log.exception("job %s failed", handle.job.title)
            handle.end(JobState.FAILED, error="an unexpected fault; the log has the details")
        else:
            handle.end(JobState.DONE, result=result)

    def _forget_old(self) -> None:
        ended = [job_id for job_id, handle in self._handles.items() if handle.job.ended]
        for job_id in ended[: max(0, len(ended) - ENDED_JOBS_MAX)]:
            del self._handles[job_id]
