"""Fine-tuning inside the nation: a child process that sees the data and nothing else, and a parent that believes none
of what it says.

    agent (asyncio) ── supervisor ── pipes ──► launch: confine, probe ──► the trainer (torch)

Files, outside in: `supervisor` (one warm trainer, its data and its limits), `slots` (how many on this machine),
`process` (start, frames, deadlines, kill), `replies` (what a hostile child may answer at most), `privacy` (clipping,
in the parent), `frames` (the pipe's codec), `sandbox` with `kernel` (the layers), `launch` and `probe` (first in the
child: apply the layers, prove that they hold), `trainer` and `lora_sft` (last in the child: the training itself) with
`pairs` (reading and splitting text).

What stays open: the values of the tensors that a trainer may send carry whatever it likes within the clip bound; only
noise narrows that. `replies.open_channel_bits` states it.
"""
