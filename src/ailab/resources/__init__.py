"""What this machine has to give: CPUs, memory, GPUs."""
