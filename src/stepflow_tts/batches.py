"""Many texts at once: parts of like length and one voice go through the network together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stepflow_tts.call import Call, Speaker
from stepflow_tts.errors import StepFlowError
from stepflow_tts.speech import Speech
from stepflow_tts.synthesis import Draft, Take, flow_of, take_of
from stepflow_tts.text.plan import Part


@dataclass(slots=True)
class _Job:
    """A text and what has become of it."""

    call: Call
    parts: list[Part]
    takes: list[Take | None]
    error: StepFlowError | None = None


@dataclass(frozen=True, slots=True)
class _Item:
    """A part that waits for its batch."""

    job: _Job
    index: int  # among the job's parts
    draft: Draft

    @property
    def num_frames(self) -> int:
        return self.draft.noise.shape[1]


def speak_together(
    calls: Sequence[Callable[[], Call]], texts: Sequence[str], batch_seconds: float
) -> list[Speech | StepFlowError]:
    """Each text's speech or the error that it met, in order.

    Args:
        calls: what makes the call of each text, all with the same options; it may fail.
        texts: what to say.
        batch_seconds: speech in a batch at most.
    """
    jobs: list[_Job | StepFlowError] = []
    items: list[_Item] = []
    for make_call, text in zip(calls, texts, strict=True):
        try:
            call = make_call()
            parts = call.parts(text)
        except StepFlowError as error:
            jobs.append(error)
            continue
        job = _Job(call, parts, [None] * len(parts))
        jobs.append(job)
        items += [_Item(job, i, call.draft(part, i)) for i, part in enumerate(parts)]
    for batch in _batches(items, batch_seconds):
        _speak(batch)
    return [
        job if isinstance(job, StepFlowError) else _outcome(job, text)
        for job, text in zip(jobs, texts, strict=True)
    ]


def _batches(items: list[_Item], batch_seconds: float) -> list[list[_Item]]:
    """Items of one voice side by side, the longest first, each batch as long as it may be."""
    order = {id(item.job.call.voice): n for n, item in enumerate(items)}
    items = sorted(items, key=lambda item: (order[id(item.job.call.voice)], -item.num_frames))
    batches: list[list[_Item]] = []
    for item in items:
        if batches:
            first = batches[-1][0]
            frames = batch_seconds * item.job.call.checkpoint.config.mel.frame_rate
            same_voice = first.job.call.voice is item.job.call.voice
            if same_voice and (len(batches[-1]) + 1) * first.num_frames <= frames:
                batches[-1].append(item)
                continue
        batches.append([item])
    return sorted(batches, key=lambda batch: -batch[0].num_frames)


def _speak(batch: list[_Item]) -> None:
    """Speak the items of a batch; an error stays with its text."""
    call = batch[0].job.call
    c = call.checkpoint
    flows = flow_of(c.model, [item.draft for item in batch], call.voice, call.options)
    for item, x in zip(batch, flows, strict=True):
        try:
            item.job.takes[item.index] = take_of(c.config, c.vocoder, item.draft, x, item.index)
        except StepFlowError as error:
            item.job.error = error


def _outcome(job: _Job, text: str) -> Speech | StepFlowError:
    """A job's parts joined, or its error."""
    if job.error is not None:
        return job.error
    speaker = Speaker(job.call)
    pieces = [
        piece
        for part, take in zip(job.parts, job.takes, strict=True)
        for piece in speaker.say(part, take)
    ]
    return Speech.join([*pieces, *speaker.finish()], text)
