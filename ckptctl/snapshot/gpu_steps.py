"""The steps of a dump that concern GPU memory; left out for a job that has none."""

from __future__ import annotations

from contextlib import suppress

from ckptctl.errors import CkptctlError
from ckptctl.snapshot import gpu
from ckptctl.snapshot.dump_request import DumpRequest
from ckptctl.snapshot.services import Services
from ckptctl.store import journal
from ckptctl.store.journal import Phase


class GpuSteps:
    """Part of a dump, whose state they work on. `gpu_failure`: why the job could not be given its memory back."""

    request: DumpRequest
    services: Services
    record: journal.Record | None
    gpu: gpu.GpuJob | None
    gpu_failure: CkptctlError | None
    gpu_host_bytes: int

    def has_gpu(self) -> bool:
        """Whether the job has GPU memory."""
        return self.gpu is not None

    def gpu_goes_on(self) -> bool:
        """Whether the job has GPU memory and is to go on."""
        return self.gpu is not None and self.request.leave_running

    def lock_gpu(self) -> None:
        """Lock every CUDA process, all before any is checkpointed: no collective is left half-way."""
        if self.gpu is not None:
            assert self.record is not None
            self.record.advance(Phase.MOVING_DEVICE_MEMORY)
            self.gpu.lock(round(self.request.gpu_lock_timeout_s * 1000), self.services.interrupt)

    def checkpoint_gpu(self) -> None:
        """Move the device memory of every CUDA process into its host memory; the GPUs are free then."""
        self.services.interrupt.check()
        if self.gpu is not None:
            self.gpu.checkpoint()
            self.gpu_host_bytes = gpu.host_bytes(self.gpu.pids)

    def free_gpu(self) -> None:
        """Bring every CUDA process back to running. Raises CudaLost where the driver has given one up."""
        if self.gpu is None:
            return
        try:
            self.gpu.resume()
        except CkptctlError as error:
            self.gpu_failure = error
            raise
        self.gpu_failure = None

    def resume_gpu(self) -> None:
        """Give a job that is to go on its device memory back, before anything slow is done.

        Where that fails the job is lost, but its images are whole: the dump goes on, so that it can be restored.
        """
        with suppress(CkptctlError):
            self.free_gpu()
