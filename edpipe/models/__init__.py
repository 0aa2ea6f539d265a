"""Networks: the CIFAR zoo, any timm or torchvision classifier, and how they are split and grown."""
