"""Adapts stages to Triton's Python backend: unpack, check, call, pack, map errors."""

from __future__ import annotations

import json
import logging
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import triton_python_backend_utils as pb_utils

from heartvoice.contracts.field_checks import check_inputs
from heartvoice.contracts.types import ModelSpec
from heartvoice.contracts.validation import check_rules
from heartvoice.errors import HeartvoiceError
from heartvoice.runtime.networks import LocalNetworks
from heartvoice.runtime.repository import Repository
from heartvoice.serving import logs, process_registry
from heartvoice.serving.idle_memory import IdleMemory, trim
from heartvoice.serving.jobs import Job, JobQueue
from heartvoice.serving.workarounds import quick_exit, reference_cycles
from heartvoice.serving.workarounds.unread_responses import UnreadResponseLimit, restore_malloc_defaults

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """Environment of a model when it is built."""

    repository: Repository
    folder: Path
    """The model's version folder."""
    parameters: dict[str, str]


class StageModel(ABC):
    """A model whose jobs run in threads. Subclasses name `spec`, and define `build` and `work`.

    Non-decoupled models also answer through the response sender, so that jobs and cancel requests overlap.
    """

    spec: ClassVar[ModelSpec]
    thread_per_job: ClassVar[bool] = False
    """True gives every admitted job its own thread, because `work` waits for its turn itself."""

    local: LocalNetworks | None = None
    """Networks that run in this process, if there are any."""

    @abstractmethod
    def build(self, context: Context) -> None:
        """Load what the model needs."""

    @abstractmethod
    def work(self, job: Job) -> None:
        """Do one job: `job.send` for each response of a stream, `job.answer` for a unary answer."""

    def admit(self, job: Job) -> None:
        """Check a job by the contract's rules before it waits for its turn. Runs in Triton's thread: quickly.

        Raises:
            InvalidRequestError: names the field, the limit and the value.
        """
        check_rules(self.spec, job.inputs)

    def answers_at_once(self, job: Job) -> bool:  # noqa: ARG002 (of those that do)
        """Take a checked request that waits for no turn, and answer it by itself; False leaves it to the queue."""
        return False

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model. Triton calls this once per instance."""
        restore_malloc_defaults()
        logs.configure()
        quick_exit.arrange()
        began = time.monotonic()
        config = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        parameters = {**self.spec.parameters, **given}  # a hand-written config may lack some
        root = Path(args["model_repository"])
        context = Context(Repository(root.parent), root / args["model_version"], parameters)
        try:
            index = context.repository.index
            self.build(context)
        except HeartvoiceError as error:
            raise pb_utils.TritonModelException(f"{self.spec.name}: {error}") from error
        self.jobs = JobQueue(
            self.spec,
            self.work,
            int(parameters["max_jobs"]),
            int(parameters["max_queue"]),
            thread_per_job=self.thread_per_job,
            unread=UnreadResponseLimit(self.spec.name, int(parameters["max_unread_mb"]))
            if self.spec.decoupled
            else None,
            memory=IdleMemory(self._release_memory),
        )
        process_registry.register(self.spec.name)
        log.info(
            "loaded %s preset=%s weights=%s in %.1f s",
            self.spec.name, index["preset"], index["weights"], time.monotonic() - began,
        )  # fmt: skip

    def _release_memory(self) -> None:
        if self.local is not None:
            self.local.release_memory()
        trim()

    def execute(self, requests: list[Any]) -> list[None] | None:
        """Queue the requests and return at once. Triton calls this."""
        for request in requests:
            job = Job(self.spec, request, self.jobs.ended)
            try:
                job.receive_inputs()
                check_inputs(self.spec, job.inputs)
                if job.is_cancel:
                    self.jobs.cancel(bytes(job.inputs["cancel"][0]))
                    if not self.spec.decoupled:
                        job.answer({})
                    job.close()
                else:
                    self._admit(job)
                    if not self.answers_at_once(job):
                        self.jobs.submit(job)
            except Exception as error:
                job.fail_safely(error)
        return None if self.spec.decoupled else [None] * len(requests)

    def _admit(self, job: Job) -> None:
        """Admit a job, or count its refusal."""
        try:
            self.admit(job)
        except HeartvoiceError as error:
            self.jobs.metrics.finished(error.code, job.record)
            raise

    def finalize(self) -> None:
        """Stop the jobs. Triton calls this before it unloads the model."""
        reference_cycles.collect()
