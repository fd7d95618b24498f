"""What the experiments with DiffAug on CIFAR-10 share: arms, the bank of views, cells that stay done."""
