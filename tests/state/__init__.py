"""The state on disk: checkpoints, damage, disks that are full."""
