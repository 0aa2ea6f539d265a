"""Distillation with the parts of timm's train.py: a task, timm's optimizer and scheduler, and its averaged weights.

python examples/recipes/timm_task.py artifacts/soft_labels/digits/small/all.json artifacts/datasets/digits.h5

train.py itself cannot read stored logits: its loaders draw augmentations of their own. In a copy of it, replace the
training loader and the task by those of `train`; its loop calls `task(input, target)` as it is done here.
"""

import sys

import timm
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import TrainingTask
from timm.utils import AverageMeter, accuracy
from torch import Tensor, nn
from torch.utils.data import DataLoader

import edpipe


class StoredLogitsTask(TrainingTask):
    """As timm's LogitDistillationTask, but the teacher's logits are a part of the target."""

    def __init__(self, student: nn.Module, task_weight: float, temperature: float) -> None:
        super().__init__()
        self.trainable_module, self.task_weight, self.temperature = student, task_weight, temperature

    def forward(self, input: Tensor, target: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Losses in nats; target is (labels, logits of the teacher)."""
        labels, teacher_logits = target
        output = self.trainable_module(input)
        task_loss = F.cross_entropy(output, labels)
        own, wanted = (F.log_softmax(each / self.temperature, dim=-1) for each in (output, teacher_logits))
        kd_loss = F.kl_div(own, wanted, reduction="batchmean", log_target=True) * self.temperature**2
        loss = self.task_weight * task_loss + (1 - self.task_weight) * kd_loss
        return {"loss": loss, "output": output, "task_loss": task_loss, "kd_loss": kd_loss}


def train(student: nn.Module, data: edpipe.SoftLabelDataset, epochs: int, batch_size: int, peak: float) -> nn.Module:
    """The student with the running mean of its weights."""
    loader = DataLoader(data, batch_size, shuffle=True, drop_last=True, collate_fn=data.collate)
    task = StoredLogitsTask(student, task_weight=0.3, temperature=4.0)
    task.setup_ema(decay=0.99, use_warmup=True)
    optimizer = create_optimizer_v2(student, opt="sgd", lr=peak, weight_decay=5e-4, momentum=0.9)
    scheduler, _ = create_scheduler_v2(
        optimizer, "cosine", epochs, warmup_epochs=1, step_on_epochs=False, updates_per_epoch=len(loader)
    )
    task.train()
    for epoch in range(epochs):
        data.set_epoch(epoch)  # the views of this epoch
        for updates, (images, labels, teacher_logits) in enumerate(loader, start=epoch * len(loader) + 1):
            optimizer.zero_grad()
            task(images, (labels, teacher_logits))["loss"].backward()
            optimizer.step()
            task.update_ema(step=updates)
            scheduler.step_update(updates)
    return task.get_eval_model(ema=True)


@torch.no_grad()
def top1(student: nn.Module, data: edpipe.SoftLabelDataset) -> float:
    """Of the test images, per cent."""
    meter = AverageMeter()
    for images, labels in DataLoader(data.held_out("test"), 512):
        meter.update(accuracy(student.eval()(images), labels)[0].item(), len(labels))
    return meter.avg


if __name__ == "__main__":
    data = edpipe.SoftLabelDataset(sys.argv[1], sys.argv[2])
    student = timm.create_model("resnet10t", num_classes=len(data.classes), in_chans=data[0][0].shape[0])
    print(f"top1 {top1(train(student, data, epochs=5, batch_size=64, peak=0.1), data):.2f} %")
