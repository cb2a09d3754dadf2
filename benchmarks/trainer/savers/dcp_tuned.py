"""The same with a stager that is kept, so that the second save copies into memory that is there."""

from savers.dcp import Dcp
from saves import Job
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions


def build(job: Job) -> Dcp:
    """Pinned and non-blocking copies need a GPU."""
    options = StagingOptions(
        use_pinned_memory=False, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=False
    )
    return Dcp(job, async_stager=DefaultStager(options))
