"""Following a job of the appliance to its end.

Owns nothing but the waiting. Raises ``ApplianceError`` with the job's own sentence when it failed.
"""

from __future__ import annotations

from appliance.cli.context import Context
from appliance.cli.output import Standing
from appliance.core.errors import ApplianceError
from appliance.core.jobs import Job, JobState


def follow(context: Context, job: Job) -> Job:
    """Show the job's progress until it ended and return its last state."""
    client = context.client
    latest = job

    def look() -> Standing:
        nonlocal latest
        if not latest.ended:
            latest = client.job(job.id)
        text = f"{latest.title}: {latest.step}" if latest.step else latest.title
        return Standing(text, latest.done, latest.total, latest.ended, latest.eta_s)

    context.output.follow(look)
    if latest.state is JobState.FAILED:
        raise ApplianceError(f"cannot {latest.title}: {latest.error}")
    return latest
