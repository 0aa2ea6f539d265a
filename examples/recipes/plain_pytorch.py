"""Distillation in a plain PyTorch loop, with the order, views, schedule and loss of the pipeline's `kd`.

python examples/recipes/plain_pytorch.py artifacts/soft_labels/digits/small/all.json artifacts/datasets/digits.h5
"""

import math
import sys

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

import edpipe


def train(student: nn.Module, data: edpipe.SoftLabelDataset, epochs: float, batch_size: int, peak: float) -> None:
    """Trains in place: SGD, linear warmup, cosine, 0.3 cross-entropy + 0.7 KD at temperature 4."""
    warmup, temperature = 0.05, 4.0
    batches = data.sampler(batch_size, epochs=epochs)
    loader = DataLoader(data, batch_sampler=batches, collate_fn=data.collate)
    student.train().to(memory_format=torch.channels_last)
    settings = {"momentum": 0.9, "weight_decay": 5e-4, "nesterov": True, "fused": True}
    optimizer = torch.optim.SGD(student.parameters(), lr=peak, **settings)

    def rate(step: int) -> float:
        done = step / len(batches)
        rise = min(1.0, 0.01 + 0.99 * done / warmup)
        return rise * 0.5 * (1 + math.cos(math.pi * max(0.0, done - warmup) / (1 - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    for images, labels, teacher_logits in loader:
        logits = student(images)
        task = F.cross_entropy(logits, labels, reduction="none")
        own, wanted = (F.log_softmax(each / temperature, dim=1) for each in (logits, teacher_logits))
        distill = F.kl_div(own, wanted, reduction="none", log_target=True).sum(dim=1) * temperature**2
        optimizer.zero_grad()
        (0.3 * task + 0.7 * distill).mean().backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def top1(student: nn.Module, data: edpipe.SoftLabelDataset) -> float:
    """Share of the test images that the student names rightly."""
    student.eval()
    hits = [student(images).argmax(1) == labels for images, labels in DataLoader(data.held_out("test"), 512)]
    return torch.cat(hits).float().mean().item()


if __name__ == "__main__":
    import timm

    data = edpipe.SoftLabelDataset(sys.argv[1], sys.argv[2])
    student = timm.create_model("resnet10t", num_classes=len(data.classes), in_chans=data[0][0].shape[0])
    train(student, data, epochs=5, batch_size=64, peak=0.1)
    print(f"top1 {top1(student, data):.4f}")
