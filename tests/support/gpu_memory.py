"""Real memory of training steps on a GPU beside what steps without data are counted to take, as Figure 4a shows it.

Of every model and variant: bytes of one step by the allocator and by the count, and the largest batch that fits into a
memory of so many GB, found by running out of it, beside the counted one. As a program it prints them as JSON.
"""

import gc
import json
import sys

import torch

from kansciml.analysis.memory import measure
from kansciml.experiments.fig4a.experiment import Fig4aConfig, measured
from kansciml.experiments.memory.record import GB
from kansciml.experiments.memory.steps import IMAGES, MEASURED, MemoryConfig, measure_curve, measure_fake
from kansciml.training.optim import adamw


def placed(problem, device):
    """A network with AdamW's state on a device, and its step of a batch; the images are made there."""

    def build(model, variant):
        network = model.network(variant).to(device)
        optimiser = adamw(network, 1e-3)
        for weight in network.parameters():
            weight.grad = torch.zeros_like(weight)
        optimiser.step()
        optimiser.zero_grad()
        return network, optimiser

    def step(network, size):
        network.zero_grad()
        with torch.device(device):
            return problem.step(network, size)

    return build, step


def pair(model, variant, size, device, problem=IMAGES):
    """(peak on the device, counted peak) of one step, in bytes."""
    build, step = placed(problem, device)
    held = build(model, variant)
    network = held[0]
    step(network, size)()  # what libraries keep for themselves is there then
    use = measure(step(network, size), apart=network.buffers(), device=device)
    blocks = "gpu" if torch.device(device).type == "cuda" else "cpu"
    return use.peak_bytes, measure_fake(model.network(variant), problem, size, device=blocks).peak_bytes


def largest_batch(model, variant, limit_gb, guess, problem=IMAGES):
    """Largest batch of which a step with AdamW's state runs in so many GB of the CUDA device, to a hundredth."""
    build, step = placed(problem, "cuda")
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(limit_gb * GB / whole)
    try:
        held = build(model, variant)

        def fits(size):
            gc.collect()
            torch.cuda.empty_cache()
            try:
                step(held[0], size)()
            except torch.cuda.OutOfMemoryError:
                return False
            return True

        low, high = 0, max(2, guess)
        while fits(high):
            low, high = high, 2 * high
        while high - low > max(1, high // 100):
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def rows(device, models, limit_gb, batches):
    """One row per model and variant."""
    config = MemoryConfig(batches=batches, limit_gb=limit_gb, device="gpu" if device == "cuda" else "cpu")
    for model in map(measured, models):
        for variant in MEASURED:
            row = {"model": model.name, "variant": variant, "batch": batches[0], "limit_gb": limit_gb}
            try:
                row["peak_bytes"], row["counted_bytes"] = pair(model, variant, batches[0], device)
                row["counted_batch"] = measure_curve(model, variant, IMAGES, config, lambda done: None).full_batch
                if device == "cuda":
                    row["largest_batch"] = largest_batch(model, variant, limit_gb, row["counted_batch"])
            except Exception as error:
                row["error"] = (str(error).splitlines() or [type(error).__name__])[0][:200]
            yield row


if __name__ == "__main__":
    real = sys.argv[1] == "cuda"
    models, limit, sizes = ((*Fig4aConfig.models,), 16.0, (16, 128, 1024, 4096)) if real else (
        ("conv-mixer-128-4",), 0.5, (2, 8)
    )  # fmt: skip
    print(json.dumps(list(rows(sys.argv[1], models, limit, sizes))))
