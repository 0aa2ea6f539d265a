"""Distillation with Lightning: the same batches, loss and schedule as in plain_pytorch.py, and so the same weights.

python examples/recipes/lightning_module.py artifacts/soft_labels/digits/small/all.json artifacts/datasets/digits.h5
"""

import math
import sys
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

import edpipe


class Distillation(lightning.LightningModule):
    """A student, its loss and its optimizer."""

    def __init__(self, student: nn.Module, peak: float, warmup: float = 0.05, temperature: float = 4.0) -> None:
        super().__init__()
        self.student, self.peak, self.warmup, self.temperature = student, peak, warmup, temperature

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], _: int) -> Tensor:
        """0.3 cross-entropy + 0.7 KD, nats."""
        images, labels, teacher_logits = batch
        logits = self.student(images)
        task = F.cross_entropy(logits, labels, reduction="none")
        own, wanted = (F.log_softmax(each / self.temperature, dim=1) for each in (logits, teacher_logits))
        distill = F.kl_div(own, wanted, reduction="none", log_target=True).sum(dim=1) * self.temperature**2
        return (0.3 * task + 0.7 * distill).mean()

    def configure_optimizers(self) -> Any:
        """SGD whose rate follows the batches."""
        settings = {"momentum": 0.9, "weight_decay": 5e-4, "nesterov": True, "fused": True}
        optimizer = torch.optim.SGD(self.student.parameters(), lr=self.peak, **settings)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def rate(self, step: int) -> float:
        """What the peak rate is multiplied by: linear warmup, then half a cosine."""
        done = step / self.trainer.num_training_batches
        rise = min(1.0, 0.01 + 0.99 * done / self.warmup)
        return rise * 0.5 * (1 + math.cos(math.pi * max(0.0, done - self.warmup) / (1 - self.warmup)))


def train(student: nn.Module, data: edpipe.SoftLabelDataset, epochs: float, batch_size: int, peak: float) -> None:
    """Trains in place; to Lightning all epochs of the sampler are one."""
    loader = DataLoader(data, batch_sampler=data.sampler(batch_size, epochs=epochs), collate_fn=data.collate)
    trainer = lightning.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, use_distributed_sampler=False, devices=1
    )
    trainer.fit(Distillation(student.to(memory_format=torch.channels_last), peak), loader)


if __name__ == "__main__":
    import timm

    data = edpipe.SoftLabelDataset(sys.argv[1], sys.argv[2])
    student = timm.create_model("resnet10t", num_classes=len(data.classes), in_chans=data[0][0].shape[0])
    train(student, data, epochs=5, batch_size=64, peak=0.1)
