"""The peer: pty-chi LSQML on the frames in a file, on one thread. Prints seconds of CPU per iteration, and the error.

Runs in a Python that has pty-chi (`pip install ptychi`); nothing of Beamtide is imported.
"""

import json
import sys
import time

import numpy as np
import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:  # one for GPUs beside a torch for CPUs lacks two operators, which nobody calls
    _OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from ptychi import api
from ptychi.api.task import PtychographyTask

WAVELENGTH, PIXEL = 1.5e-10, 1e-8


def main(path: str, rounds: int) -> None:
    """Reconstruct and print."""
    torch.set_num_threads(1)
    with np.load(path) as given:
        counts, positions, probe = given["counts"], given["positions"], given["probe"]
    start = probe * np.sqrt(counts.sum(axis=(1, 2)).mean() / (np.abs(probe) ** 2).sum())
    centred = positions - positions.mean(axis=0)
    size = [int(np.ceil(np.ptp(centred[:, axis]))) + probe.shape[axis] + 20 for axis in (0, 1)]
    options = api.LSQMLOptions()
    options.data_options.data = np.fft.fftshift(counts, axes=(1, 2))
    options.data_options.wavelength_m = WAVELENGTH
    options.object_options.initial_guess = torch.ones([1, *size], dtype=torch.complex64)
    options.object_options.pixel_size_m = PIXEL
    options.probe_options.initial_guess = torch.as_tensor(start[None, None].astype(np.complex64))
    options.reconstructor_options.default_device = api.Devices.CPU
    options.reconstructor_options.batch_size = 32
    options.reconstructor_options.num_epochs = 1
    task = PtychographyTask(options, probe_position_y_px=centred[:, 0], probe_position_x_px=centred[:, 1])
    seconds = []
    for _ in range(rounds + 1):
        began = time.process_time()
        task.run(1)
        seconds.append(time.process_time() - began)
    print(json.dumps({"seconds": seconds[1:], "error": error(task, counts)}))


def error(task: PtychographyTask, counts: np.ndarray) -> float:
    """Return the sum of (modelled - measured amplitude)² over the sum of counts."""
    forward = task.reconstructor.forward_model
    total = 0.0
    with torch.no_grad():
        for first in range(0, len(counts), 32):
            which = torch.arange(first, min(first + 32, len(counts)))
            modelled = forward(which).detach().numpy()
            measured = np.fft.fftshift(counts[which.numpy()], axes=(1, 2))
            # pty-chi keeps its frames with zero frequency where its transform puts it: take the order that fits
            total += min(
                float(((np.sqrt(modelled) - np.sqrt(one)) ** 2).sum())
                for one in (measured, np.fft.ifftshift(measured, axes=(1, 2)))
            )
    return total / float(counts.sum())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
